/**
 * All that is direct between this user and one other user.
 *
 * Owns the negotiation machine and the wires that it asks for; sends and takes in what goes through signaling. Above it
 * the store sees one thing per peer: a state, frames in, frames out, tracks.
 *
 * Rules:
 * - Offers and answers are checked (`trust`) before the machine sees them; one that does not pass changes nothing.
 * - Checking and signing wait for WebCrypto. What comes through signaling is therefore taken in one after the other, and
 *   what goes out is started one after the other; after each wait it is asked whether it still matters.
 * - Tracks belong to the peer, not to a connection: they go onto each one when its channel is open.
 *
 * It does not know what the frames of messages mean, nor when another attempt is due: that is the store's business.
 */

import { timers as realTimers } from '../client/timers.js';
import { PeerConnectionFailed, PeerError, PeerOffline, ProofInvalid, RequestFailed, StateError } from '../errors.js';
import { split } from '../protocol/addresses.js';
import { VERSION } from '../protocol/channel.js';
import { CAPABILITIES, messageOf } from './engine.js';
import { Negotiation } from './negotiation.js';
import { both, Postbox } from './postbox.js';
import { randomBytes } from './trust.js';
import { TIMING, Wire } from './wire.js';

/** @import { AnswerReceived, OfferReceived, PeerEvent } from '../client/events.js' */
/** @import { Timers } from '../client/timers.js' */
/** @import { Ack, Chunk, Hello } from '../protocol/channel.js' */
/** @import { Bytes } from '../protocol/codec.js' */
/** @import { Candidate, Capabilities, Proof } from '../protocol/messages.js' */
/** @import { EngineConfig, EngineStats } from './engine.js' */
/** @import { Command } from './links.js' */
/** @import { Outcome, PeerState } from './negotiation.js' */
/** @import { Trust } from './trust.js' */
/** @import { News, PeerTiming, Signed, WireOwner } from './wire.js' */

const SEND_SECONDS = 1; // how long closing waits for the last messages to reach the server
// What may wait to be checked: two connections with all their candidates. A server that sends more is up to no good.
const MAX_WAITING = 512;

/**
 * What the owner of a `PeerConnection` is told, never from within one of its own calls but `close`.
 *
 * `channelOpened` and `channelClosed` alternate, beginning with `channelOpened`; `frameReceived` and `trackReceived` come
 * between the two only. `stateChanged('connected')` follows `channelOpened`.
 * @typedef {object} PeerListener
 * @property {(state: PeerState, error: PeerError | null) => void} stateChanged `error` says why, for `failed` only
 * @property {(hello: Hello) => void} channelOpened `hello` is the other side's; frames can be sent from now on
 * @property {(frame: Chunk | Ack) => void} frameReceived
 * @property {() => void} channelClosed what was sent on it may or may not have arrived
 * @property {() => void} writable after `sendFrame` has returned false: there is room again
 * @property {(error: PeerError) => void} refused an offer or answer in the peer's name did not pass the check, and has
 *   changed nothing: forged (`ProofInvalid`), or of another key (`PeerKeyChanged`, `FingerprintMismatch`)
 * @property {(track: MediaStreamTrack, streams: readonly MediaStream[]) => void} trackReceived the peer sends a track
 */

/** @typedef {{ connection: string, proof: Proof, capabilities: Capabilities }} DescriptionOptions */
/**
 * How messages reach the other side: that much of `SignalingClient`. Each rejects when the message did not reach the
 * other side's connection. They are started in the order in which the messages should arrive.
 * @typedef {object} SignalSender
 * @property {(to: string, sdp: string, options: DescriptionOptions) => Promise<unknown>} sendOffer
 * @property {(to: string, sdp: string, options: DescriptionOptions) => Promise<unknown>} sendAnswer
 * @property {(to: string, candidate: Candidate | null, options: { connection: string }) => Promise<unknown>} sendIceCandidate
 * @property {(to: string, options: { connection: string, reason: string | null }) => Promise<unknown>} sendBye
 */

