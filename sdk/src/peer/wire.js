/**
 * One engine connection with its channel: the operations in order, the HELLOs, the heartbeat, the goodbye.
 *
 * Rules:
 * - Operations on the engine run one after the other; `close` forgets those that are left, and waits for none.
 * - The first frame of each side is its HELLO, and there is one; anything else breaks the protocol.
 * - What happens is told to the owner (`PeerConnection`), which decides; after `stop` nothing is.
 *
 * It does not know signaling, proofs, or that there may be other connections to the same peer.
 */

import { ProtocolViolation } from '../errors.js';
import { decode, encodeGoodbye, encodeHello, encodePing, encodePong, LABEL, MAX_FRAME } from '../protocol/channel.js';
import { EngineConnection, messageOf } from './engine.js';
import { Quality } from './quality.js';

/** @import { Timers } from '../client/timers.js' */
/** @import { Frame, Hello } from '../protocol/channel.js' */
/** @import { Bytes } from '../protocol/codec.js' */
/** @import { Candidate, Proof } from '../protocol/messages.js' */
/** @import { PeerListener } from './connection.js' */
/** @import { EngineConfig } from './engine.js' */
/** @import { Command } from './links.js' */
/** @import { Negotiation } from './negotiation.js' */

/**
 * How much may wait in the browser, in bytes. Enough to keep a fast path busy while the page does something else, little
 * enough that a slow one does not hold up PINGs for long; libwebrtc itself refuses beyond 16 MiB.
 */
export const BUFFER_HIGH = 1024 * 1024;
export const BUFFER_LOW = 256 * 1024;

/**
 * How long things may take, all in seconds.
 * @typedef {object} PeerTiming
 * @property {number} attempt from the offer to HELLOs exchanged
 * @property {number} heal from the loss of an established path to its return, by itself or by an ICE restart
 * @property {number} heartbeat between PINGs
 * @property {number} silence without any frame, after which the path counts as lost: three lost PINGs are no accident
 * @property {number} probe how soon something has to arrive after a `bye` from the server, which may be lying
 * @property {number} linger how long closing waits for the other side to have got the goodbye
 */

/** @type {PeerTiming} */
export const TIMING = { attempt: 30, heal: 15, heartbeat: 1.5, silence: 5, probe: 1.5, linger: 1 };

/**
 * A description of ours, with its proof once that is made; or one of theirs with the proof that has been checked.
 * @typedef {{ sdp: string, proof: Proof | null }} Signed
 */

/** @typedef {(listener: PeerListener) => void} News something to tell the listener of the `PeerConnection` */

/**
 * What is told of a wire, or by it.
 * @typedef {object} WireOwner
 * @property {(call: (machine: Negotiation, now: number) => Command[]) => void} happened tell the machine, and do what
 *   it wants
 * @property {(wire: Wire, news: News) => void} heard
 * @property {(wire: Wire) => Hello} channelOpened what is returned is sent as our HELLO
 * @property {(wire: Wire, hello: Hello) => void} helloReceived
 * @property {(wire: Wire, reason: string) => void} violated the other side broke the protocol
 */

/** See the module. An `EngineListener`. */
export class Wire {
  /** @type {string | null} of the device at the other end, once it has said something */
  address = null;
  /** @type {Signed | null} */
  ourOffer = null;
  /** @type {string | undefined} the nonce of the offer before that: an answer to it is late, and no forgery */
  formerNonce;
  /** @type {Signed | null} */
  theirOffer = null;
  announced = false; // the owner has told its listener of the channel
  /** @type {News[]} what the owner keeps until then */
  early = [];
  #owner;
  #timing;
  #timers;
  #connection;
  /** @type {Promise<void>} */
  #operations = Promise.resolve();
  /** @type {RTCDataChannel | null} */
  #channel = null;
  /** @type {Quality | null} */
  #quality = null;
  #blocked = false; // a frame was refused for want of room
  #greeted = false; // their HELLO has come
  #lost = false;
  #closed = false;
  #lingers = false;
  #channelGone = () => {};
  /** @type {number | null} */
  #beatDue = null;
  #cancelBeat = () => {};
  /** @type {(() => void) | null} */
  #cancelProbe = null;

  /**
   * Throws `ConfigError` or `EngineMissing`.
   *
   * @param {string} name
   * @param {EngineConfig} config
   * @param {WireOwner} owner
   * @param {PeerTiming} timing
   * @param {Timers} timers
   * @param {typeof globalThis.RTCPeerConnection} [RTCPeerConnection]
   */
  constructor(name, config, owner, timing, timers, RTCPeerConnection) {
    this.name = name;
    this.#owner = owner;
    this.#timing = timing;
    this.#timers = timers;
    this.#connection = new EngineConnection(config, this, RTCPeerConnection);
  }

