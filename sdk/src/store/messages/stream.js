/**
 * The messages between us and one device of a peer: what `outbox` and `inbox` decide, carried out on a path.
 *
 * Rules of this module:
 *
 * - A path takes frames while it has room, and `pump` is called when it has room again. There are two, the direct channel
 *   and the sealed relay; what is here does not care which one carries the messages.
 * - Acknowledgements go before messages, or two full paths would wait for each other.
 * - Control messages (`control`) are numbered among the others and keep their place: none overtakes a message, and none
 *   gets lost. One that is first in the inbox is taken at once, whether the application has room or not; one behind a
 *   message that the application has no room for waits with it. They count in none of the application's queues, and
 *   have a limit of their own.
 * - Messages that were sent to the user, and not to this device, can be taken back and sent to another one
 *   (`withdraw`, `takeOver`). Pieces of files can be taken back so that messages need not wait for them (`takeBack`).
 * - Nothing here waits: everything happens within the calls of the path, the application and the mailbox.
 *
 * It does not know how a path comes about, nor when there should be one.
 */
import { DeliveryFailed, QueueFull } from '../../errors.js';
import { VERSION, encodeAck } from '../../protocol/message_frames.js';
import * as Content from '../../protocol/kinds.js';
import { BUNDLES, CALLS, FILES, FILES_2, FILES_3 } from '../../protocol/names.js';
import { Delivery, SENT, STORED } from './delivery.js';
import { Inbox } from './inbox.js';
import { Outbox } from './outbox.js';

/** @import { Timers } from '../../client/timers.js' */
/** @import { AldisError } from '../../errors.js' */
/** @import { Ack, Chunk, Hello, OurHello } from '../../protocol/channel.js' */
/** @import { Bytes } from '../../protocol/codec.js' */
/** @import { QueuedMessage } from './mailbox.js' */
/** @import { Queued } from './outbox.js' */
/** @import { StoreLimits } from '../state.js' */

/**
 * @typedef {object} Path A way to the peer.
 * @property {(frame: Bytes) => boolean} sendFrame Take one frame; false when there is no way, or no room.
 * @property {(frame: Bytes) => boolean} combines Whether it goes together with small frames before it.
 */

/**
 * @typedef {object} Recipient Where messages go that have arrived: `mailbox.Mailbox`.
 * @property {boolean} hasRoom Whether `put` may be called.
 * @property {(message: QueuedMessage) => void} put Take in a message.
 */

/**
 * @typedef {object} StreamSeams
 * @property {StoreLimits} limits
 * @property {Path} path
 * @property {Recipient} recipient
 * @property {(data: Bytes) => void} control Is given each control message that arrives; it must not throw.
 * @property {Timers} timers
 */

// One acknowledgement covers many messages: sending a frame costs a browser more than anything that is done here. It
// waits for this many messages, or so many seconds, whatever comes first, or goes along when we send something ourselves
// that it can be combined with.
export const ACK_MESSAGES = 32;
export const ACK_SECONDS = 0.02;
// What this program can do beyond messages, as its HELLO says it.
export const FEATURES = [FILES, CALLS, FILES_2, FILES_3, BUNDLES];
// Control messages that wait for one peer. With 64 transfers under way there are some 200; a peer that asks and asks,
// and acknowledges nothing, must not fill the memory with our answers.
export const MAX_CONTROLS = 1024;

/** @typedef {[delivery: Delivery, message: Queued][]} Withdrawn Messages that were taken back. */
/** @typedef {{ userId: string, name: string | null }} StreamOwner The device. */

/** What is said to and by one device. */
export class MessageStream {
  // Only `journal/stream`, which is a `MessageStream`, uses these from outside.
  owner;
  seams;
  outbox;
  inbox;
  /** @type {Map<number, Delivery>} */
  deliveries = new Map();
  /** @type {Set<number>} those that are for any device of the user, in order */
  forAny = new Set();
  /** How many HELLOs there were. */
  hellos = 0;
  /** @type {(() => void) | null} cancels the acknowledgement that waits */
  #acknowledging = null;

  /**
   * @param {StreamOwner} owner Its name is known when something comes from it.
   * @param {string} stream A random name, new for each device.
   * @param {StreamSeams} seams
   * @param {Outbox} [outbox]
   * @param {Inbox} [inbox]
   */
  constructor(owner, stream, seams, outbox = new Outbox(stream), inbox = new Inbox()) {
    this.owner = owner;
    this.seams = seams;
    this.outbox = outbox;
    this.inbox = inbox;
  }

