/**
 * The sealed sessions with one device of a peer: which one counts, in what order messages come, and when to begin anew.
 *
 * Rules:
 * - Calls report what has happened, with the time. `flush` returns what to send. It seals nothing: what is received here
 *   was opened, and what is to be sent will be sealed by the caller.
 * - At most one session is current. A handshake of the other side that opens is from its running program, so it replaces
 *   the current session. Only where two handshakes cross, the one of the impolite side (its user id sorts later) stands:
 *   it begins once more, since its own may have been lost, and the other side takes that.
 * - Messages of a session are counted in both directions. A lower counter than the next one is a repetition and is
 *   dropped; a higher one shows that a message is missing, so the session is lost.
 * - Frames wait in a queue, and go together. At most `WINDOW_MESSAGES` messages and `WINDOW_BYTES` bytes of a session are
 *   on their way to the server.
 * - At most one handshake a second, and growing pauses while none is answered.
 * - What comes for a session that was left a moment ago is dropped. Anything else that cannot be opened is answered with
 *   `seal-unknown`, so that the other side begins anew.
 *
 * It does not know keys, addresses, or what a frame means. Sessions have names, which are texts here.
 *
 * @import { Bytes } from '../protocol/codec.js'
 */
import { limit } from './bounded.js';

// On their way to the server, which keeps no more for a recipient that is slow. On a line of 100 ms: 640 KB/s.
export const WINDOW_MESSAGES = 16;
export const WINDOW_BYTES = 64 * 1024;
// A session is renewed after so much. AES-GCM with one key is safe for 2^32 messages; forward secrecy asks for less.
export const RENEW_MESSAGES = 2 ** 20;
export const RENEW_BYTES = 2 ** 30;
export const RENEW_SECONDS = 3600;
// Seconds between two handshakes of ours: at least, and at most while none is answered.
export const SHORTEST_PAUSE = 1;
export const LONGEST_HANDSHAKE_PAUSE = 60;
// Seconds for which messages of a session that was left may still be on their way.
const LEFT_SECONDS = 5;
const MAX_LEFT = 8;

/**
 * What becomes of something that was received. `unknown`: answer with `seal-unknown`. `lost`: a message is missing, so
 * the session is over, and the answer is `seal-unknown`. `crossed`: their handshake crossed ours, which stands: begin
 * once more.
 *
 * @typedef {'taken' | 'dropped' | 'unknown' | 'lost' | 'crossed'} Verdict
 */

/**
 * A message to seal and send. `counter` is null for a handshake. `number` is for `delivered`.
 *
 * @typedef {{ number: number, session: string, counter: number | null, frames: Bytes[] }} Outgoing
 */

/**
 * @typedef {object} Session
 * @property {string} name
 * @property {boolean} ours We have sent the handshake, or will with the first frame.
 * @property {number} beganAt
 * @property {boolean} started Our handshake has left.
 * @property {boolean} answered Something has come in it.
 * @property {number} sent Frames messages of ours; so the next counter.
 * @property {number} received
 * @property {number} size Bytes of frames, both ways.
 * @property {Map<number, number>} flying Bytes of messages that the server has not confirmed.
 */

/** @param {string} name @param {boolean} ours @param {number} beganAt @returns {Session} */
const sessionOf = (name, ours, beganAt) => ({
  name,
  ours,
  beganAt,
  started: false,
  answered: !ours,
  sent: 0,
  received: 0,
  size: 0,
  flying: new Map(),
});

/** See the module. All times in seconds, all sizes in bytes. */
export class RelaySessions {
  #polite;
  /** @type {Session | null} */
  #current = null;
  /** @type {Map<string, number>} until when each is dropped silently */
  #left = new Map();
  /** @type {Bytes[]} */
  #frames = [];
  #waiting = 0; // bytes of `#frames`
  #numbers = 0;
  #failures = 0; // handshakes of ours in a row without an answer
  #insisted = false; // we began once more because two handshakes crossed

  /** @param {boolean} polite Our user id sorts first, so the other side's handshake stands when two cross. */
  constructor(polite) {
    this.#polite = polite;
  }

  // --- queries -----------------------------------------------------------------------------------------------------

  /** When the next handshake may be sent. */
  notBefore = 0;

  /** The name of the current session. */
  get session() {
    return this.#current?.name ?? null;
  }

  /** Whether the other side has said something in the current session. */
  get answered() {
    return this.#current?.answered ?? false;
  }

  /** Whether the server has not taken all that was sent. */
  get unconfirmed() {
    return !!this.#current?.flying.size;
  }

