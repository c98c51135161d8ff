/**
 * The messages that have arrived, are in the journal, and wait for the application, or are in its hands.
 *
 * Rules of this module, beyond those of `messages/mailbox`:
 *
 * - A loop has handed a message over when the next one is asked for: by this loop, or, after it has ended, by any. A
 *   callback has when it returns; with a promise, when that is settled.
 * - Before the application gets a message, the journal knows that it may have it. The journal is told of some at a time
 *   (`journal.mayGive`), so that a reader need not wait for each.
 * - What is being stored, and what is in the application's hands, counts as not read.
 */

/** @import { StoreLimits } from '../state.js' */
/** @import { QueuedMessage } from '../messages/mailbox.js' */

/** @typedef {QueuedMessage & { place: number }} PlacedMessage */

/**
 * @typedef {object} Keeper The journal.
 * @property {(place: number) => boolean} mayGive Whether the journal knows that the application may have a message; if
 *   not, it calls `serve` when it does.
 * @property {(place: number) => void} handedOver Forget a message.
 * @property {() => Promise<void>} close Write what is to be written, and let go of it.
 */

/**
 * @typedef {object} Loop
 * @property {(message: QueuedMessage) => any} read
 * @property {boolean} ended
 * @property {PlacedMessage | null} has The message that it works on.
 */

/** @type {IteratorReturnResult<undefined>} */
const END = { value: undefined, done: true };

export class JournalMailbox {
  #journal;
  #limits;
  #onRoom;
  /** @type {PlacedMessage[]} */
  #box = [];
  #unread = 0;
  #unreadSize = 0;
  /** @type {Set<{ callback: (message: QueuedMessage) => unknown }>} */
  #callbacks = new Set();
  /** @type {{ loop: Loop, resolve: (result: IteratorResult<any, undefined>) => void }[]} */
  #readers = [];
  /** What loops had that have ended. @type {PlacedMessage[]} */
  #left = [];
  #serving = false;
  #closed = false;
  #inHands = 0; // of callbacks, and of loops that go on
  /** @type {() => void} */
  #onIdle = () => {};

  /**
   * @param {Keeper} journal
   * @param {Pick<StoreLimits, 'unreadMessages' | 'unreadSize'>} limits
   * @param {() => void} onRoom
   */
  constructor(journal, limits, onRoom) {
    this.#journal = journal;
    this.#limits = limits;
    this.#onRoom = onRoom;
  }

  get hasRoom() {
    const { unreadMessages, unreadSize } = this.#limits;
    return !this.#closed && this.#unread < unreadMessages && this.#unreadSize < unreadSize;
  }

  /** Whether a message that comes now is given to the application at once. */
  get eager() {
    return this.#callbacks.size > 0 || this.#readers.length > 0;
  }

  /** A message is being stored, and comes later. @param {number} size */
  reserve(size) {
    this.#unread++;
    this.#unreadSize += size;
  }

  /** Take in a message that has its place reserved. @param {QueuedMessage} message */
  put(message) {
    this.#box.push(/** @type {PlacedMessage} */ (message));
    this.serve();
  }

  /**
   * @param {(message: QueuedMessage) => unknown} callback
   * @returns {() => void}
   */
  onMessage(callback) {
    const entry = { callback };
    this.#callbacks.add(entry);
    this.serve();
    return () => void this.#callbacks.delete(entry);
  }

  /**
   * @template M
   * @param {(message: QueuedMessage) => M | null} read
   * @returns {AsyncIterableIterator<M, undefined, undefined>}
   */
  iterate(read) {
    /** @type {Loop} */
    const loop = { read, ended: false, has: null };
    return {
      next: () =>
        new Promise((resolve) => {
          const before = [...this.#left.splice(0), loop.has];
          loop.has = null;
          this.#readers.push({ loop, resolve });
          if (before.at(-1)) this.#inHands--;
          for (const message of before) if (message) this.#handedOver(message);
          this.#dismiss();
          this.serve();
        }),
      return: async () => {
        loop.ended = true;
        if (loop.has) {
          this.#left.push(loop.has);
          this.#inHands--;
        }
        loop.has = null;
        this.#dismiss();
        this.#look();
        return END;
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /** Nothing is given to the application any more: what it has not got comes again when the journal is opened. */
  async close() {
    this.#closed = true;
    this.#box = [];
    this.#dismiss();
    await this.#journal.close();
  }

  /** Call back when the application has nothing in its hands any more, now or later. @param {() => void} callback */
  whenIdle(callback) {
    this.#onIdle = callback;
    this.#look();
  }

  #look() {
    if (!this.#inHands) this.#onIdle();
  }

  /** Give the application what it may have. */
  serve() {
    if (this.#serving) return; // from within a callback: the loop below goes on with it
    this.#serving = true;
    try {
      for (let message; (message = this.#box[0]) && this.eager && this.#journal.mayGive(message.place);) {
        this.#box.shift();
        if (this.#callbacks.size) this.#tell(message);
        else this.#give(message);
      }
    } finally {
      this.#serving = false;
    }
    this.#dismiss();
  }

  /** @param {PlacedMessage} message */
  #tell(message) {
    const pending = [];
    for (const entry of [...this.#callbacks]) {
      if (!this.#callbacks.has(entry)) continue; // another callback has removed it
      try {
        const result = entry.callback(message);
        if (result instanceof Promise) pending.push(result.catch(report));
      } catch (error) {
        report(error);
      }
    }
    if (!pending.length) {
      this.#handedOver(message);
      return;
    }
    this.#inHands++;
    void Promise.all(pending).then(() => {
      this.#inHands--;
      this.#handedOver(message);
    });
  }

  /** @param {PlacedMessage} message */
  #give(message) {
    const [reader] = this.#readers;
    const value = reader?.loop.read(message) ?? null;
    if (!reader || value === null) {
      this.#handedOver(message);
      return;
    }
    this.#readers.shift();
    reader.loop.has = message;
    this.#inHands++;
    reader.resolve({ value, done: false });
  }

  /** @param {PlacedMessage} message */
  #handedOver({ place, data }) {
    const wasFull = !this.hasRoom;
    this.#unread--;
    this.#unreadSize -= data.length;
    this.#journal.handedOver(place);
    if (wasFull && this.hasRoom) this.#onRoom();
    this.#look();
  }

  #dismiss() {
    this.#readers = this.#readers.filter(({ loop, resolve }) => {
      const ended = this.#closed || loop.ended;
      if (ended) resolve(END);
      return !ended;
    });
  }
}

/** @param {unknown} error */
const report = (error) => (globalThis.reportError ?? console.error)(error);
