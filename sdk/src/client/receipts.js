/**
 * Counting what the server has sent, so that a lost connection can be resumed (docs/protocol.md, "Resume").
 *
 * Both sides count the relayed and presence messages of a session; no number goes over the wire. The server keeps what
 * the client has not confirmed, by default 256 messages and 256 KiB. An eighth of that leaves room for what is on its way.
 */
const MOST_MESSAGES = 32;
const MOST_CHARACTERS = 32 * 1024;
// A trickle of messages is confirmed this many seconds after the first of them.
const MOST_SECONDS = 2;

/** The count of one session, and whether it is time to tell the server. */
export class Receipts {
  /** How many numbered messages have been processed since the session began. */
  count = 0;
  /** When the count has to be confirmed at the latest; Infinity when there is nothing to confirm. */
  deadline = Infinity;
  #confirmed = 0;
  #characters = 0;

  /**
   * One more has been processed.
   *
   * @param {number} size Its characters.
   * @param {number} now Seconds.
   * @returns {boolean} Whether to confirm at once.
   */
  processed(size, now) {
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
