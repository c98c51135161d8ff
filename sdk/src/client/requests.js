/**
 * The book of requests that have no answer yet.
 *
 * It numbers, encodes and sends them, finds the one that a reply belongs to, says which have waited too long, and ends
 * each exactly once, with `completed`. What a request's end means for the client is known to the machine.
 *
 * @import { AldisError } from '../errors.js'
 * @import { ClientMessage } from '../protocol/messages.js'
 * @import { Asker, Effect, Result } from './effects.js'
 * @import { Watches } from './watches.js'
 */
import { MessageTooLarge, RequestFailed, RequestTimeout } from '../errors.js';
import { encodeClientMessage, toUtf8 } from '../protocol/codec.js';

// Bytes. What a server takes that has not said so; its own default.
export const DEFAULT_MAX_MESSAGE = 64 * 1024;
// A server looks names up one after the other for each client. Meanwhile 256 requests may wait; with more, this version
// stops reading, and earlier ones close the connection for good (4504). So most of that is left to messages to peers.
const MOST_LOOKUPS = 32;
// Seconds. The longest resume window that is believed: a request without an answer has to end some time.
const LONGEST_WINDOW = 120;
// Names in one `watch`, by the protocol; and bytes of its type, id, brackets and commas, generously.
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
 * @property {number} seconds How long it is given.
 * @property {number} deadline
 * @property {boolean} sent false: held until there is a registration.
 * @property {string[]} added Of a `watch`: the names that were not watched before.
 * @property {Asker | undefined} asker undefined: the machine itself has asked.
 */

/** All requests of one client that have no answer yet, in the order in which they were made. */
export class RequestBook {
  /** The largest message that the server takes, in bytes. */
  maxMessage = DEFAULT_MAX_MESSAGE;
  #timeout;
  #watches;
  #effects;
  #resumeWindow = 0;
  /** @type {Map<unknown, Pending>} */
  #pending = new Map();
  // The same, once more: what the server answers at once, and what it answers when it has reached somebody else. As all of
  // one kind wait equally long, their order is that of the deadlines too.
  /** @type {Map<number, Pending>} */
  #prompt = new Map();
  /** @type {Map<number, Pending>} */
  #relayed = new Map();
  // Of `discover`: those that were sent, and those that wait until some of these are answered.
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
   * The server keeps a message for so many seconds for somebody whose connection is lost, and answers only then
   * (docs/protocol.md, "Resume"). Until it has said so, it is taken not to.
   *
   * @param {number} resumeWindow
   */
  allow(resumeWindow) {
    this.#resumeWindow = Math.min(Math.max(resumeWindow, 0), LONGEST_WINDOW);
  }

  /**
   * Enter a request, with a number that becomes its `id`. Throws `MessageTooLarge` (a server would end the connection for
   * it) and `UsageError` for text that is no UTF-8; nothing is entered then.
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
    // The machine's own requests are not refused to itself.
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

  /** Whether it may be sent now, as far as others are concerned that were sent. @param {Pending} request */
  mayGo({ message }) {
    return message.type !== 'discover' || this.#lookups.size < MOST_LOOKUPS;
  }

  /** The first `discover` that waits and may be sent now. */
  get nextLookup() {
    const [first] = this.#heldLookups.values();
    return first && this.mayGo(first) ? first : null;
  }

  /** It goes to the server now, which may have to wait for the recipient. @param {number} now @param {Pending} request */
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
   * It has ended: it has its answer or, with an error, will have none or has been refused.
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
      // The server does not take a watch over into a new session: the application thinks that it still watches.
      const { userIds } = message;
      this.#watches.drop(userIds);
      this.#effects.push({ type: 'happened', event: { type: 'watchEnded', userIds, error } });
    }
  }

  /** The request that a message with this `re` answers; it must have been sent. @param {unknown} re */
  answeredBy(re) {
    const request = this.#pending.get(re);
    return request?.sent ? request : null;
  }

  /** Every one of them. */
  get all() {
    return [...this.#pending.values()];
  }

  /** Those that have waited too long. @param {number} now */
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

  /** When the first of them has waited too long. */
  get deadline() {
    const [prompt] = this.#prompt.values();
    const [relayed] = this.#relayed.values();
    return Math.min(prompt?.deadline ?? Infinity, relayed?.deadline ?? Infinity);
  }

  /**
   * User ids, each once, in lists that fit into one message.
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
