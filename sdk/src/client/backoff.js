/**
 * How long to wait before the next attempt: exponential, with full jitter.
 *
 * After Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): the wait is drawn evenly from zero
 * to a ceiling that grows with each attempt, which spreads the clients of a server that restarts best.
 *
 * Pure: the random number is an argument, and who counts the attempts is `client/machine.js`.
 */
import { ConfigError } from '../errors.js';

/**
 * @typedef {object} BackoffOptions
 * @property {number} [first] The ceiling of the first wait, in seconds. 0.5
 * @property {number} [factor] By how much the ceiling grows with each attempt. 2
 * @property {number} [most] The highest ceiling, in seconds. 30
 * @property {number | null} [attempts] After so many attempts in a row the client gives up. null: never
 * @property {number} [settled] A connection that has stood for so many seconds starts the count anew. One that is lost
 *   sooner counts as a failure, or a server that throws its clients out at once would be knocked at for ever. 10
 */

/**
 * A setting that has to be a number, from `least` up; throws `ConfigError`.
 *
 * @param {string} setting
 * @param {number} value
 * @param {number} [least]
 */
export function checkNumber(setting, value, least = 0) {
  if (!(value >= least && value < Infinity)) throw new ConfigError(setting, `${value} is out of range`);
  return value;
}

/** The rule by which somebody tries again; times in seconds. */
export class Backoff {
  /** @param {BackoffOptions} [options] Also another `Backoff`. Throws `ConfigError` for values that make no sense. */
  constructor({ first = 0.5, factor = 2, most = 30, attempts = null, settled = 10 } = {}) {
    /** @readonly */
    this.first = checkNumber('backoff.first', first);
    /** @readonly */
    this.factor = checkNumber('backoff.factor', factor, 1);
    /** @readonly */
    this.most = checkNumber('backoff.most', most, first);
    /** @readonly */
    this.attempts = attempts === null ? null : checkNumber('backoff.attempts', attempts);
    /** @readonly */
    this.settled = checkNumber('backoff.settled', settled);
  }

  /**
   * The wait before an attempt, in seconds.
   *
   * @param {number} attempt Counts from 1.
   * @param {number} random Evenly from 0 to 1.
   */
  delay(attempt, random) {
    // `first` of 0 by itself: later factors are Infinity, and 0 times that is NaN.
    return this.first && random * Math.min(this.most, this.first * this.factor ** (attempt - 1));
  }
}

/** The attempts that one client makes in a row, and when the next one is due. Times are in seconds. */
export class Retries {
  /** How many attempts since a connection last stood long enough; the one that is due included. */
  attempts = 0;
  /** When the next attempt is due. */
  due = 0;
  /** The server wants to be left alone until then. */
  notBefore = 0;
  #backoff;
  #earliest = 0;

  /** @param {Backoff} backoff */
  constructor(backoff) {
    this.#backoff = backoff;
  }

  /** There may be no further attempt. */
  get exhausted() {
    const { attempts } = this.#backoff;
    return attempts !== null && this.attempts >= attempts;
  }

  /** @param {number} seconds A connection is gone that had been of use for so long. */
  stood(seconds) {
    if (seconds >= this.#backoff.settled) this.attempts = 0;
  }

  /**
   * Set the time of the next attempt; returns how long it is until then.
   *
   * @param {number} now
   * @param {number} random
   * @param {number} invited When the server has asked its clients to come back; Infinity when it has not. It has drawn
   *   lots for them, so the first attempt is made just then; later ones wait as usual, or one that always goes away at
   *   once would be hammered.
   */
  schedule(now, random, invited) {
    this.attempts++;
    const is = invited < Infinity;
    this.due = this.#earliest = Math.max(is ? invited : now, this.notBefore, now);
    if (!is || this.attempts > 1) this.due = Math.max(this.due, now + this.#backoff.delay(this.attempts, random));
    return this.due - now;
  }

  /** There is reason to believe that an attempt would succeed now; but what the server has asked for stands. */
  hurry() {
    this.due = this.#earliest;
  }
}
