/**
 * The receiving half of exactly-once delivery: puts chunks together, drops what has come before, says what to confirm.
 * Python has `snapshot` and `restore` here; in `snapshots` they add nothing to a page, which does not use them.
 *
 * Rules of this module:
 *
 * - A message has *arrived* when its last chunk is here, and is *handed over* when it has been taken (`take`). Only
 *   what is handed over is acknowledged, so an application that does not read holds the sender back.
 * - Where a stream stands outlives the channel: a message that comes again on the next one is skipped. Where our
 *   process is new and the stream is not, it begins at what the sender's HELLO says; what came before went to another
 *   process, or another device, and was acknowledged there.
 * - Only so much is held for an application that does not read as the sender's window allows (`outbox`); a sender of
 *   more breaks the protocol.
 * - What the other side sent may be wrong in any way; `ProtocolViolation` says how, and the channel has to end.
 *
 * Pure: no I/O, no clock. It does not know what a message means.
 */
import { MAX_MESSAGE } from '../../protocol/message_frames.js';
import { check } from '../../protocol/shapes.js';
import { WINDOW_BYTES, WINDOW_MESSAGES } from './outbox.js';

/** @import { Chunk, Hello, StreamPosition } from '../../protocol/channel.js' */
/** @import { Bytes } from '../../protocol/codec.js' */

/**
 * @typedef {object} Arrived A whole message.
 * @property {number} sequence
 * @property {number} content One of `Content`.
 * @property {Bytes} data In a buffer of its own.
 */

// Each device and each run of the peer's program has a stream of its own. Only the last few can still have something
// unacknowledged that was seen here.
export const MAX_STREAMS = 16;
// What is set aside for a message that has only begun: the sender's word for its size costs nothing.
const FIRST_BYTES = 64 * 1024;

/** All that comes from one peer. */
export class Inbox {
  /** How far each stream has come; the one that was used last is the last one. @type {{ name: string, arrived: number, handedOver: number }[]} */
  streams = [];
  /** The one that is in use. */
  stream = { name: '', arrived: 0, handedOver: 0 };
  /** @type {{ content: number, size: number, data: Bytes, filled: number } | null} */
  #partial = null;
  /** @type {Arrived[]} */
  #held = []; // arrived, not handed over; at most a window, so that it may be moved up with each that goes
  #heldBytes = 0;
  #open = false;
  /** The run of the sender's program. @type {string | null | undefined} */
  run;
  #confirmed = 0; // what the sender knows on this channel

  // --- channels --------------------------------------------------------------------------------------------------

  /**
   * How far the other side's stream has been received, for our HELLO.
   *
   * @returns {StreamPosition | null} null when none is known.
   */
  position() {
    const { name, handedOver } = this.stream;
    return name ? { stream: name, sequence: handedOver } : null;
  }

  /**
   * A channel is open.
   *
   * @param {Pick<Hello, 'stream' | 'next' | 'run'>} hello The other side's; its fields are within the bounds that `protocol/channel` checks.
   */
  opened({ stream: name, next, run }) {
    this.closed();
    // What another stream's sender was never told has arrived is not ours to deliver: where that sender is still alive,
    // on another device, it will send it again.
    // And a program that has begun once more with an older state gives the numbers of what is held to other messages.
    if (name !== this.stream.name || run !== this.run) this.letGo();
    this.run = run;
    const before = next - 1;
    const known = this.streams.find((each) => each.name === name);
    const stream = (this.stream = known ?? { name, arrived: before, handedOver: before });
    this.streams = [...this.streams.filter((each) => each !== stream), stream].slice(-MAX_STREAMS);
    if (stream.arrived < before) {
      // Acknowledged by another of our devices, or given up by the sender. What is held comes before that.
      stream.arrived = before;
      if (!this.#held.length) stream.handedOver = before;
    }
    this.#open = true;
    this.#confirmed = before;
  }

  /** The channel is gone; half a message is dropped: it will come again whole. Harmless when none is open. */
  closed() {
    this.#open = false;
    this.#partial = null;
  }

  /**
   * Take in a chunk.
   *
   * @param {Chunk} chunk
   * @returns {boolean} Whether a message has arrived by it.
   * @throws {ProtocolViolation}
   */
  receive({ content, sequence, size, last, data }) {
    const stream = this.stream;
    check(this.#open, 'a message before the HELLO');
    if (sequence <= stream.arrived) {
      // The sender does not know that it was handed over: say it again.
      if (last && sequence <= stream.handedOver) this.#confirmed = Math.min(this.#confirmed, sequence - 1);
      return false;
    }
    check(sequence === stream.arrived + 1, `message ${sequence} where ${stream.arrived + 1} was due`);
    const partial = (this.#partial ??= this.#begin(content, size));
    const filled = partial.filled + data.length;
    check(
      content === partial.content && size === partial.size && (last ? filled === size : filled <= size && data.length), // an empty one would never come to an end
      'chunks that contradict each other',
    );
    if (filled > partial.data.length) {
      // Twice the room, so that each byte is moved once or twice, however the message is cut.
      const larger = new Uint8Array(Math.min(size, Math.max(filled, 2 * partial.data.length)));
      larger.set(partial.data);
      partial.data = larger;
    }
    partial.data.set(data, partial.filled);
    partial.filled = filled;
    if (!last) return false;
    this.#partial = null;
    stream.arrived = sequence;
    this.#held.push({ sequence, content, data: partial.data });
    this.#heldBytes += size;
    return true;
  }

  /**
   * @param {number} content
   * @param {number} size
   */
  #begin(content, size) {
    check(
      size <= MAX_MESSAGE && this.#held.length < WINDOW_MESSAGES && this.#heldBytes < WINDOW_BYTES,
      'a message too large, or more than the window allows',
    );
    return { content, size, data: new Uint8Array(Math.min(size, FIRST_BYTES)), filled: 0 };
  }

  // --- handing over ----------------------------------------------------------------------------------------------

  /** The message that is to be handed over next, or undefined. */
  get first() {
    return this.#held[0];
  }

  /** Bytes that are here and not handed over, of whole messages and of one that is still coming. */
  get size() {
    return this.#heldBytes + (this.#partial?.filled ?? 0);
  }

  /** Forget what is not handed over; it will come again. Only while no channel is open. */
  letGo() {
    this.#held = [];
    this.#heldBytes = 0;
    this.stream.arrived = this.stream.handedOver;
  }

  /** The first message has been handed over. */
  take() {
    const { sequence, data } = /** @type {Arrived} */ (this.#held.shift());
    this.#heldBytes -= data.length;
    // What was skipped at a channel's beginning (see `opened`) counts with the last one before it.
    this.stream.handedOver = this.#held.length ? sequence : this.stream.arrived;
  }

  /** What to acknowledge on this channel, or null when the sender knows already. */
  get due() {
    return this.unconfirmed ? this.stream.handedOver : null;
  }

  /** How many messages the sender could be told of. */
  get unconfirmed() {
    return this.#open ? Math.max(this.stream.handedOver - this.#confirmed, 0) : 0;
  }

  /**
   * The acknowledgement of `sequence` has been sent.
   *
   * @param {number} sequence
   */
  confirmed(sequence) {
    this.#confirmed = Math.max(this.#confirmed, sequence);
  }
}
