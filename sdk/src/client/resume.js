/**
 * Counts what the server has sent, so that a lost connection can be resumed (docs/protocol.md, "Resume").
 *
 * Both sides count the relayed and presence messages of a session; no number goes over the wire. The server keeps what
 * the client has not confirmed, within limits: by default 256 messages and 256 KiB. So the client may confirm seldom,
 * if it stays within these limits.
 */

// An eighth of what a server keeps by default, so that messages that are on their way fit beside them.
const MOST_MESSAGES = 32;
const MOST_CHARACTERS = 32 * 1024;
// Seconds after the first of a few messages at which they are confirmed.
const MOST_SECONDS = 2;

/** The count of one session, and when to tell it to the server. Nothing is counted that cannot be resumed. */
export class ResumeCounter {
  /** The number of numbered messages that were processed in this session. */
  count = 0;
  /** The latest time to confirm the count; Infinity when there is nothing to confirm. */
  deadline = Infinity;
  #confirmed = 0;
  #characters = 0;
  #session = '';
  #secret = '';

  /** @param {string} [session] Without a name or a secret, the session cannot be resumed. @param {string} [secret] */
  constructor(session = '', secret = '') {
    this.resumed(session, secret);
  }

  /** What a registration shows to resume this session; undefined when that is not possible. */
  get ticket() {
    return this.#resumable ? { session: this.#session, secret: this.#secret, received: this.count } : undefined;
  }

  get #resumable() {
    return this.#session && this.#secret;
  }

  /** The session goes on on a new connection; the ticket has confirmed the count. @param {string} session @param {string} secret */
  resumed(session, secret) {
    this.#session = session;
    this.#secret = secret;
    this.confirmed();
  }

  /** Count a processed message of `size` characters. Returns whether to confirm at once. @param {number} size @param {number} now */
  processed(size, now) {
    if (!this.#resumable) return false;
    this.count++;
    this.#characters += size;
    this.deadline = Math.min(this.deadline, now + MOST_SECONDS);
    return this.count - this.#confirmed >= MOST_MESSAGES || this.#characters >= MOST_CHARACTERS;
  }

  /** The server knows `count`, from a `received` or from the ticket of a resumed session. */
  confirmed() {
    this.#confirmed = this.count;
    this.#characters = 0;
    this.deadline = Infinity;
  }
}
