/**
 * `SignalingClient`: a page's connection to a signaling server, kept alive.
 *
 * It runs a `ClientMachine`: gives it the time and what the transport brings, and carries out what it wants done. All
 * decisions are the machine's. It owns one transport and one timer; after `close` none of them is left.
 *
 * @import { Identity } from '../identity/keys.js'
 * @import { Candidate, Capabilities, Proof } from '../protocol/messages.js'
 * @import { BackoffOptions } from './backoff.js'
 * @import { Effect, Sign } from './effects.js'
 * @import { Discovery, IceServers, Registration, SignalingEvent, SignalingState } from './events.js'
 * @import { Request } from './requests.js'
 * @import { Transport } from './transport.js'
 */
import { ConfigError, EngineMissing, IdentityError, ServerUnreachable, StateError } from '../errors.js';
import { DEFAULT_DEVICE, join } from '../protocol/addresses.js';
import { toUtf8 } from '../protocol/codec.js';
import { bind } from '../proxies.js';
import { Backoff } from './backoff.js';
import { Callbacks } from './callbacks.js';
import { parseServerAddress } from './address.js';
import { ClientMachine } from './machine.js';
import { checkType, settings } from './settings.js';
import { timers } from './timers.js';
import { NO_ANSWER, openTransport } from './transport.js';

// Bytes of a token: a server takes no more.
const MAX_TOKEN = 4096;

/**
 * @typedef {object} ClientOptions
 * @property {string} [device] Tells several connections of one user apart. 'main'
 * @property {string | null} [token] What the server's operator asks for, if anything.
 * @property {BackoffOptions} [backoff] When to try again after a lost connection.
 * @property {number} [requestTimeout] Seconds. 10
 * @property {number} [connectTimeout] Seconds for each attempt. 10
 * @property {typeof globalThis.WebSocket} [WebSocket]
 *
 * @typedef {'ask' | 'connected' | 'end' | 'lost' | 'online' | 'received' | 'signed' | 'tick'} Input What the machine is
 *   told.
 *
 * @typedef {object} DescriptionOptions
 * @property {string | null} [connection] The name of the peer connection.
 * @property {Proof | null} [proof]
 * @property {Capabilities | null} [capabilities]
 */

/**
 * What comes after the time.
 *
 * @template {Input} Call
 * @typedef {Parameters<ClientMachine[Call]> extends [number, ...infer Rest] ? Rest : never} Told
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
 * not. Requests made meanwhile wait for that, up to their time-out. It ends by `close`, or by itself when the
 * server's close code forbids to come back, or when the server refuses the name. The event `closed` then carries the error,
 * and every later call rejects with it.
 *
 * Requests reject with `RequestFailed` (the server refused; it has a `code`), `RequestTimeout`, `ConnectionLost` (it is
 * not known whether the server acted on the request) and, for calls that make no sense, `StateError` and its siblings.
 */
export class SignalingClient {
  #machine;
  #transportOptions;
  /** @type {Transport | null} */
  #transport = null;
  /** @type {Callbacks<SignalingEvent>} */
  #callbacks = new Callbacks();
  #carryingOut = false;
  #cancelTimer = () => {};

