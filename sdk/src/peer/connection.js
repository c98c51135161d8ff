/**
 * All that is direct between this user and one device of another user.
 *
 * Owns the negotiation machine and the transports that it asks for; takes in what comes through signaling. Above it the store
 * sees one thing per peer: a state, frames in, frames out, tracks.
 *
 * Rules:
 * - Offers and answers are checked (`trust`) before the machine sees them; one that does not pass changes nothing.
 * - Checking waits for WebCrypto. What comes through signaling is therefore taken in one after the other; after each wait
 *   it is asked whether it still matters.
 * - Tracks belong to the peer, not to a connection: they go onto each one when its channel is open.
 *
 * It does not know what the frames of messages mean, nor when another attempt is due: that is the store's business. Nor
 * does it remember what it has refused: who is told (`refused`) knows better why an attempt has failed.
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
import { CAPABILITIES, messageOf } from './engine.js';
import { MAX_OFFERS, Negotiation } from './negotiation.js';
import { randomBytes, refusalOf } from './trust.js';
import { PeerSlots, slots } from './slots.js';
import { linger, PeerTransport, TIMING } from './transport.js';

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
/** @import { EngineStats } from './stats.js' */
/** @import { Trust } from './trust.js' */
/** @import { AttemptSlots } from './slots.js' */
/** @import { Origin, PeerTiming, PutTracks, TransportOwner } from './transport.js' */

// What may wait to be checked: two connections with all their candidates. A server that sends more is up to no good.
const MAX_WAITING = 512;
const BUSY_PAUSE = 5; // seconds
const REFUSAL_DELAY = 1; // second; see `#answerLater`

/**
 * What the owner of a `PeerConnection` is told, never from within one of its own calls but `close`.
 *
 * `channelOpened` and `channelClosed` alternate, beginning with `channelOpened`; `frameReceived` and `trackReceived` come
 * between the two only. `stateChanged('connected')` follows `channelOpened`.
 * @typedef {object} PeerListener
 * @property {(state: PeerState, error: PeerError | null) => void} stateChanged `error` says why: for `failed`, and for
 *   `disconnected` when an attempt beside the lost connection has failed
 * @property {(hello: Hello) => void} channelOpened `hello` is the other side's; frames can be sent from now on
 * @property {(frame: Chunk | Ack) => void} frameReceived
 * @property {() => void} channelClosed what was sent on it may or may not have arrived
 * @property {() => void} writable after `sendFrame` has returned false: there is room again
 * @property {(error: AldisError) => void} refused an offer or answer in the peer's name did not pass the check, and has
 *   changed nothing: forged (`ProofInvalid`), of another key (`PeerKeyChanged`, `FingerprintMismatch`), or the pins could
 *   not be read or written (`IdentityError`)
 * @property {(track: MediaStreamTrack, streams: readonly MediaStream[]) => void} trackReceived the peer sends a track
 */

/** @typedef {{ connection: string, proof: Proof, capabilities: Capabilities }} DescriptionOptions */
/**
 * How messages reach the other side: that much of `SignalingClient`. Each rejects when the message did not reach the
 * other side's connection. They are called in the order in which the messages should arrive.
 * @typedef {object} SignalSender
 * @property {(to: string, sdp: string, options: DescriptionOptions) => Promise<unknown>} sendOffer
 * @property {(to: string, sdp: string, options: DescriptionOptions) => Promise<unknown>} sendAnswer
 * @property {(to: string, candidate: Candidate | null, options: { connection: string }) => Promise<unknown>} sendIceCandidate
 * @property {(to: string, options: { connection: string | null, reason: string | null, code?: string, retryAfter?: number }) =>
 *   Promise<unknown>} sendBye
 */

/** @typedef {EngineStats & { roundTripTime: number | null }} PeerStats */

/**
 * The direct connection between a user and one device of another.
 *
 * Feed it what signaling brings from that user (`receive`); start with `connect()` or wait for the other side's offer.
 * `config` is asked at each attempt and ICE restart (TURN credentials expire). End it with `await close()`; with
 * `listener = null` nothing is told any more.
 */
export class PeerConnection {
  /** How things stand now. @type {PeerState} */
  state = 'new';
  /** @type {PeerListener | null} null: nobody wants to know any more */
  listener;
  /** @type {TransportOwner} */
  #owner;
  #machine;
  /** @type {Map<string, PeerTransport>} */
  #transports = new Map();
  /** @type {[what: keyof PeerListener, values: any[]][]} what the listener has not been told yet */
  #news = [];
  /** @type {Promise<unknown>} */
  #inputs = Promise.resolve();
  #waiting = 0;
  /** @type {Set<() => void>} cancel the refusals that are to be told */
  #refusals = new Set();
  /** @type {string | null} who has made the offer that is being refused; null: the one that has passed the check last */
  #refused = null;
  /** @type {Origin} of the description that has passed the check last */
  #origin;
  /** @type {Promise<void>} what is on its way to the server, and the transports that are closing */
  #leaving = Promise.resolve();
  #cancelDeadline = () => {};
  /** @type {Promise<void> | null} */
  #closing = null;
  /** @type {PeerSlots<{ origin: Origin, sdp: string, capabilities: Capabilities }>} */
  #slots;
  #clockFrom = 0;
  /** @type {Outcome | null} the last one that was looked at */
  #told = null;
  /** @type {Map<string, AldisError>} by connection: what was wrong with the answer that came last */
  #untrue = new Map();
  #relayMissing = ''; // of the transport that was dropped last

