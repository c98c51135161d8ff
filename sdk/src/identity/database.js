/**
 * The one IndexedDB database of this origin, `aldis`: identities and pins, each value under a key.
 *
 * Every call opens it, runs one transaction and closes it again: they are rare, and no open connection is in the way of
 * another tab. A write is on disk when its promise is fulfilled. Whatever IndexedDB does not do is an `IdentityError`.
 */
import { IdentityError } from '../errors.js';

/** @typedef {'identities' | 'pins'} StoreName */
/** @typedef {string | string[]} Key */

/**
 * @param {StoreName} name
 * @param {Key} key
 * @returns {Promise<unknown>} The value, or undefined.
 */
export const find = (name, key) => run(name, 'readonly', (store, done) => finish(store.get(key), done));

/**
 * Keep `value` unless there is one already; the value that is there now. Safe when several tabs do it at once.
 *
 * @template T
 * @param {StoreName} name
 * @param {Key} key
 * @param {T} value
 * @returns {Promise<T>}
 */
export const keep = (name, key, value) =>
  run(name, 'readwrite', (store, done) =>
    finish(store.get(key), (there) => {
      if (there === undefined) {
        store.put(value, key);
      }
      done(there ?? value);
    }),
  );

/**
 * @param {StoreName} name
 * @param {Key} key
 * @param {unknown} value
 * @returns {Promise<void>}
 */
export const put = (name, key, value) => run(name, 'readwrite', (store) => store.put(value, key));

/**
 * @param {StoreName} name
 * @param {Key} key
 * @returns {Promise<void>}
 */
export const remove = (name, key) => run(name, 'readwrite', (store) => store.delete(key));

/**
 * @param {IDBRequest} request
 * @param {(result: any) => void} done
 */
function finish(request, done) {
  request.onsuccess = () => done(request.result);
}

/**
 * @template T
 * @param {StoreName} name
 * @param {IDBTransactionMode} mode
 * @param {(store: IDBObjectStore, done: (result: any) => void) => void} work
 * @returns {Promise<T>}
 */
function run(name, mode, work) {
  return new Promise((resolve, reject) => {
    /** @param {unknown} error */
    const refused = (error) =>
      reject(
        new IdentityError(`this browser does not let the page keep its keys (a private window?): ${error}`, {
          cause: error,
        }),
      );
    try {
      const opening = indexedDB.open('aldis', 1);
      opening.onupgradeneeded = () => {
        opening.result.createObjectStore('identities');
        opening.result.createObjectStore('pins');
      };
      opening.onerror = () => refused(opening.error);
      opening.onsuccess = () => {
        const database = opening.result;
        try {
          /** @type {T} */
          let result;
          // A key that has proved a name must not be gone after a power cut.
          const transaction = database.transaction(name, mode, { durability: 'strict' });
          transaction.oncomplete = () => resolve(result);
          transaction.onabort = () => refused(transaction.error);
          work(transaction.objectStore(name), (value) => (result = value));
        } catch (error) {
          refused(error);
        }
        // Takes place when the transaction has ended.
        database.close();
      };
    } catch (error) {
      refused(error);
    }
  });
}
