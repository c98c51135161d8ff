/**
 * The users that the application watches, over any number of sessions.
 *
 * A resumed session still has its watches; a new session gets them again from here. Pure: it sees the requests that are
 * sent and how they end, and sends nothing.
 */

/**
 * @import { Presence } from '../protocol/messages.js'
 * @import { Request } from './requests.js'
 */

/** The watched users of one client, in the order of the requests. */
export class Watches {
  /** @type {Set<string>} */
  #userIds = new Set();
  /**
   * For each `watch` without an answer: the names whose presence has not come yet. The server sends one for each name
   * before the `ack`.
   *
   * @type {Map<number, Set<string>>}
   */
  #unstated = new Map();
  /**
   * Names of them whose earlier watch the server has ended meanwhile.
   *
   * @type {Set<string>}
   */
  #lost = new Set();

  /** @returns {string[]} */
  get all() {
    return [...this.#userIds];
  }

  /** @param {string} userId */
  has(userId) {
    return this.#userIds.has(userId);
  }

  /**
   * Note a request that goes to the server; only `watch` and `unwatch` matter.
   *
   * @param {Request} message
   * @param {number} number
   * @returns {string[]} The names that were not watched before.
   */
  sent(message, number) {
    if (message.type === 'unwatch') this.drop(message.userIds);
    if (message.type !== 'watch') return [];
    const { userIds } = message;
    const added = userIds.filter((userId) => !this.has(userId));
    for (const userId of added) this.#userIds.add(userId);
    for (const userId of userIds) this.#lost.delete(userId);
    this.#unstated.set(number, new Set(userIds));
    return added;
  }

  /** Whether this presence answers a `watch`. Each `watch` has one such answer for each name. @param {string} userId */
  answers(userId) {
    const found = [...this.#unstated.values()].some((names) => names.delete(userId));
    if (found && this.#lost.delete(userId)) this.#userIds.add(userId);
    return found;
  }

  /**
   * Whether to tell of a presence that `answers` has seen. One that was on its way when its watch ended is void; so is
   * the word that the server has ended a watch, if it is asked for it again already.
   *
   * @param {Presence} presence
   */
  takes({ userId, ended }) {
    if (!ended || !this.has(userId)) return this.has(userId);
    this.#userIds.delete(userId);
    const again = [...this.#unstated.values()].some((names) => names.has(userId));
    if (again) this.#lost.add(userId);
    return !again;
  }

  /** A request has ended, with or without an answer. @param {number} number */
  ended(number) {
    this.#unstated.delete(number);
  }

  /** Remove these users from the watches. @param {string[]} userIds */
  drop(userIds) {
    for (const userId of userIds) {
      this.#userIds.delete(userId);
      this.#lost.delete(userId);
    }
  }
}
