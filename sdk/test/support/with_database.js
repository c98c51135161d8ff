import { test as plain } from 'node:test';
import { IDBFactory } from 'fake-indexeddb';
import 'fake-indexeddb/auto';

// Not for the tests of other files, which may run in the same process.
delete (/** @type {{ indexedDB?: unknown }} */ (globalThis).indexedDB);

/**
 * A test that begins with a browser which has kept nothing yet.
 *
 * @param {string} name
 * @param {(t: import('node:test').TestContext) => unknown} run
 */
export const test = (name, run) =>
  plain(name, async (t) => {
    globalThis.indexedDB = new IDBFactory();
    t.after(() => delete (/** @type {{ indexedDB?: unknown }} */ (globalThis).indexedDB));
    await run(t);
  });
