/**
 * The requests that have no answer yet.
 *
 * This module numbers, encodes and sends them, finds the request of a reply, reports those that are overdue, and ends
 * each exactly once, with `completed`. The machine knows what the end of a request means.
 *
 * @import { AldisError } from '../errors.js'
 * @import { ClientMessage } from '../protocol/messages.js'
 * @import { Asker, Effect, Result } from './effects.js'
 * @import { Watches } from './watches.js'
 */
import { MessageTooLarge, RequestFailed, RequestTimeout } from '../errors.js';
import { encodeClientMessage, toUtf8 } from '../protocol/codec.js';

// Bytes. The largest message while the server has not told its limit; a server's default.
export const DEFAULT_MAX_MESSAGE = 64 * 1024;
// A server looks names up one after the other for each client. Meanwhile 256 requests may wait. With more, this version
// stops reading, and earlier versions close the connection for good (4504). So leave most of that to messages to peers.
const MOST_LOOKUPS = 32;
// Seconds. A longer resume window of a server is cut to this, because a request without an answer has to end some time.
const LONGEST_WINDOW = 120;
// Names in one `watch`, by the protocol; and bytes of its type, id, brackets and commas, rounded up.
const MOST_WATCHED = 1000;
const WATCH_OVERHEAD = 128;

/** @typedef {Exclude<ClientMessage, { type: 'prove' | 'received' }>} Request */

/**
 * A request without an answer.
 *
 * @typedef {object} Pending
 * @property {number} number Its `id`.
 * @property {Request} message
 * @property {string} text
 * @property {number} seconds Its time from sending to the deadline.
 * @property {number} deadline
 * @property {boolean} sent false while it waits for a registration.
 * @property {string[]} added For a `watch`: the names that were not watched before.
 * @property {Asker | undefined} asker undefined for the machine's own requests.
 */

/** All requests of one client without an answer, in the order in which they were made. */
export class RequestBook {
  /** The largest message that the server accepts, in bytes. */
  maxMessage = DEFAULT_MAX_MESSAGE;
  #timeout;
  #watches;
  #effects;
  #resumeWindow = 0;
  /** @type {Map<unknown, Pending>} */
  #pending = new Map();
  // The same requests in two groups: the server answers the first at once, and the second when it has reached another
  // user. All requests of a group wait equally long, so their order is that of the deadlines too.
  /** @type {Map<number, Pending>} */
  #prompt = new Map();
  /** @type {Map<number, Pending>} */
  #relayed = new Map();
  // `discover` requests: those that were sent, and those that wait for answers to them.
  /** @type {Set<number>} */
  #lookups = new Set();
  /** @type {Map<number, Pending>} */
  #heldLookups = new Map();
  #last = 0;

  /** @param {number} timeout Seconds. @param {Watches} watches @param {Effect[]} effects */
  constructor(timeout, watches, effects) {
    this.#timeout = timeout;
    this.#watches = watches;
    this.#effects = effects;
  }

  /**
   * Set how many seconds the server keeps a message for a user whose connection is lost: it answers only then
   * (docs/protocol.md, "Resume"). Before this call, the value is 0.
   *
   * @param {number} resumeWindow
   */
  allow(resumeWindow) {
    this.#resumeWindow = Math.min(Math.max(resumeWindow, 0), LONGEST_WINDOW);
  }

  /**
   * Enter a request, with a number that becomes its `id`. Throws `MessageTooLarge` (the server would end the
   * connection) and `UsageError` for text that is not UTF-8. Then nothing is entered.
   *
   * @param {number} now
   * @param {Request} message
   * @param {Asker} [asker]
   * @returns {Pending}
   */
  add(now, message, asker) {
    const number = this.#last + 1;
    const text = encodeClientMessage({ ...message, id: number });
    const size = toUtf8(text).length;
    // The machine's own requests are never refused.
    if (asker && size > this.maxMessage) throw new MessageTooLarge(size, this.maxMessage);
    this.#last = number;
    const seconds = this.#timeout;
    /** @type {Pending} */
    const request = { number, message, text, seconds, deadline: now + seconds, sent: false, added: [], asker };
    this.#pending.set(number, request);
    this.#prompt.set(number, request);
    if (message.type === 'discover') this.#heldLookups.set(number, request);
    return request;
  }

  /** Whether the number of requests on their way allows this one to be sent now. @param {Pending} request */
  mayGo({ message }) {
    return message.type !== 'discover' || this.#lookups.size < MOST_LOOKUPS;
  }

  /** The first waiting `discover` that may be sent now. */
  get nextLookup() {
    const [first] = this.#heldLookups.values();
    return first && this.mayGo(first) ? first : null;
  }

  /** Send a request. The server may have to wait for the recipient. @param {number} now @param {Pending} request */
  send(now, request) {
    const { number, message, text } = request;
    this.#effects.push({ type: 'send', text });
    request.sent = true;
    request.added = this.#watches.sent(message, number);
    if (this.#heldLookups.delete(number)) this.#lookups.add(number);
    if ('to' in message) {
      request.seconds = this.#timeout + this.#resumeWindow;
      request.deadline = now + request.seconds;
      this.#prompt.delete(number);
      this.#relayed.set(number, request);
    }
  }

  /**
   * End a request, with its result or with an error.
   *
   * @param {Pending} request
   * @param {AldisError | null} error
   * @param {Result} [result]
   */
  complete(request, error, result = null) {
    const { number, message, added, asker } = request;
    if (!this.#pending.delete(number)) return;
    this.#watches.ended(number);
    for (const kind of [this.#prompt, this.#relayed, this.#heldLookups, this.#lookups]) kind.delete(number);
    if (error) this.#watches.drop(added);
    if (asker) {
      this.#effects.push({ type: 'completed', asker, error, result });
    } else if (message.type === 'watch' && (error instanceof RequestFailed || error instanceof RequestTimeout)) {
      // The server did not restore a watch in a new session, while the application thinks that it still watches.
      const { userIds } = message;
      this.#watches.drop(userIds);
      this.#effects.push({ type: 'happened', event: { type: 'watchEnded', userIds, error } });
    }
  }

  /** The sent request that a message with this `re` answers. @param {unknown} re */
  answeredBy(re) {
    const request = this.#pending.get(re);
    return request?.sent ? request : null;
  }

  /** All requests. */
  get all() {
    return [...this.#pending.values()];
  }

  /** The requests whose deadline has passed. @param {number} now */
  overdue(now) {
    const found = [];
    for (const kind of [this.#prompt, this.#relayed]) {
      for (const request of kind.values()) {
        if (request.deadline > now) break;
        found.push(request);
      }
    }
    return found;
  }

  /** The earliest deadline. */
  get deadline() {
    const [prompt] = this.#prompt.values();
    const [relayed] = this.#relayed.values();
    return Math.min(prompt?.deadline ?? Infinity, relayed?.deadline ?? Infinity);
  }

  /**
   * User ids without duplicates, in lists that fit into one message.
   *
   * @param {Iterable<string>} userIds
   */
  chunks(userIds) {
    /** @type {string[][]} */
    const lists = [];
    let room = 0;
    for (const userId of new Set(userIds)) {
      const size = toUtf8(JSON.stringify(userId)).length + 1;
      let list = lists.at(-1);
      if (!list || list.length >= MOST_WATCHED || size > room) {
        lists.push((list = []));
        room = this.maxMessage - WATCH_OVERHEAD;
      }
      list.push(userId);
      room -= size;
    }
    return lists;
  }
}
