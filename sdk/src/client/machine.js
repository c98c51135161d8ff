/**
 * A signaling client without the network: registration, requests, resume, reconnection.
 *
 * It is called and never waits. Time (monotonic seconds) and randomness are arguments; what it wants done comes out as
 * `effects`, to be carried out in their order after every call. So an hour of lost connections is tested in milliseconds,
 * without a socket and without a promise.
 *
 * Rules:
 *
 * - The phase changes in `#step` only, by the table in `client/phases.js`.
 * - A request ends exactly once: by its reply, by the server's error, by its time-out, by the loss of the connection that
 *   it was sent on, or by the end of the client. One that is made while there is no registration is held until there is.
 * - The server is not trusted. What it may not say is a `ProtocolViolation`, which ends the connection and counts as a
 *   lost one; what is merely odd (a reply that nobody waits for) is passed over.
 * - `UsageError`s are thrown by the commands themselves, which then have changed nothing.
 *
 * It does not know sockets, promises, or what offers and answers mean.
 *
 * @import { AldisError } from '../errors.js'
 * @import { Identity } from '../identity/keys.js'
 * @import { Bytes } from '../protocol/codec.js'
 * @import { Challenge, ClientMessage, ErrorMessage, Registered, ServerMessage } from '../protocol/messages.js'
 * @import { Backoff } from './backoff.js'
 * @import { Asker, Effect, Result } from './effects.js'
 * @import { SignalingEvent } from './events.js'
 * @import { Numbered } from './inbound.js'
 * @import { Phase, Step } from './phases.js'
 */
import { ConnectionClosed, ConnectionLost, MessageTooLarge, RequestTimeout, StateError } from '../errors.js';
import * as proofs from '../identity/proofs.js';
import { checkDevice, checkUserId } from '../protocol/addresses.js';
import { decodeServerMessage, encodeClientMessage, fromBase64, toBase64, toUtf8 } from '../protocol/codec.js';
import * as codes from '../protocol/codes.js';
import { check, violation } from '../protocol/shapes.js';
import { eventOf, failureOf, resultOf } from './inbound.js';
import { isLive, TABLE } from './phases.js';

// Characters. Far above what a server relays (64 KiB by default), and a bound on what one can make us work on.
const LONGEST_RECEIVED = 1024 * 1024;
// Bytes. What a server takes that has not said so; its own default.
const LARGEST_SENT = 64 * 1024;
// So many of the longest names always fit into one message.
const MOST_WATCHES = 100;

// Seconds. A browser does not show us WebSocket's pings, so after a silence the client asks with a `ping` of the
// protocol; silence after that means that the connection is dead.
const SILENCE = 25;
const PATIENCE = 10;
// A page that sleeps (closed lid, throttled tab) looks at its clock late, while the answer may lie unread beside it. So
// a look that comes much too late asks once more; only the second silence counts.
const LATE = 5;

// The server keeps for a resumption what we have not confirmed, by default 256 messages and 256 KiB. An eighth of that
// leaves room for what is on its way: each message weighs its characters and the share of one in 32.
const MOST_UNCONFIRMED = 32 * 1024;
const EACH = 1024;
// Seconds. A trickle of messages is confirmed so long after the first of them.
const CONFIRM_WITHIN = 2;

// Seconds. A server that asks to stay away for longer means "for ever", which it has close codes for.
const LONGEST_ABSENCE = 300;
// Seconds. Whatever a server says of its resume window: a request that nobody answers is let go of some day.
const LONGEST_WINDOW = 120;
// Lookups at a time: most of what a server keeps while it looks names up is left to what is said to peers.
const MOST_LOOKUPS = 32;
// Seconds. A registration that has lasted for so long ends the count of attempts. One that is lost sooner counts as a
// failure, or a server that throws its clients out at once would be knocked at for ever.
const SETTLED = 10;

/** @typedef {Exclude<ClientMessage, { type: 'register' | 'prove' | 'received' }> | { type: 'register' }} Request */

/**
 * A request without an answer.
 *
 * @typedef {object} Pending
 * @property {number} number Its `id`.
 * @property {Request} message
 * @property {string} text
 * @property {number} deadline
 * @property {number} turns How often it has been waited for up to the deadline.
 * @property {boolean} sent false: held until there is a registration.
 * @property {string[]} added Of a `watch`: the names that nobody had asked for before.
 * @property {Set<string>} [unstated] Of a `watch` that is sent: the names whose presence the server has not told yet. It
 *   tells one for each name before the `ack`.
 * @property {Asker | undefined} asker undefined: the machine itself has asked.
 *
 * @typedef {object} MachineSettings
 * @property {string} host What the `Host` header says, since that is what is signed.
 * @property {string} userId
 * @property {string} device
 * @property {string | null} [token]
 * @property {Backoff} backoff
 * @property {number} requestTimeout Seconds.
 */