  /**
   * Nothing is connected yet: call `connect`.
   *
   * @param {string} url `ws:`, `wss:`, `http:` or `https:`; the latter two mean the former.
   * @param {string} userId
   * @param {ClientOptions} [options] Throws `ConfigError` and `InvalidAddress`.
   */
  constructor(url, userId, options) {
    const { device, token, backoff, requestTimeout, connectTimeout, WebSocket } = settings(
      {
        device: DEFAULT_DEVICE,
        token: /** @type {string | null} */ (null),
        backoff: /** @type {BackoffOptions} */ ({}),
        requestTimeout: 10,
        connectTimeout: 10,
        WebSocket: globalThis.WebSocket,
      },
      options,
    );
    if (token !== null) {
      checkType('token', token, 'string');
      if (toUtf8(token).length > MAX_TOKEN || /\p{Cs}/u.test(token))
        throw new ConfigError('token', 'too long, or no Unicode');
    }
    const { url: dialled, server } = parseServerAddress(url);
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
    this.#machine = new ClientMachine(
      { host: server, userId, device, token, backoff: new Backoff(backoff), requestTimeout },
      Math.random,
    );
    this.#transportOptions = { WebSocket, connectTimeout };
    bind(this, 'SignalingClient');
  }

  /**
   * Where the client stands: 'disconnected' (not started, or ended), 'connecting', or 'connected' (registered).
   *
   * @returns {SignalingState}
   */
  get state() {
    const { phase } = this.#machine;
    if (phase === 'registered') return 'connected';
    return phase === 'ended' || (phase === 'idle' && !this.#transport) ? 'disconnected' : 'connecting';
  }

  /**
   * Make the first connection; call `register` next, soon: servers do not keep nameless connections. Rejects with
   * `ServerUnreachable` (it may be called again then), with `StateError` when it was called already, and with
   * `EngineMissing` where there is no WebSocket.
   *
   * @returns {Promise<void>}
   */
  async connect() {
    this.#machine.checkNotEnded();
    if (this.state !== 'disconnected') throw new StateError('connect() was called already');
    if (!this.#transportOptions.WebSocket) throw new EngineMissing('WebSocket', 'Node.js 22 has one');
    const reason = await this.#dial();
    this.#machine.checkNotEnded(); // it may have been closed meanwhile
    if (reason !== null) {
      throw new ServerUnreachable(this.url, await explained(this.url, reason));
    }
    globalThis.addEventListener?.('online', this.#online);
  }

  /** Leave the server and let go of everything. Can be called at any time and again; never rejects. */
  async close() {
    this.#tell('end', null);
    await this.#transport?.gone;
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
  async register(identity) {
    checkIdentity(identity);
    return this.#ask({ type: 'register' }, identity);
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
   * after a reconnection; one that the server does not take over then is told by `watchEnded`. When this rejects, the users
   * are not watched, but for those that were before.
   *
   * @param {string[]} userIds
   */
  async watch(...userIds) {
    await Promise.all(this.#machine.chunks(userIds).map((userIds) => this.#ask({ type: 'watch', userIds })));
  }

  /** End watches; users that are not watched are ignored. @param {string[]} userIds */
  async unwatch(...userIds) {
    await Promise.all(this.#machine.chunks(userIds).map((userIds) => this.#ask({ type: 'unwatch', userIds })));
  }

  /**
   * Send an offer to an address; resolves when the server has handed it over. Rejects with `RequestFailed` with the code
   * `not-online` when the user is not online; so do the other `send` methods.
   *
   * @param {string} to
   * @param {string} sdp
   * @param {DescriptionOptions} [options]
   * @returns {Promise<void>}
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
   * @returns {Promise<void>}
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
   * @returns {Promise<void>}
   */
  sendIceCandidate(to, candidate, options) {
    return this.#ask({ type: 'ice-candidate', to, candidate, ...given(options) });
  }

  /**
   * Say that a peer connection is over; with a `code` that an offer is refused, see `ByeReceived`.
   *
   * @param {string} to
   * @param {{ connection?: string | null, reason?: string | null, code?: string | null, retryAfter?: number | null }} [options]
   * @returns {Promise<void>}
   */
  sendBye(to, options) {
    return this.#ask({ type: 'bye', to, ...given(options) });
  }

  /** Ask for STUN and TURN servers; ask again before `ttl` is over. @returns {Promise<IceServers>} */
  iceServers() {
    return this.#ask({ type: 'ice-servers' });
  }

  /**
   * Make a request.
   *
   * @param {Request | { type: 'register' }} message
   * @param {Identity} [identity]
   * @returns {Promise<any>}
   */
  #ask(message, identity) {
    return new Promise((resolve, reject) => {
      this.#tell('ask', message, { resolve, reject }, identity);
    });
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
    return this.#callbacks.add(callback);
  }

  // --- the machine -------------------------------------------------------------------------------------------------

  #online = () => this.#tell('online');
  #tick = () => this.#tell('tick');

  /** Make a connection; resolves when that has been tried: why it has failed, or null. @returns {Promise<string | null>} */
  #dial() {
    return new Promise((resolve) => {
      this.#transport = openTransport(this.url, this.#transportOptions, {
        opened: () => {
          this.#tell('connected');
          resolve(null);
        },
        received: (data) => this.#tell('received', data),
        ended: (code, reason) => {
          this.#transport = null;
          this.#tell('lost', code, reason);
          resolve(reason);
        },
      });
    });
  }

  /**
   * Tell the machine something, and do what it wants done. A callback may lead back here; then the outer call does the
   * rest.
   *
   * @template {Input} Call
   * @param {Call} call
   * @param {Told<Call>} values What comes after the time.
   */
  #tell(call, ...values) {
    const machine = /** @type {ClientMachine & Record<Input, (now: number, ...values: unknown[]) => void>} */ (
      this.#machine
    );
    machine[call](timers.time(), ...values);
    if (this.#carryingOut) return;
    this.#carryingOut = true;
    for (let effect; (effect = machine.effects.shift());) this.#do(effect);
    this.#carryingOut = false;
    this.#cancelTimer();
    const at = machine.nextDeadline;
    if (at < Infinity) this.#cancelTimer = timers.callLater(at - timers.time(), this.#tick);
  }

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
        return effect.error ? effect.asker.reject(effect.error) : effect.asker.resolve(effect.result);
      case 'happened':
        if (effect.event.type === 'closed') globalThis.removeEventListener?.('online', this.#online);
        this.#callbacks.tell(effect.event);
    }
  }

  /** @param {Sign} effect */
  async #sign({ identity, message }) {
    try {
      const signature = await identity.sign(message);
      this.#tell('signed', message, signature);
    } catch (error) {
      // A key that cannot sign is of no use, now or later.
      this.#tell('end', new IdentityError(String(error)));
    }
  }
}

/**
 * Throws `ConfigError` for what cannot sign.
 *
 * @param {Identity | undefined} identity
 */
export function checkIdentity(identity) {
  if (!identity?.sign?.call || !identity.publicKey) throw new ConfigError('identity', 'not an Identity: await it');
}

/**
 * The reason of a failed attempt, with what else can be found out. No browser loads what finds it out.
 *
 * @param {string} url
 * @param {string} reason
 */
async function explained(url, reason) {
  const isNode = /** @type {any} */ (globalThis).process?.versions?.node;
  return isNode && reason === NO_ANSWER ? (await import('./explain.js')).explained(url, reason) : reason;
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
