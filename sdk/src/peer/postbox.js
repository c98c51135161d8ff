/**
 * Starts to send messages in the order in which they were given, each when it is signed.
 *
 * Rules: the next one does not wait until the one before has arrived, for that would take a word from the server each.
 * It does not know what is sent, nor where to.
 */

/** What is on its way to the other side. */
export class Postbox {
  /** Fulfilled when what has been given so far has been sent, or has failed. @type {Promise<unknown>} */
  empty = Promise.resolve();
  /** @type {Promise<unknown>} */
  #turn = this.empty;

  /**
   * @template T
   * @param {(signed: T | void) => Promise<unknown>} send called when all before have been started
   * @param {() => Promise<T | void>} [sign] what to wait for before that; its result goes to `send`
   * @param {(error: unknown) => void} [failed] either has rejected
   */
  post(send, sign = async () => {}, failed = () => {}) {
    const signed = this.#turn.then(sign);
    this.#turn = signed.catch(() => {});
    this.empty = both(this.empty, signed.then(send).catch(failed));
  }
}

/**
 * Fulfilled when both are, with nothing, so that a long chain of these keeps nothing.
 *
 * @param {Promise<unknown>} one
 * @param {Promise<unknown>} other
 */
export const both = (one, other) => Promise.all([one, other]).then(() => {});
