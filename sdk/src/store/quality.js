/**
 * How well a connection with a peer runs: a grade, and what it is made of. Pure: time is an argument.
 *
 * The limits are for people who talk: ITU-T G.114 calls a delay of up to 150 ms in each direction good, and one of more
 * than 400 ms too long for most. The worst of three values decides:
 *
 * |                                      | good   | fair  | poor | lost                       |
 * |--------------------------------------|--------|-------|------|----------------------------|
 * | round-trip time                      | 0.3 s  | 0.8 s | more |                            |
 * | jitter of it                         | 0.05 s | 0.2 s | more |                            |
 * | heartbeats lost, of the last 20      | 1      | 4     | more |                            |
 * | nothing arrives, or there is no path |        |       |      | for 5 s, as the state says |
 *
 * A value that nothing has measured yet does not count. Loaded when it is used (`readings.js`).
 */

const ROUND_TRIP = [0.3, 0.8]; // seconds: twice what G.114 has for one direction
// Seconds. A player's buffer takes 50 ms; with 200 ms a call stutters, and somebody who types sees it.
const JITTER = [0.05, 0.2];
const LOST = [1, 4]; // of the last 20; one may be late because a program was busy
// Seconds. A channel loses nothing, it is late: by this, what was lost was sent again, or waits behind much else.
const LATE = 1.5;
/** @type {Grade[]} */
const GRADES = ['good', 'fair', 'poor'];
const SHORTEST = 0.25; // seconds; two readings that are closer together give the same rates
const LONGEST = 60; // seconds; a rate over more would say nothing of now

/** @import { Pulse } from '../peer/quality.js' */

/** @typedef {'good' | 'fair' | 'poor' | 'lost'} Grade */
/** @typedef {'' | 'round-trip-time' | 'jitter' | 'heartbeats' | 'no-path'} Reason what keeps a grade from being better */

/**
 * @param {{ connected: boolean, roundTripTime: number | null, jitter: number | null, lostHeartbeats: number }} measured
 * @returns {{ grade: Grade, reason: Reason }}
 */
export function gradeOf({ connected, roundTripTime, jitter, lostHeartbeats }) {
  if (!connected) return { grade: 'lost', reason: 'no-path' };
  /** @type {[number, Reason][]} */
  const ranks = [
    [rank(roundTripTime, ROUND_TRIP), 'round-trip-time'],
    [rank(jitter, JITTER), 'jitter'],
    [rank(lostHeartbeats, LOST), 'heartbeats'],
  ];
  const worst = Math.max(...ranks.map(([value]) => value));
  const reason = worst ? ranks.find(([value]) => value === worst)?.[1] : '';
  return { grade: GRADES[worst] ?? 'lost', reason: reason ?? '' };
}

/**
 * @param {number | null} value
 * @param {number[]} limits
 */
const rank = (value, limits) => (value === null ? 0 : limits.filter((limit) => value > limit).length);

/**
 * What the heartbeat has measured. `jitter`: seconds by which the last round trips differ from one to the next, on average.
 * `lostHeartbeats` of the last `heartbeats` PINGs got no PONG in time. In Python it is in `peer/quality`.
 *
 * @param {Pulse} pulse
 * @param {number} now
 */
export function measuredOf({ roundTripTime, samples, heartbeats }, now) {
  const [first = NaN, ...rest] = samples;
  let [before, sum] = [first, 0];
  for (const sample of rest) [before, sum] = [sample, sum + Math.abs(sample - before)];
  return {
    roundTripTime,
    jitter: rest.length ? sum / rest.length : null,
    lostHeartbeats: heartbeats.filter(({ sent, answered = now }) => answered - sent > LATE).length,
    heartbeats: heartbeats.length,
  };
}

/** Makes rates of counted bytes. */
export class Throughput {
  /** @type {[now: number, sent: number, received: number] | null} */
  #last = null;
  /** @type {[sent: number | null, received: number | null]} */
  #rates = [null, null];

  /**
   * Bytes a second since the measurement before: sent, received. Null for the first, and when the counters have begun
   * anew with another connection.
   *
   * @param {number} now
   * @param {number | null} sent
   * @param {number | null} received
   */
  measure(now, sent, received) {
    if (sent === null || received === null) {
      this.#last = null;
      return (this.#rates = [null, null]);
    }
    const [at, before, other] = this.#last ?? [NaN, 0, 0];
    const seconds = now - at;
    const isLater = seconds >= 0 && sent >= before && received >= other;
    if (isLater && seconds < SHORTEST) return this.#rates;
    this.#last = [now, sent, received];
    const isRate = isLater && seconds <= LONGEST;
    return (this.#rates = isRate ? [(sent - before) / seconds, (received - other) / seconds] : [null, null]);
  }
}
