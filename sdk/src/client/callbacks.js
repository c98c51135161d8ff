/**
 * The callbacks of an application.
 *
 * Rules: one that throws is reported as an uncaught error is, and harms nobody else. What is told is told in its order to
 * everybody, also what a callback sets off.
 */
import { checkType } from './settings.js';

/**
 * Call a callback of the application; report what it throws.
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

  /** How many there are. */
  get size() {
    return this.#entries.size;
  }

  /**
   * Add a callback; the same one may be added twice. Throws `ConfigError` for what is no function.
   *
   * @param {(value: T) => void} callback
   * @returns {() => void} Takes it away again; may be repeated.
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
   * Call all callbacks, in the order in which they were added. From within a callback: after the value that is told now
   * has been told to all.
   *
   * @param {T} value
   */
  tell(value) {
    const telling = this.#untold.length > 0;
    for (const entry of this.#entries) this.#untold.push([entry, value]);
    if (telling) return;
    for (const [entry, each] of this.#untold) {
      if (this.#entries.has(entry)) call(entry.callback, each); // another one may have taken it away
    }
    this.#untold = [];
  }
}
