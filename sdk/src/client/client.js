/**
 * `SignalingClient`: a page's connection to a signaling server, kept alive.
 *
 * It runs a `ClientMachine`: it passes the time and the transport's input to the machine, and carries out the machine's
 * effects. The machine makes all decisions. The client owns one transport and one timer; after `close` none is left.
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

// Bytes of a token: a server accepts no more.
const MAX_TOKEN = 4096;

/**
 * @typedef {object} ClientOptions
 * @property {string} [device] Names one of several devices of the user. 'main'
 * @property {string | null} [token] What the server's operator asks for, if anything.
 * @property {BackoffOptions} [backoff] When to try again after a lost connection.
 * @property {number} [requestTimeout] Seconds. 10
 * @property {number} [connectTimeout] Seconds for each attempt. 10
 * @property {typeof globalThis.WebSocket} [WebSocket]
 *
 * @typedef {'ask' | 'connected' | 'end' | 'lost' | 'online' | 'received' | 'signed' | 'tick'} Input The inputs of the
 *   machine.
 *
 * @typedef {object} DescriptionOptions
 * @property {string | null} [connection] The name of the peer connection.
 * @property {Proof | null} [proof]
 * @property {Capabilities | null} [capabilities]
 */

/**
 * The arguments after the time.
 *
 * @template {Input} Call
 * @typedef {Parameters<ClientMachine[Call]> extends [number, ...infer Rest] ? Rest : never} Told
 */

