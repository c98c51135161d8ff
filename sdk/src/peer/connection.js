/**
 * The direct connection between this user and one device of another user.
 *
 * Owns the negotiation machine and the transports that it asks for, and handles signaling messages. The store above it
 * sees one object for each peer: a state, frames in, frames out, tracks.
 *
 * Rules:
 * - Offers and answers are checked (`trust`) before the machine sees them; a message that fails the check changes
 *   nothing.
 * - The check waits for WebCrypto. So signaling messages are handled one after the other, and after each wait it is
 *   checked again whether the message still matters.
 * - Tracks belong to the peer, not to a connection: each connection gets them when its channel is open.
 *
 * It does not know what the frames of messages mean, or when the next attempt is due; the store decides that. It does
 * not remember what it has refused: the listener (`refused`) knows better why an attempt has failed.
 */

import { timers } from '../client/timers.js';
import {
  AldisError,
  IdentityError,
  PeerConnectionFailed,
  PeerOffline,
  PeerRefused,
  ProofInvalid,
  ProtocolViolation,
} from '../errors.js';
import { randomBytes } from '../identity/keys.js';
import { CAPABILITIES } from './engine.js';
import { limitedCalls } from './limited.js';
import { MAX_OFFERS, Negotiation } from './negotiation.js';
import { messageOf } from './platform.js';
import { refusalOf } from './refusal_reasons.js';
import { PeerSlots, slots } from './slots.js';
import { linger, PeerTransport } from './transport.js';
import { TIMING } from './timing.js';

/** @import { PeerError } from '../errors.js' */
/** @import { AnswerReceived, OfferReceived, PeerEvent } from '../client/events.js' */
/** @import { Timers } from '../client/timers.js' */
/** @import { Ack, Chunk, Hello, OurHello } from '../protocol/channel.js' */
/** @import { Bytes } from '../protocol/codec.js' */
/** @import { Candidate, Capabilities, Proof } from '../protocol/messages.js' */
/** @import { EngineConfig } from './engine.js' */
/** @import { Command, Outcome } from './attempts.js' */
/** @import { Input, PeerState } from './negotiation.js' */
/** @import { RefusalCode } from '../protocol/codes.js' */
/** @import { statsOf } from './stats.js' */
/** @import { Trust } from './trust.js' */
/** @import { AttemptSlots } from './slots.js' */
/** @import { PeerTiming } from './timing.js' */
/** @import { Origin, PutTracks, TransportOwner } from './transport.js' */

// Messages that may wait for the check: two connections with all their candidates. A correct server does not send more.
const MAX_WAITING = 512;
const BUSY_PAUSE = 5; // seconds
const REFUSAL_DELAY = 1; // second; see `#answerLater`

/**
 * Receives the events of a `PeerConnection`, never from within its own calls, except `close`.
 *
 * `channelOpened` and `channelClosed` alternate, starting with `channelOpened`. `frameReceived` and `trackReceived`
 * come only between the two. `stateChanged('connected')` follows `channelOpened`.
 * @typedef {object} PeerListener
 * @property {(state: PeerState, error: PeerError | null) => void} stateChanged `error` is the reason for `failed`, and
 *   for `disconnected` when an attempt beside the lost connection has failed
 * @property {(hello: Hello) => void} channelOpened `hello` is the other side's; frames can be sent from now on
 * @property {(frame: Chunk | Ack) => void} frameReceived
 * @property {() => void} channelClosed what was sent on it may or may not have arrived
 * @property {() => void} pathFound the engine has a path again after the loss of one, and nothing has arrived on it yet
 * @property {() => void} writable the channel has room again, after `sendFrame` has returned false
 * @property {(error: AldisError) => void} refused an offer or answer in the peer's name failed the check, and has
 *   changed nothing: it is forged (`ProofInvalid`), or has another key (`PeerKeyChanged`, `FingerprintMismatch`), or
 *   the pins cannot be read or written (`IdentityError`)
 * @property {(track: MediaStreamTrack, streams: readonly MediaStream[]) => void} trackReceived the peer sends a track
 */

