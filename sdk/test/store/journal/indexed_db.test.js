/** The journal in IndexedDB, where the browser closes the database: its disk is full, or its data were deleted. */
import assert from 'node:assert/strict';
import { forceCloseDatabase } from 'fake-indexeddb';
import { IndexedDBBackend } from '../../../src/store/journal/indexed_db.js';
import { withGlobal } from '../../support/platform.js';
import { test } from '../../support/with_database.js';

const NAME = 'alice';

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
  await withGlobal('navigator', { locks }, async () => {
    const backend = await IndexedDBBackend.open(NAME);
    /** @type {Error[]} */
    const told = [];
    backend.onLost = (error) => told.push(error);
    await run({ backend, opened, locks, told });
    backend.close();
  });
}

/** @param {IDBDatabase} database */
const closedByBrowser = (database) =>
  new Promise((resolve) => {
    database.addEventListener('close', resolve);
    forceCloseDatabase(database);
  });

const FULL = new DOMException('Internal error opening backing store', 'UnknownError');

/** Let no database be opened, as on a full disk; returns what ends that. */
function openingFails() {
  const { open } = indexedDB;
  indexedDB.open = () => {
    throw FULL;
  };
  return () => void (indexedDB.open = open);
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

test('while it cannot be opened, each write says why, and the first that can be made is', () =>
  withJournal(async ({ backend, opened, locks }) => {
    const mend = openingFails();
    await closedByBrowser(opened[0]);
    for (let again = 0; again < 2; again++) {
      await assert.rejects(backend.write([['one', 1]], true), { name: 'JournalError', cause: FULL });
    }
    assert.ok(locks.held);
    mend();
    await backend.write([['one', 1]], true);
    assert.deepEqual(await backend.load(), [['one', 1]]);
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
