/**
 * `SignalingClient`: a page's connection to a signaling server, kept alive.
 *
 * It runs a `ClientMachine`: gives it the time and what the transport brings, carries out what it wants done, and turns
 * its numbered requests into promises. All decisions are the machine's. It owns one transport and two timers; after
 * `close` none of them is left.
 *
 * @import { Identity } from '../identity/keys.js'
 * @import { Candidate, Capabilities, Proof } from '../protocol/messages.js'
 * @import { BackoffOptions } from './backoff.js'
 * @import { Completed, Effect, Sign } from './effects.js'
 * @import { Discovery, IceServers, Registration, SignalingEvent } from './events.js'
 * @import { Request } from './requests.js'
 */
import { AldisError, IdentityError, RequestTimeout, ServerUnreachable, StateError } from '../errors.js';
import { rotation } from '../identity/proofs.js';
import { DEFAULT_DEVICE, join } from '../protocol/addresses.js';
import { toBase64 } from '../protocol/codec.js';
import { NORMAL } from '../protocol/codes.js';
import { Backoff, checkNumber } from './backoff.js';
import { parseEndpoint } from './endpoint.js';
import { ClientMachine } from './machine.js';
import { timers } from './timers.js';
import { Transport } from './transport.js';

// Bytes. With more than this on their way out, requests wait until the network has taken some of it.
const MOST_BACKLOG = 256 * 1024;
// Seconds. A WebSocket does not say when it has sent something, so it has to be asked.
const LOOK_AGAIN = 0.05;

/**
 * @typedef {object} ClientOptions
 * @property {string} [device] Tells several connections of one user apart. 'main'
 * @property {string | null} [token] What the server's operator asks for, if anything.
 * @property {BackoffOptions} [backoff] When to try again after a lost connection.
 * @property {number} [requestTimeout] Seconds. 10
 * @property {number} [connectTimeout] Seconds for each attempt. 10
 * @property {typeof globalThis.WebSocket} [WebSocket]
 *
 * @typedef {object} DescriptionOptions
 * @property {string | null} [connection] The name of the peer connection.
 * @property {Proof | null} [proof]
 * @property {Capabilities | null} [capabilities]
 *
 * @typedef {object} Asking A request whose caller waits.
 * @property {Request} message
 * @property {Identity} [identity]
 * @property {number} deadline
 * @property {(result: any) => void} resolve
 * @property {(error: unknown) => void} reject
 * @property {number} left How many numbers of the machine stand for it that have no answer yet.
 * @property {AldisError | null} error The first that one of them has failed with.
 */

/**
 * A user's (or one of their devices') connection to a signaling server.
 *
 *     const client = new SignalingClient('wss://signal.example', 'alice');
 *     await client.connect();
 *     await client.register(identity);
 *     const found = await client.discover('bob');
 *
 * After `connect` it stays connected: a lost connection is made again (`backoff` says when, and the browser's `online`
 * event at once), the name registered again, the session resumed if the server still has it, and watches restored if
 * not. Requests made meanwhile wait for that, up to their time-out. It ends by `close`, or by itself for good when the
 * server's close code forbids to come back, refuses the name, or `backoff.attempts` are used up; then the event `closed`
 * carries the error, and every later call rejects with it.
 *
 * Requests reject with `RequestFailed` (the server refused; it has a `code`), `RequestTimeout`, `ConnectionLost` (it is
 * not known whether the server acted on the request) and, for calls that make no sense, `StateError` and its siblings.
 */
export class SignalingClient {
  #machine;
  #requestTimeout;
  #transportOptions;
  /** @type {Transport | null} */
  #transport = null;
  /** What the machine has been asked, by its numbers. @type {Map<number, Asking>} */
  #asked = new Map();
  /** What it has not been asked yet. @type {Asking[]} */
  #queue = [];
  /** @type {Set<(event: SignalingEvent) => void>} */
  #subscribers = new Set();
  #carryingOut = false;
  #cancelTimer = () => {};
  #cancelLook = () => {};

