/**
 * The book of requests that have no answer yet.
 *
 * It numbers and encodes them, knows which have been sent, finds the one that a reply belongs to and reads it, and says
 * which have waited too long. What a request's end means for the client is known to `client/machine.js`.
 *
 * @import { Identity } from '../identity/keys.js'
 * @import { Ack, ClientMessage, DiscoverResponse, IceServers, Pong, Rotated, Unregistered } from '../protocol/messages.js'
 * @import { Result } from './effects.js'
 */
import { MessageTooLarge, ProtocolViolation } from '../errors.js';
import { encodeClientMessage, toBase64, toUtf8 } from '../protocol/codec.js';
import { discoveryOf } from './inbound.js';

/** @typedef {Exclude<ClientMessage, { type: 'register' | 'prove' | 'received' }> | { type: 'register' }} Request */
/** @typedef {Ack | DiscoverResponse | IceServers | Pong | Rotated | Unregistered} Reply */

/**
 * A request without an answer.
 *
 * @typedef {object} Pending
 * @property {number} number
 * @property {ClientMessage} message
 * @property {string} text
 * @property {number} deadline
 * @property {boolean} internal Nobody waits for the outcome: the machine itself has asked.
 * @property {Identity | null} identity The key that a registration or a rotation is about.
 * @property {number | null} sentAt null: held until there is a registration.
 * @property {string[]} added Of a `watch`: the names that nobody had asked for before.
 */

/** What a server takes that has not said so yet, in bytes; its own default. */
export const DEFAULT_MAX_MESSAGE = 64 * 1024;
const MAX_WATCHED_PER_MESSAGE = 1000;
// Type, id, brackets and commas of a `watch`, generously.
const WATCH_OVERHEAD = 128;

// What may answer each request, other than `error`. Relayed messages, `watch` and `unwatch` get an `ack`; a registration
// is not answered by any of these.
const REPLIES = /** @type {Record<string, string | undefined>} */ ({
  register: '',
  discover: 'discover-response',
  'ice-servers': 'ice-servers',
  ping: 'pong',
  rotate: 'rotated',
  unregister: 'unregistered',
});

/** @param {string} text */
const bytesOf = (text) => toUtf8(text).length;

/**
 * What a reply to a request says.
 *
 * @param {Pending} pending
 * @param {Reply} reply
 * @param {number} now
 * @returns {Result} Throws `ProtocolViolation` when it is not a reply to this request.
 */
export function resultOf({ message, identity, sentAt }, reply, now) {
  /** @param {boolean} fits */
  const check = (fits) => {
    if (!fits) throw new ProtocolViolation(`${reply.type} is no reply to ${message.type}`);
  };
  check(reply.type === (REPLIES[message.type] ?? 'ack'));
  switch (reply.type) {
    case 'discover-response':
      check(message.type === 'discover' && reply.userId === message.userId);
      return discoveryOf(reply);
    case 'ice-servers':
      return { iceServers: reply.iceServers, ttl: Math.max(0, reply.ttl) };
    case 'pong':
      return now - (sentAt ?? now);
    case 'rotated':
      check(identity !== null && reply.publicKey === toBase64(identity.publicKey));
  }
  return null;
}

/** All requests of one client that have no answer yet, in the order in which they were made. */
export class RequestBook {
  /** The largest message that the server takes, in bytes. */
  maxMessage = DEFAULT_MAX_MESSAGE;
  /** @readonly @type {number} Seconds. */
  timeout;
  // As all wait equally long, the order is that of the deadlines too.
  /** @type {Map<unknown, Pending>} */
  #pending = new Map();
  #last = 0;

  /** @param {number} timeout */
  constructor(timeout) {
    this.timeout = timeout;
  }

  /**
   * Enter a request, with a number that becomes its `id`.
   *
   * @param {ClientMessage} message
   * @param {number} now
   * @param {{ identity?: Identity | null, internal?: boolean }} [options]
   * @returns {Pending} Throws `MessageTooLarge` (a server would end the connection for it) and `UsageError` for text that
   *   is no Unicode; nothing is entered then.
   */
  add(message, now, { identity = null, internal = false } = {}) {
    const number = this.#last + 1;
    const text = encodeClientMessage({ ...message, id: number });
    const size = bytesOf(text);
    if (size > this.maxMessage && !internal) throw new MessageTooLarge(size, this.maxMessage);
    this.#last = number;
    const deadline = now + this.timeout;
    const pending = { number, message, text, deadline, internal, identity, sentAt: null, added: [] };
    this.#pending.set(number, pending);
    return pending;
  }

  /** It has ended; false when it had before. @param {Pending} pending */
  remove(pending) {
    return this.#pending.delete(pending.number);
  }

  /** The request that a message with this `re` answers; it must have been sent. @param {unknown} re */
  answeredBy(re) {
    const pending = this.#pending.get(re);
    return pending && pending.sentAt !== null ? pending : null;
  }

  /** Every one of them. */
  all() {
    return [...this.#pending.values()];
  }

  /** When the first of them has waited too long; Infinity when there is none. */
  get deadline() {
    for (const { deadline } of this.#pending.values()) return deadline;
    return Infinity;
  }

  /**
   * User ids, each once, in lists that fit into one message.
   *
   * @param {Iterable<string>} userIds
   */
  chunks(userIds) {
    /** @type {string[][]} */
    const chunks = [];
    /** @type {string[]} */
    let chunk = [];
    let room = 0;
    for (const userId of new Set(userIds)) {
      const size = bytesOf(JSON.stringify(userId)) + 1;
      if (size > room || chunk.length >= MAX_WATCHED_PER_MESSAGE) {
        chunks.push((chunk = []));
        room = this.maxMessage - WATCH_OVERHEAD;
      }
      chunk.push(userId);
      room -= size;
    }
    return chunks;
  }
}
