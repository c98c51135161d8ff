/**
 * The sending half of exactly-once delivery: what is on its way to one peer, over however many channels. Python has
 * `snapshot` and `restore` here; in `snapshots` they add nothing to a page, which does not use them.
 *
 * Rules of this module:
 *
 * - Messages are numbered from 1 within one *stream*; a message stays here until the peer has acknowledged it. What a
 *   channel took with it when it ended is sent again on the next one, from the first unacknowledged message on.
 * - On each channel our HELLO comes first (`helloSent`), then the other side's (`opened`), then frames.
 *   Acknowledgements between the two belong to the channel before and are not counted: what our HELLO has promised to
 *   send stays here.
 * - Control messages are numbered and sent with the others; only in what waits for the application they do not count.
 * - A message that is taken back (`withdraw`) leaves a void behind when others come before it, and it or one behind it
 *   was sent or stays: their numbers stay.
 * - At most `WINDOW_MESSAGES` messages are unacknowledged on a channel, and no message is begun while `WINDOW_BYTES`
 *   or more are. So a peer that stops acknowledging holds the sender back, and needs no more memory than that.
 *
 * Only `snapshots` uses `unacknowledged` and writes `newestSent` from outside; `journal/queues` has the rest that is not private.
 *
 * Pure: no I/O, no clock, no randomness. It does not know what a message means, nor who waits for its delivery.
 */
import { CHUNK, CONTROL_CHUNK, encodeMessage } from '../../protocol/message_frames.js';
import * as Content from '../../protocol/kinds.js';
import { check } from '../../protocol/shapes.js';

/** @import { StreamPosition } from '../../protocol/channel.js' */
/** @import { Bytes } from '../../protocol/codec.js' */

// On a path of 100 ms these allow 40 MB/s, and 10,000 small messages a second. The receiver counts on them (`inbox`),
// so they are part of the protocol and no settings.
export const WINDOW_BYTES = 4 * 1024 * 1024;
export const WINDOW_MESSAGES = 1024;

/** @typedef {{ content: number, data: Bytes }} Queued A message without its number. */

/** A control message of a kind that no version knows, so every version ignores it. */
export const VOID = { content: Content.CONTROL, data: new Uint8Array(1) };
/** @param {Queued} message */
export const isVoid = ({ content, data }) => content === Content.CONTROL && data.length === 1 && !data[0];

/** All that is on its way to one peer. */
export class Outbox {
  /** The messages that are not acknowledged yet, by number, in order. @type {Map<number, Queued>} */
  unacknowledged = new Map();
  /** All messages up to this number have arrived. */
  acknowledged = 0;
  /** The number of the newest message that was ever sent whole: nothing beyond it can be acknowledged. */
  newestSent = 0;
  /** The bytes of the application's messages that are not acknowledged yet. */
  size = 0;
  /** How many control messages are not acknowledged yet. */
  controls = 0;
  #voids = 0;
  /** Whether a channel takes messages. */
  isOpen = false;
  // On the current channel: the message that is next or being sent, what is left of its frames (the next one last), and
  // the size of those that are unacknowledged, itself included once begun.
  current = 1;
  /** @type {Bytes[]} */
  #frames = [];
  #flying = 0;

  /** @param {string} stream A random name, new for each outbox. */
  constructor(stream) {
    this.stream = stream;
  }

  // --- what is in it ---------------------------------------------------------------------------------------------

  /** The number of the newest message; 0 when there was none yet. */
  get last() {
    return this.acknowledged + this.unacknowledged.size;
  }

  /** How many messages of the application are not acknowledged yet. */
  get messages() {
    return this.unacknowledged.size - this.controls - this.#voids;
  }

  /**
   * Add a message.
   *
   * @param {number} content One of `Content`.
   * @param {Bytes} data Not copied: nobody may change it from now on.
   * @returns {number} Its number.
   */
  put(content, data) {
    const message = { content, data };
    this.unacknowledged.set(this.last + 1, message);
    this.count(message, 1);
    return this.last;
  }

  /** Give up all messages that are not acknowledged. Only while no channel is open. */
  clear() {
    // For the peer they count as received from the next HELLO on, and it may say so.
    this.acknowledged = this.newestSent = this.last;
    this.unacknowledged.clear();
    this.size = this.controls = this.#voids = 0;
    this.closed();
  }

