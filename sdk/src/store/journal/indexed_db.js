/**
 * The journal of one name in this browser: an IndexedDB database of its own, held by one tab at a time.
 *
 * Rules of this module:
 *
 * - A Web Lock says which tab has the journal. Browsers release it when the tab ends, by whatever cause, and give it to the
 *   tab that has waited longest. It is held from before the database is opened until after that is closed.
 * - Any failure of IndexedDB is a `JournalError` that says what a person can do.
 * - Blocks of files have a store of their own: a transaction with rows waits for none with blocks.
 * - A transaction that writes is committed in the turn that asks for it. Without that a browser commits it when the page has
 *   heard of its requests, and never if the page is loaded anew before.
 * - A database that another tab wants to delete, or to open with a newer version, is given up at once.
 * - A connection that is of no use any more is replaced, as long as the database is the same: after a full disk Chromium
 *   closes it, and in Firefox it may only delete. Not more often than once in `PAUSE`: with an attempt for each message,
 *   Chromium had none of it any more after ten seconds on a full disk.
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
const NO_ROOM = 'has no room: the disk, or what this page may keep, is full';
const NOTHING_KEPT = 'cannot be kept: this browser keeps nothing for this page (a private window?)';
// Bytes. Room for less is none: a database needs this much to be opened.
const LEAST_ROOM = 65_536;

// ms. The store tries again every 5 seconds, and each of these attempts is to count.
const PAUSE = 4500;

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
  /** @type {Promise<IDBDatabase> | null} */
  #opening = null;
  /** When it may be opened again. */
  #next = 0;
  /** What has failed last. @type {JournalError | null} */
  #fault = null;
  /** Why it is given up for good. @type {JournalError | null} */
  #over = null;
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
      await backend.#open();
    } catch (error) {
      backend.close();
      throw error;
    }
    return backend;
  }

  /** @param {boolean} [again] It was open before: if it is not there any more, it was deleted. */
  async #open(again = false) {
    /** @type {IDBDatabase} */
    const database = await new Promise((resolve, reject) => {
      const opening = indexedDB.open(`aldis.journal.${this.name}`, VERSION);
      opening.onupgradeneeded = ({ oldVersion }) => {
        if (again) {
          this.#lost(new JournalReadOnly(this.name, 'was deleted by the browser'));
          /** @type {IDBTransaction} */ (opening.transaction).abort();
          return;
        }
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
    }).catch(async (cause) => {
      throw this.#over ?? (await this.#explained(cause));
    });
    if (this.#over) {
      database.close();
      throw this.#over;
    }
    database.onversionchange = () => this.#lost(new JournalInUse(this.name, 'was taken over by another window'));
    // Its disk is full, or has failed; or what the page keeps was deleted. Opening it again tells.
    database.onclose = () => {
      if (this.#database !== database) return;
      this.#database = null;
      this.#again().catch((error) => this.#over || this.onLost(error));
    };
    this.#database = database;
    return database;
  }

  async #again() {
    if (!this.#opening) {
      const now = performance.now();
      if (now < this.#next) throw this.#fault ?? (await this.#explained('the browser has closed it'));
      this.#next = now + PAUSE;
      this.#opening = this.#open(true).finally(() => (this.#opening = null));
    }
    return this.#opening;
  }

  /** @param {JournalError} error */
  #lost(error) {
    this.#over ??= error;
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
    this.#over ??= new JournalInUse(this.name, 'is closed');
    this.#database?.close();
    this.#database = null;
    this.#release();
  }

  /**
   * @template T
   * @param {string} name Of the object store.
   * @param {IDBTransactionMode} mode
   * @param {(store: IDBObjectStore) => T | Promise<T>} work Called once more when the first connection was of no use.
   * @param {boolean} [strict]
   * @returns {Promise<T>}
   */
  async #transact(name, mode, work, strict = false) {
    for (let attempt = 1; ; attempt++) {
      if (this.#over) throw this.#over;
      const database = this.#database ?? (await this.#again());
      try {
        return await transact(database, name, mode, work, strict);
      } catch (cause) {
        if (attempt > 1 || /** @type {DOMException | null} */ (cause)?.name !== 'InvalidStateError') {
          throw await this.#explained(cause);
        }
        if (this.#database === database) this.#database = null;
        database.close();
      }
    }
  }

  /** @param {unknown} cause */
  async #explained(cause) {
    return (this.#fault = cause instanceof JournalError ? cause : await this.#inWords(cause));
  }

  /** @param {unknown} cause */
  async #inWords(cause) {
    const { name } = /** @type {DOMException} */ (cause ?? {});
    switch (name) {
      case 'QuotaExceededError':
        return new JournalDiskFull(this.name, NO_ROOM, { cause });
      case 'VersionError':
        return new JournalTooNew(this.name, 'was written by a newer release: reload the page', { cause });
      case 'NotFoundError': // there is such a database, and not what belongs in it
      case 'DataError':
      case 'DataCloneError':
        return new JournalCorrupt(this.name, `is damaged: ${cause}`, { cause });
      case 'SecurityError':
      case 'InvalidStateError':
        return new JournalReadOnly(this.name, `${NOTHING_KEPT}: ${cause}`, { cause });
    }
    if (/NO_SPACE/.test(String(cause)) || (await isFull(this.#fault))) {
      return new JournalDiskFull(this.name, NO_ROOM, { cause });
    }
    return new JournalError(this.name, `cannot be read or written: ${cause}`, { cause });
  }
}

/**
 * @template T
 * @param {IDBDatabase} database
 * @param {string} name Of the object store.
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore) => T | Promise<T>} work Asks for all that it writes at once.
 * @param {boolean} strict
 * @returns {Promise<T>}
 */
async function transact(database, name, mode, work, strict) {
  const transaction = database.transaction(name, mode, { durability: strict ? 'strict' : 'relaxed' });
  const ended = new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onabort = () => reject(transaction.error);
  });
  ended.catch(() => {}); // it is told by what has failed before
  try {
    const working = work(transaction.objectStore(name));
    if (mode === 'readwrite') transaction.commit();
    const [result] = await Promise.all([working, ended]);
    return result;
  } catch (error) {
    try {
      transaction.abort(); // what was asked before it would be made
    } catch {
      // It has ended already.
    }
    throw transaction.error ?? error;
  }
}

/**
 * Whether there is no room. Chromium's IndexedDB does not say so, when it cannot be opened not even in its text; its files
 * do, mostly. Where not even they tell, it is as full as it was.
 *
 * @param {JournalError | null} before What has failed last.
 */
async function isFull(before) {
  const name = 'aldis.room';
  try {
    const folder = await navigator.storage.getDirectory();
    try {
      const writer = await (await folder.getFileHandle(name, { create: true })).createWritable();
      await writer.write(new Uint8Array(LEAST_ROOM));
      await writer.close();
    } finally {
      await folder.removeEntry(name);
    }
  } catch (error) {
    return before instanceof JournalDiskFull || /** @type {DOMException} */ (error).name === 'QuotaExceededError';
  }
  return false;
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
      .catch((cause) =>
        reject(
          cause.name === 'SecurityError' ? new JournalReadOnly(name, `${NOTHING_KEPT}: ${cause}`, { cause }) : cause,
        ),
      );
  });
}
