/**
 * How a store's state and messages reach the application: callbacks and iterators.
 *
 * Rules of this module:
 *
 * - A callback that throws harms neither the store nor the other callbacks, and state changes are told in their order
 *   (`client/callbacks.js`).
 * - Messages are never dropped: who reads them slowly holds the senders back.
 */
import { Callbacks } from '../client/callbacks.js';

/** @import { Bytes } from '../protocol/codec.js' */
/** @import { StoreLimits, StoreState } from './state.js' */

/**
 * @typedef {object} Letter A message as it waits for the application: still in bytes, since JSON takes many times the
 *   room once it is read.
 * @property {string} sender
 * @property {number} content One of `Content`.
 * @property {Bytes} data
 * @property {number} sequence
 */

/** The state, and who wants to know of it. */
export class StateFeed {
  /** @type {Callbacks<Readonly<StoreState>>} */
  #callbacks = new Callbacks();

  /** @param {Readonly<StoreState>} state The first one. */
  constructor(state) {
    this.current = state;
  }

  /**
   * Tell a new state; nothing happens when it is the current one.
   *
   * @param {Readonly<StoreState>} state
   */
  publish(state) {
    if (state === this.current) return;
    this.current = state;
    this.#callbacks.tell(state);
  }

  /**
   * Call back now and at each change.
   *
   * @param {(state: Readonly<StoreState>) => void} run
   * @returns {() => void} Ends it; may be repeated.
   */
  subscribe(run) {
    return this.#callbacks.follow(run, this.current);
  }
}

/** @type {IteratorReturnResult<undefined>} */
const END = { value: undefined, done: true };

/**
 * The messages that wait for the application, in the order of their arrival.
 *
 * While there are callbacks, messages go to them and not into the box.
 */
export class Mailbox {
  #limits;
  #emptier;
  /** @type {Letter[]} at most `unreadMessages`: few enough to be moved up with each that goes */
  #letters = [];
  #size = 0;
  /** @type {Callbacks<Letter>} */
  #callbacks = new Callbacks();
  /** @type {Reader[]} those who wait; only while the box is empty */
  #readers = [];
  #serving = false;
  #closed = false;

  /**
   * @param {Pick<StoreLimits, 'unreadMessages' | 'unreadSize'>} limits
   * @param {() => void} emptier Is called when there is room again after there was none.
   */
  constructor(limits, emptier) {
    this.#limits = limits;
    this.#emptier = emptier;
  }

  /** Whether `put` may be called. */
  get hasRoom() {
    const { unreadMessages, unreadSize } = this.#limits;
    const full = this.#letters.length >= unreadMessages || this.#size >= unreadSize;
    return !this.#closed && (!full || this.#callbacks.size > 0);
  }

  /**
   * Take in a message.
   *
   * @param {Letter} letter
   */
  put(letter) {
    this.#letters.push(letter);
    this.#size += letter.data.length;
    this.#serve();
  }

  /**
   * Hand messages to `callback` from now on, those in the box at once.
   *
   * @param {(letter: Letter) => void} callback
   * @returns {() => void} Ends it; may be repeated.
   */
  onLetter(callback) {
    const remove = this.#callbacks.add(callback);
    this.#serve();
    this.#emptier();
    return remove;
  }

  /**
   * An iterator over what `read` makes of the messages; those of which it makes null are passed over. Of several
   * iterators each gets a part. It ends when the box is closed and empty. Whoever ends it (`break`) loses nothing: what
   * it has not been given stays in the box.
   *
   * @template M
   * @param {(letter: Letter) => M | null} read
   * @returns {AsyncIterableIterator<M, undefined, undefined>}
   */
  iterate(read) {
    const loop = { read, ended: false };
    return {
      next: () =>
        new Promise((resolve) => {
          this.#readers.push({ loop, resolve });
          this.#dismiss();
          this.#serve();
        }),
      return: async () => {
        loop.ended = true;
        this.#dismiss();
        return END;
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /** Nothing more comes in; what is in the box can still be read. */
  close() {
    this.#closed = true;
    this.#serve();
  }

  #serve() {
    if (this.#serving) return; // from within a callback: the loop below goes on with it
    this.#serving = true;
    try {
      while (this.#letters.length && (this.#callbacks.size || this.#readers.length)) {
        const wasFull = !this.hasRoom;
        const letter = /** @type {Letter} */ (this.#letters.shift());
        this.#size -= letter.data.length;
        if (this.#callbacks.size) this.#callbacks.tell(letter);
        else this.#give(letter);
        if (wasFull) this.#emptier();
      }
    } finally {
      this.#serving = false;
    }
    this.#dismiss();
  }

  /** @param {Letter} letter */
  #give(letter) {
    const [reader] = this.#readers;
    const value = reader?.loop.read(letter) ?? null;
    if (value === null) return;
    this.#readers.shift();
    reader?.resolve({ value, done: false });
  }

  /** Those whose loop has ended wait for nothing any more, and nobody does once the box is closed and empty. */
  #dismiss() {
    const over = this.#closed && !this.#letters.length;
    this.#readers = this.#readers.filter(({ loop, resolve }) => {
      const ended = over || loop.ended;
      if (ended) resolve(END);
      return !ended;
    });
  }
}

/**
 * @typedef {object} Reader Who waits for one message.
 * @property {{ read: (letter: Letter) => any, ended: boolean }} loop
 * @property {(result: IteratorResult<any, undefined>) => void} resolve
 */
