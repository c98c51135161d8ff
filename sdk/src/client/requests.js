/**
 * The requests that have no answer yet.
 *
 * This module numbers, encodes and sends them, finds the request of a reply, reports those that are overdue, and ends
 * each exactly once, with `completed`. Requests that the server has refused for a while wait in lines (`limited.js`).
 * The machine knows what the end of a request means.
 *
 * @import { AldisError } from '../errors.js'
 * @import { ClientMessage } from '../protocol/messages.js'
 * @import { Asker, Effect, Result } from './effects.js'
 * @import { Waiting } from './limited.js'
 * @import { Watches } from './watches.js'
 */
import { MessageTooLarge, RequestFailed, RequestTimeout } from '../errors.js';
import { encodeClientMessage, toUtf8 } from '../protocol/codec.js';
import { LONGEST_PAUSE } from '../protocol/codes.js';
import { LimitedRequests } from './limited.js';

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
 * @property {boolean} sent false while it waits for a registration, or because of a limit.
 * @property {number} until Until when it may wait because the server refuses it for a while; 0 as long as it was not
 *   sent.
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
  // The same requests in three groups: the server answers the first at once, the second when it has reached another
  // user, and watches one by one. All requests of a group wait equally long, so their order is that of the deadlines.
  /** @type {Map<number, Pending>} */
  #prompt = new Map();
  /** @type {Map<number, Pending>} */
  #relayed = new Map();
  /** @type {Map<number, Pending>} */
  #watching = new Map();
  // When the time of those watches began anew.
  #watchesFrom = -Infinity;
  // `discover` requests: those that were sent, and those that wait for answers to them.
  /** @type {Set<number>} */
  #lookups = new Set();
  /** @type {Map<number, Pending>} */
  #heldLookups = new Map();
  #limited = new LimitedRequests();
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
    const request = {
      number,
      message,
      text,
      seconds,
      deadline: now + seconds,
      sent: false,
      until: 0,
      added: [],
      asker,
    };
    this.#pending.set(number, request);
    this.#group(request).set(number, request);
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

  /**
   * Send a request, for the first time or again. The server may have to wait for the recipient.
   *
   * @param {number} now
   * @param {Pending} request
   */
  send(now, request) {
    const { number, message, text } = request;
    this.#effects.push({ type: 'send', text });
    request.sent = true;
    request.added = this.#watches.sent(message, number);
    this.#heldLookups.delete(number);
    if (message.type === 'discover') this.#lookups.add(number);
    if ('to' in message) {
      this.#prompt.delete(number);
      this.#allowTime(now, request);
      request.deadline = now + request.seconds;
      this.#relayed.set(number, request);
    } else if (request.until) {
      // Again.
      request.deadline = now + request.seconds;
      this.#group(request).set(number, request);
    }
  }

  /** Where a request waits that is not relayed, or not sent yet. @param {Pending} request */
  #group({ message: { type } }) {
    return type === 'watch' || type === 'unwatch' ? this.#watching : this.#prompt;
  }

  /** Set the time of a message to another user, once. @param {number} now @param {Pending} request */
  #allowTime(now, request) {
    if (request.until) return;
    request.seconds = this.#timeout + this.#resumeWindow;
    request.until = now + request.seconds;
  }

  // --- limits of the server ----------------------------------------------------------------------------------------

  /**
   * The server has refused a request for a while: send it again later. Returns the seconds until then, 0 when others of
   * its line wait already, and null when it may not wait.
   *
   * @param {number} now
   * @param {Pending} request
   * @param {RequestFailed} error
   * @param {number} random
   */
  refused(now, request, error, random) {
    const pause = this.#limited.refused(lineOf(request), this.#waiting(now, request), error, now, random);
    if (pause === null) return null;
    this.#takeBack(request);
    if (request.message.type === 'discover') for (const other of this.#heldLookups.values()) this.queue(now, other);
    return pause;
  }

  /**
   * Put a request behind others of its line that wait, if there are any. It fails when there is no room.
   *
   * @param {number} now
   * @param {Pending} request
   */
  queue(now, request) {
    this.#withdraw(request);
    const line = lineOf(request);
    if (!this.#limited.has(line)) return false;
    const error = this.#limited.add(line, this.#waiting(now, request));
    if (error) this.complete(request, error);
    else this.#takeBack(request);
    return true;
  }

  /** The requests whose pause is over, to be sent now. @param {number} now */
  release(now) {
    return this.#limited.release(now).map((number) => this.#get(number));
  }

  /** A new session has no watches: all of them are restored anew. */
  dropRestoredWatches() {
    for (const request of this.limited) {
      if (!request.asker && request.message.type === 'watch') this.#remove(request);
    }
  }

  /** The requests that wait because of a limit. */
  get limited() {
    return this.all.filter(({ number }) => this.#limited.holds(number));
  }

  /** @param {number} now @param {Pending} request @returns {Waiting} */
  #waiting(now, request) {
    const { number, message, text, asker } = request;
    if ('to' in message) this.#allowTime(now, request);
    // Nobody waits for the machine's own requests.
    else request.until ||= request.deadline + (asker ? 0 : LONGEST_PAUSE);
    return { number, size: toUtf8(text).length, until: request.until, connection: connectionOf(message) };
  }

  /** A request counts as not sent. @param {Pending} request */
  #takeBack(request) {
    request.sent = false;
    this.#watches.ended(request.number);
    this.#watches.drop(request.added.splice(0));
    for (const kind of this.#kinds) kind.delete(request.number);
  }

  /** A `bye` ends a peer connection: nobody needs the earlier messages about it that wait. @param {Pending} request */
  #withdraw(request) {
    const connection = request.message.type === 'bye' && connectionOf(request.message);
    if (!connection) return;
    for (const { number, error } of this.#limited.ofConnection(lineOf(request), connection)) {
      this.complete(this.#get(number), error);
    }
  }

  /** @param {number} number */
  #get(number) {
    return /** @type {Pending} */ (this.#pending.get(number));
  }

  // --- the end of a request ----------------------------------------------------------------------------------------

  /**
   * End a request, with its result or with an error.
   *
   * @param {Pending} request
   * @param {AldisError | null} error
   * @param {Result} [result]
   */
  complete(request, error, result = null) {
    const { number, message, added, asker } = request;
    if (!error) this.#limited.taken(number);
    if (!this.#remove(request)) return;
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

  /** Remove an ended request; false when it had ended before. @param {Pending} request */
  #remove({ number }) {
    this.#watches.ended(number);
    this.#limited.ended(number);
    for (const kind of this.#kinds) kind.delete(number);
    return this.#pending.delete(number);
  }

  get #kinds() {
    return [this.#prompt, this.#relayed, this.#watching, this.#heldLookups, this.#lookups];
  }

  /**
   * The sent request that a message with this `re` answers. An answer to a watch gives those behind it their whole time
   * anew. Many watches cost much, so a server may take longer for all of them than one may wait.
   *
   * @param {number} now
   * @param {unknown} re
   */
  answeredBy(now, re) {
    const request = this.#pending.get(re);
    if (!request?.sent) return null;
    const [first] = this.#watching.keys();
    if (request.number === first) this.#watchesFrom = now;
    return request;
  }

  /** All requests. */
  get all() {
    return [...this.#pending.values()];
  }

  /** The requests whose time is over, with the error to end them with. @param {number} now */
  overdue(now) {
    /** @type {{ request: Pending, error: AldisError }[]} */
    const found = this.#limited.overdue(now).map(({ number, error }) => ({ request: this.#get(number), error }));
    for (const kind of [this.#prompt, this.#relayed, this.#watching]) {
      for (const request of kind.values()) {
        if (this.#deadlineOf(request) > now) break;
        found.push({ request, error: new RequestTimeout(request.message.type, request.seconds) });
      }
    }
    return found;
  }

  /** When the first request has to end. */
  get deadline() {
    const times = [this.#prompt, this.#relayed, this.#watching].map((kind) =>
      this.#deadlineOf(kind.values().next().value),
    );
    return Math.min(...times, this.#limited.deadline);
  }

  /** @param {Pending} [request] */
  #deadlineOf(request) {
    if (!request) return Infinity;
    const anew = request.sent && this.#watching.has(request.number) ? this.#watchesFrom + request.seconds : -Infinity;
    return Math.max(request.deadline, anew);
  }

  /** When `release` has something to send. */
  get due() {
    return this.#limited.due;
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

/** The requests that wait when the server refuses this one for a while. @param {Pending} request */
function lineOf({ message }) {
  // Sealed messages have a budget of their own.
  if ('to' in message) return `${message.type === 'relay' ? 'relay ' : ''}to ${message.to}`;
  return message.type === 'unwatch' ? 'watch' : message.type;
}

/** The peer connection that a message is about. @param {Request} message @returns {string | undefined} */
const connectionOf = (message) => ('connection' in message ? message.connection : undefined);