  /**
   * @param {object} options
   * @param {string} options.local our user id, without device
   * @param {string} options.remote the other's
   * @param {string | null} [options.device] the one that is called; whichever registered last when left out
   * @param {() => EngineConfig} options.config what to make connections with now
   * @param {Pick<Trust, 'check' | 'sign'>} options.trust
   * @param {SignalSender} options.signaling
   * @param {PeerListener} options.listener
   * @param {() => OurHello} options.hello called once for each channel, when it has opened and the one before is gone; what
   *   it returns is sent as our first frame
   * @param {Partial<PeerTiming>} [options.timing]
   * @param {Timers} [options.timers]
   * @param {AttemptSlots} [options.slots] those of the page unless a test brings its own
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
      // Its sender need not wait for a time-out.
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
        queueMicrotask(this.#tellNow); // one for each: should a listener throw, the next goes on
      },
      tellNow: this.#tellNow,
      keep: (sending) => {
        this.#leaving = Promise.allSettled([this.#leaving, sending]).then(() => {}); // so that a long chain keeps nothing
      },
    };
  }

  // --- what others want to know ------------------------------------------------------------------------------------

  /** Seconds from a PING to its PONG, the median of the last few; null before the first one. */
  get roundTripTime() {
    return this.#current?.roundTripTime ?? null;
  }

  /**
   * The path and the traffic of the current connection; null when there is none.
   *
   * @returns {Promise<PeerStats | null>}
   */
  async stats() {
    const stats = await this.#current?.stats();
    return stats ? { ...stats, roundTripTime: this.roundTripTime } : null;
  }

  get #current() {
    return this.#transports.get(this.#machine.current?.name ?? '');
  }

  // --- from the owner ----------------------------------------------------------------------------------------------

  /**
   * Start an attempt, unless one is under way or the peer is connected. The outcome is told to the listener. It waits for
   * its slot while other attempts of this page are under way (`clockFrom`). While disconnected it restarts ICE. Ignored
   * after `close()`.
   */
  connect() {
    if (this.#machine.needsAttempt) this.#slots.call();
    else this.#happened('connect', this.#now);
    this.#note();
  }

  /** When the slot of the last call of ours came; null while one waits: its clock has not begun. */
  get clockFrom() {
    return this.#slots.calling ? null : this.#clockFrom;
  }

  /**
   * Whether there is a connection of that name, or was one not long ago.
   *
   * @param {string | null} name
   */
  knows(name) {
    return this.#transports.has(name ?? '') || this.#machine.isOver(name ?? '');
  }

  /**
   * Take in a message from the peer: who it is from, the owner has seen to. Never throws for what it says. Ignored after
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
    const name = event.connection ?? ''; // which no connection has
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
    // Whoever answers what is over waits in vain; nothing depends on whether they are true.
    if (!answers || !machine.isOver(name)) {
      if (answers && name && !machine.awaitsAnswer(name)) return;
      if (this.#slots.keeps(name)) return; // once more
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
        // A better answer will not come: what is wrong is here.
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
   * Tell who has made an offer that it is refused. Not at once: a server may have sent a forged copy ahead of the true
   * offer, which must not end the attempt.
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
   * What was wrong with a description. A proof that cannot be read is a forged one; what else is not of ours comes from
   * the pins of the application, and is nobody's forgery.
   *
   * @param {unknown} error
   */
  #refusal(error) {
    if (error instanceof ProtocolViolation) return new ProofInvalid(this.#owner.remote, error.message);
    return error instanceof AldisError ? error : new IdentityError(messageOf(error), { cause: error });
  }

  /**
   * Send one frame on the open channel. False when there is none, or no room: then `writable()` follows.
   *
   * @param {Bytes} frame
   */
  sendFrame(frame) {
    return this.#current?.sendFrame(frame) ?? false;
  }

  /**
   * Send the tracks of this stream and no others, on the connection of now and on all later ones; null for none. Call it
   * again when the stream has got other tracks.
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
   * Resolves when it is done; `channelClosed` and `stateChanged('closed')` are told before it returns.
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

  // --- what the machine wants done ---------------------------------------------------------------------------------

  /**
   * Tell the machine what has happened, do what it wants, and see what has changed.
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
    // Disconnected: an attempt beside the connection that is lost has failed.
    const why = state === 'failed' || (news && state === 'disconnected');
    this.#owner.tell('stateChanged', state, why ? this.#failure(outcome) : null);
  }

  /** @param {Outcome | null} outcome whose reason is a text, or what was thrown */
  #failure(outcome) {
    const { remote } = this.#owner;
    /** @type {any} */
    const reason = outcome?.reason;
    if (outcome?.code) return new PeerRefused(remote, reason, outcome.code, outcome.retryAfter);
    return reason?.code === 'not-online'
      ? new PeerOffline(remote)
      : new PeerConnectionFailed(remote, messageOf(reason) + (outcome?.noPath ? this.#relayMissing : ''));
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
        // The first thing that it is asked for, which has the serial 1, cannot be done.
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
      this.#relayMissing = transport?.relayMissing ?? '';
      if (transport?.greeted) tell('channelClosed');
      if (transport) keep(transport.close());
    } else transport?.[type](/** @type {never} */ (command), this.#origin);
  }

  /**
   * What a bye says. That an answer did not pass the check is told only when the attempt ends because of it: a true answer
   * might have followed, and until then nothing in the name of the peer can end the attempt.
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
