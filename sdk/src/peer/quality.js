/**
 * The quality of a path: its round-trip time, and whether anything arrives. Pure: time is an argument.
 *
 * A PING's token is the sender's clock in microseconds, and its PONG returns it. Any frame is a sign of life, so a
 * heavy transfer, behind which PONGs queue up, does not look like a dead path.
 *
 * A PING costs both engines as much as a message. So a side sends one only after a silence, as late as possible while a
 * second try still fits before the path counts as lost. A PING and its PONG are a sign of life for both sides, and the
 * sides take turns: the side that has sent the last PING leaves the next one to the other.
 */

import { limit } from './attempts.js';

// A median of few samples forgets a slow start at once, and a single late PONG does not change it. (The smoothing of
// RFC 6298 is for one sample in each round trip.)
const SAMPLES = 5;
const MICROSECONDS = 1e6;
const MAX_OUTSTANDING = 16; // PINGs without a PONG; by then the path counts as lost

// The share of the time until a path counts as lost that is left for a PING, for its repetition when it gets lost, and
// for its PONG. Added to it are so many round trips.
const RESERVE = 0.25;
const ROUND_TRIPS = 3;
const YIELD = 0.4; // seconds for which the other side may send the next PING first
const REFRESH = 10; // seconds; the interval at which the round-trip time is measured, even if no PING would be due

/** Tracks the signs of life of one channel. All times in seconds. */
export class Quality {
  #silence;
  #heardAt = 0;
  /** @type {number[]} */
  #samples = [];
  /** @type {Set<bigint>} the tokens of the PINGs without an answer */
  #outstanding = new Set();
  #heartbeat;
  #pingedAt = -Infinity;
  #yields = false; // the last PING was ours

  /**
   * @param {number} silence without any frame, after which the path counts as lost
   * @param {number} [heartbeat] the least time between PINGs
   */
  constructor(silence, heartbeat = 1.5) {
    this.#silence = silence;
    this.#heartbeat = heartbeat;
  }

  /**
   * The token for a PING that is sent now.
   *
   * @param {number} now
   */
  ping(now) {
    this.#pingedAt = now;
    this.#yields = true;
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
   * A PING has arrived: the next one is ours. When two cross, the one with the larger token does not count, or they
   * would cross for ever.
   *
   * @param {bigint} token
   */
  pinged(token) {
    const ours = [...this.#outstanding].pop();
    this.#yields = ours !== undefined && ours > token;
  }

  /**
   * Seconds until a PING is due if nothing arrives.
   *
   * @param {number} now
   */
  pingIn(now) {
    let quiet = this.#heartbeat;
    const usual = this.roundTripTime;
    if (usual !== null) {
      // When PONGs come late, send PINGs early.
      quiet = Math.max(quiet, this.#silence * (1 - RESERVE) - ROUND_TRIPS * usual);
      if (this.#yields) quiet += Math.min(YIELD, this.#heartbeat);
    }
    const due = Math.min(this.#heardAt + quiet, this.#pingedAt + REFRESH);
    return Math.max(due - now, this.#pingedAt + this.#heartbeat - now, 0);
  }

  /**
   * A PONG has arrived; ignored when its token is not ours, or comes a second time.
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
   * Seconds until the path counts as lost if nothing arrives; 0 when it does.
   *
   * @param {number} now
   */
  silentIn(now) {
    return Math.max(this.#heardAt + this.#silence - now, 0);
  }
}