/** @typedef {{ sdp: string, proof: Proof }} Checked what a wire answers is always one */
/** @typedef {EngineStats & { roundTripTime: number | null }} PeerStats */

/**
 * The direct connection between two users.
 *
 * Feed it what signaling brings from that user (`receive`); start with `connect()` or wait for the other side's offer.
 * What is assigned to `config` is used for the next attempt (TURN credentials expire). End it with `await close()`.
 */
export class PeerConnection {
  /** @type {EngineConfig} */
  config;
  #remote;
  #trust;
  #signaling;
  #listener;
  #hello;
  #timing;
  #timers;
  #RTCPeerConnection;
  #machine;
  /** @type {Map<string, Wire>} */
  #wires = new Map();
  /** @type {{ name?: string, error?: PeerError }} why a connection will fail: a better reason than the machine's */
  #reason = {};
  /** @type {PeerState} */
  #state = 'new';
  /** @type {News[]} */
  #news = [];
  #telling = false;
  /** @type {Outcome | null} */
  #toldOutcome = null;
  /** @type {MediaStream | null} */
  #stream = null;
  /** @type {Promise<unknown>} */
  #inputs = Promise.resolve();
  #waiting = 0;
  #postbox = new Postbox();
  /** @type {Promise<unknown>} the wires that are closing */
  #leaving = Promise.resolve();
  #cancelDeadline = () => {};
  /** @type {Promise<void> | null} */
  #closing = null;

