/**
 * The callbacks of an application.
 *
 * Rules: the exception of a callback is reported like an uncaught error, and does not affect other callbacks. All
 * callbacks get all values in the same order, also values that a callback causes.
 */
import { checkType } from './settings.js';

/**
 * Call a callback of the application, and report its exception.
 *
 * @template T
 * @param {(value: T) => void} callback
 * @param {T} value
 */
function call(callback, value) {
  try {
    callback(value);
  } catch (error) {
    (globalThis.reportError ?? console.error)(error);
  }
}

/**
 * The callbacks of the application for values of one kind.
 *
 * @template T
 */
export class Callbacks {
  /** @type {Set<{ callback: (value: T) => void }>} */
  #entries = new Set();
  /** @type {[{ callback: (value: T) => void }, T][]} */
  #untold = [];

  /** The number of callbacks. */
  get size() {
    return this.#entries.size;
  }

  /**
   * Add a callback; the same one may be added twice. Throws `ConfigError` when it is not a function.
   *
   * @param {(value: T) => void} callback
   * @returns {() => void} Removes the callback; may be called again.
   */
  add(callback) {
    checkType('callback', callback, 'function');
    const entry = { callback };
    this.#entries.add(entry);
    return () => {
      this.#entries.delete(entry);
    };
  }

  /**
   * Add a callback, and call it now.
   *
   * @param {(value: T) => void} callback
   * @param {T} value
   * @returns {() => void}
   */
  follow(callback, value) {
    const remove = this.add(callback);
    call(callback, value);
    return remove;
  }

  /**
   * Call all callbacks, in the order in which they were added. A call from within a callback takes effect after all
   * have got the current value.
   *
   * @param {T} value
   */
  tell(value) {
    const telling = this.#untold.length > 0;
    for (const entry of this.#entries) this.#untold.push([entry, value]);
    if (telling) return;
    for (const [entry, each] of this.#untold) {
      if (this.#entries.has(entry)) call(entry.callback, each); // another callback may have removed it
    }
    this.#untold = [];
  }
}
