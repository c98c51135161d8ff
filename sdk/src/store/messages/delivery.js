/**
 * What becomes of one message: the sender may ask, now or later, or not at all.
 *
 * No promise before somebody asks, since one that fails and is never asked ends the program in Node, and complains in
 * the console of a browser.
 */

import { SELF } from '../../proxies.js';

/** @import { DeliveryFailed } from '../../errors.js' */

/**
 * The delivery of one message. `await` it: it returns when the peer has acknowledged the message, and throws
 * `DeliveryFailed` when that will not happen.
 *
 * What is for `MessageStream` alone is static, so that applications do not see it at their deliveries.
 *
 * @implements {PromiseLike<void>}
 */
export class Delivery {
  /** @readonly */
  userId;
  /** The device that the message was sent to; null when it was sent to the user. @readonly */
  device;
  /** Its number among the messages to the device that it goes to; another one when it moves. @readonly */
  sequence;
  /** @type {DeliveryFailed | null | undefined} null: it has arrived. undefined: nobody knows yet. */
  #error;
  /** @type {Promise<void> | null} */
  #promise = null;
  /** @type {() => void} settles the promise */
  #settle = () => {};
  /** See `SELF`. @returns {this} */
  [SELF] = () => this;

  /**
   * @param {string} userId To whom the message goes.
   * @param {number} sequence
   * @param {string | null} [device]
   */
  constructor(userId, sequence, device = null) {
    this.userId = userId;
    this.device = device;
    this.sequence = sequence;
  }

  /** Whether the outcome is known. */
  get done() {
    return this[SELF]().#error !== undefined;
  }

  /** Whether the peer has acknowledged the message. */
  get delivered() {
    return this[SELF]().#error === null;
  }

  /**
   * Makes it awaitable; so do `catch` and `finally`, as with any promise.
   *
   * @template [T=void]
   * @template [E=never]
   * @param {((value: void) => T | PromiseLike<T>) | null} [onDelivered]
   * @param {((error: DeliveryFailed) => E | PromiseLike<E>) | null} [onFailed]
   * @returns {Promise<T | E>}
   */
  then(onDelivered, onFailed) {
    const self = this[SELF]();
    self.#promise ??= new Promise((resolve, reject) => {
      self.#settle = () => (self.#error ? reject(self.#error) : resolve());
      if (self.done) self.#settle();
    });
    return self.#promise.then(onDelivered, onFailed);
  }

  /**
   * @template [E=never]
   * @param {((error: DeliveryFailed) => E | PromiseLike<E>) | null} [onFailed]
   * @returns {Promise<void | E>}
   */
  catch(onFailed) {
    return this.then(null, onFailed);
  }

  /**
   * @param {(() => void) | null} [onDone]
   * @returns {Promise<void>}
   */
  finally(onDone) {
    return this.then().finally(onDone);
  }

  get [Symbol.toStringTag]() {
    return 'Delivery';
  }

  // --- for `MessageStream` --------------------------------------------------------------------------------------------

  /**
   * The outcome is there: the peer has acknowledged it, or never will.
   *
   * @param {Delivery} delivery
   * @param {DeliveryFailed | null} error
   */
  static end(delivery, error) {
    delivery.#error = error;
    delivery.#settle();
  }
}
