/**
 * A signaling client without the network: registration, requests, resume, reconnection.
 *
 * It is called and never waits. Time (monotonic seconds) and randomness are arguments; what it wants done comes out of
 * `take()` as a list of effects, to be asked for after every call. So an hour of lost connections is tested in
 * milliseconds, without a socket and without a promise.
 *
 * Rules:
 *
 * - The phase changes in `#step` only, by the table in `client/phases.js`.
 * - A request ends exactly once, with `completed` or `failed`: by its reply, by the server's error, by its time-out, by the
 *   loss of the connection that it was sent on, or by the end of the client. One that is made while there is no
 *   registration is held until there is one.
 * - The server is not trusted. What it may not say is a `ProtocolViolation`, which ends the connection and counts as a
 *   lost one; what is merely odd (a reply that nobody waits for) is passed over.
 * - `UsageError`s are thrown by the commands themselves, which then have changed nothing.
 *
 * It does not know sockets, promises, or what offers and answers mean.
 *
 * @import { AldisError } from '../errors.js'
 * @import { Identity } from '../identity/keys.js'
 * @import { Bytes } from '../protocol/codec.js'
 * @import { Challenge, ClientMessage, ErrorMessage, Register, Registered, ServerMessage } from '../protocol/messages.js'
 * @import { Effect, Result } from './effects.js'
 * @import { SignalingEvent } from './events.js'
 * @import { Numbered } from './inbound.js'
 * @import { Phase, Step } from './phases.js'
 * @import { Pending, Reply, Request } from './requests.js'
 */
import {
  ConnectionClosed,
  ConnectionLost,
  ProtocolViolation,
  ReconnectGaveUp,
  RequestTimeout,
  StateError,
} from '../errors.js';
import * as proofs from '../identity/proofs.js';
import { checkDevice, checkUserId, split } from '../protocol/addresses.js';
import { decodeServerMessage, encodeClientMessage, fromBase64, toBase64 } from '../protocol/codec.js';
import * as codes from '../protocol/codes.js';
import { Backoff, Retries } from './backoff.js';
import { eventOf, failureOf } from './inbound.js';
import { Lifeline, PATIENCE, SILENCE } from './lifeline.js';
import { isLive, stateOf, TABLE } from './phases.js';
import { Receipts } from './receipts.js';
import { DEFAULT_MAX_MESSAGE, RequestBook, resultOf } from './requests.js';

// Far above what a server relays (64 KiB by default), and a bound on what one can make us work on.
const MAX_MESSAGE = 1024 * 1024;

// Seconds. A server that asks to stay away for longer means "for ever", which it has close codes for.
const LONGEST_ABSENCE = 300;

/**
 * @typedef {object} MachineSettings
 * @property {string} host What the `Host` header says, since that is what is signed.
 * @property {string} userId
 * @property {string} device
 * @property {string | null} token
 * @property {Backoff} backoff
 * @property {number} requestTimeout Seconds.
 */

/**
 * One client for the whole of its life, over however many connections.
 *
 * Inputs are `connected`, `received`, `signed`, `notSigned`, `lost`, `unreachable`, `online` and `tick`; commands are
 * `ask`, which returns the numbers by which `completed` names requests, and `close`.
 * After each call carry out `take()`, and call `tick` at `nextDeadline`.
 */
export class ClientMachine {
  /** @type {Phase} */
  phase = 'idle';
  /** @type {AldisError | null} Why the client has ended; null while it has not, or when it was closed on purpose. */
  error = null;
  /** @type {Identity | null} The key under which the client registers again; null before the first registration. */
  identity = null;

  #settings;
  #random;
  /** @type {Effect[]} */
  #effects = [];
  #requests;
  /** @type {Pending | null} The registration under way. */
  #joining = null;
  /** @type {Bytes | null} What is being signed. Of two challenges with the same text each has its own object. */
  #signing = null;
  /** @type {Identity | null} The new key of a rotation of which we do not know whether it has taken place. */
  #spare = null;
  /** @type {Set<string>} What the application wants to watch, in its order; restored with a new session. */
  #watches = new Set();
  /** @type {{ session: string, secret: string } | null} */
  #ticket = null;
  #receipts = new Receipts();
  #retries;
  // Of this connection: when it became of use, why we have hung up, when the server wants us to come back.
  #lifeline = new Lifeline(0);
  #usefulFrom = Infinity;
  #hungUpBecause = '';
  #leaveAt = Infinity;