  // --- the engine's operations -------------------------------------------------------------------------------------

  /** Make the channel, as the first offerer. */
  openChannel() {
    this.#connection.openChannel();
  }

  /** @param {{ serial: number, restart: boolean }} command */
  makeOffer({ serial, restart }) {
    this.#enqueue(serial, async () => {
      const sdp = await this.#connection.offer(restart);
      this.#happened((machine) => machine.offerMade(this.name, serial, sdp));
    });
  }

  /** @param {{ serial: number, sdp: string }} command */
  makeAnswer({ serial, sdp: offer }) {
    this.#enqueue(serial, async () => {
      const sdp = await this.#connection.answer(offer);
      this.#happened((machine) => machine.answerMade(this.name, serial, sdp));
    });
  }

  /** @param {{ serial: number, sdp: string }} command */
  applyAnswer({ serial, sdp }) {
    this.#enqueue(serial, () => this.#connection.accept(sdp));
  }

  /**
   * One that is of no use is no loss.
   *
   * @param {{ candidate: Candidate | null }} command
   */
  addCandidate({ candidate }) {
    this.#enqueue(null, () => this.#connection.addCandidate(candidate).catch(() => {}));
  }

  /**
   * Send these tracks and no others.
   *
   * @param {MediaStream | null} stream
   */
  setTracks(stream) {
    this.#enqueue(null, () => this.#connection.setTracks(stream));
  }

  /**
   * @param {number | null} serial of what fails with it
   * @param {() => Promise<void>} operation
   */
  #enqueue(serial, operation) {
    this.#operations = this.#operations
      .then(() => (this.#closed ? undefined : operation()))
      .catch((error) => {
        if (serial === null) this.#closed || console.error(error);
        else this.#happened((machine) => machine.operationFailed(this.name, serial, messageOf(error)));
      });
  }

  /** @param {(machine: Negotiation, now: number) => Command[]} call */
  #happened(call) {
    if (!this.#closed) this.#owner.happened(call);
  }

  /** @param {News} news */
  #heard(news) {
    if (!this.#closed) this.#owner.heard(this, news);
  }

  /** What the browser tells of the path; null when there is none. */
  async stats() {
    try {
      return await this.#connection.stats();
    } catch {
      return null; // it has gone meanwhile
    }
  }

  // --- the engine's events -----------------------------------------------------------------------------------------

  /** @param {Candidate | null} candidate */
  candidateGathered(candidate) {
    this.#happened((machine) => machine.candidateGathered(this.name, candidate));
  }

  negotiationNeeded() {
    this.#happened((machine, now) => machine.renegotiate(this.name, now));
  }

  /**
   * @param {MediaStreamTrack} track
   * @param {readonly MediaStream[]} streams
   */
  trackReceived(track, streams) {
    this.#heard((listener) => listener.trackReceived(track, streams));
  }

  /** @param {RTCPeerConnectionState} state */
  stateChanged(state) {
    if (state === 'connected')
      this.#ping(); // if there is a channel, its PONG tells whether it works again
    else if (state === 'disconnected' || state === 'failed') this.#pathLost(state === 'failed');
  }

  /** @param {boolean} final the browser has given up */
  #pathLost(final) {
    this.#lost = true;
    this.#happened((machine, now) => machine.pathLost(this.name, now, final));
  }

  /**
   * @param {string} reason
   * @param {boolean} orderly
   */
  #ended(reason, orderly) {
    this.#happened((machine) => machine.linkEnded(this.name, reason, orderly));
  }

  /** @param {RTCDataChannel} channel */
  channelOpened(channel) {
    if (this.#closed || this.#channel || channel.label !== LABEL) {
      channel.close(); // one channel is all there is
      return;
    }
    this.#channel = channel;
    channel.bufferedAmountLowThreshold = BUFFER_LOW;
    channel.onbufferedamountlow = () => {
      if (!this.#blocked) return;
      this.#blocked = false; // before it is told: the listener may fill the buffer again
      this.#heard((listener) => listener.writable());
    };
    channel.onmessage = ({ data }) => this.#received(data);
    channel.onclose = () => {
      this.#channelGone();
      this.#lingers = false;
      this.#ended('the other side closed the channel', false);
    };
    this.#quality = new Quality(this.#timers.time(), this.#timing.silence);
    const hello = this.#owner.channelOpened(this);
    if (this.#closed) return;
    this.#send(encodeHello(hello));
    this.#beat();
  }

  /** @param {ArrayBuffer | string} data */
  #received(data) {
    if (this.#closed) return;
    try {
      this.#take(read(data));
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.#owner.violated(this, error.message);
    }
  }

  /** @param {Frame | null} frame */
  #take(frame) {
    const type = frame?.type;
    if (!this.#greeted && type !== 'hello' && type !== 'goodbye') {
      throw new ProtocolViolation('the first frame is no HELLO');
    }
    this.#alive();
    switch (frame?.type) {
      case 'chunk':
      case 'ack':
        this.#heard((listener) => listener.frameReceived(frame));
        break;
      case 'ping':
        this.#send(encodePong(frame.token));
        break;
      case 'pong':
        this.#quality?.ponged(frame.token, this.#timers.time());
        break;
      case 'hello':
        if (this.#greeted) throw new ProtocolViolation('a second HELLO');
        this.#greeted = true;
        this.#owner.helloReceived(this, frame);
        break;
      case 'goodbye':
        this.#ended(frame.reason || 'the other side said goodbye', true);
    }
  }

  // --- frames out --------------------------------------------------------------------------------------------------

  /**
   * Send a frame of the store's if there is room for it; false if not, and `bufferDrained` follows.
   *
   * @param {Bytes} frame
   */
  sendFrame(frame) {
    if (!this.#channel || this.#closed) return false;
    if (this.#channel.bufferedAmount + frame.length > BUFFER_HIGH) {
      this.#blocked = true;
      return false;
    }
    return this.#send(frame);
  }

  /** @param {Bytes} frame */
  #send(frame) {
    try {
      this.#channel?.send(frame);
      return !!this.#channel;
    } catch {
      return false; // it is closing, and will say so
    }
  }

  // --- the heartbeat -----------------------------------------------------------------------------------------------

  /** Seconds; null before the first PONG. */
  get roundTripTime() {
    return this.#quality?.roundTripTime ?? null;
  }

  #ping() {
    if (this.#quality) this.#send(encodePing(this.#quality.ping(this.#timers.time())));
  }

  #beat() {
    const quality = /** @type {Quality} */ (this.#quality);
    const { heartbeat } = this.#timing;
    const now = this.#timers.time();
    // It was this page that slept, or its machine. What has come meanwhile is about to be read.
    if (this.#beatDue !== null && now - this.#beatDue > heartbeat) quality.heard(now);
    this.#ping();
    const left = quality.silentIn(now);
    const delay = Math.min(heartbeat, left || heartbeat);
    this.#beatDue = now + delay;
    this.#cancelBeat = this.#timers.callLater(delay, () => this.#beat());
    if (!left && !this.#lost) this.#pathLost(false);
  }

  #alive() {
    this.#quality?.heard(this.#timers.time());
    this.#cancelProbe?.();
    this.#cancelProbe = null;
    if (this.#lost) {
      this.#lost = false;
      this.#happened((machine) => machine.pathRestored(this.name));
    }
  }

  /**
   * Somebody says that this connection is over: believe it if nothing comes through soon.
   *
   * @param {{ reason: string }} command
   */
  probe({ reason }) {
    if (this.#cancelProbe || this.#closed) return;
    this.#ping();
    this.#cancelProbe = this.#timers.callLater(this.#timing.probe, () =>
      this.#ended(reason || 'the other side ended the connection', true),
    );
  }

  // --- the end -----------------------------------------------------------------------------------------------------

  /**
   * Send GOODBYE as the last frame, if there is a channel that works; `close` will wait until it has arrived.
   *
   * @param {string} reason
   */
  sayGoodbye(reason) {
    if (!this.#channel || this.#closed || this.#lost) return;
    this.#lingers = this.#send(encodeGoodbye(reason));
    this.#channel.close(); // after what is queued; the other side closes its end as soon as it has read it all
  }

  /** Nothing is told any more from here on. `close` is still due. */
  stop() {
    this.#closed = true;
    this.#cancelBeat();
    this.#cancelProbe?.();
  }

  /** Release everything; after a goodbye not before the other side has closed the channel, or a short time. */
  async close() {
    this.stop();
    if (this.#lingers) {
      await new Promise((done) => {
        const cancel = this.#timers.callLater(this.#timing.linger, () => done(null));
        this.#channelGone = () => done(cancel());
      });
    }
    this.#connection.close();
  }
}

/**
 * @param {ArrayBuffer | string} data
 * @returns {Frame | null}
 */
function read(data) {
  if (typeof data === 'string') throw new ProtocolViolation('a text message in place of a frame');
  if (data.byteLength > MAX_FRAME) throw new ProtocolViolation('a frame too long');
  return decode(new Uint8Array(data));
}
