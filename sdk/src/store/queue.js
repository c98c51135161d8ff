/**
 * First in, first out, in constant time: `Array.shift` moves all that is behind, each time.
 *
 * @template T
 */
export class Queue {
  /** @type {(T | undefined)[]} */
  #items = [];
  #start = 0;

  /** How many are in it. */
  get length() {
    return this.#items.length - this.#start;
  }

  /** The one that is next, or undefined. */
  get first() {
    return this.#items[this.#start];
  }

  /** @param {T} item */
  push(item) {
    this.#items.push(item);
  }

  /**
   * Take the first one out. Only when there is one.
   *
   * @returns {T}
   */
  shift() {
    const item = /** @type {T} */ (this.first);
    this.#items[this.#start++] = undefined;
    if (this.#start * 2 >= this.#items.length) {
      // As many have gone as are moved now, so that this costs each of them one move at most.
      this.#items = this.#items.slice(this.#start);
      this.#start = 0;
    }
    return item;
  }
}
