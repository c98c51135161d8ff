/**
 * The token that a client registers with: a fixed one, or one that the program gets anew before each registration.
 *
 * A token is a secret, so no text has any part of it, nor of what a program's function threw.
 */
import { ConfigError, TokenUnavailable } from '../errors.js';
import { toUtf8 } from '../protocol/codec.js';
import { timers } from './timers.js';

// Bytes of a token: a server accepts no more.
const MAX_TOKEN = 4096;

/**
 * A function of the program that gets a token, mostly from its own server. It is called before each registration.
 *
 * @typedef {() => string | Promise<string>} TokenProvider
 */

/** The token of one client. */
export class TokenSource {
  /** @type {TokenProvider | null} */
  #provider = null;
  /** @type {string | null} */
  #token = null;

  /** @param {string | TokenProvider | null} given Throws `ConfigError` for what can be none. */
  constructor(given) {
    if (typeof given === 'function') this.#provider = given;
    else if (given !== null) this.#token = checked(given);
  }

  /** Whether there is another token for each registration. */
  get renews() {
    return !!this.#provider;
  }

  /** For the machine: the fixed token, a function that returns the newest one, or null. */
  get token() {
    return this.#provider ? () => this.#token : this.#token;
  }

  /** Get a token for the next registration; rejects with `TokenUnavailable`. @param {number} seconds */
  async renew(seconds) {
    const provider = this.#provider;
    if (!provider) return;
    let cancel = () => {};
    const late = new Promise((_, reject) => {
      const error = new TokenUnavailable(`the program gave none within ${seconds} s`);
      cancel = timers.callLater(seconds, () => reject(error));
    });
    try {
      this.#token = checked(await Promise.race([late, (async () => provider())()]));
    } catch (error) {
      if (error instanceof TokenUnavailable) throw error;
      const reason = error instanceof ConfigError ? error.problem : 'the program threw an error';
      throw new TokenUnavailable(reason, { cause: error });
    } finally {
      cancel();
    }
  }
}

/** @param {unknown} token */
function checked(token) {
  if (typeof token !== 'string') throw new ConfigError('token', 'not of type string');
  if (toUtf8(token).length > MAX_TOKEN || /\p{Cs}/u.test(token))
    throw new ConfigError('token', 'too long, or no Unicode');
  return token;
}
