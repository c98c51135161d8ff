/**
 * The only IndexedDB database of this origin, `aldis`: identities and pins, each value under a key.
 *
 * Every call opens the database, runs one transaction and closes it again. Calls are rare, and so no open connection
 * blocks another tab. A write is on disk when its promise is fulfilled. Any failure of IndexedDB is an `IdentityError`.
 */
import { IdentityError } from '../errors.js';

/** @typedef {'identities' | 'pins'} StoreName */
/** @typedef {string | string[]} Key */

/**
 * @param {StoreName} name
 * @param {Key} key
 * @returns {Promise<unknown>} The value, or undefined.
 */
export const find = (name, key) => run(name, (store) => done(store.get(key)));

/**
 * Keep `value` unless there is a value already; return the value that is kept now. Several tabs may call this at once.
 *
 * @template T
 * @param {StoreName} name
 * @param {Key} key
 * @param {T} value
 * @returns {Promise<T>}
 */
export const keep = (name, key, value) =>
  run(name, async (store) => {
    const there = await done(store.get(key));
    if (there === undefined) {
      store.put(value, key);
    }
    return there ?? value;
  });

/**
 * @param {StoreName} name
 * @param {Key} key
 * @param {unknown} value
 * @returns {Promise<unknown>}
 */
export const put = (name, key, value) => run(name, (store) => done(store.put(value, key)));

/**
 * Forget an identity, and the journal of that name: `store/journal` opens it, in whatever tab, after that.
 *
 * @param {string} name
 * @returns {Promise<unknown>}
 */
export const remove = (name) =>
  run('identities', (store) => {
    indexedDB.deleteDatabase(`aldis.journal.${name}`);
    return done(store.delete(name));
  });

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>} Awaiting it keeps the transaction alive.
 */
const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/**
 * @template T
 * @param {StoreName} name
 * @param {(store: IDBObjectStore) => Promise<T>} work
 */
async function run(name, work) {
  try {
    const opening = indexedDB.open('aldis', 1);
    opening.onupgradeneeded = () => {
      opening.result.createObjectStore('identities');
      opening.result.createObjectStore('pins');
    };
    const database = await done(opening);
    try {
      // A key that has proved a name must survive a power cut.
      const transaction = database.transaction(name, 'readwrite', { durability: 'strict' });
      const ended = new Promise((resolve, reject) => {
        transaction.oncomplete = resolve;
        transaction.onabort = () => reject(transaction.error);
      });
      const [result] = await Promise.all([work(transaction.objectStore(name)), ended]);
      return result;
    } finally {
      database.close();
    }
  } catch (cause) {
    const problem = !globalThis.indexedDB
      ? 'there is no IndexedDB here'
      : /** @type {DOMException | null} */ (cause)?.name === 'DataError'
        ? 'this is no name'
        : 'this browser does not let the page keep its keys (a private window? a full disk?)';
    throw new IdentityError(`${problem}: ${cause}`, { cause });
  }
}
