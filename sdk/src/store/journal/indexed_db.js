/**
 * The journal of one name in this browser: an IndexedDB database of its own, held by one tab at a time.
 *
 * Rules of this module:
 *
 * - A Web Lock says which tab has the journal. Browsers release it when the tab ends, by whatever cause, and give it to the
 *   tab that has waited longest. It is held from before the database is opened until after that is closed.
 * - Any failure of IndexedDB is a `JournalError` that says what a person can do.
 * - Blocks of files have a store of their own: a transaction with rows waits for none with blocks.
 * - A database that another tab wants to delete, or to open with a newer version, is given up at once.
 * - Chromium closes a database that it cannot write, when the disk is full. It is opened again, at once and with each
 *   transaction, until that works. One that was deleted meanwhile is not made anew: the store would take it for its own.
 */
import {
  ConfigError,
  JournalCorrupt,
  JournalDiskFull,
  JournalError,
  JournalInUse,
  JournalReadOnly,
  JournalTooNew,
} from '../../errors.js';

/** @import { BlockBackend, JournalBackend, Row } from './backend.js' */

/** Of what is in the rows. A release that changes it reads the versions before. */
const VERSION = 2;
const ROWS = 'rows';
const BLOCKS = 'files'; // since version 2
const IN_USE = 'is open in another window of this browser. Close it there, or go on there';

/** The keys of the blocks of a file. @param {string} file */
const of = (file) => IDBKeyRange.bound(`${file}/`, `${file}/\uffff`);

/** What became of a request of IndexedDB. @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** @implements {JournalBackend} */
export class IndexedDBBackend {
  /** @type {(error: JournalError) => void} */
  onLost = () => {};
  /** @type {BlockBackend} */
  blocks = {
    put: (key, block) => this.#transact(BLOCKS, 'readwrite', (blocks) => void blocks.put(block, key)),
    get: (key) => this.#transact(BLOCKS, 'readonly', (blocks) => done(blocks.get(key))),
    keys: async () => (await this.#transact(BLOCKS, 'readonly', (blocks) => done(blocks.getAllKeys()))).map(String),
    read: (file) => this.#transact(BLOCKS, 'readonly', (blocks) => done(blocks.getAll(of(file)))),
    remove: (file) => this.#transact(BLOCKS, 'readwrite', (blocks) => void blocks.delete(of(file))),
  };
  /** @type {IDBDatabase | null} */
  #database = null;
  /** While the browser has closed it, and it is opened again. @type {Promise<IDBDatabase> | null} */
  #opening = null;
  #closed = false;
  #release;

  /**
   * @param {string} name
   * @param {() => void} release Lets go of the lock.
   */
  constructor(name, release) {
    this.name = name;
    this.#release = release;
  }

  /**
   * Take the journal. Rejects with `JournalError`, and with what `signal` says.
   *
   * @param {string} name
   * @param {{ wait?: boolean, signal?: AbortSignal }} [options]
   */
  static async open(name, { wait = false, signal } = {}) {
    if (typeof name !== 'string' || !name) throw new ConfigError('name', 'a journal has a name');
    if (!globalThis.indexedDB) throw new JournalReadOnly(name, 'cannot be kept: there is no IndexedDB here');
    const backend = new IndexedDBBackend(name, await lock(name, wait, signal));
    try {
      await backend.#open(false);
    } catch (error) {
      backend.close();
      throw error;
    }
    return backend;
  }

  /**
   * @param {boolean} again It was there before.
   * @returns {Promise<IDBDatabase>}
   */
  async #open(again) {
    let deleted = false;
    /** @type {IDBDatabase} */
    let database;
    try {
      database = await new Promise((resolve, reject) => {
        const opening = indexedDB.open(`aldis.journal.${this.name}`, VERSION);
        opening.onupgradeneeded = ({ oldVersion }) => {
          deleted = again;
          if (deleted) return opening.transaction?.abort();
          if (!oldVersion) opening.result.createObjectStore(ROWS);
          opening.result.createObjectStore(BLOCKS);
        };
        // An earlier release in another tab, which does not hear that it has to let go. It is not waited for.
        opening.onblocked = () => {
          opening.onsuccess = () => opening.result.close();
          reject(new JournalInUse(this.name, IN_USE));
        };
        opening.onerror = () => reject(opening.error);
        opening.onsuccess = () => resolve(opening.result);
      });
    } catch (cause) {
      if (!deleted) throw this.#explained(cause);
      const error = new JournalReadOnly(this.name, 'was deleted by the browser');
      this.#lost(error);
      throw error;
    }
    if (this.#closed) {
      database.close();
      throw this.#isClosed();
    }
    database.onversionchange = () => this.#lost(new JournalInUse(this.name, 'was taken over by another window'));
    database.onclose = () => {
      if (this.#database !== database) return;
      this.#database = null;
      this.#reopen().catch(() => {}); // the next transaction tries again
    };
    this.#database = database;
    return database;
  }

  #reopen() {
    if (this.#closed) throw this.#isClosed();
    this.#opening ??= this.#open(true).finally(() => (this.#opening = null));
    return this.#opening;
  }

  #isClosed = () => new JournalInUse(this.name, 'is closed');

  /** @param {JournalError} error */
  #lost(error) {
    this.close();
    this.onLost(error);
  }

