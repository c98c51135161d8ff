/**
 * How messages reach the application: callbacks and iterators.
 *
 * Rules of this module:
 *
 * - A callback that throws harms neither the store nor the other callbacks (`client/callbacks.js`).
 * - Messages are never dropped: a slow reader holds the senders back.
 */
import { Callbacks } from '../../client/callbacks.js';

/** @import { Bytes } from '../../protocol/codec.js' */
/** @import { StoreLimits } from '../state.js' */

/**
 * @typedef {object} QueuedMessage A message that waits for the application: still in bytes, since JSON takes many times
 *   the room once it is read.
 * @property {string} sender
 * @property {string} device
 * @property {number} content One of `Content`.
 * @property {Bytes} data
 * @property {number} sequence
 * @property {string} stream
 * @property {number} [place] Which one it is of all that have arrived, as the journal counts.
 * @property {boolean} [redelivered] An earlier run of our program had it already.
 */

/** @type {IteratorReturnResult<undefined>} */
const END = { value: undefined, done: true };

/**
 * The messages that wait for the application, in the order of their arrival.
 *
 * While there are callbacks, messages go to them and not into the box.
 */
export class Mailbox {
  #limits;
  #onRoom;
  /** @type {QueuedMessage[]} at most `unreadMessages`: few enough to be moved up with each that goes */
  #messages = [];
  #size = 0;
  /** @type {Callbacks<QueuedMessage>} */
  #callbacks = new Callbacks();
  /** @type {Reader[]} those who wait; only while the box is empty */
  #readers = [];
  #serving = false;
  #closed = false;

  /**
   * @param {Pick<StoreLimits, 'unreadMessages' | 'unreadSize'>} limits
   * @param {() => void} onRoom Is called when there is room again after there was none.
   */
  constructor(limits, onRoom) {
    this.#limits = limits;
    this.#onRoom = onRoom;
  }

  /** Whether `put` may be called. */
  get hasRoom() {
    const { unreadMessages, unreadSize } = this.#limits;
    const full = this.#messages.length >= unreadMessages || this.#size >= unreadSize;
    return !this.#closed && (!full || this.#callbacks.size > 0);
  }

  /**
   * Take in a message.
   *
   * @param {QueuedMessage} message
   */
  put(message) {
    this.#messages.push(message);
    this.#size += message.data.length;
    this.#serve();
  }

  /**
   * Hand messages to `callback` from now on, those in the box at once.
   *
   * @param {(message: QueuedMessage) => unknown} callback
   * @returns {() => void} Ends it; may be repeated.
   */
  onMessage(callback) {
    const remove = this.#callbacks.add(callback);
    this.#serve();
    this.#onRoom();
    return remove;
  }

  /**
   * An iterator over what `read` makes of the messages; those of which it makes null are passed over. Of several
   * iterators each gets a part. It ends when the box is closed and empty. Ending it (`break`) loses nothing: what
   * it has not been given stays in the box.
   *
   * @template M
   * @param {(message: QueuedMessage) => M | null} read
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
      while (this.#messages.length && (this.#callbacks.size || this.#readers.length)) {
        const wasFull = !this.hasRoom;
        const message = /** @type {QueuedMessage} */ (this.#messages.shift());
        this.#size -= message.data.length;
        if (this.#callbacks.size) this.#callbacks.tell(message);
        else this.#give(message);
        if (wasFull) this.#onRoom();
      }
    } finally {
      this.#serving = false;
    }
    this.#dismiss();
  }

  /** @param {QueuedMessage} message */
  #give(message) {
    const [reader] = this.#readers;
    const value = reader?.loop.read(message) ?? null;
    if (value === null) return;
    this.#readers.shift();
    reader?.resolve({ value, done: false });
  }

  /** Answer readers whose loop has ended, and all readers once the box is closed and empty. */
  #dismiss() {
    const over = this.#closed && !this.#messages.length;
    this.#readers = this.#readers.filter(({ loop, resolve }) => {
      const ended = over || loop.ended;
      if (ended) resolve(END);
      return !ended;
    });
  }
}

/**
 * @typedef {object} Reader A loop that waits for one message.
 * @property {{ read: (message: QueuedMessage) => any, ended: boolean }} loop
 * @property {(result: IteratorResult<any, undefined>) => void} resolve
 */
