/**
 * Is there still somebody at the other end? (docs/protocol.md, "Heartbeat")
 *
 * A browser does not show us WebSocket's pings, so after a silence the client asks with a `ping` of the protocol; silence
 * after that means that the connection is dead.
 *
 * A page that sleeps (closed lid, throttled tab) looks at its clock late, while the answer may lie unread beside it. So a
 * look that comes `LATE` seconds after its time asks once more; only the second silence counts.
 */

// Seconds.
export const SILENCE = 25;
export const PATIENCE = 10;
const LATE = 5;

/** The silence on one connection; times are in seconds. */
export class Keepalive {
  /** When to look again. */
  deadline = 0;
  #asked = 0;

  /** @param {number} now */
  constructor(now) {
    this.heard(now);
  }

  /** Something has come. @param {number} now */
  heard(now) {
    this.#asked = 0;
    this.deadline = now + SILENCE;
  }

  /**
   * Say what to do; 'ask' is said once for each silence, and once more after a late look.
   *
   * @param {number} now
   * @returns {'wait' | 'ask' | 'dead'}
   */
  look(now) {
    const late = now - this.deadline;
    if (late < 0) return 'wait';
    if (this.#asked > 1 || (this.#asked && late < LATE)) return 'dead';
    this.#asked++;
    this.deadline = now + PATIENCE;
    return 'ask';
  }

  /** There is a reason to ask at the next look, unless that is done already. @param {number} now */
  doubt(now) {
    if (!this.#asked) this.deadline = now;
  }
}