  /**
   * @param {object} options
   * @param {string} options.local our user id, without device
   * @param {string} options.remote the other's
   * @param {EngineConfig} [options.config]
   * @param {Pick<Trust, 'checkAnswer' | 'checkOffer' | 'signAnswer' | 'signOffer'>} options.trust
   * @param {SignalSender} options.signaling
   * @param {PeerListener} options.listener
   * @param {() => Hello} options.hello called once for each channel, when it has opened and the one before is gone; what
   *   it returns is sent as our first frame
   * @param {Partial<PeerTiming>} [options.timing]
   * @param {Timers} [options.timers]
   * @param {(size: number) => Bytes} [options.random]
   * @param {typeof globalThis.RTCPeerConnection} [options.RTCPeerConnection]
   */
  constructor({
    local,
    remote,
    config = {},
    trust,
    signaling,
    listener,
    hello,
    timing,
    timers = realTimers,
    random = randomBytes,
    RTCPeerConnection,
  }) {
    this.config = config;
    this.#remote = remote;
    this.#trust = trust;
    this.#signaling = signaling;
    this.#listener = listener;
    this.#hello = hello;
    this.#timing = { ...TIMING, ...timing };
    this.#timers = timers;
    this.#RTCPeerConnection = RTCPeerConnection;
    this.#machine = new Negotiation(local, remote, {
      capabilities: CAPABILITIES,
      random,
      attemptSeconds: this.#timing.attempt,
      healSeconds: this.#timing.heal,
    });
  }

  // --- what others want to know ------------------------------------------------------------------------------------

  /** How things stand now. */
  get state() {
    return this.#state;
  }

  /** Seconds from a PING to its PONG, the median of the last few; null before the first one. */
  get roundTripTime() {
    return this.#current?.roundTripTime ?? null;
  }

  /** The address of the device that the current connection is with, or the bare user id when there is none. */
  get address() {
    return this.#current?.address ?? this.#remote;
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
    return this.#wires.get(this.#machine.current?.name ?? '');
  }

  // --- from the owner ----------------------------------------------------------------------------------------------

  /**
   * Start an attempt, unless one is under way or the peer is connected. The outcome is told to the listener. While
   * disconnected it restarts ICE. Throws `StateError` after `close()`.
   */
  connect() {
    if (this.#closing) throw new StateError('the peer connection is closed');
    this.#do(this.#machine.connect(this.#timers.time()));
  }

  /**
   * Take in a message from the peer; never throws for what it says. Ignored after `close()`.
   *
   * @param {PeerEvent} event
   */
  receive(event) {
    if (this.#closing || split(event.sender)[0] !== this.#remote || this.#waiting >= MAX_WAITING) return;
    this.#waiting++;
    this.#inputs = this.#inputs
      .then(() => (this.#closing ? null : this.#take(event)))
      .catch(console.error)
      .finally(() => this.#waiting--);
  }

  /** @param {PeerEvent} event */
  async #take(event) {
    const { type, connection: name } = event;
    const description = type === 'offerReceived' || type === 'answerReceived';
    if (name === null) {
      if (description) this.#refuse(new ProofInvalid(this.#remote, 'it names no connection'));
    } else if (type === 'candidateReceived') {
      this.#do(this.#machine.candidateReceived(name, event.candidate));
    } else if (type === 'byeReceived') {
      this.#do(this.#machine.byeReceived(name, event.reason ?? ''));
    } else {
      await (type === 'offerReceived' ? this.#takeOffer(name, event) : this.#takeAnswer(name, event));
    }
  }

  /**
   * @param {string} name
   * @param {OfferReceived} event
   */
  async #takeOffer(name, { description: { sdp }, proof, capabilities, sender }) {
    // The one that is being answered, once more: signaling may repeat, and insisting peers do.
    if (proof && proof.nonce === this.#wires.get(name)?.theirOffer?.proof?.nonce) return;
    try {
      await this.#trust.checkOffer(this.#remote, name, sdp, proof);
    } catch (error) {
      if (!this.#machine.isOver(name)) this.#refuse(error); // a late repetition is no forgery
      return;
    }
    const commands = this.#machine.offerReceived(name, sdp, capabilities, this.#timers.time());
    this.#do(commands, { sdp, proof }, sender);
  }

  /**
   * @param {string} name
   * @param {AnswerReceived} event
   */
  async #takeAnswer(name, { description: { sdp }, proof, capabilities, sender }) {
    const wire = this.#wires.get(name);
    const ours = wire?.ourOffer;
    // Whoever answers what is over waits in vain; nothing depends on whether they are true.
    if (!this.#machine.isOver(name)) {
      if (!ours?.proof || !this.#machine.awaitsAnswer(name)) return;
      if (proof && proof.nonce === wire?.formerNonce) return;
      try {
        await this.#trust.checkAnswer(this.#remote, name, sdp, proof, ours.sdp, ours.proof.nonce);
      } catch (error) {
        this.#reason = { name, error: this.#refuse(error) };
        return;
      }
      if (wire?.ourOffer !== ours || !this.#wires.has(name)) return;
      wire.address = sender;
      this.#reason = {};
    }
    this.#do(this.#machine.answerReceived(name, sdp, capabilities, this.#timers.time()), null, sender);
  }

  /** @param {unknown} error */
  #refuse(error) {
    const reason = error instanceof PeerError ? error : new ProofInvalid(this.#remote, messageOf(error));
    if (!this.#closing) this.#news.push((listener) => listener.refused(reason));
    this.#tellSoon();
    return reason;
  }

  /**
   * Send one frame on the open channel. False when there is none, or no room: then `writable()` follows.
   *
   * @param {Bytes} frame
   */
  sendFrame(frame) {
    const wire = this.#current;
    return !!wire?.announced && wire.sendFrame(frame);
  }

  /**
   * Send the tracks of this stream and no others, on the connection of now and on all later ones; null for none. Call it
   * again when the stream has got other tracks.
   *
   * @param {MediaStream | null} stream
   */
  setTracks(stream) {
    this.#stream = stream;
    const wire = this.#current;
    if (wire?.announced) wire.setTracks(stream);
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
      const commands = this.#machine.close(reason);
      this.#closing = Promise.resolve().then(() => this.#finish());
      this.#do(commands);
      this.#tell();
    }
    return this.#closing;
  }

  async #finish() {
    await new Promise((done) => {
      const cancel = this.#timers.callLater(SEND_SECONDS, () => done(null));
      void this.#postbox.empty.then(() => done(cancel()));
    });
    await this.#leaving;
  }

  // --- what the machine wants done ---------------------------------------------------------------------------------

  /**
   * Carry out commands and what follows from them, then see what has changed.
   *
   * @param {Command[]} commands
   * @param {Signed | null} [offer] of theirs, which has led to them
   * @param {string | null} [sender]
   */
  #do(commands, offer = null, sender = null) {
    for (const command of commands) commands.push(...this.#carryOut(command, offer, sender));
    this.#setTimer();
    this.#noteState();
    this.#tellSoon();
  }

  /**
   * @param {Command} command
   * @param {Signed | null} offer
   * @param {string | null} sender
   * @returns {Command[]} what follows from it
   */
  #carryOut(command, offer, sender) {
    const { type, name } = command;
    const wire = this.#wires.get(name);
    if (type === 'createConnection') return this.#create(name, command.openChannel);
    if (type === 'sendBye') {
      const to = (wire ? wire.address : sender) ?? this.#remote;
      this.#postbox.post(() => this.#signaling.sendBye(to, { connection: name, reason: command.reason || null }));
    } else if (wire) {
      switch (type) {
        case 'dropConnection':
          this.#drop(wire);
          break;
        case 'makeAnswer':
          wire.theirOffer = offer;
          wire.address = sender;
          wire.makeAnswer(command);
          break;
        case 'sendCandidate':
          this.#postFor(wire, (to) => this.#signaling.sendIceCandidate(to, command.candidate, { connection: name }));
          break;
        case 'sendOffer':
        case 'sendAnswer':
          this.#describe(wire, type, command);
          break;
        default:
          wire[type](/** @type {never} */ (command));
      }
    } // else it could not be made
    return [];
  }

  /**
   * @param {string} name
   * @param {boolean} openChannel
   */
  #create(name, openChannel) {
    try {
      const wire = new Wire(name, this.config, this.#owner, this.#timing, this.#timers, this.#RTCPeerConnection);
      this.#wires.set(name, wire);
      if (openChannel) wire.openChannel();
      return [];
    } catch (error) {
      this.#reason = { name, error: new PeerConnectionFailed(this.#remote, messageOf(error)) };
      return this.#machine.abandon(name, 'it could not be made');
    }
  }

  /** @param {Wire} wire */
  #drop(wire) {
    this.#wires.delete(wire.name);
    wire.stop();
    if (wire.announced) this.#news.push((listener) => listener.channelClosed());
    this.#leaving = both(this.#leaving, wire.close());
  }

  /**
   * Sign and send an offer or answer.
   *
   * @param {Wire} wire
   * @param {'sendOffer' | 'sendAnswer'} type
   * @param {{ serial: number, sdp: string }} command
   */
  #describe(wire, type, { serial, sdp }) {
    const { name } = wire;
    const theirs = /** @type {Checked} */ (wire.theirOffer);
    if (type === 'sendOffer' && wire.ourOffer?.sdp !== sdp) {
      wire.formerNonce = wire.ourOffer?.proof?.nonce;
      wire.ourOffer = { sdp, proof: null };
    }
    const signed = /** @type {Signed} */ (wire.ourOffer);
    this.#postFor(
      wire,
      (to, proof) => this.#signaling[type](to, sdp, { connection: name, proof, capabilities: CAPABILITIES }),
      serial,
      async () =>
        type === 'sendOffer'
          ? (signed.proof ??= await this.#trust.signOffer(this.#remote, name, sdp))
          : this.#trust.signAnswer(this.#remote, name, sdp, theirs.sdp, theirs.proof.nonce),
    );
  }

  /**
   * Send something about a wire, unless that has gone when its turn has come.
   *
   * @param {Wire} wire
   * @param {(to: string, proof: Proof) => Promise<unknown>} send
   * @param {number | null} [serial] of what fails with it
   * @param {() => Promise<Proof>} [sign]
   */
  #postFor(wire, send, serial = null, sign) {
    const { name } = wire;
    const failed = (/** @type {unknown} */ error) => {
      if (serial === null || this.#wires.get(name) !== wire) return;
      if (!wire.announced) this.#reason = { name, error: this.#asPeerError(error) };
      this.#do(this.#machine.operationFailed(name, serial, messageOf(error)));
    };
    this.#postbox.post(
      async (proof) => {
        if (this.#wires.get(name) === wire) await send(wire.address ?? this.#remote, /** @type {Proof} */ (proof));
      },
      sign,
      failed,
    );
  }

  /** @param {unknown} error */
  #asPeerError(error) {
    return error instanceof RequestFailed && error.code === 'not-online'
      ? new PeerOffline(this.#remote)
      : new PeerConnectionFailed(this.#remote, messageOf(error));
  }

  // --- what has changed --------------------------------------------------------------------------------------------

  #setTimer() {
    const { deadline } = this.#machine;
    this.#cancelDeadline();
    if (deadline === null) return;
    const seconds = Math.max(deadline - this.#timers.time(), 0);
    this.#cancelDeadline = this.#timers.callLater(seconds, () => this.#do(this.#machine.tick(this.#timers.time())));
  }

  #noteState() {
    const { state, outcome } = this.#machine;
    // An attempt that fails at once leaves the state as it was; who has asked for it still wants to know.
    const again = outcome !== this.#toldOutcome && (state === 'failed' || state === 'closed');
    this.#toldOutcome = outcome;
    if (state !== this.#state || again) {
      this.#state = state;
      const { name, error: known } = this.#reason;
      const error =
        state === 'failed' && outcome
          ? (name === outcome.name && known) || new PeerConnectionFailed(this.#remote, outcome.reason)
          : null;
      this.#news.push((listener) => listener.stateChanged(state, error));
    }
  }

  #tellSoon() {
    if (this.#news.length) queueMicrotask(() => this.#tell());
  }

  #tell() {
    if (this.#telling) return;
    this.#telling = true;
    try {
      for (let news; (news = this.#news.shift());) news(this.#listener);
    } finally {
      this.#telling = false;
      this.#tellSoon(); // the rest, if a listener has thrown
    }
  }

  // --- from the wires ----------------------------------------------------------------------------------------------

  /** @type {WireOwner} */
  #owner = {
    happened: (call) => this.#do(call(this.#machine, this.#timers.time())),
    heard: (wire, news) => {
      // Signaling may be faster than the HELLO that comes first.
      (wire.announced ? this.#news : wire.early).push(news);
      this.#tell();
    },
    channelOpened: ({ name }) => {
      this.#do(this.#machine.channelOpened(name));
      this.#tell(); // that the channel before is gone, so that the HELLO starts where it ended
      return this.#hello();
    },
    helloReceived: (wire, hello) => {
      if (hello.version !== VERSION) {
        this.#abandon(wire, `it speaks version ${hello.version} of the channel protocol, we speak ${VERSION}`);
        return;
      }
      wire.announced = true;
      this.#news.push((listener) => listener.channelOpened(hello));
      this.#do(this.#machine.channelReady(wire.name));
      this.#news.push(...wire.early);
      if (this.#stream) wire.setTracks(this.#stream);
      this.#tell();
    },
    violated: (wire, reason) => this.#abandon(wire, `the other side broke the protocol: ${reason}`),
  };

  /**
   * @param {Wire} wire
   * @param {string} reason
   */
  #abandon(wire, reason) {
    wire.sayGoodbye(reason);
    this.#do(this.#machine.abandon(wire.name, reason));
  }
}