  /** @returns {Promise<Row[]>} */
  async load() {
    const [keys, values] = await this.#transact(ROWS, 'readonly', (rows) =>
      Promise.all([done(rows.getAllKeys()), done(rows.getAll())]),
    );
    return keys.map((key, at) => [String(key), values[at]]);
  }

  /**
   * @param {Row[]} rows
   * @param {boolean} strict
   */
  async write(rows, strict) {
    const write = (/** @type {IDBObjectStore} */ store) => {
      for (const [key, value] of rows) {
        if (value === undefined) store.delete(key);
        else store.put(value, key);
      }
    };
    await this.#transact(ROWS, 'readwrite', write, strict);
  }

  async erase() {
    for (const name of [BLOCKS, ROWS]) await this.#transact(name, 'readwrite', (store) => void store.clear(), true);
  }

  close() {
    this.#closed = true;
    this.#database?.close();
    this.#database = null;
    this.#release();
  }

  /**
   * @template T
   * @param {string} name Of the object store.
   * @param {IDBTransactionMode} mode
   * @param {(store: IDBObjectStore) => T | Promise<T>} work
   * @param {boolean} [strict]
   * @returns {Promise<T>}
   */
  async #transact(name, mode, work, strict = false) {
    const database = this.#database ?? (await this.#reopen());
    const transaction = this.#begin(database, name, mode, strict);
    let aborted = false;
    try {
      const ended = new Promise((resolve, reject) => {
        transaction.oncomplete = resolve;
        transaction.onabort = () => {
          aborted = true;
          reject(transaction.error ?? 'the browser has ended it'); // it has closed the database
        };
      });
      ended.catch(() => {}); // it is told by what has failed before
      try {
        const [result] = await Promise.all([work(transaction.objectStore(name)), ended]);
        return result;
      } catch (error) {
        if (!transaction.error && !aborted) transaction.abort(); // what was asked before it would be made
        throw error;
      }
    } catch (cause) {
      throw this.#explained(cause);
    }
  }

  /**
   * @param {IDBDatabase} database
   * @param {string} name
   * @param {IDBTransactionMode} mode
   * @param {boolean} strict
   */
  #begin(database, name, mode, strict) {
    try {
      return database.transaction(name, mode, { durability: strict ? 'strict' : 'relaxed' });
    } catch (cause) {
      if (/** @type {DOMException} */ (cause).name !== 'InvalidStateError') throw this.#explained(cause);
      this.#database = null; // the browser is closing it, and has not told that yet
      throw new JournalError(this.name, 'cannot be read or written: the browser has closed it', { cause });
    }
  }

  /** @param {unknown} cause */
  #explained(cause) {
    if (cause instanceof JournalError) return cause;
    const { name } = /** @type {DOMException} */ (cause ?? {});
    switch (name) {
      case 'QuotaExceededError':
        return new JournalDiskFull(this.name, 'has no room: the disk, or what this page may keep, is full', { cause });
      case 'VersionError':
        return new JournalTooNew(this.name, 'was written by a newer release: reload the page', { cause });
      case 'NotFoundError': // there is such a database, and not what belongs in it
      case 'DataError':
      case 'DataCloneError':
        return new JournalCorrupt(this.name, `is damaged: ${cause}`, { cause });
      case 'SecurityError':
      case 'InvalidStateError':
        return new JournalReadOnly(
          this.name,
          `cannot be kept: this browser keeps nothing for this page (a private window?): ${cause}`,
          { cause },
        );
    }
    return new JournalError(this.name, `cannot be read or written: ${cause}`, { cause });
  }
}

/** Locks that this page is about to have let go of, by journal. @type {Map<string, Promise<void>>} */
const leaving = new Map();

/**
 * Get the lock of a journal.
 *
 * @param {string} name
 * @param {boolean} wait
 * @param {AbortSignal} [signal]
 * @returns {Promise<() => void>} Lets go of it.
 */
async function lock(name, wait, signal) {
  await leaving.get(name);
  return new Promise((resolve, reject) => {
    const options = wait ? { signal } : { ifAvailable: true };
    const over = navigator.locks
      .request(`aldis.journal.${name}`, options, (held) => {
        if (!held) throw new JournalInUse(name, IN_USE);
        return /** @type {Promise<void>} */ (
          new Promise((release) =>
            resolve(() => {
              leaving.set(name, over);
              release();
            }),
          )
        );
      })
      .catch(reject);
  });
}