  /**
   * @param {MachineSettings} settings
   * @param {() => number} [random] Evenly from 0 to 1.
   */
  constructor(settings, random = Math.random) {
    checkUserId(settings.userId);
    checkDevice(settings.device);
    this.#settings = settings;
    this.#random = random;
    this.#requests = new RequestBook(settings.requestTimeout);
    this.#retries = new Retries(settings.backoff);
  }

  // --- what it says ------------------------------------------------------------------------------------------------

  /** Where the client stands, in three words. */
  get state() {
    return stateOf(this.phase);
  }

  /** It is over for good. */
  get ended() {
    return this.phase === 'ended';
  }

  /** Throw the error that has ended the client, or `StateError` when it was closed on purpose. */
  checkNotEnded() {
    if (this.ended) throw this.error ?? new StateError('this client is closed');
  }

  /** What is to be done now, in this order; each effect is given out once. */
  take() {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  /** When `tick` has to be called at the latest; Infinity when nothing is waited for. */
  get nextDeadline() {
    return Math.min(
      this.#requests.deadline,
      this.phase === 'waiting' ? this.#retries.due : Infinity,
      ...(isLive(this.phase) ? [this.#lifeline.deadline, this.#leaveAt] : []),
      this.phase === 'registered' ? this.#receipts.deadline : Infinity,
    );
  }

  // --- inputs: the transport ---------------------------------------------------------------------------------------

  /** A connection has been made: the first one, or the one that `dial` asked for. @param {number} now */
  connected(now) {
    this.#step('connected');
    this.#lifeline = new Lifeline(now);
    this.#usefulFrom = Infinity;
    this.#hungUpBecause = '';
    this.#tell({ type: 'connected', attempt: Math.max(1, this.#retries.attempts) });
    if (this.#joining || this.identity) {
      this.#join(now);
    } else {
      this.#usefulFrom = now;
      this.#sendHeld(now);
    }
  }

  /** A whole message has come. @param {unknown} text One that is none is the server's fault. @param {number} now */
  received(text, now) {
    if (!isLive(this.phase)) return;
    this.#lifeline.heard(now);
    try {
      if (typeof text !== 'string' || text.length > MAX_MESSAGE) throw new ProtocolViolation('no text, or too large');
      const message = decodeServerMessage(text);
      if (message) this.#handle(message, text.length, now);
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.#hangUp(codes.PROTOCOL_ERROR, `the server broke the protocol: ${error.message}`);
    }
  }

  /**
   * The signature that `sign` asked for is there.
   *
   * @param {Bytes} message The object that was to be signed; one that is not waited for any more is passed over.
   * @param {Bytes} signature
   */
  signed(message, signature) {
    if (message !== this.#signing || this.phase !== 'signing') return;
    this.#step('signed');
    // With the number of the registration: the two are one exchange, and so is what the answer refers to.
    this.#send({ type: 'prove', signature: toBase64(signature), id: this.#joining?.number });
  }

  /** A key that cannot sign is of no use, now or later. @param {AldisError} error */
  notSigned(error) {
    if (!this.ended) this.#end(error);
  }

  /**
   * The connection is gone: closed by the server with `code` and `reason`, or broken (1006).
   *
   * @param {number} now
   * @param {number} code
   * @param {string} reason
   */
  lost(now, code, reason) {
    if (!isLive(this.phase) && this.phase !== 'closing') return;
    const why = this.#hungUpBecause || reason || `the connection was closed with code ${code}`;
    this.#retries.stood(now - this.#usefulFrom);
    this.#step('lost');
    if (code === codes.SESSION_LOST) this.#ticket = null;
    // None of the codes that we close with ourselves is a final one above 4000: such a one has crossed ours.
    if (!codes.mayReconnect(code) && (!this.#hungUpBecause || code >= codes.GOING_AWAY)) {
      this.#tell({ type: 'disconnected', reason: why, code, retryIn: null });
      this.#end(new ConnectionClosed(code, reason));
      return;
    }
    // What was asked on it will not be answered.
    const error = new ConnectionLost(`the connection to the server was lost: ${why}`);
    this.#failAll(error, ({ sentAt }) => sentAt !== null);
    if (this.#joining && this.#joining.sentAt !== null) this.#failNameless(error);
    this.#retry(now, why, code);
  }

  /** The connection that `dial` asked for could not be made. @param {number} now @param {string} reason */
  unreachable(now, reason) {
    if (this.phase === 'dialing') {
      this.#step('lost');
      this.#retry(now, reason, codes.ABNORMAL);
    }
  }

  /** The device has a network again: what waits need not, and what stands may stand on a line that is gone. @param {number} now */
  online(now) {
    if (this.phase === 'waiting') {
      this.#retries.hurry();
      this.tick(now);
    } else if (isLive(this.phase) && this.#lifeline.doubt(now)) {
      this.#send({ type: 'ping' });
    }
  }

  /** Time has passed. Calling it too often does no harm. @param {number} now */
  tick(now) {
    this.#expire(now);
    if (this.phase === 'waiting' && now >= this.#retries.due) {
      this.#step('due');
      this.#effects.push({ type: 'dial' });
    } else if (isLive(this.phase)) {
      this.#keepAlive(now);
    }
    if (this.phase === 'registered' && now >= this.#receipts.deadline) this.#confirm();
  }

  // --- commands ----------------------------------------------------------------------------------------------------

  /**
   * Make a request: it is sent now, or held until there is a registration (only `ping` needs none). One to another user is
   * completed when the server has handed it over. Of `register` the machine adds all but the type.
   *
   * @param {Request} message
   * @param {number} now
   * @param {Identity} [identity] Of a registration: the key to prove. Of a rotation: the new one.
   * @returns {number[]} The requests that this takes: several for many watches. Throws `StateError`, `InvalidAddress`,
   *   `MessageTooLarge` and `UsageError`.
   */
  ask(message, now, identity) {
    this.checkNotEnded();
    if (this.phase === 'idle') throw new StateError('not connected: call connect() first');
    const named = this.identity ?? this.#joining;
    if (message.type === 'register') {
      if (named) throw new StateError('already registered: call unregister() first');
      const { number } = (this.#joining = this.#registration(/** @type {Identity} */ (identity), now, false));
      if (this.phase === 'open') this.#join(now);
      return [number];
    }
    if (message.type !== 'ping' && !named) throw new StateError('not registered: call register() first');
    if ('to' in message) {
      const [userId, device] = split(message.to);
      checkUserId(userId);
      if (device !== null) checkDevice(device);
    }
    if ('userId' in message) checkUserId(message.userId);
    /** @type {ClientMessage[]} */
    let messages = [message];
    if ('userIds' in message) {
      messages = this.#requests
        .chunks(message.userIds.map(checkUserId))
        .map((userIds) => ({ type: message.type, userIds }));
    }
    return messages.map((one) => {
      const request = this.#requests.add(one, now, { identity });
      if (this.#admits(request)) this.#transmit(request, now);
      return request.number;
    });
  }

  /** End it on purpose: no reconnection, and `closed` without error is the last event. Harmless when it has ended. */
  close() {
    if (!this.ended) this.#end(null);
  }

  // --- registration ------------------------------------------------------------------------------------------------

  /** @param {Identity} identity @param {number} now @param {boolean} internal */
  #registration(identity, now, internal) {
    const { userId, device, token } = this.#settings;
    /** @type {Register} */
    const message = { type: 'register', userId, publicKey: toBase64(identity.publicKey), device };
    if (token) message.token = token;
    if (this.#ticket) message.resume = { ...this.#ticket, received: this.#receipts.count };
    return this.#requests.add(message, now, { identity, internal });
  }

  /** Ask for the name on a connection that has none: for the first time, or again. @param {number} now */
  #join(now) {
    if (this.identity) this.#joining ??= this.#registration(this.identity, now, true);
    if (this.#joining) {
      this.#step('asked');
      this.#transmit(this.#joining, now);
    }
  }

  /** The registration that the server is busy with, if a message with this `re` belongs to it. @param {unknown} re */
  #joins(re) {
    const joining = this.#joining;
    return joining && joining.sentAt !== null && (re ?? joining.number) === joining.number ? joining : null;
  }

  /** @param {Challenge} message */
  #challenged({ nonce, re }) {
    const identity = this.#joins(re)?.identity;
    if (!identity || this.phase !== 'registering') return;
    const { host, userId, device } = this.#settings;
    const message = (this.#signing = proofs.registration(host, fromBase64(nonce, proofs.NONCE_BYTES), userId, device));
    this.#step('challenged');
    this.#effects.push({ type: 'sign', identity, message });
  }

  /** @param {Registered} message @param {number} now */
  #admitted({ type, success, userId, device, session = '', secret, resumed = false, limits, re }, now) {
    const joining = this.#joins(re);
    if (!joining) return;
    const asked = /** @type {Register} */ (joining.message);
    if (
      this.phase !== 'proving' ||
      !success || // the classic dialect's way to refuse
      userId !== asked.userId ||
      (device ?? asked.device) !== asked.device ||
      (resumed && !asked.resume)
    ) {
      throw new ProtocolViolation('registered as nobody asked for');
    }
    this.#step('admitted');
    this.identity = joining.identity;
    this.#joining = this.#spare = null;
    this.#usefulFrom = now;
    this.#ticket = session && secret ? { session, secret } : null;
    this.#requests.maxMessage = limits?.maxMessageBytes ?? DEFAULT_MAX_MESSAGE;
    this.#tell({ type, resumed });
    this.#complete(joining, null, { session, resumed, limits: limits ?? null });
    if (resumed) {
      this.#receipts.confirmed(); // by the ticket
    } else {
      this.#receipts = new Receipts();
      for (const userIds of this.#requests.chunks(this.#watches)) {
        this.#transmit(this.#requests.add({ type: 'watch', userIds }, now, { internal: true }), now);
      }
    }
    this.#sendHeld(now);
  }

  /** @param {Pending} joining @param {ReturnType<typeof failureOf>} failure @param {number} now */
  #notAdmitted(joining, failure, now) {
    this.#step('refused');
    this.#joining = null;
    this.#complete(joining, failure);
    if (!joining.internal) {
      // The application asked, and is told; what was held for this registration has no hope either.
      this.#usefulFrom = now;
      this.#failNameless(failure);
    } else if (failure.code === 'key-mismatch' && this.#spare) {
      // The rotation whose outcome we never heard of has taken place.
      this.identity = this.#spare;
      this.#spare = null;
      this.#join(now);
    } else if (failure.temporary) {
      this.#retries.notBefore = now + Math.min(failure.retryAfter ?? 0, LONGEST_ABSENCE);
      this.#hangUp(codes.GOING_AWAY, `refused for now: ${failure.message}`);
    } else {
      this.#end(failure);
    }
  }

  // --- messages of the server --------------------------------------------------------------------------------------

  /** @param {ServerMessage} message @param {number} size @param {number} now */
  #handle(message, size, now) {
    if ('to' in message || message.type === 'presence') {
      this.#numbered(message, size, now);
    } else if (message.type === 'challenge') {
      this.#challenged(message);
    } else if (message.type === 'registered') {
      this.#admitted(message, now);
    } else if (message.type === 'going-away') {
      const reconnectIn = Math.min(Math.max(message.reconnectIn, 0), LONGEST_ABSENCE);
      this.#leaveAt = now + reconnectIn;
      this.#tell({ type: 'goingAway', reconnectIn });
    } else {
      this.#replied(message, now);
    }
  }

  /** @param {Numbered} message @param {number} size @param {number} now */
  #numbered(message, size, now) {
    if (this.phase !== 'registered') return;
    const event = eventOf(message);
    // A presence that was on its way when its watch ended concerns nobody.
    if (event && (message.type !== 'presence' || this.#watches.has(message.userId))) this.#tell(event);
    // What could not be used has been received all the same: both sides must come to the same number.
    if (this.#receipts.processed(size, now)) this.#confirm();
  }

  #confirm() {
    this.#receipts.confirmed();
    this.#send({ type: 'received', count: this.#receipts.count });
  }

  /** @param {ErrorMessage | Reply} message @param {number} now */
  #replied(message, now) {
    const request = this.#requests.answeredBy(message.re);
    if (message.type === 'error') {
      const failure = failureOf(message);
      if (!request) return;
      if (request === this.#joining) {
        this.#notAdmitted(request, failure, now);
      } else {
        if (request.message.type === 'rotate') this.#spare = null;
        this.#complete(request, failure);
      }
    } else if (request) {
      const result = resultOf(request, message, now);
      if (message.type === 'rotated') {
        this.identity = request.identity;
        this.#spare = null;
      }
      if (message.type === 'unregistered' && this.phase === 'registered') {
        this.#step('left');
        this.identity = this.#spare = this.#ticket = null;
        this.#watches.clear();
        this.#receipts = new Receipts();
      }
      this.#complete(request, null, result);
    }
  }

  // --- requests ----------------------------------------------------------------------------------------------------

  /** Whether a request may go out now. @param {Pending} request */
  #admits({ message }) {
    return this.phase === 'registered' || (message.type === 'ping' && isLive(this.phase));
  }

  /** @param {Pending} request @param {number} now */
  #transmit(request, now) {
    request.sentAt = now;
    const { message } = request;
    if (message.type === 'watch') {
      request.added = message.userIds.filter((userId) => !this.#watches.has(userId));
      for (const userId of message.userIds) this.#watches.add(userId);
    }
    if (message.type === 'unwatch') for (const userId of message.userIds) this.#watches.delete(userId);
    if (message.type === 'rotate') this.#spare = request.identity;
    this.#effects.push({ type: 'send', text: request.text });
  }

  /** @param {number} now */
  #sendHeld(now) {
    for (const request of this.#requests.all()) if (request.sentAt === null) this.#transmit(request, now);
  }

  /**
   * A request has ended, for the first time or not.
   *
   * @param {Pending} request
   * @param {AldisError | null} error
   * @param {Result} [result]
   */
  #complete(request, error, result = null) {
    if (!this.#requests.remove(request)) return;
    if (error) for (const userId of request.added) this.#watches.delete(userId);
    if (!request.internal) this.#effects.push({ type: 'completed', request: request.number, error, result });
  }

  /** @param {AldisError} error @param {(request: Pending) => boolean} which */
  #failAll(error, which) {
    for (const request of this.#requests.all()) if (which(request)) this.#complete(request, error);
  }

  /**
   * A registration has come to nothing. Unless the client repeats it by itself, so has what was held for it.
   *
   * @param {AldisError} error
   */
  #failNameless(error) {
    this.#joining = null;
    if (!this.identity) this.#failAll(error, ({ sentAt, message }) => sentAt === null && message.type !== 'ping');
  }

  /** @param {number} now */
  #expire(now) {
    for (const request of this.#requests.all()) {
      if (request.deadline > now) return;
      const error = new RequestTimeout(request.message.type, this.#requests.timeout);
      this.#complete(request, error);
      if (request === this.#joining) {
        this.#failNameless(error);
        // Nobody knows what the server makes of it, so the connection cannot be used for another try.
        this.#hangUp(codes.REGISTRATION_TIMEOUT, error.message);
      }
    }
  }

  // --- the connection ----------------------------------------------------------------------------------------------

  /** @param {number} now */
  #keepAlive(now) {
    if (now >= this.#leaveAt) {
      this.#hangUp(codes.GOING_AWAY, 'the server is going away');
      return;
    }
    const verdict = this.#lifeline.look(now);
    if (verdict === 'ask') this.#send({ type: 'ping' });
    if (verdict === 'dead') {
      this.#hangUp(codes.NO_PONG, `silence for ${SILENCE + PATIENCE} s`);
    }
  }

  /**
   * End this connection, to come back with another. Not with 1000 or 1001: the server would let us go.
   *
   * @param {number} code
   * @param {string} reason
   */
  #hangUp(code, reason) {
    if (isLive(this.phase)) {
      this.#hungUpBecause = reason;
      this.#step('hungUp');
      this.#effects.push({ type: 'closeTransport', code, reason });
    }
  }

