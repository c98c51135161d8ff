/**
 * What becomes of one message: the sender may ask, now or later, or not at all.
 *
 * No promise before somebody asks, since one that fails and is never asked ends the program in Node, and complains in
 * the console of a browser.
 */
import { DeliveryFailed } from '../errors.js';

/** @import { AldisError } from '../errors.js' */

/**
 * The delivery of one message. `await` it: it returns when the peer has acknowledged the message, and throws
 * `DeliveryFailed` when that will not happen any more.
 *
 * @implements {PromiseLike<void>}
 */
export class Delivery {
  /** Whether the outcome is known. */
  done = false;
  /** @type {DeliveryFailed | null} */
  #error = null;
  /** @type {Promise<void> | null} */
  #promise = null;
  /** @type {() => void} settles the promise */
  #settle = () => {};

  /**
   * @param {string} userId To whom the message goes.
   * @param {number} sequence Its number among those sent to them.
   */
  constructor(userId, sequence) {
    this.userId = userId;
    this.sequence = sequence;
  }

  /** Whether the peer has acknowledged the message. */
  get delivered() {
    return this.done && !this.#error;
  }

  /** The peer has acknowledged it; or, after `fail`, all is over. */
  succeed() {
    this.done = true;
    this.#settle();
  }

  /**
   * It will not be delivered any more.
   *
   * @param {string} reason
   * @param {AldisError} cause
   */
  fail(reason, cause) {
    this.#error = new DeliveryFailed(this.userId, this.sequence, reason, { cause });
    this.succeed();
  }

  /**
   * Makes it awaitable.
   *
   * @template [T=void]
   * @template [E=never]
   * @param {((value: void) => T | PromiseLike<T>) | null} [onDelivered]
   * @param {((error: DeliveryFailed) => E | PromiseLike<E>) | null} [onFailed]
   * @returns {Promise<T | E>}
   */
  then(onDelivered, onFailed) {
    this.#promise ??= new Promise((resolve, reject) => {
      this.#settle = () => (this.#error ? reject(this.#error) : resolve());
      if (this.done) this.#settle();
    });
    return this.#promise.then(onDelivered, onFailed);
  }
}