  /**
   * Take back messages that are not acknowledged, to send them elsewhere. Only while no channel is open. The peer may
   * have got them nevertheless. The others keep their numbers.
   *
   * @param {readonly number[]} numbers In order.
   * @param {boolean} [skip] Our next HELLO says that the first ones will not come.
   * @returns {Queued[]}
   */
  withdraw(numbers, skip = true) {
    const withdrawn = numbers.map((number) => {
      const message = /** @type {Queued} */ (this.unacknowledged.get(number));
      this.unacknowledged.set(number, VOID);
      this.count(message, -1);
      this.count(VOID, 1);
      return message;
    });
    if (skip && this.unacknowledged.size === this.#voids) this.clear();
    for (const [number, message] of this.unacknowledged) {
      if (!skip || !isVoid(message)) break;
      // For the peer it counts as received from the next HELLO on, as in `clear`.
      this.acknowledged = number;
      this.unacknowledged.delete(number);
      this.count(message, -1);
    }
    this.newestSent = Math.max(this.newestSent, this.acknowledged);
    while (this.last > this.newestSent) {
      const newest = /** @type {Queued} */ (this.unacknowledged.get(this.last));
      if (!isVoid(newest)) break;
      // Nobody has seen its number, so the next message may have it.
      this.unacknowledged.delete(this.last);
      this.count(newest, -1);
    }
    this.closed();
    return withdrawn;
  }

  // --- channels --------------------------------------------------------------------------------------------------

  /**
   * A channel begins.
   *
   * @returns {number} `next` for our HELLO: the first message that is not acknowledged.
   */
  helloSent() {
    this.closed();
    return this.current;
  }

  /**
   * The other side's HELLO has come. Nothing is known there of our stream when its process is a new one: sending begins
   * at the first unacknowledged message then too.
   *
   * @param {StreamPosition | null} received What it has.
   * @returns {number[]} The messages that are acknowledged by that.
   * @throws {ProtocolViolation} for more than was ever sent.
   */
  opened(received) {
    const newly = received?.stream === this.stream ? this.#cover(received.sequence) : [];
    if (!this.isOpen) this.#begin();
    this.isOpen = true;
    return newly;
  }

  /** Send behind our HELLO, before the other side's has come. What it has already it skips. */
  begin() {
    this.isOpen = true;
  }

  /** The channel is gone, and what was under way on it too. Harmless when none is open. */
  closed() {
    this.isOpen = false;
    this.#begin();
    this.#flying = 0;
  }

  /**
   * The frame to send now, the same one until `sent()`.
   *
   * @returns {Bytes | null} null: nothing to send, window used up, no channel.
   */
  nextFrame() {
    if (!this.#frames.length) {
      const message = this.isOpen && this.unacknowledged.get(this.current);
      const begun = this.current - this.acknowledged - 1;
      if (!message || begun >= WINDOW_MESSAGES || this.#flying >= WINDOW_BYTES) return null;
      // A piece of a file with its header makes two frames: each costs both ends.
      const chunk = message.content === Content.CONTROL ? CONTROL_CHUNK : CHUNK;
      this.#frames = encodeMessage(message.content, this.current, message.data, chunk).reverse();
      this.#flying += message.data.length;
    }
    return this.#frames.at(-1) ?? null;
  }

  /** The channel has taken the frame that `nextFrame` returned. */
  sent() {
    this.#frames.pop();
    if (!this.#frames.length) {
      this.newestSent = Math.max(this.newestSent, this.current);
      this.current++;
    }
  }

  /**
   * The peer has everything up to `sequence`.
   *
   * @param {number} sequence
   * @returns {number[]} The messages that are acknowledged newly.
   * @throws {ProtocolViolation} for a message that was never sent whole.
   */
  acknowledge(sequence) {
    return this.isOpen ? this.#cover(sequence) : [];
  }

  /** @param {number} sequence */
  #cover(sequence) {
    check(sequence <= this.newestSent, 'an acknowledgement of what was not sent');
    const newly = [];
    for (const [number, message] of this.unacknowledged) {
      if (number > sequence) break;
      this.acknowledged = number;
      this.unacknowledged.delete(number);
      this.count(message, -1);
      const begun = number < this.current || (number === this.current && this.#frames.length);
      if (begun) this.#flying -= message.data.length;
      newly.push(number);
    }
    // If it was being sent again, it has arrived by the channel before: the peer skips what it has got of it now.
    if (this.current <= this.acknowledged) this.#begin();
    return newly;
  }

  /** What comes next is the first message that is not acknowledged. */
  #begin() {
    this.current = this.acknowledged + 1;
    this.#frames = [];
  }

  /**
   * @param {Queued} message
   * @param {1 | -1} change
   */
  count(message, change) {
    if (isVoid(message)) this.#voids += change;
    else if (message.content === Content.CONTROL) this.controls += change;
    else this.size += message.data.length * change;
  }
}