/**
 * User ids, each once, in lists that fit into one message.
 *
 * @param {Iterable<string>} userIds
 */
export function chunks(userIds) {
  const rest = [...new Set(userIds)];
  const lists = [];
  while (rest.length) lists.push(rest.splice(0, MOST_WATCHES));
  return lists;
}

/**
 * One client for the whole of its life, over however many connections.
 *
 * Inputs are `connected`, `received`, `signed`, `lost`, `online` and `tick`; commands are `ask` and `end`. After each call
 * carry out the `effects`, and call `tick` at `nextDeadline`.
 */
export class ClientMachine {
  /** @type {Phase} */
  phase = 'idle';
  /** @type {AldisError | null} Why the client has ended; null while it has not, or when it was closed on purpose. */
  error = null;
  /** @type {Effect[]} What is to be done, in this order; to be taken out by who does it. */
  effects = [];

  #settings;
  #random;
  /** @type {Identity | null} The key to register with; null before the first registration, and when that has failed. */
  #identity = null;
  /** @type {Map<unknown, Pending>} By number. As all wait equally long, their order is that of the deadlines too. */
  #requests = new Map();
  #lastNumber = 0;
  /** How many `discover` have been sent and wait for their answers. */
  #lookups = 0;
  /** @type {Pending | null} The registration that is to be made or under way. */
  #joining = null;
  /** @type {Bytes | undefined} What is being signed. Of two challenges with the same text each has its own object. */
  #signing;
  /** @type {Set<string>} What the application wants to watch, in its order; restored with a new session. */
  #watches = new Set();
  /**
   * With what to resume the session. Both sides count its relayed and presence messages; no number goes over the wire.
   *
   * @type {{ session: string, secret: string, received: number } | undefined}
   */
  #ticket;
  #unconfirmed = 0;
  #largestSent = LARGEST_SENT;
  #keeps = 0;
  #attempts = 0;
  // When the next attempt is made, and how much sooner it may be.
  #due = 0;
  #earliest = 0;
  // Of this connection: since when there is a registration; why we have hung up; when the server wants us to come back;
  // when to look whether it still lives, and how often it was asked; when to confirm what has come.
  #usefulFrom = Infinity;
  #hungUpBecause = '';
  #comeBackAt = Infinity;
  #lookAt = 0;
  #asked = 0;
  #confirmAt = Infinity;

  /**
   * @param {MachineSettings} settings
   * @param {() => number} random Evenly from 0 to 1.
   */
  constructor(settings, random) {
    checkUserId(settings.userId);
    checkDevice(settings.device);
    this.#settings = settings;
    this.#random = random;
  }

  /** Throw the error that has ended the client, or `StateError` when it was closed on purpose. */
  checkNotEnded() {
    if (this.phase === 'ended') throw this.error ?? new StateError('the client was closed');
  }

