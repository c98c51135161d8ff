/**
 * What becomes of one message: the sender may ask, now or later, or not at all.
 *
 * No promise before somebody asks, since one that fails and is never asked ends the program in Node, and complains in
 * the console of a browser.
 */

import { DeliveryExpired } from '../../errors.js';
import { SELF } from '../../proxies.js';

/** @import { DeliveryFailed } from '../../errors.js' */

/** How far a message has come; it never goes back. */
export const STORED = 1;
export const SENT = 2;
const DONE = 3;

/**
 * The delivery of one message. `await` it: it returns when the peer has acknowledged the message, and throws
 * `DeliveryFailed` when that will not happen, `DeliveryExpired` when the message was too old. `whenStored()` and
 * `whenSent()` wait for less, in the same way.
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
  #stage = 0;
  /** @type {DeliveryFailed | null} why it will not arrive */
  #error = null;
  /** @type {[stage: number, settle: () => void][]} those who wait */
  #waiting = [];
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
    return this[SELF]().#stage === DONE;
  }

  /** Whether the journal has the message, so that it survives the page. Without a journal that is so from the start. */
  get stored() {
    const self = this[SELF]();
    return self.#stage >= STORED && (self.#error?.kept ?? true);
  }

  /** Whether the whole message was given to a path at least once. */
  get sent() {
    return this.delivered || this[SELF]().#stage === SENT;
  }

  /** Whether the peer has acknowledged the message. */
  get delivered() {
    return this.done && !this[SELF]().#error;
  }

  /** Whether it was given up for its age. */
  get expired() {
    return this[SELF]().#error instanceof DeliveryExpired;
  }

  /** Returns when the journal has the message. Rejects with `DeliveryFailed`. */
  whenStored() {
    return this[SELF]().#reached(STORED);
  }

  /** Returns when the message was sent once. Rejects with `DeliveryFailed`. */
  whenSent() {
    return this[SELF]().#reached(SENT);
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
    return this[SELF]().#reached(DONE).then(onDelivered, onFailed);
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

  /** @param {number} stage @returns {Promise<void>} */
  #reached(stage) {
    return new Promise((resolve, reject) => {
      const settle = () => (this.#error ? reject(this.#error) : resolve());
      if (this.#stage >= stage) settle();
      else this.#waiting.push([stage, settle]);
    });
  }

  // --- for `MessageStream` --------------------------------------------------------------------------------------------

  /**
   * It has come so far.
   *
   * @param {Delivery} delivery
   * @param {number} stage
   */
  static reach(delivery, stage) {
    if (stage <= delivery.#stage) return;
    delivery.#stage = stage;
    delivery.#waiting = delivery.#waiting.filter(([wanted, settle]) => wanted > stage || settle());
  }

  /**
   * The outcome is there: the peer has acknowledged it, or never will.
   *
   * @param {Delivery} delivery
   * @param {DeliveryFailed | null} error
   */
  static end(delivery, error) {
    delivery.#error = error;
    Delivery.reach(delivery, DONE);
  }
}