  /** @param {number} now @param {string} reason @param {number} code */
  #retry(now, reason, code) {
    if (this.#retries.exhausted) {
      this.#tell({ type: 'disconnected', reason, code, retryIn: null });
      this.#end(new ReconnectGaveUp(this.#retries.attempts, reason));
      return;
    }
    const retryIn = this.#retries.schedule(now, this.#random(), this.#leaveAt);
    this.#leaveAt = Infinity;
    this.#tell({ type: 'disconnected', reason, code, retryIn });
  }

  /** @param {AldisError | null} error */
  #end(error) {
    const attached = isLive(this.phase);
    this.#step('ended');
    this.error = error;
    this.#joining = null;
    this.#failAll(error ?? new ConnectionLost('the client was closed'), () => true);
    if (attached) this.#effects.push({ type: 'closeTransport', code: codes.NORMAL, reason: '' });
    this.#tell({ type: 'closed', error });
  }

  /** @param {Step} step */
  #step(step) {
    const next = TABLE[this.phase][step];
    if (!next) throw new Error(`${step} while ${this.phase}`);
    this.phase = next;
  }

  /** @param {ClientMessage} message */
  #send(message) {
    this.#effects.push({ type: 'send', text: encodeClientMessage(message) });
  }

  /** @param {SignalingEvent} event */
  #tell(event) {
    this.#effects.push({ type: 'happened', event });
  }
}
