/**
 * Whose presence the application wants to hear of, over however many sessions.
 *
 * A resumed session still has its watches; a new one gets them again from here. Pure: it sees the requests that are sent
 * and their ends, and sends nothing.
 */

/** @import { Request } from './requests.js' */

/** The watched users of one client, in the order in which they were asked for. */
export class Watches {
  /** @type {Set<string>} */
  #userIds = new Set();
  /**
   * Of each `watch` without an answer: the names whose presence the server has not told yet. It tells one for each name
   * before the `ack`.
   *
   * @type {Map<number, Set<string>>}
   */
  #unstated = new Map();

  /** @returns {string[]} */
  get all() {
    return [...this.#userIds];
  }

  /** @param {string} userId */
  has(userId) {
    return this.#userIds.has(userId);
  }

  /**
   * A request goes to the server; nothing happens unless it is a `watch` or an `unwatch`.
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
    this.#unstated.set(number, new Set(userIds));
    return added;
  }

  /** A presence has come: whether it answers a `watch`. Each `watch` has one such answer for each name. @param {string} userId */
  answers(userId) {
    return [...this.#unstated.values()].some((names) => names.delete(userId));
  }

  /** A request has its answer, or will have none. @param {number} number */
  ended(number) {
    this.#unstated.delete(number);
  }

  /** These users are not watched. @param {string[]} userIds */
  drop(userIds) {
    for (const userId of userIds) this.#userIds.delete(userId);
  }
}