  /** When `tick` has to be called at the latest; Infinity when nothing is waited for. */
  get nextDeadline() {
    const [first] = this.#requests.values();
    return Math.min(
      first?.deadline ?? Infinity,
      this.phase === 'waiting' ? this.#due : Infinity,
      ...(isLive(this.phase) ? [this.#lookAt, this.#comeBackAt, this.#confirmAt] : []),
    );
  }

  // --- inputs ------------------------------------------------------------------------------------------------------

  /** A connection has been made: the first one, or the one that `dial` asked for. @param {number} now */
  connected(now) {
    this.#step('connected');
    this.#heard(now);
    this.#tell({ type: 'connected', attempt: this.#attempts || 1 });
    this.#join(now);
  }

  /** A whole message has come. @param {number} now @param {unknown} text One that is none is the server's fault. */
  received(now, text) {
    if (!isLive(this.phase)) return;
    this.#heard(now);
    try {
      check(typeof text === 'string' && text.length <= LONGEST_RECEIVED, 'no text, or too large');
      const message = decodeServerMessage(text);
      if (message) this.#handle(message, text.length, now);
    } catch (error) {
      // Pages cannot say 1002, which would be the code for it.
      this.#hangUp(codes.GOING_AWAY, `the server broke the protocol: ${violation(error)}`);
    }
  }

  /**
   * The signature that `sign` asked for is there.
   *
   * @param {number} now
   * @param {Bytes} message The object that was to be signed; one that is not waited for any more is passed over.
   * @param {Bytes} signature
   */
  signed(now, message, signature) {
    if (message !== this.#signing || this.phase !== 'signing') return;
    this.#step('signed');
    // With the number of the registration: the two are one exchange, and so is what the answer refers to.
    this.#send({ type: 'prove', signature: toBase64(signature), id: this.#joining?.number });
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
    if (code === codes.SESSION_LOST) this.#ticket = undefined;
    if (!codes.mayReconnect(code)) {
      this.#tell({ type: 'disconnected', reason: why, code, retryIn: null });
      this.end(now, new ConnectionClosed(code, reason));
      return;
    }
    // What was asked on it will not be answered.
    this.#failAll(new ConnectionLost(`connection lost: ${why}`), false);
    if (now - this.#usefulFrom >= SETTLED) this.#attempts = 0;
    this.#attempts++;
    // Who invites its clients back has drawn lots for them, so the first attempt is made just then. Later ones wait as
    // usual, or a server that always goes away at once would be hammered.
    const invited = this.#comeBackAt < Infinity;
    const pause = invited && this.#attempts === 1 ? 0 : this.#settings.backoff.delay(this.#attempts, this.#random());
    this.#earliest = invited ? Math.max(now, this.#comeBackAt) : now;
    this.#due = Math.max(this.#earliest, now + pause);
    this.#usefulFrom = this.#comeBackAt = this.#confirmAt = Infinity;
    this.#hungUpBecause = '';
    this.#tell({ type: 'disconnected', reason: why, code, retryIn: this.#due - now });
  }

  /** The device has a network again: what waits need not, and what stands may stand on a line that is gone. @param {number} now */
  online(now) {
    this.#due = this.#earliest; // what the server has asked for stands
    if (isLive(this.phase) && !this.#asked) this.#askForLife(now);
    this.tick(now);
  }

  /** Time has passed. Calling it too often does no harm. @param {number} now */
  tick(now) {
    const { requestTimeout } = this.#settings;
    for (const request of this.#requests.values()) {
      if (request.deadline > now) break;
      const { type } = request.message;
      const waited = requestTimeout * ++request.turns;
      // The server keeps it for somebody whose connection is lost, and answers when they are back, or are not.
      if (request.sent && 'to' in request.message && waited < requestTimeout + this.#keeps) {
        request.deadline = now + requestTimeout;
        this.#requests.delete(request.number);
        this.#requests.set(request.number, request);
        continue;
      }
      const error = new RequestTimeout(type, waited);
      this.#complete(request, error);
      // Nobody knows what the server makes of it, so the connection cannot be used for another try.
      if (type === 'register') this.#hangUp(codes.REGISTRATION_TIMEOUT, error.message);
    }
    if (this.phase === 'waiting' && now >= this.#due) {
      this.#step('due');
      this.effects.push({ type: 'dial' });
    } else if (isLive(this.phase)) {
      this.#keepAlive(now);
    }
  }

  // --- commands ----------------------------------------------------------------------------------------------------

  /**
   * Make a request: it is sent now, or held until there is a registration. One to another user is completed when the
   * server has handed it over. Of `register` the machine adds all but the type.
   *
   * @param {number} now
   * @param {Request} message
   * @param {Asker} asker
   * @param {Identity} [identity] Of a registration: the key to prove.
   * @returns {number} Its `id`. Throws `StateError`, `MessageTooLarge` and `UsageError`.
   */
  ask(now, message, asker, identity) {
    this.checkNotEnded();
    if (this.phase === 'idle') throw new StateError('call connect() first');
    if (!identity === !this.#identity) throw new StateError(identity ? 'already registered' : 'call register() first');
    const request = this.#enter(now, message, asker);
    if (identity) {
      this.#identity = identity;
      this.#joining = request;
      if (this.phase === 'open') this.#join(now);
    } else if (this.phase === 'registered') {
      this.#sendHeld();
    }
    return request.number;
  }

  /**
   * End it, on purpose or for an error: no reconnection, and `closed` is the last event. Harmless when it has ended.
   *
   * @param {number} now
   * @param {AldisError | null} error
   */
  end(now, error) {
    if (this.phase === 'ended') return;
    this.#step('ended');
    this.error = error;
    this.#failAll(error ?? new ConnectionLost('the client was closed'), true);
    this.effects.push({ type: 'closeTransport', code: codes.NORMAL, reason: '' });
    this.#tell({ type: 'closed', error });
  }

  // --- registration ------------------------------------------------------------------------------------------------

  /** Ask for the name, for the first time or again, on a connection that has none. @param {number} now */
  #join(now) {
    if (!this.#identity) return;
    this.#step('asked');
    const { userId, device, token } = this.#settings;
    const { number: id } = (this.#joining ??= this.#enter(now, { type: 'register' }));
    this.#joining.sent = true;
    const publicKey = toBase64(this.#identity.publicKey);
    this.#send({ type: 'register', userId, publicKey, device, token: token ?? undefined, resume: this.#ticket, id });
  }

  /** The registration that the server is busy with, if a message with this `re` belongs to it. @param {unknown} re */
  #joins(re) {
    return (re ?? this.#joining?.number) === this.#joining?.number ? this.#joining : null;
  }

  /** @param {Challenge} message */
  #challenged({ nonce, re }) {
    const { host, userId, device } = this.#settings;
    const identity = this.#identity;
    if (!identity || !this.#joins(re) || this.phase !== 'registering') return;
    const message = (this.#signing = proofs.registration(host, fromBase64(nonce, proofs.NONCE_BYTES), userId, device));
    this.#step('challenged');
    this.effects.push({ type: 'sign', identity, message });
  }

  /** @param {Registered} message @param {number} now */
  #admitted({ type, success, userId, device, session = '', secret, resumed = false, limits, re }, now) {
    const joining = this.#joins(re);
    if (!joining) return;
    const settings = this.#settings;
    const ticket = this.#ticket;
    check(
      this.phase === 'proving' &&
        success && // false: the classic dialect's way to refuse
        userId === settings.userId &&
        (device ?? settings.device) === settings.device &&
        (!resumed || ticket),
      'registered as nobody asked for',
    );
    this.#step('admitted');
    this.#usefulFrom = now;
    this.#ticket = session && secret ? { session, secret, received: (resumed && ticket?.received) || 0 } : undefined;
    this.#unconfirmed = 0; // what had come before was confirmed by the ticket
    this.#largestSent = limits?.maxMessageBytes ?? LARGEST_SENT;
    this.#keeps = Math.min(limits?.resumeWindow ?? 0, LONGEST_WINDOW);
    this.#tell({ type, resumed });
    this.#complete(joining, null, { session, resumed, limits: limits ?? null });
    if (!resumed) {
      for (const userIds of chunks(this.#watches)) this.#transmit(this.#enter(now, { type: 'watch', userIds }));
    }
    this.#sendHeld();
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
      this.#comeBackAt = now + reconnectIn;
      this.#tell({ type: 'goingAway', reconnectIn });
    } else {
      const request = this.#requests.get(message.re);
      if (!request?.sent) return;
      if (message.type === 'error') this.#refused(request, message, now);
      else this.#complete(request, null, resultOf(request.message, message));
    }
  }

  /** @param {Numbered} message @param {number} size @param {number} now */
  #numbered(message, size, now) {
    if (this.phase !== 'registered') return;
    const event = eventOf(message, (userId) =>
      [...this.#requests.values()].some(({ unstated }) => unstated?.delete(userId)),
    );
    // A presence that was on its way when its watch ended concerns nobody.
    if (event && (message.type !== 'presence' || this.#watches.has(message.userId))) this.#tell(event);
    // What could not be used has been received all the same: both sides must come to the same number.
    if (!this.#ticket) return;
    this.#ticket.received++;
    this.#unconfirmed += EACH + size;
    this.#confirmAt = this.#unconfirmed < MOST_UNCONFIRMED ? Math.min(this.#confirmAt, now + CONFIRM_WITHIN) : now;
    this.#confirm(now);
  }

  /** Tell the server how much has come, if it is time. @param {number} now */
  #confirm(now) {
    if (!this.#ticket || now < this.#confirmAt) return;
    this.#confirmAt = Infinity;
    this.#unconfirmed = 0;
    this.#send({ type: 'received', count: this.#ticket.received });
  }

  /** @param {Pending} request @param {ErrorMessage} message @param {number} now */
  #refused(request, message, now) {
    const failure = failureOf(message);
    const again = request === this.#joining && !request.asker;
    if (request === this.#joining) this.#step('refused');
    this.#complete(request, failure);
    if (!again) return;
    if (failure.temporary) {
      if (failure.retryAfter) this.#comeBackAt = now + Math.min(failure.retryAfter, LONGEST_ABSENCE);
      this.#hangUp(codes.GOING_AWAY, `refused for now: ${failure.message}`);
    } else {
      this.end(now, failure);
    }
  }

  // --- requests ----------------------------------------------------------------------------------------------------

  /**
   * Number a request and keep it until it has ended.
   *
   * @param {number} now
   * @param {Request} message
   * @param {Asker} [asker]
   * @returns {Pending}
   */
  #enter(now, message, asker) {
    const number = this.#lastNumber + 1;
    const text = encodeClientMessage(/** @type {ClientMessage} */ ({ ...message, id: number }));
    const size = toUtf8(text).length;
    // A server would end the connection for it. The machine's own requests are not refused to itself.
    if (asker && size > this.#largestSent) throw new MessageTooLarge(size, this.#largestSent);
    this.#lastNumber = number;
    const deadline = now + this.#settings.requestTimeout;
    const request = /** @type {Pending} */ ({
      number,
      message,
      text,
      deadline,
      turns: 0,
      sent: false,
      added: [],
      asker,
    });
    this.#requests.set(number, request);
    return request;
  }

  /** Send what waits, but few lookups at a time: the server keeps 256 requests meanwhile, or closes for good (4504). */
  #sendHeld() {
    for (const request of this.#requests.values()) {
      if (!request.sent && (request.message.type !== 'discover' || this.#lookups < MOST_LOOKUPS))
        this.#transmit(request);
    }
  }

  /** @param {Pending} request */
  #transmit(request) {
    const { message, text } = request;
    request.sent = true;
    if (message.type === 'discover') this.#lookups++;
    if (message.type === 'watch') {
      request.added = message.userIds.filter((userId) => !this.#watches.has(userId));
      request.unstated = new Set(message.userIds);
      for (const userId of message.userIds) this.#watches.add(userId);
    }
    if (message.type === 'unwatch') for (const userId of message.userIds) this.#watches.delete(userId);
    this.effects.push({ type: 'send', text });
  }

  /**
   * A request has ended.
   *
   * @param {Pending} request
   * @param {AldisError | null} error
   * @param {Result} [result]
   */
  #complete(request, error, result = null) {
    const { number, added, asker } = request;
    this.#requests.delete(number);
    if (request.sent && request.message.type === 'discover') {
      this.#lookups--;
      if (this.phase === 'registered') this.#sendHeld();
    }
    if (error) for (const userId of added) this.#watches.delete(userId);
    if (request === this.#joining) {
      this.#joining = null;
      // The application is told, and decides whether to try again; what is held waits for that.
      if (error && asker) this.#identity = null;
    }
    if (asker) this.effects.push({ type: 'completed', asker, error, result });
  }

  /** @param {AldisError} error @param {boolean} held Also those that were not sent. */
  #failAll(error, held) {
    for (const request of this.#requests.values()) if (held || request.sent) this.#complete(request, error);
  }

  // --- the connection ----------------------------------------------------------------------------------------------

  /** Whatever comes counts as life. @param {number} now */
  #heard(now) {
    this.#asked = 0;
    this.#lookAt = now + SILENCE;
  }

  /** @param {number} now */
  #askForLife(now) {
    this.#asked++;
    this.#lookAt = now + PATIENCE;
    this.#send({ type: 'ping' });
  }

  /** @param {number} now */
  #keepAlive(now) {
    this.#confirm(now);
    const late = now - this.#lookAt;
    if (now >= this.#comeBackAt) {
      this.#hangUp(codes.GOING_AWAY, 'the server is going away');
    } else if (late >= 0) {
      if (this.#asked > 1 || (this.#asked && late < LATE)) {
        this.#hangUp(codes.NO_PONG, `silence for ${SILENCE + PATIENCE} s`);
      } else {
        this.#askForLife(now);
      }
    }
  }

  /**
   * End this connection, if there is one, to come back with another. Not with 1000 or 1001: the server would let us go.
   *
   * @param {number} code
   * @param {string} reason
   */
  #hangUp(code, reason) {
    if (!isLive(this.phase)) return;
    this.#hungUpBecause = reason;
    this.#step('hungUp');
    this.effects.push({ type: 'closeTransport', code, reason });
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
