/**
 * Counting what the server has sent, so that a lost connection can be resumed (docs/protocol.md, "Resume").
 *
 * Both sides count the relayed and presence messages of a session; no number goes over the wire. The server keeps what
 * the client has not confirmed, within bounds. So confirming seldom costs little, as long as it is often enough for those
 * bounds: the defaults of a server are 256 messages and 256 KiB.
 */

// An eighth of what a server keeps by default, so that messages that are on their way fit beside them.
const MOST_MESSAGES = 32;
const MOST_CHARACTERS = 32 * 1024;
// Seconds. A trickle of messages is confirmed so long after the first of them.
const MOST_SECONDS = 2;

/** The count of one session, and whether it is time to tell the server. What cannot be resumed is not counted. */
export class ResumeCounter {
  /** How many numbered messages have been processed since the session began. */
  count = 0;
  /** When the count has to be confirmed at the latest; Infinity when there is nothing to confirm. */
  deadline = Infinity;
  #confirmed = 0;
  #characters = 0;
  #session = '';
  #secret = '';

  /** @param {string} [session] Without a name or a secret it cannot be resumed. @param {string} [secret] */
  constructor(session = '', secret = '') {
    this.resumed(session, secret);
  }

  /** What a registration shows to go on with this session; undefined when that is not possible. */
  get ticket() {
    return this.#resumable ? { session: this.#session, secret: this.#secret, received: this.count } : undefined;
  }

  get #resumable() {
    return this.#session && this.#secret;
  }

  /** The session goes on on a new connection, to which the ticket has told the count. @param {string} session @param {string} secret */
  resumed(session, secret) {
    this.#session = session;
    this.#secret = secret;
    this.confirmed();
  }

  /** One more has been processed, of `size` characters. Tells whether to confirm at once. @param {number} size @param {number} now */
  processed(size, now) {
    if (!this.#resumable) return false;
    this.count++;
    this.#characters += size;
    this.deadline = Math.min(this.deadline, now + MOST_SECONDS);
    return this.count - this.#confirmed >= MOST_MESSAGES || this.#characters >= MOST_CHARACTERS;
  }

  /** The server has been told `count`: by a `received`, or by the ticket of a resumed session. */
  confirmed() {
    this.#confirmed = this.count;
    this.#characters = 0;
    this.deadline = Infinity;
  }
}
