/**
 * A signaling client without the network: registration, requests, resume, reconnection.
 *
 * It never waits. Time (monotonic seconds) and randomness are arguments. `effects` lists what its owner has to do:
 * carry them out in their order after every call. So tests run an hour of lost connections in milliseconds, without a
 * socket and without a promise.
 *
 * Rules:
 *
 * - The phase changes in `#step` only, by the table in `client/phases.js`.
 * - A request ends exactly once: by its reply, by the server's error, by its time-out, by the loss of its connection,
 *   or by the end of the client. A request that is made without a registration waits for one. A request that the server
 *   refuses as `rate-limited` is sent again (`limited.js`).
 * - The server is not trusted. An invalid message is a `ProtocolViolation`: it ends the connection, which then counts
 *   as lost. A message that is only unexpected (a reply without a request) is ignored.
 * - The commands themselves throw `UsageError`s, and then change nothing.
 *
 * It does not know sockets, promises, or the meaning of offers and answers.
 *
 * @import { AldisError } from '../errors.js'
 * @import { Identity } from '../identity/keys.js'
 * @import { Bytes } from '../protocol/codec.js'
 * @import { Challenge, ClientMessage, Register, Registered, ServerMessage } from '../protocol/messages.js'
 * @import { Privacy } from '../protocol/privacy.js'
 * @import { Asker, Effect } from './effects.js'
 * @import { SignalingEvent } from './events.js'
 * @import { Joining, MachineSettings } from './handshake.js'
 * @import { Numbered, Reply } from './inbound.js'
 * @import { Phase, Step } from './phases.js'
 * @import { Pending, Request } from './requests.js'
 */
import { ConnectionClosed, ConnectionLost, RequestFailed, StateError } from '../errors.js';
import { checkDevice, checkUserId } from '../protocol/addresses.js';
import { decodeServerMessage, encodeClientMessage, toBase64 } from '../protocol/codec.js';
import * as codes from '../protocol/codes.js';
import { DEFAULT_PRIVACY, privacyOf, samePrivacy } from '../protocol/privacy.js';
import { check, violation } from '../protocol/shapes.js';
import { Retries } from './backoff.js';
import { Handshake } from './handshake.js';
import { eventOf, failureOf, resultOf } from './inbound.js';
import { CHANGE, Keepalive, PATIENCE, SILENCE, SUSPICION } from './keepalive.js';
import { isLive, TABLE } from './phases.js';
import { DEFAULT_MAX_MESSAGE, RequestBook } from './requests.js';
import { ResumeCounter } from './resume.js';
import { SealKeySchedule } from './sealing.js';
import { Watches } from './watches.js';

// Characters. Far above what a server relays (64 KiB by default); limits what a server can make us work on.
const LONGEST_RECEIVED = 1024 * 1024;
// Seconds. A server that wants a client to stay away for longer uses a close code.
const LONGEST_ABSENCE = 300;

/**
 * One client for its whole life, over any number of connections.
 *
 * Inputs are `connected`, `received`, `signed`, `lost`, `suspect`, `networkChanged`, `hurry` and `tick`; commands are `ask` and `end`. After each
 * call carry out the `effects`, and call `tick` at `nextDeadline`.
 */
export class ClientMachine {
  /** @type {Phase} */
  phase = 'idle';
  /** @type {AldisError | null} Why the client has ended; null before that, and when it was closed on purpose. */
  error = null;
  /** Who may see our user, and who may call, as the server has said last. */
  privacy = DEFAULT_PRIVACY;
  /** @type {Effect[]} What to carry out, in this order; the owner takes them out. */
  effects = [];

  #random;
  #handshake;
  #watches = new Watches();
  #requests;
  #retries;
  #sealKeys = new SealKeySchedule(this.effects);
  #resume = new ResumeCounter();
  /** @type {Bytes | undefined} The bytes being signed: a new object for each challenge, also with the same text. */
  #signing;
  // For this connection: when it became useful; why we have closed it; when the server wants us to come back.
  #keepalive = new Keepalive(0);
  #usefulFrom = Infinity;
  #hungUpBecause = '';
  #leaveAt = Infinity;
  #changed = false; // the network has, and nothing was heard of the server since