  /**
   * Nothing is connected yet: call `connect`.
   *
   * @param {string} url `ws:`, `wss:`, `http:` or `https:`; the latter two mean the former.
   * @param {string} userId
   * @param {ClientOptions} [options] Throws `ConfigError` and `InvalidAddress`.
   */
  constructor(url, userId, options = {}) {
    const { device = DEFAULT_DEVICE, token = null, requestTimeout = 10, connectTimeout = 10 } = options;
    checkNumber('requestTimeout', requestTimeout, Number.MIN_VALUE);
    checkNumber('connectTimeout', connectTimeout, Number.MIN_VALUE);
    const { url: dialled, server } = parseEndpoint(url);
    /** The server's URL, as it is dialled. @readonly */
    this.url = dialled;
    /** The server's name: host and port as in the `Host` header, lower case. Pins are kept by it. @readonly */
    this.server = server;
    /** The name to register. @readonly */
    this.userId = userId;
    /** The device to register the name for. @readonly */
    this.device = device;
    /** User id and device, as the server writes it into what it relays for us. @readonly */
    this.address = join(userId, device);
    const backoff = new Backoff(options.backoff);
    this.#machine = new ClientMachine({ host: server, userId, device, token, backoff, requestTimeout });
    this.#requestTimeout = requestTimeout;
    this.#transportOptions = { WebSocket: options.WebSocket ?? globalThis.WebSocket, timers, connectTimeout };
  }

  // --- what it is --------------------------------------------------------------------------------------------------

  /** Where the client stands: 'disconnected' (not started, or ended), 'connecting', or 'connected' (registered). */
  get state() {
    const { phase, state } = this.#machine;
    return phase === 'idle' && this.#transport ? 'connecting' : state;
  }

  /** The key that is registered, and will be again after a reconnection; null before `register`. */
  get identity() {
    return this.#machine.identity;
  }

  // --- connection --------------------------------------------------------------------------------------------------

