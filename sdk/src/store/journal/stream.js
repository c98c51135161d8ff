/**
 * The messages between us and one device of a peer, kept by a journal.
 *
 * Rules of this module, beyond those of `MessageStream`:
 *
 * - A message is sent after the journal has it. What has arrived goes to the mailbox, and is acknowledged, after the
 *   journal has that.
 * - Of a control message the journal gets the number alone, and that some at a time (`RESERVE`): what it says is worth
 *   nothing after a restart. Then a void takes its place.
 * - A journal that was put back to an earlier state begins a new stream (`isBehind`). So does a stream all of whose
 *   messages were given up: our HELLO must not name their numbers before the journal knows that.
 */
import {
  DeliveryExpired,
  DeliveryFailed,
  JournalFull,
  ProtocolViolation,
  SignalingError,
  StateError,
} from '../../errors.js';
import { Delivery, STORED } from '../messages/delivery.js';
import { MessageStream } from '../messages/stream.js';
import { digits } from './backend.js';
import { isControl, JournalInbox, JournalOutbox } from './queues.js';

/**
 * @import { AldisError, JournalError } from '../../errors.js'
 * @import { Hello } from '../../protocol/channel.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { Queued } from '../messages/outbox.js'
 * @import { StreamOwner, StreamSeams } from '../messages/stream.js'
 * @import { Journal } from './journal.js'
 * @import { Kept } from './queues.js'
 */

/** @typedef {{ content: number, data: Bytes, queuedAt: number, movable: boolean }} QueuedRow A message that waits. */
/**
 * @typedef {{ userId: string, device: string | null, last: number, sent?: number }} StreamRow Whose a stream of ours is,
 *   which numbers may be used (up to `last`), and behind which none was sent (absent: all may have been).
 */
/** @typedef {StreamRow & { stream: string, messages: Map<number, QueuedRow> }} StoredStream A stream with what waits in it. */

/** When the program has sent a message, in milliseconds since 1970. @type {WeakMap<Delivery, number>} */
const times = new WeakMap();

/** @param {Delivery} delivery */
const queuedAt = (delivery) => times.get(delivery) ?? Date.now();

/** How many numbers of a stream the journal is told of at a time. As many voids may be sent after a restart. */
const RESERVE = 64;

export class JournalStream extends MessageStream {
  #journal;
  /** @type {JournalOutbox} */
  #out;
  /** @type {JournalInbox} */
  #in;
  /** The numbers of the messages that have a row. @type {Set<number>} */
  #rows = new Set();
  /** The number up to which the journal knows that numbers may be used; what it is about to know. */
  #reserved = 0;
  #named = '';
  /** Behind this number no message was sent, as the journal knows. @type {number | undefined} */
  #sent;
  #loaded = false;
  /** Whether the stream is of this run, or the other side has said how far it has come. */
  #current = true;

  /**
   * @param {StreamOwner} owner
   * @param {StreamSeams} seams
   * @param {Journal} journal
   * @param {StoredStream[]} all What the journal has of it.
   */
  constructor(owner, seams, journal, all) {
    const [stored, ...more] = all;
    const outbox = stored
      ? JournalOutbox.restored(stored.stream, stored.messages, stored.last, stored.sent)
      : new JournalOutbox(crypto.randomUUID());
    const inbox = new JournalInbox();
    super(owner, outbox.stream, seams, outbox, inbox);
    this.#journal = journal;
    this.#out = outbox;
    this.#in = inbox;
    if (!stored) return;
    this.hellos = Date.now(); // more than in any run before
    this.#current = false;
    this.#reserved = stored.last;
    this.#sent = stored.sent;
    this.#named = this.#who;
    for (const [number, { queuedAt: at, movable }] of stored.messages) {
      const delivery = new Delivery(owner.userId, number, movable ? null : owner.name);
      times.set(delivery, at);
      Delivery.reach(delivery, STORED);
      this.#rows.add(number);
      this.queue(delivery, movable);
    }
    for (const each of more) this.#append(each);
    this.expire();
  }

