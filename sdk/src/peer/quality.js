/**
 * How well a path works: its round-trip time, and whether anything comes through at all. Pure: time is an argument.
 *
 * A PING's token is the sender's clock in microseconds, and its PONG brings it back. Any frame counts as a sign of life,
 * so that a heavy transfer, behind which PONGs queue up, does not look like a dead path.
 */

import { limit } from './links.js';

// A median of few forgets a slow start at once, and is not led astray by a single late PONG. (The smoothing of RFC 6298
// is made for a sample every round trip.)
const SAMPLES = 5;
const MICROSECONDS = 1e6;
const MAX_OUTSTANDING = 16; // PINGs without a PONG; by then the path counts as lost

/** The signs of life of one channel. All times in seconds. */
export class Quality {
  #silence;
  #heardAt = 0;
  /** @type {number[]} */
  #samples = [];
  /** @type {Set<bigint>} the tokens of the PINGs that nobody has answered yet */
  #outstanding = new Set();

  /** @param {number} silence without any frame, after which the path counts as lost */
  constructor(silence) {
    this.#silence = silence;
  }

  /**
   * The token of the PING that is sent now.
   *
   * @param {number} now
   */
  ping(now) {
    const token = BigInt(Math.trunc(now * MICROSECONDS));
    this.#outstanding.add(token);
    limit(this.#outstanding, MAX_OUTSTANDING);
    return token;
  }

  /**
   * A frame has arrived.
   *
   * @param {number} now
   */
  heard(now) {
    this.#heardAt = now;
  }

  /**
   * A PONG has arrived; a token that is not ours, or comes a second time, tells nothing.
   *
   * @param {bigint} token
   * @param {number} now
   */
  ponged(token, now) {
    if (!this.#outstanding.delete(token)) return;
    this.#samples = [...this.#samples, Math.max(now - Number(token) / MICROSECONDS, 0)].slice(-SAMPLES);
  }

  /** The median of the last measurements; null before the first. */
  get roundTripTime() {
    const sorted = [...this.#samples].sort((one, other) => one - other);
    const last = sorted.length - 1;
    return last < 0 ? null : (Number(sorted[last >> 1]) + Number(sorted[(last + 1) >> 1])) / 2;
  }

  /**
   * Seconds until the path counts as lost if nothing comes; 0 when it does.
   *
   * @param {number} now
   */
  silentIn(now) {
    return Math.max(this.#heardAt + this.#silence - now, 0);
  }
}
