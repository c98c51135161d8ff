/**
 * Starts to send messages in the order in which they were given, each when it is signed.
 *
 * Rules: the next one does not wait until the one before has arrived, for that would take a word from the server each.
 * It does not know what is sent, nor where to.
 */

/** What is on its way to the other side. */
export class Postbox {
  /** @type {Promise<unknown>} */
  #turn = Promise.resolve();
  /** @type {Set<Promise<void>>} */
  #sending = new Set();

  /**
   * @template T
   * @param {(signed: T | void) => Promise<unknown>} send called when all before have been started
   * @param {() => Promise<T | void>} [sign] what to wait for before that; its result goes to `send`
   * @param {(error: unknown) => void} [failed] either has rejected
   */
  post(send, sign = async () => {}, failed = () => {}) {
    const signed = this.#turn.then(sign);
    this.#turn = signed.catch(() => {});
    keep(
      this.#sending,
      signed.then(send).then(() => {}, failed),
    );
  }

  /** Resolves when what has been given so far has been sent, or has failed. */
  empty() {
    return Promise.all(this.#sending);
  }
}

/**
 * Keep a promise, which does not reject, until it is fulfilled.
 *
 * @param {Set<Promise<void>>} promises
 * @param {Promise<void>} promise
 */
export function keep(promises, promise) {
  promises.add(promise);
  void promise.then(() => promises.delete(promise));
}
