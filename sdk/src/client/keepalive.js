/**
 * Detects a dead connection to the server (docs/protocol.md, "Heartbeat").
 *
 * A browser does not show WebSocket pings to a page. So after a silence the client sends the protocol's `ping`. If the
 * silence goes on, the connection is dead.
 *
 * A page that sleeps (closed lid, throttled tab) looks at its clock late, while the answer may be waiting unread. So if
 * a look comes `LATE` seconds after its time, the client asks once more, and only the second silence counts.
 */

// Seconds.
export const SILENCE = 25;
export const PATIENCE = 10;
const LATE = 5;

/** Measures the silence on one connection; times are in seconds. */
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
   * Return what to do: 'ask' comes once for each silence, and once more after a late look.
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

  /** Ask at the next look, unless that was done already. @param {number} now */
  doubt(now) {
    if (!this.#asked) this.deadline = now;
  }
}
