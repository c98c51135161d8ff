/**
 * Who may see and call our user, and whom the user has blocked, as the store knows it.
 *
 * Rules: the server keeps it for all devices of the user, and what it says counts, since another device may have changed
 * it. A name that is blocked here counts at once, and stays blocked here until the server has kept it: a server that
 * cannot be reached must not let a blocked user in.
 *
 * @import { Privacy } from '../../protocol/privacy.js'
 */
import { DEFAULT_PRIVACY, privacyOf } from '../../protocol/privacy.js';

export class Blocking {
  /** All of it, with those whose block the server does not keep yet. */
  privacy = DEFAULT_PRIVACY;
  #kept = DEFAULT_PRIVACY;
  /** @type {Set<string>} */
  #here = new Set();
  /** @type {Set<string>} */
  #blocked = new Set();

  /** Whether a user is blocked. @param {string} userId */
  blocks(userId) {
    return this.#blocked.has(userId);
  }

  /** Those whose block the server does not keep yet. */
  get here() {
    return [...this.#here];
  }

  /** The server has said what it keeps. Returns those that are blocked from now on. @param {Readonly<Privacy>} privacy */
  told(privacy) {
    this.#kept = privacy;
    privacy.blocked.forEach((userId) => this.#here.delete(userId));
    return this.#changed();
  }

  /** Block some users. Returns those that were not blocked before. @param {string[]} userIds */
  block(userIds) {
    userIds.forEach((userId) => this.#here.add(userId));
    return this.#changed();
  }

  /** Block some users no more, unless the server keeps them. @param {string[]} userIds */
  unblock(userIds) {
    userIds.forEach((userId) => this.#here.delete(userId));
    this.#changed();
  }

  #changed() {
    const before = this.#blocked;
    this.#blocked = new Set([...this.#kept.blocked, ...this.#here]);
    this.privacy = privacyOf({ ...this.#kept, blocked: [...this.#blocked].sort() });
    return [...this.#blocked].filter((userId) => !before.has(userId));
  }
}