/** @typedef {{ connection: string, proof: Proof, capabilities: Capabilities }} DescriptionOptions */
/**
 * Sends messages to the other side: a part of `SignalingClient`. Each call rejects when the message did not reach the
 * other side's connection. The calls come in the order in which the messages should arrive.
 * @typedef {object} SignalSender
 * @property {(to: string, sdp: string, options: DescriptionOptions) => Promise<unknown>} sendOffer
 * @property {(to: string, sdp: string, options: DescriptionOptions) => Promise<unknown>} sendAnswer
 * @property {(to: string, candidate: Candidate | null, options: { connection: string }) => Promise<unknown>} sendIceCandidate
 * @property {(to: string, options: { connection: string | null, reason: string | null, code?: string, retryAfter?: number }) =>
 *   Promise<unknown>} sendBye
 */

/** @typedef {['' | 'none' | 'unreachable' | 'refused' | 'tried', string]} Turn as `PeerTransport.turn` tells it */

/** @type {Turn} */
const NO_TURN = ['', ''];

/**
 * The direct connection between a user and one device of another.
 *
 * Pass it the signaling messages of that user (`receive`). Call `connect()`, or wait for the other side's offer.
 * `config` is called at each attempt and ICE restart (TURN credentials expire). End it with `await close()`. With
 * `listener = null` there are no more events.
 */
export class PeerConnection {
  /** The current state. @type {PeerState} */
  state = 'new';
  /** @type {PeerListener | null} null: no more events are wanted */
  listener;
  /** @type {TransportOwner} */
  #owner;
  #machine;
  /** @type {Map<string, PeerTransport>} */
  #transports = new Map();
  /** @type {[what: keyof PeerListener, values: any[]][]} events that the listener has not got yet */
  #news = [];
  /** @type {Promise<unknown>} */
  #inputs = Promise.resolve();
  #waiting = 0;
  /** @type {Set<() => void>} cancel the refusals that were not sent yet */
  #refusals = new Set();
  /** @type {string | null} the sender of the offer that is being refused; null: the sender that last passed the check */
  #refused = null;
  /** @type {Origin} of the description that last passed the check */
  #origin;
  /** @type {Promise<void>} messages on their way to the server, and closing transports */
  #leaving = Promise.resolve();
  #cancelDeadline = () => {};
  /** @type {Promise<void> | null} */
  #closing = null;
  /** @type {PeerSlots<{ origin: Origin, sdp: string, capabilities: Capabilities }>} */
  #slots;
  #clockFrom = 0;
  /** @type {Outcome | null} the last one that was reported */
  #told = null;
  /** @type {Map<string, AldisError>} by connection: what was wrong with the last answer */
  #untrue = new Map();
  /** @type {Turn} */
  #turn = NO_TURN; // of the transport that was dropped last