  // --- sending ---------------------------------------------------------------------------------------------------

  /** How many messages of the application the peer has not acknowledged yet. */
  get queued() {
    return this.outbox.messages;
  }

  /** How many messages `withdraw` would take back. */
  get movable() {
    return this.forAny.size;
  }

  /** The stream of the program that was connected last. */
  get theirStream() {
    return this.inbox.position()?.stream;
  }

  /**
   * The deliveries of the newest of these messages, of those for any device and of those for this one: all others come before
   * one of them, or fail with it.
   */
  get last() {
    /** @type {Record<number, Delivery>} */
    const last = {};
    for (const [number, delivery] of this.deliveries) {
      const isControl = this.outbox.unacknowledged.get(number)?.content === Content.CONTROL;
      if (!isControl) last[+this.forAny.has(number)] = delivery;
    }
    return Object.values(last);
  }

  /**
   * Queue a message, and send it when it is its turn.
   *
   * @param {number} content One of `Content`.
   * @param {Bytes} data Not copied: nobody may change it from now on.
   * @param {boolean} [addressed] It is for this device and no other.
   * @returns {Delivery}
   * @throws {QueueFull}
   */
  send(content, data, addressed = false) {
    const { messages, size, controls } = this.outbox;
    const { queueMessages, queueSize } = this.seams.limits;
    const { userId, name } = this.owner;
    const isControl = content === Content.CONTROL;
    const [waiting, most] = isControl ? [controls, MAX_CONTROLS] : [messages, queueMessages];
    if (waiting && (waiting >= most || (!isControl && size + data.length > queueSize))) {
      throw new QueueFull(userId, waiting, size);
    }
    const delivery = new Delivery(userId, this.outbox.put(content, data), addressed ? name : null);
    this.queue(delivery, !isControl && !addressed);
    this.accepted(delivery);
    this.pump();
    return delivery;
  }

  /**
   * A message is in the outbox, and may be sent.
   *
   * @param {Delivery} delivery
   */
  accepted(delivery) {
    Delivery.reach(delivery, STORED);
  }

  /**
   * Take back all messages that are not acknowledged and were sent to the user. Only while no channel is open.
   *
   * @returns {Withdrawn}
   */
  withdraw() {
    const numbers = [...this.forAny];
    this.forAny.clear();
    return this.outbox.withdraw(numbers).map((message, index) => {
      const number = /** @type {number} */ (numbers[index]);
      const delivery = /** @type {Delivery} */ (this.deliveries.get(number));
      this.deliveries.delete(number);
      return [delivery, message];
    });
  }

  /**
   * Take back control messages that are not acknowledged: whoever has sent them sends them again, later. Voids take their
   * places. Only while no channel is open.
   *
   * @param {readonly Delivery[]} deliveries In order.
   */
  takeBack(deliveries) {
    const numbers = deliveries.map(({ sequence }) => sequence);
    this.outbox.withdraw(numbers, false);
    for (const number of numbers) this.deliveries.delete(number);
  }

  /**
   * Send what was taken back from another device. The limits do not count: it was accepted before.
   *
   * @param {Withdrawn} withdrawn
   */
  takeOver(withdrawn) {
    for (const [delivery, { content, data }] of withdrawn) {
      this.queue(Object.assign(delivery, { sequence: this.outbox.put(content, data) }), true);
      this.accepted(delivery);
    }
    this.pump();
  }

  /**
   * @param {Delivery} delivery
   * @param {boolean} movable It is for any device of the user.
   */
  queue(delivery, movable) {
    const { sequence } = delivery;
    this.deliveries.set(sequence, delivery);
    if (movable) this.forAny.add(sequence);
  }

  /**
   * Give up all messages that are not acknowledged. Only while no channel is open.
   *
   * @param {string} reason
   * @param {AldisError} error What is behind that.
   */
  fail(reason, error) {
    this.outbox.clear();
    this.forAny.clear();
    const deliveries = [...this.deliveries.values()];
    this.deliveries.clear();
    for (const delivery of deliveries) {
      Delivery.end(delivery, new DeliveryFailed(this.owner.userId, delivery.sequence, reason, { cause: error }));
    }
  }

  // --- the channel -----------------------------------------------------------------------------------------------

  /**
   * Our first frame on a new channel.
   *
   * @param {boolean} [early] Messages may follow before the other side's HELLO has come.
   * @returns {OurHello}
   */
  hello(early = false) {
    this.outbox.helloSent();
    if (early) this.outbox.begin();
    return this.greeting();
  }

