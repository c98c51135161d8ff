/**
 * What one program takes from those who begin sealed sessions with it, whoever they are.
 *
 * Rules:
 * - A session is taken once for each of our seal keys: a server that repeats a handshake achieves nothing. The table of
 *   a key has room for `MAX_SESSIONS`. When it is `full`, no more handshakes to this key are taken, and a new key is due.
 * - A sender has `MAX_HANDSHAKES` handshakes in `WINDOW_SECONDS`, as with offers: each costs a key agreement and a check
 *   of a signature.
 * - A sender is told at most once in `ANSWER_SECONDS` that a session could not be opened, and so of at most `MAX_ANSWERS`
 *   sessions. A sender whose handshake crossed another one begins twice at once, and needs to hear of the second one.
 * - The names of senders come from the server, so at most `MAX_SENDERS` are remembered.
 * - Messages that wait to be opened have at most `MAX_WAITING_BYTES` in all, and those of one user `MAX_USER_BYTES`. So
 *   one user leaves room for the others. A larger message waits when nothing else of its user does.
 *
 * Pure: time is an argument. Keys and sessions are texts here.
 */
import { limit } from './bounded.js';

export const MAX_SESSIONS = 4096; // of 22 characters each
export const MAX_KEYS = 4; // ours, the newest ones
export const MAX_HANDSHAKES = 10;
export const WINDOW_SECONDS = 10;
export const ANSWER_SECONDS = 1;
export const MAX_ANSWERS = 4;
export const MAX_SENDERS = 1024;
export const MAX_WAITING_BYTES = 4 * 1024 * 1024;
export const MAX_USER_BYTES = 256 * 1024; // what a server lets one user send to another at once
export const MESSAGE_COST = 1024; // bytes that a waiting message takes beside itself, rounded up

/** @typedef {{ handshakes: number[], answers: Map<string, number> }} Sender `answers`: when, by session. */

/** See the module. */
export class RelayGuard {
  /** @type {Map<string, Sender>} the one heard from last is the last */
  #senders = new Map();
  /** @type {Map<string, Set<string>>} sessions, by our seal key */
  #seen = new Map();
  /** @type {Map<string, number>} bytes, by user */
  #waiting = new Map();
  #waitingBytes = 0;

  /** Whether a message of `size` bytes may wait to be opened. Counts it until `release`. @param {string} userId @param {number} size */
  hold(userId, size) {
    const cost = size + MESSAGE_COST;
    const mine = this.#waiting.get(userId) ?? 0;
    if (this.#waitingBytes + cost > MAX_WAITING_BYTES || (mine && mine + cost > MAX_USER_BYTES)) return false;
    this.#waiting.set(userId, mine + cost);
    this.#waitingBytes += cost;
    return true;
  }

  /** A message of a user does not wait any more. @param {string} userId @param {number} size */
  release(userId, size) {
    const cost = size + MESSAGE_COST;
    const left = (this.#waiting.get(userId) ?? 0) - cost;
    this.#waitingBytes -= cost;
    if (left) this.#waiting.set(userId, left);
    else this.#waiting.delete(userId);
  }

  /**
   * Count a handshake of a sender. 0 when it may be opened, else in how many seconds the next one may come.
   *
   * @param {string} sender
   * @param {number} now
   */
  pause(sender, now) {
    const { handshakes } = this.#sender(sender);
    const [first = 0] = handshakes;
    if (handshakes.length === MAX_HANDSHAKES) {
      if (now - first < WINDOW_SECONDS) return WINDOW_SECONDS - (now - first);
      handshakes.shift();
    }
    handshakes.push(now);
    return 0;
  }

  /**
   * Whether to tell a sender now that a session could not be opened. Counts the answer.
   *
   * @param {string} sender
   * @param {string} session
   * @param {number} now
   */
  mayAnswer(sender, session, now) {
    const { answers } = this.#sender(sender);
    for (const [each, at] of answers) if (now - at >= ANSWER_SECONDS) answers.delete(each);
    if (answers.has(session) || answers.size === MAX_ANSWERS) return false;
    answers.set(session, now);
    return true;
  }

  /** Whether this session has begun before with this key of ours. @param {string} sealKey @param {string} session */
  seen(sealKey, session) {
    return !!this.#seen.get(sealKey)?.has(session);
  }

  /** Whether no more sessions can be remembered for this key of ours. @param {string} sealKey */
  full(sealKey) {
    return (this.#seen.get(sealKey)?.size ?? 0) >= MAX_SESSIONS;
  }

  /**
   * Remember a session that begins. Only one that its sender has signed, so that nobody else can fill the table.
   *
   * @param {string} sealKey
   * @param {string} session
   */
  take(sealKey, session) {
    const sessions = this.#seen.get(sealKey) ?? new Set();
    this.#seen.set(sealKey, sessions.add(session));
    limit(this.#seen, MAX_KEYS);
  }

  /** @param {string} sender */
  #sender(sender) {
    /** @type {Sender} */
    const entry = this.#senders.get(sender) ?? { handshakes: [], answers: new Map() };
    this.#senders.delete(sender);
    this.#senders.set(sender, entry);
    limit(this.#senders, MAX_SENDERS);
    return entry;
  }
}