/**
 * The signaling connection of a user, or of one device of a user.
 *
 *     const client = new SignalingClient('wss://signal.example', 'alice');
 *     await client.connect();
 *     await client.register(identity);
 *     const found = await client.discover('bob');
 *
 * After `connect` it stays connected. When a connection is lost, it dials again (`backoff` says when, and the browser's
 * `online` event at once), registers the name again, and resumes the session if the server still has it, or else
 * restores the watches. Requests made meanwhile wait for that, up to their time-out. The client ends by `close`. It
 * ends by itself when the server's close code forbids reconnecting, or when the server refuses the name. Then the event
 * `closed` carries the error, and every later call rejects with it.
 *
 * Requests reject with `RequestFailed` (the server refused; it has a `code`), `RequestTimeout`, `ConnectionLost` (it is
 * unknown whether the server acted on the request) and, for calls that make no sense, `StateError` and its siblings.
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
   * Make a client that is not connected: call `connect` next.
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
    /** The server's URL, as the client dials it. @readonly */
    this.url = dialled;
    /** The server's name: host and port as in the `Host` header, lower case. Pins are stored under it. @readonly */
    this.server = server;
    /** The name to register. @readonly */
    this.userId = userId;
    /** The device to register the name for. @readonly */
    this.device = device;
    /** User id and device, as the server writes them into `from`. @readonly */
    this.address = join(userId, device);
    this.#machine = new ClientMachine(
      { host: server, userId, device, token, backoff: new Backoff(backoff), requestTimeout },
      Math.random,
    );
    this.#transportOptions = { WebSocket, connectTimeout };
    bind(this, 'SignalingClient');
  }

  /**
   * The state: 'disconnected' (not started, or ended), 'connecting', or 'connected' (registered).
   *
   * @returns {SignalingState}
   */
  get state() {
    const { phase } = this.#machine;
    if (phase === 'registered') return 'connected';
    return phase === 'ended' || (phase === 'idle' && !this.#transport) ? 'disconnected' : 'connecting';
  }

  /**
   * Make the first connection. Call `register` next, and soon: servers close connections without a name. Rejects with
   * `ServerUnreachable` (then you may call it again), with `StateError` when it was called already, and with
   * `EngineMissing` when the platform has no WebSocket.
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

  /** Leave the server and free all resources. Can be called at any time, and repeatedly; never rejects. */
  async close() {
    this.#tell('end', null);
    await this.#transport?.gone;
  }

  // --- requests ----------------------------------------------------------------------------------------------------

  /**
   * Register the name, with a proof of this key. The first key that is proved for a name is bound to it. Rejects with
   * `RequestFailed`. Its `code` is `key-mismatch` when the name belongs to another key, and `unauthorized` when the
   * server wants another token.
   *
   * @param {Identity} identity
   * @returns {Promise<Registration>}
   */
  async register(identity) {
    checkIdentity(identity);
    return this.#ask({ type: 'register' }, identity);
  }

  /**
   * Ask the server about a user: whether they are online, their key, their devices.
   *
   * @param {string} userId
   * @returns {Promise<Discovery>}
   */
  discover(userId) {
    return this.#ask({ type: 'discover', userId });
  }

  /**
   * Get the presence of users as `presenceChanged` events: one now for each user, and one at every change. Watches are
   * restored after a reconnection; when the server then refuses one, `watchEnded` follows. When this rejects, the users
   * are not watched, except those that were watched before.
   *
   * @param {string[]} userIds
   */
  async watch(...userIds) {
    await Promise.all(this.#machine.chunks(userIds).map((userIds) => this.#ask({ type: 'watch', userIds })));
  }

  /** End watches. Users that are not watched are ignored. @param {string[]} userIds */
  async unwatch(...userIds) {
    await Promise.all(this.#machine.chunks(userIds).map((userIds) => this.#ask({ type: 'unwatch', userIds })));
  }

  /**
   * Send an offer to an address; resolves when the server has handed it over. Rejects with `RequestFailed` with the
   * code `not-online` when the user is not online, like the other `send` methods.
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
   * Send an answer to the address of the offer's sender.
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
   * Send an ICE candidate; null means that there are no more.
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
   * End a peer connection; with a `code`, refuse an offer (see `ByeReceived`).
   *
   * @param {string} to
   * @param {{ connection?: string | null, reason?: string | null, code?: string | null, retryAfter?: number | null }} [options]
   * @returns {Promise<void>}
   */
  sendBye(to, options) {
    return this.#ask({ type: 'bye', to, ...given(options) });
  }

  /** Ask for STUN and TURN servers. Ask again before `ttl` is over. @returns {Promise<IceServers>} */
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
   * Call `callback` with each event. Call the returned function to end that. The exceptions of a callback are logged,
   * and do not affect other callbacks.
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

  /** Connect; resolves after the attempt: null, or why it has failed. @returns {Promise<string | null>} */
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
   * Pass an input to the machine, and carry out its effects. A callback may lead back here; then the outer call does
   * the rest.
   *
   * @template {Input} Call
   * @param {Call} call
   * @param {Told<Call>} values The arguments after the time.
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
      // A key that cannot sign is useless, now and later.
      this.#tell('end', new IdentityError(String(error)));
    }
  }
}

/**
 * Throws `ConfigError` when it cannot sign.
 *
 * @param {Identity | undefined} identity
 */
export function checkIdentity(identity) {
  if (!identity?.sign?.call || !identity.publicKey) throw new ConfigError('identity', 'not an Identity: await it');
}

/**
 * The reason of a failed attempt, with all that can be found out. Browsers never load the module that does so. Where it
 * cannot be loaded, the reason alone has to do.
 *
 * @param {string} url
 * @param {string} reason
 */
async function explained(url, reason) {
  const isNode = /** @type {any} */ (globalThis).process?.versions?.node;
  const part = isNode && reason === NO_ANSWER && (await import('./explain.js').catch(() => null));
  return part ? part.explained(url, reason) : reason;
}

/**
 * The optional fields of a message that were given.
 *
 * @template {object} T
 * @param {T | undefined} options
 * @returns {{ [K in keyof T]: Exclude<T[K], null> }}
 */
function given(options) {
  return /** @type {any} */ (Object.fromEntries(Object.entries(options ?? {}).filter(([, value]) => value !== null)));
}
