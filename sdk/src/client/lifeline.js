/**
 * Is there still somebody at the other end? (docs/protocol.md, "Heartbeat")
 *
 * Whatever comes counts as life. A browser does not show us WebSocket's pings, so after a silence the client asks with a
 * `ping` of the protocol; silence after that means that the connection is dead.
 *
 * A page that sleeps (closed lid, throttled tab) looks at its clock late, while the answer may lie unread beside it. So a
 * look that comes much too late asks once more; only the second silence counts.
 */

/** Seconds. */
export const SILENCE = 25;
/** Seconds. */
export const PATIENCE = 10;
// Seconds. A timer that is so late says something about us, not about the server.
const LATE = 5;

/** The silence on one connection; times are in seconds. */
export class Lifeline {
  #heardAt;
  /** @type {number | null} */
  #askedAt = null;
  #again = false;

  /** @param {number} now */
  constructor(now) {
    this.#heardAt = now;
  }

  /** Something has come. @param {number} now */
  heard(now) {
    this.#heardAt = now;
    this.#askedAt = null;
    this.#again = false;
  }

  /** When to look again. */
  get deadline() {
    return this.#askedAt === null ? this.#heardAt + SILENCE : this.#askedAt + PATIENCE;
  }

  /** There is a reason to ask before the time; false when it has been asked already. @param {number} now */
  doubt(now) {
    if (this.#askedAt !== null) return false;
    this.#askedAt = now;
    return true;
  }

  /**
   * Say what to do about the silence; 'ask' is said once for each, or twice.
   *
   * @param {number} now
   * @returns {'wait' | 'ask' | 'dead'}
   */
  look(now) {
    const late = now - this.deadline;
    if (late < 0) return 'wait';
    if (this.#askedAt !== null) {
      if (late < LATE || this.#again) return 'dead';
      this.#again = true;
    }
    this.#askedAt = now;
    return 'ask';
  }
}