  /**
   * Make the first connection; call `register` next, soon: servers do not keep nameless connections. Rejects with
   * `ServerUnreachable` (it may be called again then), and with `StateError` when it was called already.
   *
   * @returns {Promise<void>}
   */
  async connect() {
    this.#machine.checkNotEnded();
    if (this.state !== 'disconnected') throw new StateError('connect() was called already');
    const reason = await this.#dial();
    this.#machine.checkNotEnded(); // it may have been closed meanwhile
    if (reason !== null) throw new ServerUnreachable(this.url, reason);
    globalThis.addEventListener?.('online', this.#online);
  }

  /** Leave the server and let go of everything. Can be called at any time and again; never rejects. */
  async close() {
    this.#machine.close();
    this.#carryOut();
    await this.#transport?.gone;
    this.#sendQueued();
  }

  // --- requests ----------------------------------------------------------------------------------------------------

  /**
   * Register the name with the proof of this key. The first key that is ever proved for a name is bound to it. Rejects
   * with `RequestFailed`, whose `code` is `key-mismatch` when the name belongs to another key, and `unauthorized` when
   * the server wants another token.
   *
   * @param {Identity} identity
   * @returns {Promise<Registration>}
   */
  register(identity) {
    return this.#ask({ type: 'register' }, identity);
  }

  /** Give the name up; others see us go. The connection stays, for another `register`. @returns {Promise<void>} */
  unregister() {
    return this.#ask({ type: 'unregister' });
  }

  /**
   * Bind the name to a new key, for good; the old one is worth nothing any more. After `ConnectionLost` or
   * `RequestTimeout` it is not known which of the keys is the right one: keep both until the client is registered again,
   * and look at `identity`.
   *
   * @param {Identity} newIdentity
   * @returns {Promise<void>}
   */
  async rotate(newIdentity) {
    this.#machine.checkNotEnded();
    const { identity } = this;
    if (!identity) throw new StateError('not registered: call register() first');
    const { publicKey } = newIdentity;
    const signature = toBase64(await identity.sign(rotation(this.userId, publicKey)));
    return this.#ask({ type: 'rotate', newPublicKey: toBase64(publicKey), signature }, newIdentity);
  }

  /**
   * Ask what the server knows of a user: whether they are online, their key, their devices.
   *
   * @param {string} userId
   * @returns {Promise<Discovery>}
   */
  discover(userId) {
    return this.#ask({ type: 'discover', userId });
  }

  /**
   * Be told of the presence of users by `presenceChanged`: once now for each, and at every change. Watches are restored
   * after a reconnection. When this rejects, the users it named are not watched, but for those that were before.
   *
   * @param {string[]} userIds
   * @returns {Promise<void>}
   */
  watch(...userIds) {
    return this.#ask({ type: 'watch', userIds });
  }

  /** End watches; those that are not watched do no harm. @param {string[]} userIds @returns {Promise<void>} */
  unwatch(...userIds) {
    return this.#ask({ type: 'unwatch', userIds });
  }

  /**
   * Send an offer to an address; resolves when the server has handed it over. Rejects with `RequestFailed` with the code
   * `not-online` when there is nobody; the same goes for the other `send`s.
   *
   * @param {string} to
   * @param {string} sdp
   * @param {DescriptionOptions} [options]
   */
  sendOffer(to, sdp, options) {
    return this.#ask({ type: 'offer', to, offer: { type: 'offer', sdp }, ...given(options) });
  }

  /**
   * Send an answer to the address that an offer came from.
   *
   * @param {string} to
   * @param {string} sdp
   * @param {DescriptionOptions} [options]
   */
  sendAnswer(to, sdp, options) {
    return this.#ask({ type: 'answer', to, answer: { type: 'answer', sdp }, ...given(options) });
  }

  /**
   * Send an ICE candidate; null says that there will be no more.
   *
   * @param {string} to
   * @param {Candidate | null} candidate
   * @param {{ connection?: string | null }} [options]
   */
  sendIceCandidate(to, candidate, options) {
    return this.#ask({ type: 'ice-candidate', to, candidate, ...given(options) });
  }

  /**
   * Say that a peer connection is over.
   *
   * @param {string} to
   * @param {{ connection?: string | null, reason?: string | null }} [options]
   */
  sendBye(to, options) {
    return this.#ask({ type: 'bye', to, ...given(options) });
  }

  /** Ask for STUN and TURN servers; ask again before `ttl` is over. @returns {Promise<IceServers>} */
  iceServers() {
    return this.#ask({ type: 'ice-servers' });
  }

  /** Measure the round trip to the server, in seconds. Needs no registration. @returns {Promise<number>} */
  ping() {
    return this.#ask({ type: 'ping' });
  }

  // --- events ------------------------------------------------------------------------------------------------------

  /**
   * Have `callback` called with each event; call what is returned to end that. What a callback throws is logged and does
   * no harm to others.
   *
   * @param {(event: SignalingEvent) => void} callback
   * @returns {() => void}
   */
  subscribe(callback) {
    // A function of its own, so that one callback may be subscribed twice.
    const subscriber = (/** @type {SignalingEvent} */ event) => callback(event);
    this.#subscribers.add(subscriber);
    return () => {
      this.#subscribers.delete(subscriber);
    };
  }

  /** @param {SignalingEvent} event */
  #publish(event) {
    if (event.type === 'closed') {
      globalThis.removeEventListener?.('online', this.#online);
      this.#transport?.close(NORMAL, ''); // one that is not open yet, and of which the machine does not know
    }
    for (const subscriber of [...this.#subscribers]) {
      // Another callback may have ended this one's subscription.
      if (!this.#subscribers.has(subscriber)) continue;
      try {
        subscriber(event);
      } catch (error) {
        console.error(error);
      }
    }
  }

  // --- the transport -----------------------------------------------------------------------------------------------

  /** Make a connection; resolves when that has been tried: why it has failed, or null. */
  async #dial() {
    const transport = (this.#transport = new Transport(
      this.url,
      {
        opened: () => {
          this.#machine.connected(timers.time());
          this.#carryOut();
        },
        received: (data) => {
          this.#machine.received(data, timers.time());
          this.#carryOut();
        },
        lost: (code, reason) => {
          this.#transport = null;
          this.#machine.lost(timers.time(), code, reason);
          this.#carryOut();
        },
      },
      this.#transportOptions,
    ));
    const reason = await transport.opened;
    if (reason !== null) {
      this.#transport = null;
      this.#machine.unreachable(timers.time(), reason);
      this.#carryOut();
    }
    return reason;
  }

  #online = () => {
    this.#machine.online(timers.time());
    this.#carryOut();
  };

