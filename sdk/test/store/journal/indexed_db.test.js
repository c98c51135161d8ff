/** The journal in IndexedDB, where the browser closes the database: its disk is full, or its data were deleted. */
import assert from 'node:assert/strict';
import { mock } from 'node:test';
import { forceCloseDatabase } from 'fake-indexeddb';
import { IndexedDBBackend } from '../../../src/store/journal/indexed_db.js';
import { withGlobal } from '../../support/platform.js';
import { test } from '../../support/with_database.js';

const NAME = 'alice';
const PAUSE = 4500;
let time = 0;

/**
 * Open a journal, and see the databases that it opens.
 *
 * @param {(world: { backend: IndexedDBBackend, opened: IDBDatabase[], locks: { held: boolean }, told: Error[] }) => Promise<void>} run
 */
async function withJournal(run) {
  /** @type {IDBDatabase[]} */
  const opened = [];
  const locks = {
    held: false,
    /** @param {string} _name @param {object} _options @param {(lock: object) => Promise<void>} callback */
    request: async (_name, _options, callback) => {
      locks.held = true;
      await callback({});
      locks.held = false;
    },
  };
  const { open } = indexedDB;
  indexedDB.open = function (...words) {
    const request = open.apply(this, words);
    request.addEventListener('success', () => opened.push(request.result));
    return request;
  };
  const clock = mock.method(performance, 'now', () => time); // other files' tests may run in this process
  await withGlobal('navigator', { locks }, async () => {
    const backend = await IndexedDBBackend.open(NAME);
    /** @type {Error[]} */
    const told = [];
    backend.onLost = (error) => told.push(error);
    await run({ backend, opened, locks, told });
    backend.close();
  }).finally(() => clock.mock.restore());
}

/** @param {IDBDatabase | undefined} database */
const closedByBrowser = (database) =>
  new Promise((resolve) => {
    database?.addEventListener('close', resolve);
    forceCloseDatabase(database);
  });

const FULL = new DOMException('Internal error opening backing store', 'UnknownError');

/** Let no database be opened, as on a full disk; returns what ends that, and tells how often it was tried. */
function openingFails() {
  const { open } = indexedDB;
  let attempts = 0;
  indexedDB.open = () => {
    attempts++;
    throw FULL;
  };
  return () => {
    indexedDB.open = open;
    return attempts;
  };
}

test('a database that the browser closes is opened again, with all that was in it', () =>
  withJournal(async ({ backend, opened, locks, told }) => {
    await backend.write([['one', 1]], true);
    await closedByBrowser(opened[0]);
    await backend.write([['two', 2]], true);
    assert.deepEqual(await backend.load(), [
      ['one', 1],
      ['two', 2],
    ]);
    assert.equal(opened.length, 2);
    assert.ok(locks.held);
    assert.deepEqual(told, []);
  }));

test('it is opened again after a pause, since Chromium may lose a database that it opens many times in vain', () =>
  withJournal(async ({ backend, opened, locks, told }) => {
    const mend = openingFails();
    await closedByBrowser(opened[0]);
    for (let again = 0; again < 5; again++) {
      await assert.rejects(backend.write([['one', 1]], true), { name: 'JournalError', cause: FULL });
    }
    assert.equal(mend(), 1);
    assert.deepEqual(
      told.map(({ name }) => name),
      ['JournalError'],
    );
    assert.ok(locks.held);
    time += PAUSE;
    await backend.write([['one', 1]], true);
    assert.deepEqual(await backend.load(), [['one', 1]]);
    // That was an attempt, too.
    await closedByBrowser(opened.at(-1));
    await assert.rejects(backend.write([['two', 2]], true), { name: 'JournalError' });
    time += PAUSE;
    await backend.write([['two', 2]], true);
  }));

test('a disk is as full as it was where not even its files tell', () =>
  withJournal(async ({ backend, opened }) => {
    let says = 'QuotaExceededError';
    const folder = { removeEntry() {}, getFileHandle: () => Promise.reject(new DOMException('no', says)) };
    Object.assign(navigator, { storage: { getDirectory: async () => folder } });
    const fails = async (/** @type {string} */ name) => {
      time += PAUSE;
      await assert.rejects(backend.write([['one', 1]], true), { name });
    };
    const mend = openingFails();
    await closedByBrowser(opened[0]);
    await fails('JournalDiskFull');
    says = 'UnknownError';
    await fails('JournalDiskFull');
    folder.getFileHandle = async () => ({ createWritable: async () => ({ write() {}, close() {} }) });
    await fails('JournalError');
    folder.getFileHandle = () => Promise.reject(new DOMException('no', says));
    await fails('JournalError');
    mend();
    time += PAUSE;
    await backend.write([['one', 1]], true);
  }));

test('a write while the browser closes the database is made with the next connection', () =>
  withJournal(async ({ backend, opened }) => {
    opened[0].transaction = () => {
      throw new DOMException('The database connection is closing.', 'InvalidStateError');
    };
    await backend.write([['one', 1]], true);
    assert.deepEqual(await backend.load(), [['one', 1]]);
  }));

test('a database that was deleted is not made anew: the journal is lost, and says so', () =>
  withJournal(async ({ backend, opened, locks, told }) => {
    await backend.write([['one', 1]], true);
    const mend = openingFails();
    await closedByBrowser(opened[0]);
    await new Promise((resolve) => {
      indexedDB.deleteDatabase(`aldis.journal.${NAME}`).onsuccess = resolve;
    });
    mend();
    time += PAUSE;
    await assert.rejects(backend.write([['two', 2]], true), { name: 'JournalReadOnly' });
    assert.equal(told.at(-1)?.name, 'JournalReadOnly');
    assert.ok(!locks.held);
    const names = (await indexedDB.databases()).map(({ name }) => name);
    assert.deepEqual(names, []);
  }));

test('a journal that is closed while its database is opened again lets go of it', () =>
  withJournal(async ({ backend, opened, locks }) => {
    await closedByBrowser(opened[0]);
    const write = backend.write([['one', 1]], true);
    backend.close();
    await assert.rejects(write, { name: 'JournalInUse' });
    assert.ok(!locks.held);
    await new Promise((resolve) => {
      indexedDB.deleteDatabase(`aldis.journal.${NAME}`).onsuccess = resolve;
    });
  }));
