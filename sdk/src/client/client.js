/**
 * `SignalingClient`: a page's connection to a signaling server, kept alive.
 *
 * It runs a `ClientMachine`: it passes the time and the transport's input to the machine, and carries out the machine's
 * effects. The machine makes all decisions. The client owns one transport and one timer; after `close` none is left.
 *
 * @import { Identity } from '../identity/keys.js'
 * @import { PublishedSealKey, SealKeys } from '../identity/seal_keys.js'
 * @import { Candidate, Capabilities, Proof, SealKey, Visibility } from '../protocol/messages.js'
 * @import { Privacy } from '../protocol/privacy.js'
 * @import { BackoffOptions } from './backoff.js'
 * @import { Effect, Sign } from './effects.js'
 * @import { Discovery, IceServers, Registration, SignalingEvent, SignalingState } from './events.js'
 * @import { Request } from './requests.js'
 * @import { TokenProvider } from './tokens.js'
 * @import { Transport } from './transport.js'
 */
import { ConfigError, EngineMissing, IdentityError, ServerUnreachable, StateError, UsageError } from '../errors.js';
import { checkUserId, DEFAULT_DEVICE, join } from '../protocol/addresses.js';
import { toBase64 } from '../protocol/codec.js';
import { ABNORMAL, GOING_AWAY } from '../protocol/codes.js';
import { VISIBILITIES } from '../protocol/privacy.js';
import { bind } from '../proxies.js';
import { Backoff } from './backoff.js';
import { Callbacks } from './callbacks.js';
import { parseServerAddress } from './address.js';
import { ClientMachine } from './machine.js';
import { settings } from './settings.js';
import { timers } from './timers.js';
import { TokenSource } from './tokens.js';
import { NO_ANSWER, openTransport } from './transport.js';

// Chromium delays the WebSockets of a page that has failed to open some twenty within three minutes, by seconds. So while
// somebody waits, a page first looks whether the server answers HTTP, for so many seconds, and opens one if it does. One
// attempt in `DIAL_EVERY` opens a WebSocket at once, because the page may be forbidden to look. That has `SHORT` seconds: a
// system repeats the first packet ever more seldom.
const KNOCK = 2;
const DIAL_EVERY = 16;
const SHORT = 4;
// Seconds. So old an attempt was made in the network as it was before, when that changes.
const FRESH = 0.5;

/**
 * @typedef {object} PrivacyChange
 * @property {Visibility} [presence] Who sees that the user is online: `public`, `contacts` or `hidden`.
 * @property {Visibility} [offers] Who may call.
 * @property {string[]} [addContacts]
 * @property {string[]} [removeContacts]
 * @property {string[]} [block]
 * @property {string[]} [unblock]
 */

/** The names that there are. @type {Record<keyof PrivacyChange, undefined>} */
const UNCHANGED = {
  presence: undefined,
  offers: undefined,
  addContacts: undefined,
  removeContacts: undefined,
  block: undefined,
  unblock: undefined,
};

/**
 * @typedef {object} ClientOptions
 * @property {string} [device] Names one of several devices of the user. 'main'
 * @property {string | TokenProvider | null} [token] What the server's operator asks for, if anything: a text, or a
 *   function, async or not, that gets one. It is called before each registration, also after a lost connection, and
 *   has `connectTimeout` seconds.
 * @property {BackoffOptions} [backoff] When to try again after a lost connection.
 * @property {number} [requestTimeout] Seconds. 10
 * @property {number} [connectTimeout] Seconds for each attempt. 10
 * @property {SealKeys | null} [sealKeys] Publish these sealing keys of the user and device, so that others can send
 *   sealed messages (`relayReceived`). Where the platform has no X25519, none is published.
 * @property {typeof globalThis.WebSocket} [WebSocket]
 *
 * @typedef {'ask' | 'connected' | 'end' | 'hurry' | 'lost' | 'networkChanged' | 'received' | 'signed' | 'suspect' | 'tick'} Input
 *   The inputs of the machine.
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
 * unknown whether the server acted on the request) and, for calls that make no sense, `StateError` and its siblings. A
 * request that the server limits is sent again (`requestsDelayed`). It rejects with `RequestFailed` with the code
 * `rate-limited` and `retryAfter` only if the pause is longer than the request's time-out. `register` does so at once.
 */