  /**
   * A HELLO that leaves the messages where they are: for a channel on which nothing will follow, or which they take when
   * the other side's HELLO has come.
   *
   * @returns {OurHello}
   */
  greeting() {
    return {
      version: VERSION,
      stream: this.outbox.stream,
      next: this.outbox.acknowledged + 1,
      features: FEATURES,
      received: this.inbox.position(),
      channel: ++this.hellos,
    };
  }

  /**
   * A channel is open.
   *
   * @param {Hello} hello The other side's.
   * @returns {boolean} Whether the other side is not the program that was there before: what was under way between the
   *   two, beyond messages, is over.
   * @throws {ProtocolViolation}
   */
  opened(hello) {
    const restarted = this.theirStream && this.isNewProgram(hello);
    this.inbox.opened(hello);
    this.delivered(this.outbox.opened(hello.received));
    this.pump();
    return !!restarted;
  }

  /**
   * Whether the other side is not the program that was there before; true when there was none.
   *
   * @param {Hello} hello
   */
  isNewProgram({ run, stream }) {
    return run && this.inbox.run ? run !== this.inbox.run : stream !== this.theirStream;
  }

  /** The channel is gone. */
  closed() {
    this.#forgetTimer();
    this.outbox.closed();
    this.inbox.closed();
  }

  /**
   * A frame has come.
   *
   * @param {Chunk | Ack} frame
   * @throws {ProtocolViolation}
   */
  received(frame) {
    if (frame.type === 'ack') {
      this.delivered(this.outbox.acknowledge(frame.sequence));
      this.pump();
    } else {
      this.inbox.receive(frame);
      this.handOver();
    }
  }

  /** Send what is due and has room on the path. */
  pump() {
    const { path } = this.seams;
    if (!this.#acknowledging && !this.flush()) return;
    let sent = this.outbox.newestSent;
    for (let frame; (frame = this.outbox.nextFrame()); this.outbox.sent()) {
      // Beside a large frame it would be one more message of the channel.
      if (this.#acknowledging && path.combines(frame)) this.flush();
      if (!path.sendFrame(frame)) break;
    }
    while (sent++ < this.outbox.newestSent) {
      const delivery = this.deliveries.get(sent);
      if (delivery) Delivery.reach(delivery, SENT);
    }
  }

  /**
   * The peer has these messages.
   *
   * @param {number[]} sequences
   */
  delivered(sequences) {
    for (const sequence of sequences) {
      const delivery = this.deliveries.get(sequence);
      if (delivery) Delivery.end(delivery, null); // else a void
      this.deliveries.delete(sequence);
      this.forAny.delete(sequence);
    }
  }

  // --- receiving -------------------------------------------------------------------------------------------------

  /** Bytes that have arrived and are not handed over. */
  get arriving() {
    return this.inbox.size;
  }

  /** Whether a whole message waits for room in the mailbox. */
  get waiting() {
    return this.inbox.first !== undefined;
  }

  /** Give the application what has arrived, as far as it has room, and acknowledge that soon. */
  handOver() {
    const { recipient, control } = this.seams;
    const { userId: sender, name } = this.owner;
    const device = /** @type {string} */ (name);
    for (let first; (first = this.inbox.first);) {
      const { content, data, sequence } = first;
      const isControl = content === Content.CONTROL;
      if (!isControl && !recipient.hasRoom) break;
      this.inbox.take(); // first: a callback may lead back here
      if (isControl) control(data);
      else recipient.put({ sender, device, content, data, sequence, stream: this.inbox.stream.name });
    }
    this.acknowledge();
  }

  /** Acknowledge what is due, soon. */
  acknowledge() {
    const { timers } = this.seams;
    const { unconfirmed } = this.inbox;
    if (unconfirmed >= ACK_MESSAGES) this.flush();
    else if (unconfirmed) this.#acknowledging ??= timers.callLater(ACK_SECONDS, () => this.flush());
  }

  /** Forget what has arrived and is not handed over; it will come again. Only while no channel is open. */
  letGo() {
    this.inbox.letGo();
  }

  /**
   * Send the acknowledgement that is due.
   *
   * @returns {boolean} false when there was no room for it.
   */
  flush() {
    this.#forgetTimer();
    const { due } = this.inbox;
    if (due === null) return true;
    if (!this.seams.path.sendFrame(encodeAck(due))) return false;
    this.inbox.confirmed(due);
    return true;
  }

  #forgetTimer() {
    this.#acknowledging?.();
    this.#acknowledging = null;
  }
}