  /** How many bytes of frames may be queued now. */
  get room() {
    let flying = 0;
    for (const size of this.#current?.flying.values() ?? []) flying += size;
    return WINDOW_BYTES - flying - this.#waiting;
  }

  /** Whether a handshake may be sent now. @param {number} now */
  mayBegin(now) {
    return now >= this.notBefore;
  }

  /** Whether the next frame should begin a new session. @param {number} now */
  renewalDue(now) {
    const current = this.#current;
    return (
      !!current &&
      (current.sent + current.received >= RENEW_MESSAGES ||
        current.size >= RENEW_BYTES ||
        now - current.beganAt >= RENEW_SECONDS)
    );
  }

  /** When the keys of the current session have to be forgotten, whether there is another one by then or not. */
  get expires() {
    return (this.#current?.beganAt ?? Infinity) + RENEW_SECONDS;
  }

  // --- from this side ----------------------------------------------------------------------------------------------

  /** Make a session of ours the current one. The first `flush` sends its handshake. @param {string} session @param {number} now */
  begin(session, now) {
    this.#leave(now);
    this.#current = sessionOf(session, true, now);
    this.#failures++;
    this.#wait(now, 0);
  }

  /** Send a frame of the current session with the next `flush`. @param {Bytes} frame */
  queue(frame) {
    this.#frames.push(frame);
    this.#waiting += frame.length;
  }

  /**
   * What can be sent now. A message has at most `most` bytes of frames, each with `perFrame` bytes more, or one frame.
   *
   * @param {number} most
   * @param {number} [perFrame]
   * @returns {Outgoing[]}
   */
  flush(most, perFrame = 4) {
    const current = this.#current;
    /** @type {Outgoing[]} */
    const messages = [];
    if (!current) return messages;
    while (this.#frames.length && current.flying.size < WINDOW_MESSAGES) {
      let size = 0;
      let count = 0;
      for (const { length } of this.#frames) {
        if (count && size + length + perFrame > most) break;
        size += length + perFrame;
        count++;
      }
      const frames = this.#frames.splice(0, count);
      this.#waiting -= size - count * perFrame;
      const counter = current.started || !current.ours ? current.sent++ : null;
      current.started = true;
      current.size += size;
      current.flying.set(++this.#numbers, size);
      messages.push({ number: this.#numbers, session: current.name, counter, frames });
    }
    return messages;
  }

  /** The server has taken a message. @param {number} number */
  delivered(number) {
    this.#current?.flying.delete(number);
  }

  /**
   * The server has not taken a message, or that is not known. True when the session is lost by that: the other side
   * would find a gap.
   *
   * @param {number} number
   * @param {number} now
   * @param {number} [pause]
   */
  undelivered(number, now, pause = 0) {
    if (!this.#current?.flying.has(number)) return false;
    this.lose(now, pause);
    return true;
  }

  /** The current session is over. The next one may begin in `pause` seconds at the earliest. @param {number} now @param {number} [pause] */
  lose(now, pause = 0) {
    this.#drop();
    this.#wait(now, pause);
  }

  /** The current session is not needed any more: there is a direct path. @param {number} now */
  leave(now) {
    this.#leave(now);
    this.#failures = 0;
  }

  /** There is a reason to try again at once: the other side has registered anew, or we have. */
  returned() {
    this.#failures = 0;
    this.notBefore = 0;
  }

  // --- from the other side -----------------------------------------------------------------------------------------

  /**
   * A handshake has been opened, whose session was not seen before.
   *
   * @param {string} session
   * @param {number} now
   * @returns {Verdict}
   */
  handshakeReceived(session, now) {
    const current = this.#current;
    if (current?.ours && !current.answered && !this.#polite) {
      if (this.#insisted) return 'dropped';
      this.#insisted = true;
      return 'crossed';
    }
    this.#leave(now);
    this.#current = sessionOf(session, false, now);
    this.#succeeded();
    return 'taken';
  }

  /** Whether a message of this session can be opened. @param {string} session */
  knows(session) {
    return this.#current?.name === session;
  }

  /**
   * What becomes of a message of a session that is not current.
   *
   * @param {string} session
   * @param {number} now
   * @returns {Verdict}
   */
  stray(session, now) {
    return now < (this.#left.get(session) ?? now) ? 'dropped' : 'unknown';
  }

  /**
   * A message of the current session has been opened, with `size` bytes of frames.
   *
   * @param {number} counter
   * @param {number} size
   * @param {number} now
   * @returns {Verdict}
   */
  framesReceived(counter, size, now) {
    const current = this.#current;
    if (!current || counter < current.received) return 'dropped';
    if (counter > current.received) {
      this.lose(now);
      return 'lost';
    }
    current.received++;
    current.size += size;
    current.answered = true;
    this.#succeeded();
    return 'taken';
  }

  /**
   * The other side says that it cannot open a session, or does not want it now. True when it was the current one, which
   * is over.
   *
   * @param {string} session
   * @param {number} now
   * @param {number} [pause]
   */
  refused(session, now, pause = 0) {
    if (!this.knows(session)) return false;
    this.lose(now, pause);
    return true;
  }

  // --- internal ----------------------------------------------------------------------------------------------------

  #succeeded() {
    this.#failures = 0;
    this.#insisted = false;
  }

  /** @param {number} now @param {number} pause */
  #wait(now, pause) {
    const backoff = Math.min(SHORTEST_PAUSE * 2 ** Math.max(this.#failures - 1, 0), LONGEST_HANDSHAKE_PAUSE);
    this.notBefore = Math.max(this.notBefore, now + pause, this.#failures ? now + backoff : 0);
  }

  /** What still comes in the current session was sent before the other side knew of the next one. @param {number} now */
  #leave(now) {
    if (this.#current) {
      const { name } = this.#current;
      this.#left.delete(name);
      this.#left.set(name, now + LEFT_SECONDS);
      limit(this.#left, MAX_LEFT);
    }
    this.#drop();
  }

  #drop() {
    this.#current = null;
    this.#frames = [];
    this.#waiting = 0;
  }
}