export class SignalingClient {
  #machine;
  #transportOptions;
  #token;
  /** @type {Transport | null} */
  #transport = null;
  /** @type {Callbacks<SignalingEvent>} */
  #callbacks = new Callbacks();
  #carryingOut = false;
  #redials = 0;
  #dialledAt = 0;
  #cancelTimer = () => {};
  /** @type {SealKey | undefined} The sealing key of the next registration. */
  #sealKey;

  /**
   * Make a client that is not connected: call `connect` next.
   *
   * @param {string} url `ws:`, `wss:`, `http:` or `https:`; the latter two mean the former.
   * @param {string} userId
   * @param {ClientOptions} [options] Throws `ConfigError` and `InvalidAddress`.
   */
  constructor(url, userId, options) {
    const { device, token, backoff, requestTimeout, connectTimeout, sealKeys, WebSocket } = settings(
      {
        device: DEFAULT_DEVICE,
        token: /** @type {string | TokenProvider | null} */ (null),
        backoff: /** @type {BackoffOptions} */ ({}),
        requestTimeout: 10,
        connectTimeout: 10,
        sealKeys: /** @type {SealKeys | null} */ (null),
        WebSocket: globalThis.WebSocket,
      },
      options,
    );
    this.#token = new TokenSource(token);
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
    /** The sealing keys of this client, to open with; null without any. Set before it registers. @type {SealKeys | null} */
    this.sealKeys = sealKeys;
    this.#machine = new ClientMachine(
      {
        host: server,
        userId,
        device,
        token: this.#token.token,
        sealKey: () => this.#sealKey,
        backoff: new Backoff(backoff),
        requestTimeout,
      },
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

  // --- hints -------------------------------------------------------------------------------------------------------

  /** The server may be gone: ask it at once. Without an answer within 3 s the connection counts as lost. */
  suspect() {
    this.#tell('suspect');
  }

  /**
   * This device has another network, or has slept: connect at once if there is no connection. Otherwise ask the server,
   * which has 1.5 s to answer.
   */
  networkChanged() {
    const isStale = timers.time() - this.#dialledAt > FRESH;
    if (isStale && this.#machine.phase === 'dialing') this.#transport?.close(GOING_AWAY, 'the network has changed');
    this.#tell('networkChanged');
  }

  /** Somebody waits for the server: until it is back, dial it more often, for up to ten minutes. */
  hurry() {
    this.#tell('hurry');
  }

  // --- requests ----------------------------------------------------------------------------------------------------

  /**
   * Register the name, with a proof of this key. The first key that is proved for a name is bound to it. Rejects with
   * `RequestFailed`. Its `code` is `key-mismatch` when the name belongs to another key, and `token-required`,
   * `token-invalid` or `token-expired` when the server wants another token. Rejects with `TokenUnavailable` when the
   * program's own function gives none.
   *
   * @param {Identity} identity
   * @returns {Promise<Registration>}
   */
  async register(identity) {
    checkIdentity(identity);
    // Not at a later moment without need: other requests may follow at once.
    if (this.#token.renews || this.sealKeys) await this.#prepare(identity);
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

  /**
   * Send a sealed message to an address; resolves when the server has handed it over. Rejects with `RequestFailed`; the
   * code `relay-disabled` is final: this server relays none.
   *
   * @param {string} to
   * @param {Uint8Array} sealed At most what fits into `limits.maxMessageBytes` in base64.
   * @returns {Promise<void>}
   */
  async relay(to, sealed) {
    if (!sealed.length) throw new UsageError('a sealed message cannot be empty');
    return this.#ask({ type: 'relay', to, sealed: toBase64(sealed) });
  }

  /**
   * Make a new sealing key and show it to others; earlier ones open handshakes for a minute more. The client does so by
   * itself when a session could not be resumed, and each hour. Rejects with `StateError` without keys or registration.
   *
   * @returns {Promise<void>}
   */
  async renewSealKey() {
    const { identity } = this.#machine;
    if (!this.sealKeys || !identity) throw new StateError('no sealing keys, or not registered');
    const { pair, sealKey } = await this.sealKeys.toPublish(identity);
    await this.#ask({ type: 'seal-key', sealKey: wire(sealKey) });
    this.sealKeys.published(pair, timers.time());
    this.#tick(); // it ends
  }

  /** Ask for STUN and TURN servers. Ask again before `ttl` is over. @returns {Promise<IceServers>} */
  iceServers() {
    return this.#ask({ type: 'ice-servers' });
  }

  /** Who may see our user, and who may call, as the server has said last; the default before `register`. */
  get privacy() {
    return this.#machine.privacy;
  }

  /**
   * Change who may see our user (`presence`), who may call (`offers`), and who is a contact or blocked. What is left out
   * stays. It counts for all devices of the user, and the server keeps it. After a change by another device, the event
   * `privacyChanged` comes. Rejects with `RequestFailed` (code `too-large`: more names than the server keeps;
   * `unknown-type`: an older server), `UsageError`.
   *
   * @param {PrivacyChange} [change]
   * @returns {Promise<Readonly<Privacy>>} The whole of it.
   */
  async changePrivacy(change) {
    const given = settings(/** @type {PrivacyChange} */ (UNCHANGED), change);
    const { presence = 'public', offers = 'public', ...lists } = given;
    for (const [name, value] of Object.entries({ presence, offers })) {
      if (!VISIBILITIES.includes(value)) {
        throw new UsageError(`${name} is one of ${VISIBILITIES.join(', ')}, not ${JSON.stringify(value)}`);
      }
    }
    Object.values(lists).forEach((names) => names?.forEach(checkUserId));
    return this.#ask({ type: 'privacy', ...given });
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

  #online = () => this.networkChanged();
  #tick = () => {
    this.sealKeys?.purge(timers.time());
    this.#tell('tick');
  };

  /**
   * Connect; resolves after the attempt: null, or why it has failed.
   *
   * @param {number} [connectTimeout] seconds
   * @returns {Promise<string | null>}
   */
  #dial(connectTimeout = this.#transportOptions.connectTimeout) {
    this.#dialledAt = timers.time();
    return new Promise((resolve) => {
      this.#transport = openTransport(
        this.url,
        { ...this.#transportOptions, connectTimeout },
        {
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
        },
      );
    });
  }

  /** Get what the next registration shows. @param {Identity} identity */
  async #prepare(identity) {
    if (this.#token.renews) await this.#token.renew(this.#transportOptions.connectTimeout);
    // Without X25519 there is no key.
    const made = await this.sealKeys?.toRegister(identity, this.#machine.resumes).catch(() => undefined);
    this.#sealKey = made && wire(made);
  }

  /** Connect again, with another token if there are several. */
  async #redial() {
    const machine = this.#machine;
    try {
      if (machine.identity && (this.#token.renews || this.sealKeys)) await this.#prepare(machine.identity);
    } catch (error) {
      if (machine.phase === 'dialing') this.#tell('lost', ABNORMAL, /** @type {Error} */ (error).message);
    }
    let seconds = this.#transportOptions.connectTimeout;
    if (machine.isUrgent && globalThis.document) {
      if (!(++this.#redials % DIAL_EVERY)) seconds = Math.min(seconds, SHORT);
      else if (!(await answers(this.url))) {
        if (machine.phase === 'dialing') this.#tell('lost', ABNORMAL, NO_ANSWER);
        return;
      }
    }
    if (machine.phase === 'dialing') await this.#dial(seconds);
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
    const at = Math.min(machine.nextDeadline, this.sealKeys?.nextExpiry ?? Infinity);
    if (at < Infinity) this.#cancelTimer = timers.callLater(at - timers.time(), this.#tick);
  }

  /** @param {Effect} effect */
  #do(effect) {
    switch (effect.type) {
      case 'send':
        return this.#transport?.send(effect.text);
      case 'closeTransport':
        return this.#transport?.close(effect.code, effect.reason, effect.atOnce);
      case 'dial':
        return void this.#redial();
      case 'sign':
        return void this.#sign(effect);
      case 'sealKeyDue':
        // If it fails, another one is due in a while.
        return void this.renewSealKey().catch(() => {});
      case 'completed':
        return effect.error ? effect.asker.reject(effect.error) : effect.asker.resolve(effect.result);
      case 'happened':
        if (effect.event.type === 'registered') this.sealKeys?.registered(timers.time());
        if (effect.event.type === 'closed') {
          globalThis.removeEventListener?.('online', this.#online);
          this.sealKeys?.purge(Infinity);
        }
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

/** A sealing key as the messages carry it. @param {PublishedSealKey} sealKey */
const wire = ({ publicKey, signature }) => ({ publicKey: toBase64(publicKey), signature: toBase64(signature) });

/**
 * Whether anything answers at the address of a server.
 *
 * @param {string} url
 */
const answers = (url) =>
  fetch(new URL('healthz', url.replace(/^ws/, 'http')), {
    mode: 'no-cors',
    cache: 'no-store',
    signal: AbortSignal.timeout(KNOCK * 1000),
  }).then(
    () => true,
    () => false,
  );

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