  // --- the machine -------------------------------------------------------------------------------------------------

  /** Do what the machine wants done. A callback may lead back here; then the outer call does the rest. */
  #carryOut() {
    if (this.#carryingOut) return;
    this.#carryingOut = true;
    for (let effects; (effects = this.#machine.take()).length;) for (const effect of effects) this.#do(effect);
    this.#carryingOut = false;
    this.#cancelTimer();
    const at = this.#machine.nextDeadline;
    if (at < Infinity) this.#cancelTimer = timers.callLater(at - timers.time(), this.#tick);
  }

  #tick = () => {
    this.#machine.tick(timers.time());
    this.#carryOut();
  };

  /** @param {Effect} effect */
  #do(effect) {
    switch (effect.type) {
      case 'send':
        return this.#transport?.send(effect.text);
      case 'closeTransport':
        return this.#transport?.close(effect.code, effect.reason);
      case 'dial':
        return void this.#dial();
      case 'sign':
        return void this.#sign(effect);
      case 'completed':
        return this.#completed(effect);
      case 'happened':
        return this.#publish(effect.event);
    }
  }

  /** @param {Sign} effect */
  async #sign({ identity, message }) {
    try {
      this.#machine.signed(message, await identity.sign(message));
    } catch (error) {
      this.#machine.notSigned(error instanceof AldisError ? error : new IdentityError(String(error)));
    }
    this.#carryOut();
  }

  // --- requests and promises ---------------------------------------------------------------------------------------

  /**
   * Make a request as soon as the network takes it, after those that were made before.
   *
   * @param {Request} message
   * @param {Identity} [identity]
   * @returns {Promise<any>}
   */
  #ask(message, identity) {
    return new Promise((resolve, reject) => {
      const deadline = timers.time() + this.#requestTimeout;
      this.#queue.push({ message, identity, deadline, resolve, reject, left: 0, error: null });
      this.#sendQueued();
    });
  }

  #sendQueued = () => {
    this.#cancelLook();
    for (let asking; (asking = this.#queue[0]);) {
      const now = timers.time();
      const blocked = (this.#transport?.backlog ?? 0) > MOST_BACKLOG;
      if (blocked && now < asking.deadline) {
        this.#cancelLook = timers.callLater(LOOK_AGAIN, this.#sendQueued);
        return;
      }
      this.#queue.shift();
      try {
        if (blocked) throw new RequestTimeout(asking.message.type, this.#requestTimeout);
        const numbers = this.#machine.ask(asking.message, now, asking.identity);
        for (const number of numbers) this.#asked.set(number, asking);
        asking.left = numbers.length;
        if (!asking.left) asking.resolve(null);
      } catch (error) {
        asking.reject(error);
      }
      this.#carryOut();
    }
  };

  /** One request has ended. A caller that waits for several is told when all of them have. @param {Completed} effect */
  #completed({ request, error, result }) {
    const asking = this.#asked.get(request);
    this.#asked.delete(request);
    if (!asking) return;
    asking.error ??= error;
    if (--asking.left) return;
    if (asking.error) asking.reject(asking.error);
    else asking.resolve(result);
  }
}

/**
 * What was given of a message's optional fields.
 *
 * @template {object} T
 * @param {T | undefined} options
 * @returns {{ [K in keyof T]: Exclude<T[K], null> }}
 */
function given(options) {
  return /** @type {any} */ (Object.fromEntries(Object.entries(options ?? {}).filter(([, value]) => value !== null)));
}