  /**
   * @param {MachineSettings} settings
   * @param {() => number} random Drawn evenly from 0 to 1.
   */
  constructor(settings, random) {
    checkUserId(settings.userId);
    checkDevice(settings.device);
    this.#random = random;
    this.#handshake = new Handshake(settings);
    this.#requests = new RequestBook(settings.requestTimeout, this.#watches, this.effects);
    this.#retries = new Retries(settings.backoff);
  }

  /** Whether somebody waits for the server. */
  get isUrgent() {
    return this.#retries.urgent;
  }

  /** Throw the error that ended the client, or `StateError` when it was closed on purpose. */
  checkNotEnded() {
    if (this.phase === 'ended') throw this.error ?? new StateError('the client was closed');
  }

  /** The latest time to call `tick`; Infinity when nothing is due. */
  get nextDeadline() {
    return Math.min(
      this.#requests.deadline,
      this.phase === 'waiting' ? this.#retries.due : Infinity,
      ...(isLive(this.phase) ? [this.#keepalive.deadline, this.#leaveAt] : []),
      ...(this.phase === 'registered' ? [this.#resume.deadline, this.#requests.due, this.#sealKeys.due] : []),
    );
  }

  // --- inputs ------------------------------------------------------------------------------------------------------

  /** A connection is open: the first one, or the one that `dial` asked for. @param {number} now */
  connected(now) {
    this.#step('connected');
    this.#keepalive = new Keepalive(now);
    this.#tell({ type: 'connected', attempt: this.#retries.attempts || 1 });
    if (this.#handshake.wanted) this.#join(now);
    else this.#usefulFrom = now;
  }

  /** A whole message has come. @param {number} now @param {unknown} text Anything but a text is the server's fault. */
  received(now, text) {
    if (!isLive(this.phase)) return;
    this.#keepalive.heard(now);
    this.#changed = false;
    try {
      check(typeof text === 'string' && text.length <= LONGEST_RECEIVED, 'no text, or too large');
      const message = decodeServerMessage(text);
      if (message) this.#handle(message, text.length, now);
      this.#sendWaiting(now);
    } catch (error) {
      // The right code would be 1002, but pages cannot send it.
      this.#hangUp(codes.GOING_AWAY, `the server broke the protocol: ${violation(error)}`);
    }
  }

  /**
   * The signature for a `sign` effect.
   *
   * @param {number} now
   * @param {Bytes} message The object that was to be signed; ignored when it is not waited for any more.
   * @param {Bytes} signature
   */
  signed(now, message, signature) {
    if (message !== this.#signing || this.phase !== 'signing') return;
    this.#step('signed');
    // With the `id` of the registration: both requests are one exchange, and the answer refers to it.
    this.#send({ type: 'prove', signature: toBase64(signature), id: this.#handshake.joining?.request.number });
  }

  /**
   * The connection is gone: closed by the server with `code` and `reason`, or broken, or never made (1006).
   *
   * @param {number} now
   * @param {number} code
   * @param {string} reason
   */
  lost(now, code, reason) {
    if (!TABLE[this.phase].lost) return;
    this.#step('lost');
    const why = this.#hungUpBecause || reason || `closed with code ${code}`;
    if (code === codes.SESSION_LOST) this.#resume = new ResumeCounter();
    if (!codes.mayReconnect(code)) {
      this.#tell({ type: 'disconnected', reason: why, code, retryIn: null });
      this.end(now, new ConnectionClosed(code, reason));
      return;
    }
    this.#failSent(new ConnectionLost(`connection lost: ${why}`));
    this.#retries.stood(now - this.#usefulFrom);
    if (code === codes.OVER_LIMITS) this.#retries.offended(now, this.#random());
    let retryIn = this.#retries.schedule(now, this.#random(), this.#leaveAt);
    if (this.#changed) retryIn = this.#retries.hasten(now);
    this.#changed = false;
    this.#usefulFrom = this.#leaveAt = Infinity;
    this.#hungUpBecause = '';
    this.#tell({ type: 'disconnected', reason: why, code, retryIn });
  }

  /** The server may be gone, for the path to a peer is: ask it, and wait `SUSPICION` seconds. @param {number} now */
  suspect(now) {
    this.#keepalive.suspect(now, SUSPICION);
    this.tick(now);
  }

  /**
   * The device has another network, or has slept: dial at once, or check the connection. `cut`: the address of the
   * connection is gone, so that it is dead for sure. (Only Python knows that.)
   *
   * @param {number} now
   * @param {boolean} [cut]
   */
  networkChanged(now, cut = false) {
    this.#changed = this.phase !== 'waiting';
    this.#retries.hasten(now);
    if (cut) this.#hangUp(codes.NO_PONG, 'the network has changed', true);
    this.#keepalive.suspect(now, CHANGE);
    this.tick(now);
  }

  /** Somebody waits for the server: until it is back, wait less between attempts. @param {number} now */
  hurry(now) {
    if (this.phase === 'registered') return;
    this.#retries.hurry(now, this.#random());
    this.tick(now);
  }

  /** Time has passed. Extra calls do no harm. @param {number} now */
  tick(now) {
    this.#expire(now);
    this.#sendWaiting(now);
    if (this.phase === 'waiting' && now >= this.#retries.due) {
      this.#step('due');
      this.effects.push({ type: 'dial' });
    } else if (isLive(this.phase)) {
      this.#keepAlive(now);
    }
    if (this.phase !== 'registered') return;
    if (now >= this.#resume.deadline) this.#confirm();
    this.#sealKeys.look(now);
  }

  // --- commands ----------------------------------------------------------------------------------------------------

  /** The key to register with again; null before the first registration. */
  get identity() {
    return this.#handshake.identity;
  }

  /**
   * Make a request: send it now, or hold it until there is a registration. A message to another user is completed when
   * the server has handed it over. For `register`, the machine adds everything except the type.
   *
   * @param {number} now
   * @param {Request | { type: 'register' }} message
   * @param {Asker} asker
   * @param {Identity} [identity] For a registration: the key to prove.
   * @returns {number} The request's `id`. Throws `StateError`, `MessageTooLarge` and `UsageError`.
   */
  ask(now, message, asker, identity) {
    this.checkNotEnded();
    if (this.phase === 'idle') throw new StateError('call connect() first');
    const { wanted } = this.#handshake;
    if (!identity === !wanted) throw new StateError(identity ? 'already registered' : 'call register() first');
    if (identity) {
      const { request } = this.#registration(now, identity, asker);
      if (this.phase === 'open') this.#join(now);
      return request.number;
    }
    return this.#submit(now, this.#requests.add(now, /** @type {Request} */ (message), asker));
  }

  /** Whether the next registration asks to resume a session. */
  get resumes() {
    return !!this.#resume.ticket;
  }

  /** User ids without duplicates, in lists that fit into one message. @param {Iterable<string>} userIds */
  chunks(userIds) {
    return this.#requests.chunks(userIds);
  }

  /**
   * End the client, on purpose or for an error: no reconnection, and `closed` is the last event. Harmless after the
   * end.
   *
   * @param {number} now
   * @param {AldisError | null} error
   */
  end(now, error) {
    if (this.phase === 'ended') return;
    // This also ends a connection that is being made.
    const attached = isLive(this.phase) || 'connected' in TABLE[this.phase];
    this.#step('ended');
    this.error = error;
    this.#handshake.joining = null;
    for (const request of this.#requests.all) {
      this.#requests.complete(request, error ?? new ConnectionLost('the client was closed'));
    }
    if (attached) this.effects.push({ type: 'closeTransport', code: codes.NORMAL, reason: '' });
    this.#tell({ type: 'closed', error });
  }

  // --- registration ------------------------------------------------------------------------------------------------

  /** @param {number} now @param {Identity} identity @param {Asker} [asker] */
  #registration(now, identity, asker) {
    const message = this.#handshake.register(identity, this.#resume.ticket);
    return (this.#handshake.joining = { request: this.#requests.add(now, message, asker), identity });
  }

  /** Register the name on this connection, for the first time or again. @param {number} now */
  #join(now) {
    const { joining, identity } = this.#handshake;
    const asked = joining ?? (identity && this.#registration(now, identity));
    if (!asked) return;
    this.#step('asked');
    this.#requests.send(now, asked.request);
  }

  /** The registration in progress, if a message with this `re` belongs to it. @param {unknown} re */
  #joins(re) {
    const isBusy = 'refused' in TABLE[this.phase] && this.#handshake.belongs(re);
    return isBusy ? this.#handshake.joining : null;
  }

  /** @param {Challenge} message */
  #challenged(message) {
    const joining = this.#joins(message.re);
    if (!joining || this.phase !== 'registering') return;
    const signed = (this.#signing = this.#handshake.signed(message));
    this.#step('challenged');
    this.effects.push({ type: 'sign', identity: joining.identity, message: signed });
  }

  /** @param {Registered} message @param {number} now */
  #admitted(message, now) {
    const joining = this.#joins(message.re);
    if (!joining) return;
    if (!message.success) {
      // A refusal in the classic dialect.
      this.#notAdmitted(joining, new RequestFailed('key-mismatch', 'the server refused the name'), now);
      return;
    }
    check(this.phase === 'proving', 'registered without a proof');
    this.#handshake.check(message);
    this.#step('admitted');
    this.#handshake.admitted(joining);
    this.#usefulFrom = now;
    this.#retries.urgent = false;
    const { type, session = '', secret = '', resumed = false, limits } = message;
    this.#requests.maxMessage = limits?.maxMessageBytes ?? DEFAULT_MAX_MESSAGE;
    this.#requests.allow(limits?.resumeWindow ?? 0);
    // First: messages of those that are blocked by now may follow.
    this.#privacyTold(message.privacy ?? DEFAULT_PRIVACY);
    this.#tell({ type, resumed, limits: limits ?? null });
    this.#requests.complete(joining.request, null, { session, resumed, limits: limits ?? null });
    if (resumed) {
      this.#resume.resumed(session, secret);
    } else {
      this.#resume = new ResumeCounter(session, secret);
      this.#requests.dropRestoredWatches();
      for (const userIds of this.chunks(this.#watches.all)) {
        this.#submit(now, this.#requests.add(now, { type: 'watch', userIds }));
      }
    }
    this.#sealKeys.registered(/** @type {Register} */ (joining.request.message), limits, now, resumed);
    const limited = new Set(this.#requests.limited);
    for (const request of this.#requests.all) {
      if (!request.sent && !limited.has(request) && this.#requests.mayGo(request)) this.#requests.send(now, request);
    }
  }

  /** @param {Joining} joining @param {RequestFailed} failure @param {number} now */
  #notAdmitted({ request }, failure, now) {
    this.#step('refused');
    this.#handshake.joining = null;
    this.#requests.complete(request, failure);
    if (request.asker) {
      // The application made this request, and gets its error; requests that waited for the registration fail too.
      this.#usefulFrom = now;
      this.#failNameless(failure);
    } else if (failure.temporary || this.#handshake.mayRenew(failure)) {
      this.#retries.notBefore = now + Math.min(failure.retryAfter ?? 0, LONGEST_ABSENCE);
      this.#hangUp(codes.GOING_AWAY, `refused for now: ${failure.message}`);
    } else {
      this.end(now, failure);
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
      if (message.type === 'privacy' && this.phase === 'registered') this.#privacyTold(message);
      this.#answered(message, now);
    }
  }

  /** @param {Privacy} settings */
  #privacyTold(settings) {
    const privacy = privacyOf(settings);
    if (samePrivacy(privacy, this.privacy)) return;
    this.privacy = privacy;
    this.#tell({ type: 'privacyChanged', privacy });
  }

  /** @param {Numbered} message @param {number} size @param {number} now */
  #numbered(message, size, now) {
    if (this.phase !== 'registered') return;
    const event = eventOf(message, (userId) => this.#watches.answers(userId));
    if (event && (message.type !== 'presence' || this.#watches.takes(message))) this.#tell(event);
    // Count unusable messages too, because both sides must have the same count.
    if (this.#resume.processed(size, now)) this.#confirm();
  }

  /** Confirm to the server how many messages have come. */
  #confirm() {
    this.#resume.confirmed();
    this.#send({ type: 'received', count: this.#resume.count });
  }

  /** @param {Reply} message @param {number} now */
  #answered(message, now) {
    const { re } = message;
    const joining = message.type === 'error' && re !== undefined && this.#joins(re);
    const request = this.#requests.answeredBy(now, re);
    if (joining) this.#notAdmitted(joining, failureOf(message, 'register'), now);
    else if (request && message.type === 'error') this.#refused(request, failureOf(message, request.message.type), now);
    else if (request) {
      const result = resultOf(request.message, message);
      if (request.message.type === 'seal-key') this.#sealKeys.published(now);
      this.#requests.complete(request, null, result);
    }
  }

  // --- requests ----------------------------------------------------------------------------------------------------

  /** Send a request if that is possible now, and no others have to go first. @param {number} now @param {Pending} request */
  #submit(now, request) {
    if (this.#requests.queue(now, request)) this.#sendWaiting(now);
    else if (this.phase === 'registered' && this.#requests.mayGo(request)) this.#requests.send(now, request);
    return request.number;
  }

  /**
   * The server refuses a request; it is sent again after the pause that the server has asked for, if any.
   *
   * @param {Pending} request
   * @param {RequestFailed} error
   * @param {number} now
   */
  #refused(request, error, now) {
    const isLimited = error.code === 'rate-limited' && (error.retryAfter ?? null) !== null;
    const pause = isLimited ? this.#requests.refused(now, request, error, this.#random()) : null;
    if (pause === null) this.#requests.complete(request, error);
    if (!pause) return;
    const { message } = request;
    const to = 'to' in message ? message.to : null;
    this.#tell({ type: 'requestsDelayed', request: message.type, to, retryIn: pause, error });
  }

  /** Send what waited for answers to others, or for the end of a pause. @param {number} now */
  #sendWaiting(now) {
    if (this.phase === 'registered')
      for (const request of this.#requests.release(now)) this.#requests.send(now, request);
    for (let request; this.phase === 'registered' && (request = this.#requests.nextLookup);) {
      this.#requests.send(now, request);
    }
  }

  /** The connection is lost: fail the requests that were sent on it. @param {AldisError} error */
  #failSent(error) {
    for (const request of this.#requests.all) if (request.sent) this.#requests.complete(request, error);
    if (this.#handshake.joining?.request.sent) {
      this.#handshake.joining = null;
      this.#failNameless(error);
    }
  }

  /** A registration has failed. Unless the client repeats it, fail the requests that wait for it. @param {AldisError} error */
  #failNameless(error) {
    if (!this.#handshake.identity) for (const request of this.#requests.all) this.#requests.complete(request, error);
  }

  /** @param {number} now */
  #expire(now) {
    for (const { request, error } of this.#requests.overdue(now)) {
      this.#requests.complete(request, error);
      if (request === this.#handshake.joining?.request) {
        this.#handshake.joining = null;
        this.#failNameless(error);
        // The server may still register us on this connection, so another try needs another connection.
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
    const verdict = this.#keepalive.look(now);
    if (verdict === 'ask') this.#send({ type: 'ping' });
    const { patience } = this.#keepalive;
    const silence = patience === PATIENCE ? SILENCE + PATIENCE : patience;
    // A dead server answers no CLOSE frame either.
    if (verdict === 'dead') this.#hangUp(codes.NO_PONG, `silence for ${silence} s`, true);
  }

  /**
   * Close this connection, if there is one, and reconnect later. Not with 1000 or 1001: the server would end the
   * session.
   *
   * @param {number} code
   * @param {string} reason
   * @param {boolean} [atOnce] Do not wait for the server.
   */
  #hangUp(code, reason, atOnce = false) {
    if (!isLive(this.phase)) return;
    this.#hungUpBecause = reason;
    this.#step('hungUp');
    this.effects.push({ type: 'closeTransport', code, reason, atOnce });
  }

  /** @param {Step} step */
  #step(step) {
    const next = TABLE[this.phase][step];
    if (!next) throw new Error(`${step} while ${this.phase}`);
    this.phase = next;
  }

  /** @param {ClientMessage} message */
  #send(message) {
    this.effects.push({ type: 'send', text: encodeClientMessage(message) });
  }

  /** @param {SignalingEvent} event */
  #tell(event) {
    this.effects.push({ type: 'happened', event });
  }
}
