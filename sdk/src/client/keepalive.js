/**
 * Detects a dead connection to the server (docs/protocol.md, "Heartbeat").
 *
 * A browser does not show WebSocket pings to a page. So after a silence the client sends the protocol's `ping`. If the
 * silence goes on, the connection is dead.
 *
 * A page that sleeps (closed lid, throttled tab) looks at its clock late, while the answer may be waiting unread. So if
 * a look comes `LATE` seconds after its time, the client asks once more, and only the second silence counts.
 *
 * Others may know earlier that the server may be gone: the path to a peer is lost, the network has changed, the machine
 * has slept. Then `suspect` asks at once, and is less patient. A mistake costs a new connection that resumes the session.
 */

// Seconds.
export const SILENCE = 25;
export const PATIENCE = 10;
const LATE = 5;
/** Seconds for an answer when the path to a peer is lost: a slow line answers within that, also after a lost packet. */
export const SUSPICION = 3;
/** Seconds for an answer when the network has changed: then the connection is dead more often than not. */
export const CHANGE = 1.5;

/** Measures the silence on one connection; times are in seconds. */
export class Keepalive {
  /** When to look again. */
  deadline = 0;
  /** Seconds for the answer to the next question, or to the one that is asked. */
  patience = PATIENCE;
  #asked = 0;

  /** @param {number} now */
  constructor(now) {
    this.heard(now);
  }

  /** Something has come. @param {number} now */
  heard(now) {
    this.#asked = 0;
    this.patience = PATIENCE;
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
    this.deadline = now + this.patience;
    return 'ask';
  }

  /**
   * The connection may be dead: ask at the next look, and wait so many seconds. A question that is asked already is not
   * asked again, but its answer has no more time than that.
   *
   * @param {number} now
   * @param {number} patience
   */
  suspect(now, patience) {
    this.patience = Math.min(this.patience, patience);
    this.deadline = Math.min(this.deadline, this.#asked ? now + patience : now);
  }
}
