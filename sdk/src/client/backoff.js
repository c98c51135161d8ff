/**
 * How long to wait before the next attempt: exponential, with full jitter.
 *
 * After Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): the wait is drawn evenly from zero
 * to a ceiling that grows with each attempt, which spreads the clients of a server that restarts best.
 *
 * Pure: the random number is an argument, and who counts the attempts is who makes them.
 */
import { settings } from './settings.js';

/**
 * @typedef {object} BackoffOptions
 * @property {number} [first] The ceiling of the first wait, in seconds. 0.5
 * @property {number} [factor] By how much the ceiling grows with each attempt. 2
 * @property {number} [most] The highest ceiling, in seconds. 30
 */

/** The rule by which somebody tries again; times in seconds. */
export class Backoff {
  /** @readonly */
  first = 0.5;
  /** @readonly */
  factor = 2;
  /** @readonly */
  most = 30;

  /** @param {BackoffOptions} [options] Also another `Backoff`. Throws `ConfigError` for what is no number from 0 up, and
   *   for a `factor` below 1, with which the waits would shrink. */
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
   * @param {number} random Evenly from 0 to 1.
   */
  delay(attempt, random) {
    // `first` of 0 by itself: later factors are Infinity, and 0 times that is NaN.
    return this.first && random * Math.min(this.most, this.first * this.factor ** (attempt - 1));
  }
}
