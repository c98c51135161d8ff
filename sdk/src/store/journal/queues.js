/**
 * The outbox and the inbox of a stream that a journal keeps.
 *
 * Rules of this module:
 *
 * - A number is used on a channel only when the journal has it (`stored`): a number that was sent and is not in the journal
 *   would be given to another message after a restart, and the peer would skip that one.
 * - A peer that has more of our stream than was ever sent, as far as we know, shows that the journal was put back to an
 *   earlier state.
 * - What has arrived is handed over when the journal has it. What is being stored stays, whatever becomes of its stream.
 *
 * Pure: no I/O, no clock. It does not know what a journal is.
 */
import { ProtocolViolation } from '../../errors.js';
import * as Content from '../../protocol/kinds.js';
import { Inbox } from '../messages/inbox.js';
import { isVoid, Outbox, VOID } from '../messages/outbox.js';

/** @import { StreamPosition } from '../../protocol/channel.js' */
/** @import { Queued } from '../messages/outbox.js' */

export class JournalOutbox extends Outbox {
  /** The newest message that the journal has. */
  stored = 0;
  /** Nothing behind this number is sent: the journal has that no earlier run has sent it. */
  most = Infinity;

  /**
   * The outbox as a journal has it; all of it may have been sent, but for what is behind `sent`.
   *
   * @param {string} stream
   * @param {Map<number, Queued>} messages By number, in order; at least one.
   * @param {number} last The highest number that may have been used.
   * @param {number} [sent]
   */
  static restored(stream, messages, last, sent = Infinity) {
    const outbox = new JournalOutbox(stream);
    const numbers = [...messages.keys()];
    outbox.acknowledged = /** @type {number} */ (numbers[0]) - 1;
    for (let number = outbox.last + 1; number <= Math.max(last, /** @type {number} */ (numbers.at(-1))); number++) {
      // What is missing was said by one program to another, or was withdrawn: nobody needs it.
      const { content, data } = messages.get(number) ?? VOID;
      outbox.put(content, data);
    }
    outbox.stored = outbox.last;
    outbox.newestSent = Math.min(outbox.last, Math.max(sent, outbox.acknowledged));
    outbox.closed();
    return outbox;
  }

  /**
   * Whether the other side has more of this stream than was ever sent.
   *
   * @param {StreamPosition | null} received
   */
  isBehind(received) {
    return received?.stream === this.stream && received.sequence > this.newestSent;
  }

  /**
   * No HELLO skips what was taken back: until the journal knows that, the next run of the program would take it for
   * received.
   *
   * @override
   * @param {readonly number[]} numbers
   */
  withdraw(numbers) {
    return super.withdraw(numbers, false);
  }

  /** @override */
  nextFrame() {
    return this.current > Math.min(this.stored, this.most) ? null : super.nextFrame();
  }

  /**
   * Take out the messages behind `number`, none of which was sent.
   *
   * @param {number} number
   * @returns {[number: number, message: Queued][]}
   */
  cut(number) {
    const taken = [...this.unacknowledged].filter(([each]) => each > number);
    for (const [each, message] of taken) {
      this.unacknowledged.delete(each);
      this.count(message, -1);
    }
    return taken;
  }

  /** What is neither acknowledged nor void. @returns {[number: number, message: Queued][]} */
  get rest() {
    return [...this.unacknowledged].filter(([, message]) => !isVoid(message));
  }
}

/** @typedef {{ stream: { name: string, handedOver: number }, to: number }} Kept What is being stored. */

export class JournalInbox extends Inbox {
  /** What is being stored, in order. @type {Kept[]} */
  #kept = [];
  /** What our last HELLO says. @type {StreamPosition | null} */
  told = null;

  /**
   * @override
   * @param {Parameters<Inbox['opened']>[0]} hello
   * @throws {ProtocolViolation} if the sender may take numbers for new ones that have come already: it has an older
   *   journal, and our HELLO did not name them. The next one does, at the latest when the journal has what is kept.
   */
  opened(hello) {
    const { told, run } = this;
    const known = this.streams.find(({ name }) => name === hello.stream);
    let unknown = false;
    if (known && told && told.stream !== known.name) {
      unknown = known.handedOver >= hello.next;
    } else if (known && run && run !== hello.run) {
      unknown = this.#kept.some(({ stream }) => stream === known) || (told?.sequence ?? Infinity) < known.handedOver;
    }
    super.opened(hello);
    if (!unknown) return;
    this.run = run;
    this.closed();
    throw new ProtocolViolation('our HELLO has not named all that has come of this stream');
  }

  /**
   * The first message is being stored; what it counts for is acknowledged when it is `settled`.
   *
   * @override
   * @returns {Kept}
   */
  take() {
    const { stream } = this;
    const { handedOver } = stream;
    super.take();
    const kept = { stream, to: stream.handedOver };
    stream.handedOver = handedOver;
    this.#kept.push(kept);
    return kept;
  }

  /**
   * It is stored, and so is all before it.
   *
   * @param {Kept} kept
   */
  settled(kept) {
    this.#kept.splice(this.#kept.indexOf(kept), 1);
    kept.stream.handedOver = Math.max(kept.stream.handedOver, kept.to);
  }

  /** @override */
  letGo() {
    super.letGo();
    this.stream.arrived = this.#reached(this.stream);
  }

  /** How far each stream will have arrived, with what is being stored. @returns {StreamPosition[]} */
  positions() {
    return this.streams.map((stream) => ({ stream: stream.name, sequence: this.#reached(stream) }));
  }

  /** @param {Kept['stream']} stream */
  #reached(stream) {
    return this.#kept.reduce(
      (most, { stream: other, to }) => (other === stream ? Math.max(most, to) : most),
      stream.handedOver,
    );
  }
}

/** @param {Queued} message */
export const isControl = ({ content }) => content === Content.CONTROL;