  /**
   * @param {object} options
   * @param {string} options.local our user id, without device
   * @param {string} options.remote the other's
   * @param {string | null} [options.device] the device to call; default: the one that registered last
   * @param {() => EngineConfig} options.config the current configuration for connections
   * @param {Pick<Trust, 'check' | 'sign'>} options.trust
   * @param {SignalSender} options.signaling
   * @param {PeerListener} options.listener
   * @param {() => OurHello} options.hello called once for each channel, when it has opened and the one before is gone;
   *   its result is sent as our first frame
   * @param {Partial<PeerTiming>} [options.timing]
   * @param {Timers} [options.timers]
   * @param {AttemptSlots} [options.slots] default: those of the page; tests pass their own
   * @param {typeof globalThis.RTCPeerConnection} [options.RTCPeerConnection]
   */
  constructor(options) {
    const timing = { ...TIMING, ...options.timing };
    this.listener = options.listener;
    const called = options.device ? `${options.remote}/${options.device}` : options.remote;
    this.#origin = /** @type {Origin} */ ({ address: called });
    this.#machine = new Negotiation(options.local, options.remote, {
      capabilities: CAPABILITIES,
      random: randomBytes,
      attemptSeconds: timing.attempt,
      healSeconds: timing.heal,
    });
    this.#slots = new PeerSlots(options.slots ?? slots, options.signaling, {
      call: () => {
        this.#clockFrom = this.#now;
        this.#happened('connect', this.#now);
      },
      answer: (name, { origin, sdp, capabilities }) => {
        this.#origin = origin;
        this.#happened('offerReceived', name, sdp, capabilities, this.#now);
      },
      // Tell the sender, so that it need not wait for a time-out.
      refuse: (name, { origin }, reason) => {
        const { signaling, keep } = this.#owner;
        const refusal = reason === 'busy' ? { code: 'busy', retryAfter: BUSY_PAUSE } : {};
        keep(signaling.sendBye(origin.address, { connection: name, reason, ...refusal }));
      },
    });
    this.#owner = {
      timers,
      ...options,
      called,
      timing,
      stream: null,
      putTracks: async () => {},
      happened: /** @type {TransportOwner['happened']} */ (/** @type {unknown} */ (this.#happened)),
      tell: (what, ...values) => {
        this.#news.push([what, values]);
        queueMicrotask(this.#tellNow); // one for each, so that the next goes on if a listener throws
      },
      tellNow: this.#tellNow,
      keep: (sending) => {
        this.#leaving = Promise.allSettled([this.#leaving, sending]).then(() => {}); // a new promise, so that a long chain keeps nothing
      },
    };
  }

  // --- queries -----------------------------------------------------------------------------------------------------

  /** Seconds from a PING to its PONG, the median of the last few; null before the first one. */
  get roundTripTime() {
    return this.#current?.roundTripTime ?? null;
  }

  /** What the heartbeat of the current connection has measured, if it has begun. */
  get pulse() {
    return this.#current?.pulse;
  }

  /**
   * The path and the traffic of the current connection; null without a path.
   *
   * @param {typeof statsOf} read
   */
  async stats(read) {
    return (await this.#current?.stats(read)) ?? null;
  }

  /** Whether the channel is open, and HELLOs are being exchanged on it. */
  get opening() {
    const { current } = this.#machine;
    return !!current && !current.ready;
  }

  get #current() {
    return this.#transports.get(this.#machine.current?.name ?? '');
  }

  // --- from the owner ----------------------------------------------------------------------------------------------

  /**
   * Start an attempt, unless one is under way or the peer is connected. The listener hears the outcome. The attempt
   * waits for its slot while other attempts of this page are under way (`clockFrom`). While disconnected, this makes a
   * connection beside the old one. Does nothing after `close()`.
   */
  connect() {
    if (this.#machine.needsAttempt) this.#slots.call();
    else this.#happened('connect', this.#now);
    this.#note();
  }

  /** There is reason to doubt the path: check it. Unless something arrives soon, it counts as lost. */
  suspect() {
    this.#current?.suspect();
  }

  /** This device has another network: check the path, and look for another one at once. */
  networkChanged() {
    this.suspect();
    this.#happened('networkChanged', this.#now);
  }

  /**
   * The messages go another way from now on, and not back to the open channel: the state is `disconnected`, and
   * `connect()` makes another connection beside it.
   */
  leave() {
    this.#happened('leave', this.#now);
    this.#note();
  }

  /** When our last call got its slot; null while a call waits, because its time has not started. */
  get clockFrom() {
    return this.#slots.calling ? null : this.#clockFrom;
  }

  /**
   * Whether there is a connection of that name, or was one recently.
   *
   * @param {string | null} name
   */
  knows(name) {
    return this.#transports.has(name ?? '') || this.#machine.isOver(name ?? '');
  }

  /**
   * Handle a message from the peer; the owner has checked its sender. Never throws for its content. Does nothing after
   * `close()`.
   *
   * @param {PeerEvent} event
   */
  receive(event) {
    if (this.#closing) return;
    if (this.#waiting >= MAX_WAITING) {
      if (event.type === 'offerReceived') this.#refuse(event, 'too much to check', 'rate-limited', BUSY_PAUSE);
      return;
    }
    this.#waiting++;
    this.#inputs = this.#inputs
      .then(() => (this.#closing ? null : this.#take(event)))
      .catch(console.error)
      .finally(() => this.#waiting--);
  }

  /** @param {PeerEvent} event */
  async #take(event) {
    const name = event.connection ?? ''; // no connection has this name
    if (event.type === 'candidateReceived') this.#happened(event.type, name, event.candidate);
    else if (event.type === 'byeReceived') {
      this.#slots.withdrawn(name);
      this.#happened(event.type, name, event.reason ?? '', event.code, event.retryAfter);
    } else await this.#takeDescription(name, event);
  }

  /**
   * @param {string} name
   * @param {OfferReceived | AnswerReceived} event
   */
  async #takeDescription(name, event) {
    const { type, sender, proof, capabilities } = event;
    const { sdp } = event.description;
    const machine = this.#machine;
    const transport = this.#transports.get(name);
    const answers = type === 'answerReceived';
    const offer = answers ? transport?.ourOffer : null;
    // An answer to a connection that is over is useless, so it need not be checked.
    if (!answers || !machine.isOver(name)) {
      if (answers && name && !machine.awaitsAnswer(name)) return;
      if (this.#slots.keeps(name)) return; // a repetition
      if (proof && transport?.formerNonces.includes(proof.nonce)) return;
      try {
        await this.#owner.trust.check(this.#owner.remote, name, sdp, proof, offer);
      } catch (error) {
        // A late repetition is no forgery.
        if (this.#closing || machine.isOver(name)) return;
        const refusal = this.#refusal(error);
        this.#owner.tell('refused', refusal);
        if (answers) this.#untrue.set(name, refusal);
        else this.#answerLater(event, refusal);
        // A better answer will not come, because the fault is on our side.
        if (offer?.serial && refusal instanceof IdentityError) {
          this.#happened('operationFailed', name, offer.serial, refusal);
        }
        return;
      }
      if (answers && transport?.ourOffer !== offer) return;
      this.#untrue.delete(name);
    }
    const origin = { address: sender, proof: /** @type {Proof} */ (proof) };
    if (!answers && !this.#transports.has(name) && !machine.isOver(name)) {
      this.#slots.offered(name, { origin, sdp, capabilities });
      return;
    }
    this.#origin = origin;
    this.#happened(type, name, sdp, capabilities, this.#now);
  }

  /**
   * Refuse an offer, after a delay: a server may have sent a forged copy ahead of the true offer, and the copy must not
   * end the attempt.
   *
   * @param {OfferReceived | AnswerReceived} event
   * @param {AldisError} error
   */
  #answerLater(event, error) {
    if (this.#refusals.size >= MAX_OFFERS) return;
    const cancel = this.#owner.timers.callLater(REFUSAL_DELAY, () => {
      this.#refusals.delete(cancel);
      this.#refuse(event, ...refusalOf(error));
    });
    this.#refusals.add(cancel);
  }

  /**
   * @param {OfferReceived | AnswerReceived} event
   * @param {string} reason
   * @param {RefusalCode} code
   * @param {number} retryAfter
   */
  #refuse({ connection, sender }, reason, code, retryAfter) {
    if (connection) {
      this.#refused = sender;
      this.#happened('refuse', connection, reason, code, retryAfter, this.#now);
      this.#refused = null;
    }
  }

  /**
   * What was wrong with a description. A proof that cannot be read counts as forged. Exceptions that are not ours come
   * from the application's pins, and mean no forgery.
   *
   * @param {unknown} error
   */
  #refusal(error) {
    if (error instanceof ProtocolViolation) return new ProofInvalid(this.#owner.remote, error.message);
    return error instanceof AldisError ? error : new IdentityError(messageOf(error), { cause: error });
  }

  /**
   * Send one frame on the open channel. False without a channel or without room; then `writable()` follows.
   *
   * @param {Bytes} frame
   */
  sendFrame(frame) {
    return this.#current?.sendFrame(frame) ?? false;
  }

  /**
   * Send the tracks of this stream and no others, on the current connection and all later ones; null for none. Call it
   * again when the stream's tracks have changed.
   *
   * @param {MediaStream | null} stream
   * @param {PutTracks} putTracks that of `media.js`, which is loaded with calls
   */
  setTracks(stream, putTracks) {
    const transport = this.#current;
    Object.assign(this.#owner, { stream, putTracks });
    if (transport?.greeted) transport.setTracks();
  }

  /**
   * Say goodbye and release everything. Idempotent.
   *
   * Resolves when all is released. The listener hears `channelClosed` and `stateChanged('closed')` before this returns.
   *
   * @param {string} [reason]
   */
  close(reason = '') {
    if (!this.#closing) {
      this.#current?.sayGoodbye(reason);
      this.#slots.close(reason);
      this.#happened('close', reason);
      this.#refusals.forEach((cancel) => cancel());
      this.#closing = linger(this.#owner, this.#leaving);
      this.#tellNow();
    }
    return this.#closing;
  }

  // --- commands of the machine -------------------------------------------------------------------------------------

  /**
   * Pass an input to the machine, carry out its commands, and report what has changed.
   *
   * @template {Input} Call
   * @param {Call} call
   * @param {Parameters<Negotiation[Call]>} values
   */
  #happened = (call, ...values) => {
    const machine = /** @type {Negotiation & Record<Input, (...values: unknown[]) => Command[]>} */ (this.#machine);
    for (const command of machine[call](...values)) this.#carryOut(command);
    const { deadline } = machine;
    if (machine.attempting) this.#slots.setUnanswered(machine.unanswered);
    else this.#slots.settled(machine.state === 'connected');
    this.#cancelDeadline();
    if (deadline < Infinity) {
      this.#cancelDeadline = this.#owner.timers.callLater(deadline - this.#now, () =>
        this.#happened('tick', this.#now),
      );
    }
    this.#note();
  };

  #note() {
    const { outcome, attempting, current } = this.#machine;
    const state = this.#slots.calling && !attempting && !current ? 'connecting' : this.#machine.state;
    const news = outcome !== this.#told;
    this.#told = outcome;
    if (state === this.state) return;
    this.state = state;
    // Disconnected: an attempt beside the lost connection has failed.
    const why = state === 'failed' || (news && state === 'disconnected');
    this.#owner.tell('stateChanged', state, why ? this.#failure(outcome) : null);
  }

  /** @param {Outcome | null} outcome its reason is a text, or an exception */
  #failure(outcome) {
    const { remote } = this.#owner;
    /** @type {any} */
    const reason = outcome?.reason;
    if (outcome?.code) return new PeerRefused(remote, reason, outcome.code, outcome.retryAfter);
    if (reason?.code === 'rate-limited') return limitedCalls(remote, reason, reason.retryAfter);
    if (reason?.code === 'not-online') return new PeerOffline(remote);
    const [turn, more] = outcome?.noPath ? this.#turn : NO_TURN;
    return new PeerConnectionFailed(remote, messageOf(reason) + more, turn);
  }

  /** @param {Command} command */
  #carryOut(command) {
    const { type, name } = command;
    const { signaling, keep, tell } = this.#owner;
    const transport = this.#transports.get(name);
    if (type === 'createConnection') {
      try {
        this.#transports.set(name, new PeerTransport(name, command.openChannel, this.#owner));
      } catch (error) {
        // Its first command, which has the serial 1, cannot be carried out.
        queueMicrotask(() => this.#happened('operationFailed', name, 1, error));
      }
    } else if (type === 'sendBye') {
      const { address } = transport ?? this.#origin;
      keep(signaling.sendBye(address, { connection: name, ...this.#farewell(command) }));
    } else if (type === 'refuse') {
      const { reason, code, retryAfter } = command;
      keep(signaling.sendBye(this.#refused ?? this.#origin.address, { connection: name, reason, code, retryAfter }));
    } else if (type === 'dropConnection') {
      this.#transports.delete(name);
      this.#untrue.delete(name);
      this.#turn = transport?.turn ?? NO_TURN;
      if (transport?.greeted) tell('channelClosed');
      if (transport) keep(transport.close());
    } else transport?.[type](/** @type {never} */ (command), this.#origin);
  }

  /**
   * The content of a bye. That an answer failed the check is reported only when the attempt ends because of it: a true
   * answer might have followed, and until then no message in the peer's name can end the attempt.
   *
   * @param {{ name: string, reason: string, code?: string }} bye
   */
  #farewell({ name, reason, code }) {
    const untrue = this.#untrue.get(name);
    if (!untrue || this.#machine.outcome?.name !== name) return { reason: reason || null, ...(code && { code }) };
    const [why, refusal, retryAfter] = refusalOf(untrue);
    return { reason: why, code: refusal, retryAfter };
  }

  #tellNow = () => {
    for (let news; (news = this.#news.shift());) {
      const [what, values] = news;
      // @ts-expect-error: as above
      this.listener?.[what](...values);
    }
  };

  get #now() {
    return this.#owner.timers.time();
  }
}
