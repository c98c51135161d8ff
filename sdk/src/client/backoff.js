/**
 * How long to wait before the next attempt: exponential, with full jitter.
 *
 * After Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): the wait is drawn evenly from
 * zero to a ceiling that grows with each attempt. This spreads the clients of a server that restarts best.
 *
 * Pure: the random number is an argument.
 */
import { settings } from './settings.js';

/**
 * @typedef {object} BackoffOptions
 * @property {number} [first] The ceiling of the first wait, in seconds. 0.5
 * @property {number} [factor] By how much the ceiling grows with each attempt. 2
 * @property {number} [most] The highest ceiling, in seconds. 30
 */

/** When to try again; times in seconds. */
export class Backoff {
  /** @readonly */
  first = 0.5;
  /** @readonly */
  factor = 2;
  /** @readonly */
  most = 30;

  /** @param {BackoffOptions} [options] Also another `Backoff`. Throws `ConfigError` for a value that is not a number
   * from
   *   0 up, and for a `factor` below 1, with which the waits would shrink. */
  constructor(options) {
    const defaults = /** @type {Required<BackoffOptions>} */ (this);
    Object.assign(
      this,
      settings(defaults, options, 'backoff', (value, name) => value >= Number(name === 'factor')),
    );
  }

  /**
   * The wait before an attempt, in seconds.
   *
   * @param {number} attempt Counts from 1.
   * @param {number} random Drawn evenly from 0 to 1.
   */
  delay(attempt, random) {
    // `first` of 0 is a special case: later factors are Infinity, and 0 times Infinity is NaN.
    return this.first && random * Math.min(this.most, this.first * this.factor ** (attempt - 1));
  }
}

// Seconds. A connection that was useful for so long resets the count of attempts. A connection that is lost sooner
// counts as a failure, so a server that closes each connection at once is dialled less and less often.
const SETTLED = 10;

/** The attempts that one client makes in a row, and the time of the next one. Times are in seconds. */
export class Retries {
  /** The number of attempts since a connection last lasted long enough, including the next one. */
  attempts = 0;
  /** When the next attempt is due. */
  due = 0;
  /** The time until which the server wants no connection. */
  notBefore = 0;
  #earliest = 0;
  #backoff;

  /** @param {Backoff} backoff */
  constructor(backoff) {
    this.#backoff = backoff;
  }

  /** A connection that was useful for so long is lost. @param {number} seconds */
  stood(seconds) {
    if (seconds >= SETTLED) this.attempts = 0;
  }

  /**
   * Set the time of the next attempt.
   *
   * @param {number} now
   * @param {number} random Drawn evenly from 0 to 1.
   * @param {number} invited The time at which the server has asked this client to come back, or Infinity. Each client
   *   gets a different time, so the first attempt is made exactly then. Later ones wait as usual.
   * @returns {number} The seconds until then.
   */
  schedule(now, random, invited) {
    this.attempts++;
    const isInvited = invited < Infinity;
    this.#earliest = Math.max(now, isInvited ? invited : now, this.notBefore);
    const pause = isInvited && this.attempts === 1 ? 0 : this.#backoff.delay(this.attempts, random);
    this.due = Math.max(this.#earliest, now + pause);
    return this.due - now;
  }

  /** Try at once, unless the server has asked for a later time. */
  hasten() {
    this.due = this.#earliest;
  }
}
