/**
 * The pinned key of each peer: trust on first use.
 *
 * A pin says: the user `userId` of the server `server` has the key `publicKey`. The first key of a user is pinned.
 * Another key is refused until a person accepts it. Pins are separate for each server, because two servers may know two
 * people by one name.
 *
 * @import { Bytes } from '../protocol/codec.js'
 */
import { ConfigError, IdentityError } from '../errors.js';
import { bind } from '../proxies.js';
import * as database from './database.js';

/**
 * A store of pins. `server` is the host and port of the server's URL, lower case.
 *
 * @typedef {object} Pins
 * @property {(server: string, userId: string) => Promise<Bytes | null>} find The pinned key, or null.
 * @property {(server: string, userId: string, publicKey: Bytes) => Promise<Bytes>} pin Pin a key unless one is pinned;
 *   return the key that is pinned now.
 * @property {(server: string, userId: string, publicKey: Bytes) => Promise<unknown>} accept Replace the pin, after a
 *   person has decided that this key is right.
 */

/**
 * Pins that live as long as the page.
 *
 * @implements {Pins}
 */
export class MemoryPins {
  /** @type {Map<string, Bytes>} */
  #keys = new Map();
  #limit;

  /**
   * @param {{ limit?: number }} [options] At `limit` pins, no new peer is pinned. None is dropped: otherwise a stranger
   *   with many names could push out the pin of another user. `accept` always works. Throws `ConfigError` for a value
   *   that is not a number from 0 up.
   */
  constructor({ limit = 10_000 } = {}) {
    if (!(limit >= 0)) throw new ConfigError('limit', `${limit} is out of range`);
    this.#limit = limit;
    bind(this, 'MemoryPins');
  }

  /**
   * @param {string} server
   * @param {string} userId
   */
  async find(server, userId) {
    return this.#keys.get(together(server, userId)) ?? null;
  }

  /**
   * @param {string} server
   * @param {string} userId
   * @param {Bytes} publicKey
   */
  async pin(server, userId, publicKey) {
    const pinned = this.#keys.get(together(server, userId));
    if (!pinned) {
      if (this.#keys.size >= this.#limit) {
        throw new IdentityError(`no more than ${this.#limit} keys`);
      }
      await this.accept(server, userId, publicKey);
    }
    return pinned ?? publicKey;
  }

  /**
   * @param {string} server
   * @param {string} userId
   * @param {Bytes} publicKey
   */
  async accept(server, userId, publicKey) {
    this.#keys.set(together(server, userId), publicKey.slice());
  }
}

/**
 * Neither part can contain a slash.
 *
 * @param {string} server
 * @param {string} userId
 */
const together = (server, userId) => `${server}/${userId}`;

/**
 * Pins in this browser, shared by all tabs of the origin. Throws `IdentityError` when the browser keeps nothing.
 *
 * @implements {Pins}
 */
export class IndexedDBPins {
  /**
   * @param {string} server
   * @param {string} userId
   */
  async find(server, userId) {
    return /** @type {Bytes | undefined} */ (await database.find('pins', [server, userId])) ?? null;
  }

  /**
   * @param {string} server
   * @param {string} userId
   * @param {Bytes} publicKey
   */
  pin(server, userId, publicKey) {
    return database.keep('pins', [server, userId], publicKey);
  }

  /**
   * @param {string} server
   * @param {string} userId
   * @param {Bytes} publicKey
   */
  accept(server, userId, publicKey) {
    return database.put('pins', [server, userId], publicKey);
  }
}