  /**
   * What waits in another stream to the same device: the program has ended after the device got its name, and before that
   * was written.
   *
   * @param {StoredStream} stored
   */
  #append({ stream, messages }) {
    this.#journal.write(`s/${stream}`, undefined);
    for (const [number, { content, data, queuedAt: at, movable }] of messages) {
      this.#journal.write(`o/${stream}/${digits(number)}`, undefined);
      const { userId, name } = this.owner;
      const delivery = new Delivery(userId, this.#out.put(content, data), movable ? null : name);
      times.set(delivery, at);
      Delivery.reach(delivery, STORED);
      this.queue(delivery, movable);
      this.accepted(delivery);
    }
  }

  // --- sending -------------------------------------------------------------------------------------------------------

  /** What waits. @returns {{ delivery: Delivery, queuedAt: number, content: number, data: Bytes }[]} */
  get waitingMessages() {
    return [...this.#rows].flatMap((number) => {
      const delivery = this.deliveries.get(number);
      const message = this.#out.unacknowledged.get(number);
      return delivery && message ? [{ delivery, queuedAt: queuedAt(delivery), ...message }] : [];
    });
  }

  /**
   * @override
   * @param {number} content
   * @param {Bytes} data
   * @param {boolean} [addressed]
   */
  send(content, data, addressed) {
    this.#journal.lookAtClock();
    if (!isControl({ content, data })) {
      const { journalMessages, journalSize } = this.seams.limits;
      const [messages, size] = this.#journal.waiting;
      if (messages && (messages >= journalMessages || size + data.length > journalSize)) {
        const message = `${messages} messages are waiting in the journal; no more can be queued`;
        throw Object.assign(new JournalFull(this.owner.userId, messages, size), { message });
      }
    }
    return super.send(content, data, addressed);
  }

  /** @override @param {Delivery} delivery */
  accepted(delivery) {
    const { sequence } = delivery;
    const message = /** @type {Queued} */ (this.#out.unacknowledged.get(sequence));
    this.#hold();
    if (!isControl(message)) {
      this.#store(sequence, message, delivery);
    } else if (this.#out.stored === sequence - 1 && sequence <= this.#reserved) {
      // A number that the journal knows, behind nothing that it does not have yet.
      this.#out.stored = sequence;
      Delivery.reach(delivery, STORED);
      return;
    }
    this.#journal.accepted(this, sequence, !isControl(message));
  }

  /**
   * @param {number} sequence
   * @param {Queued} message
   * @param {Delivery} delivery
   */
  #store(sequence, { content, data }, delivery) {
    this.#rows.add(sequence);
    if (!times.has(delivery)) times.set(delivery, Date.now());
    const movable = delivery.device === null;
    this.#journal.write(this.#key(sequence), { content, data, queuedAt: queuedAt(delivery), movable });
  }

  /** @param {number} sequence */
  #key(sequence) {
    return `o/${this.#out.stream}/${digits(sequence)}`;
  }

  /** @param {number} sequence */
  #remove(sequence) {
    if (this.#rows.delete(sequence)) this.#journal.write(this.#key(sequence), undefined);
  }

  get #who() {
    return `${this.owner.userId}/${this.owner.name ?? ''}`;
  }

  /**
   * A number is used: have the journal know whose the stream is, and which numbers may be used, unless it does.
   *
   * @param {number} number
   */
  reserve(number) {
    if (number <= this.#reserved && this.#named === this.#who) return;
    this.#reserved = Math.max(this.#reserved, number + RESERVE);
    this.#name();
  }

  #name() {
    this.#named = this.#who;
    const { userId, name: device } = this.owner;
    const sent = this.#sent;
    const row = { userId, device, last: this.#reserved };
    this.#journal.write(`s/${this.#out.stream}`, sent === undefined ? row : { ...row, sent });
  }

  /**
   * There is a message that no earlier run can have sent. If this run ends before the peer has said what it has, the next
   * one has to know that: the peer's numbers may mean other messages.
   */
  #hold() {
    if (this.#current || this.#sent !== undefined) return;
    this.#sent = this.#out.newestSent;
    this.#name();
  }

  /** The journal knows that all messages may be sent. */
  freed() {
    this.#out.most = Infinity;
    this.pump();
  }

  /**
   * The journal has all up to `number`.
   *
   * @param {number} number
   */
  stored(number) {
    const first = this.#out.stored + 1;
    this.#out.stored = Math.max(this.#out.stored, Math.min(number, this.#out.last));
    for (let each = first; each <= this.#out.stored; each++) {
      const delivery = this.deliveries.get(each);
      if (delivery) Delivery.reach(delivery, STORED);
    }
    this.pump();
  }

  /**
   * The journal cannot take what it was given: new messages fail. What it had accepted before goes on waiting.
   *
   * @param {JournalError} error
   */
  notStored(error) {
    const { stored } = this.#out;
    this.#reserved = Math.min(this.#reserved, stored); // what it was about to know it does not
    /** @type {Delivery[]} */
    const lost = [];
    for (const [number, message] of this.#out.cut(stored)) {
      const delivery = this.deliveries.get(number);
      if (!delivery) continue; // a void, whose number is free now
      this.deliveries.delete(number);
      this.#remove(number);
      const movable = this.forAny.delete(number);
      if (isControl(message) || delivery.stored) {
        Object.assign(delivery, { sequence: this.#out.put(message.content, message.data) });
        this.queue(delivery, movable);
        this.accepted(delivery);
      } else {
        lost.push(delivery);
      }
    }
    for (const delivery of lost) Delivery.end(delivery, this.#lost(delivery.sequence, error));
  }

  /**
   * @param {number} sequence
   * @param {JournalError} cause
   */
  #lost(sequence, cause) {
    return new DeliveryFailed(this.owner.userId, sequence, cause.message, { cause });
  }

  /** @override @param {number[]} sequences */
  delivered(sequences) {
    super.delivered(sequences);
    for (const sequence of sequences) this.#remove(sequence);
  }

  /** @override */
  withdraw() {
    const numbers = [...this.forAny];
    const withdrawn = super.withdraw();
    this.#withdrawn(numbers);
    return withdrawn;
  }

  /** @param {number[]} numbers */
  #withdrawn(numbers) {
    for (const number of numbers) this.#remove(number);
    if (!this.#out.rest.length) this.#begin([]);
    else this.#cutBack();
  }

  /** @override @param {readonly Delivery[]} deliveries */
  takeBack(deliveries) {
    super.takeBack(deliveries);
    this.#cutBack();
  }

  /** The newest numbers may be free again. */
  #cutBack() {
    this.#out.stored = Math.min(this.#out.stored, this.#out.last);
    this.#journal.notBeyond(this, this.#out.last);
  }

  /**
   * Give up all messages. Those that no fault of the peer's, and nothing that the application did, has ended stay in the
   * journal.
   *
   * @override
   * @param {string} reason
   * @param {AldisError} error
   */
  fail(reason, error) {
    if (error instanceof StateError || error instanceof SignalingError) {
      for (const number of this.#rows) {
        const delivery = this.deliveries.get(number);
        if (!delivery) continue;
        const kept = new DeliveryFailed(this.owner.userId, number, `${reason}; it stays in the journal`, {
          cause: error,
        });
        this.deliveries.delete(number);
        Object.assign(kept, { kept: true });
        if (delivery.stored) Delivery.end(delivery, kept);
        else
          this.#journal.leave(this.#key(number), (lost) =>
            Delivery.end(delivery, lost ? this.#lost(number, lost) : kept),
          );
      }
      this.#rows.clear();
      this.#reserved = 0; // what the journal knows of the stream stays, too
    } else {
      for (const number of this.#rows) this.#remove(number);
    }
    super.fail(reason, error);
    this.#journal.emptied(this);
    this.#begin([]); // nobody may take what is sent from now on for what was given up
  }

  /** The wall clock was set: what waits is no older by that, in later runs either. @param {number} step In milliseconds. */
  clockWasSet(step) {
    for (const number of this.#rows) {
      const delivery = this.deliveries.get(number);
      const message = this.#out.unacknowledged.get(number);
      if (!delivery || !message) continue;
      times.set(delivery, queuedAt(delivery) + step);
      this.#store(number, message, delivery);
    }
  }

  /** Give up the messages that have waited for too long, unless there is a channel. */
  expire() {
    this.#journal.lookAtClock();
    if (this.#out.isOpen) return;
    const { queueAge } = this.seams.limits;
    const oldest = Date.now() - queueAge * 1000;
    const old = [...this.#rows].flatMap((number) => {
      const delivery = this.deliveries.get(number);
      return delivery && queuedAt(delivery) < oldest ? [delivery] : [];
    });
    if (!old.length) return;
    const numbers = old.map(({ sequence }) => sequence);
    this.#out.withdraw(numbers);
    for (const number of numbers) {
      this.deliveries.delete(number);
      this.forAny.delete(number);
    }
    this.#withdrawn(numbers);
    for (const delivery of old) {
      const reason = `it has waited for more than ${queueAge} s`;
      Delivery.end(delivery, new DeliveryExpired(this.owner.userId, delivery.sequence, reason));
    }
  }

  /** Begin a new stream with what is left, and behind `number`. */
  #renew(number = 0) {
    const rest = this.#out.rest.filter(([each]) => each > number);
    for (const [number] of rest) this.#remove(number);
    this.#begin(rest);
  }

  /** @param {[number: number, message: Queued][]} rest */
  #begin(rest) {
    if (this.#reserved) this.#journal.write(`s/${this.#out.stream}`, undefined);
    const before = new Map(this.deliveries);
    const movable = new Set(this.forAny);
    this.outbox = this.#out = new JournalOutbox(crypto.randomUUID());
    this.#journal.notBeyond(this, 0);
    this.deliveries.clear();
    this.forAny.clear();
    this.#reserved = 0;
    this.#named = '';
    this.#sent = undefined;
    this.#current = true;
    for (const [number, { content, data }] of rest) {
      const delivery = before.get(number);
      const sequence = this.#out.put(content, data);
      if (!delivery) continue;
      Object.assign(delivery, { sequence });
      this.queue(delivery, movable.has(number));
      this.accepted(delivery);
    }
  }

  // --- the channel ---------------------------------------------------------------------------------------------------

  /** @override @param {boolean} [early] */
  hello(early = false) {
    if (this.#reserved && this.#named !== this.#who) this.#name(); // the device has got its name
    // Until the other side has said what it has of a stream of an earlier run, it may have more than we know.
    return super.hello(early && this.#current);
  }

  /** @override */
  greeting() {
    this.#load();
    this.#in.told = this.#in.position();
    return { ...super.greeting(), run: this.#journal.run };
  }

  /** @override @param {Hello} hello */
  opened(hello) {
    this.#load();
    const { received } = hello;
    if (received && this.#out.isBehind(received)) {
      const { newestSent } = this.#out;
      this.delivered([...this.#out.unacknowledged.keys()].filter((number) => number <= newestSent));
      this.#renew(newestSent);
      throw new ProtocolViolation('it has messages of ours that our journal does not know: another stream begins');
    }
    this.#current = true;
    if (this.#sent !== undefined) {
      this.#out.most = this.#sent;
      this.#sent = undefined;
      this.#name();
      this.#journal.free(this);
    }
    return super.opened(hello);
  }

  /** @override */
  closed() {
    super.closed();
    this.expire();
  }

  // --- receiving -----------------------------------------------------------------------------------------------------

  /** How far the streams of the device had arrived, once it is known which device it is. */
  #load() {
    if (this.#loaded || this.owner.name === null) return;
    this.#loaded = true;
    for (const { stream, sequence } of this.#journal.positions(this.#who)) {
      this.#in.opened({ stream, next: sequence + 1 });
    }
    this.#in.closed();
  }

  /** @override */
  handOver() {
    const { recipient, control } = this.seams;
    for (let first; (first = this.#in.first);) {
      if (!isControl(first) && !recipient.hasRoom) break;
      const kept = this.#in.take();
      if (isControl(first)) control(first.data);
      this.#journal.arrived(this, kept, isControl(first) ? null : { ...first, ...this.#from(kept) });
    }
    this.acknowledge();
  }

  /** @param {Kept} kept */
  #from({ stream: { name: stream } }) {
    return { sender: this.owner.userId, device: /** @type {string} */ (this.owner.name), stream };
  }

  /** Who has sent it: the key of `reached`. */
  get address() {
    return this.#who;
  }

  /** How far the streams of the device will have arrived when the journal has written what it was given. */
  get reached() {
    return this.#in.positions();
  }

  /**
   * The journal has what has arrived, in its place.
   *
   * @param {Kept} kept
   */
  keptByJournal(kept) {
    this.#in.settled(kept);
  }
}
