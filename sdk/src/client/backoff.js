/**
 * How long to wait before the next attempt: exponential, with full jitter.
 *
 * After Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): the wait is drawn evenly from
 * zero to a ceiling that grows with each attempt. This spreads the clients of a server that restarts best. Why the
 * highest ceiling is 10 s: `client/backoff.py`.
 *
 * Pure: the random number is an argument.
 */
import { settings } from './settings.js';

/**
 * @typedef {object} BackoffOptions
 * @property {number} [first] The ceiling of the first wait, in seconds. 0.5
 * @property {number} [factor] By how much the ceiling grows with each attempt. 2
 * @property {number} [most] The highest ceiling, in seconds. 10
 */

/** When to try again; times in seconds. */
export class Backoff {
  /** @readonly */
  first = 0.5;
  /** @readonly */
  factor = 2;
  /** @readonly */
  most;

  /** @param {BackoffOptions} [options] Also another `Backoff`. Throws `ConfigError` for a value that is not a number
   * from
   *   0 up, and for a `factor` below 1, with which the waits would shrink.
   * @param {number} [most] The highest ceiling where `options` have none. */
  constructor(options, most = 10) {
    this.most = most;
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
   * @param {number} [most] A lower ceiling.
   */
  delay(attempt, random, most = Infinity) {
    // `first` of 0 is a special case: later factors are Infinity, and 0 times Infinity is NaN.
    return this.first && random * Math.min(most, this.most, this.first * this.factor ** (attempt - 1));
  }
}

// The highest ceiling while somebody waits for the server, and until how many seconds after the loss it holds.
const URGENT = [
  [60, 0.75],
  [600, 2],
];

/** The highest ceiling between calls to a peer, which cost more than dialling a server that is away. */
export const BETWEEN_CALLS = 30;

// Seconds. A connection that was useful for so long resets the count of attempts. A connection that is lost sooner
// counts as a failure, so a server that closes each connection at once is dialled less and less often.
const SETTLED = 10;

// Seconds. A client that was far over a server's limits stays away for this time, and twice as long each time after that.
const OFFENCE_PAUSE = 60;
const LONGEST_OFFENCE_PAUSE = 600;
// And up to so much longer, at random: others were sent away in the same moment.
const OFFENCE_SPREAD = 0.5;

/** The attempts that one client makes in a row, and the time of the next one. Times are in seconds. */
export class Retries {
  /** The number of attempts since a connection last lasted long enough, including the next one. */
  attempts = 0;
  /** When the next attempt is due. */
  due = 0;
  /** The time until which the server wants no connection. */
  notBefore = 0;
  /** Whether somebody waits for the server. */
  urgent = false;
  #earliest = 0;
  #since = 0; // when the first of these attempts was scheduled
  #offences = 0;
  #backoff;

  /** @param {Backoff} backoff */
  constructor(backoff) {
    this.#backoff = backoff;
  }

  /** A connection that was useful for so long is lost. @param {number} seconds */
  stood(seconds) {
    if (seconds >= SETTLED) this.attempts = 0;
    if (seconds >= LONGEST_OFFENCE_PAUSE) this.#offences = 0;
  }

  /**
   * The server has ended the connection because the client was far over its limits.
   *
   * @param {number} now
   * @param {number} random Drawn evenly from 0 to 1.
   */
  offended(now, random) {
    const pause = Math.min(OFFENCE_PAUSE * 2 ** this.#offences++, LONGEST_OFFENCE_PAUSE);
    this.notBefore = now + pause * (1 + OFFENCE_SPREAD * random);
  }

  /**
   * Set the time of the next attempt.
   *
   * @param {number} now
   * @param {number} random Drawn evenly from 0 to 1.
   * @param {number} invited The time at which the server has asked this client to come back, or Infinity. Each client
   *   gets a different time, so the first attempt is made exactly then. Later ones wait as usual. After `notBefore`
   *   they wait as well: others were told the same at the same time.
   * @returns {number} The seconds until then.
   */
  schedule(now, random, invited) {
    if (!this.attempts++) this.#since = now;
    const isInvited = invited < Infinity;
    const from = Math.max(now, this.notBefore);
    const pause = isInvited && this.attempts === 1 ? 0 : this.#delay(now, random);
    this.#earliest = isInvited ? Math.max(from, invited) : from;
    this.due = Math.max(this.#earliest, from + pause);
    return this.due - now;
  }

  /** @param {number} now @param {number} random */
  #delay(now, random) {
    const urgent = URGENT.find(([until = 0]) => this.urgent && now - this.#since < until);
    return this.#backoff.delay(this.attempts, random, urgent?.[1]);
  }

  /**
   * Somebody waits for the server from now on: the next attempt may be due earlier.
   *
   * @param {number} now
   * @param {number} random
   */
  hurry(now, random) {
    if (this.urgent) return;
    this.urgent = true;
    this.due = Math.max(this.#earliest, Math.min(this.due, now + this.#delay(now, random)));
  }

  /**
   * The network has changed: try at once, unless the server has asked for a later time.
   *
   * @param {number} now
   * @returns {number} The seconds until then.
   */
  hasten(now) {
    this.due = this.#earliest;
    return Math.max(this.due - now, 0);
  }
}
