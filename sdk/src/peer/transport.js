/**
 * One connection to the other side: an RTCPeerConnection, its signaling messages, its channel, and the session over the
 * channel.
 *
 * Rules:
 * - A method carries out the negotiation command of the same name, for all commands except those that make and drop
 *   connections.
 * - Operations on the RTCPeerConnection run one after the other. `close` drops the waiting ones, and waits for none; a
 *   running one then stays pending for ever.
 * - Descriptions are signed before the machine hears that they are made, so that everything to be sent can leave at
 *   once, and in order.
 * - The session handles the channel's input and its times: see `session.js`. The side that has not made the channel
 *   sends HELLO after the other side's HELLO.
 * - Events go to `TransportOwner`; after `close` there are none.
 *
 * It does not know other connections to the same peer.
 */

import { catchUp } from '../client/timers.js';
import { LABEL } from '../protocol/channel.js';
import { apply, CAPABILITIES, configure, makeConnection } from './engine.js';
import { PeerSession } from './session.js';
import { statsOf } from './stats.js';

/** @import { Timers } from '../client/timers.js' */
/** @import { OurHello } from '../protocol/channel.js' */
/** @import { Bytes } from '../protocol/codec.js' */
/** @import { Candidate, Proof } from '../protocol/messages.js' */
/** @import { PeerListener, SignalSender } from './connection.js' */
/** @import { EngineConfig } from './engine.js' */
/** @import { Happening, Told } from './negotiation.js' */
/** @import { Path, SessionEvent } from './session.js' */
/** @import { Signed, Trust } from './trust.js' */

/** @typedef {(native: RTCPeerConnection, stream: MediaStream | null) => Promise<void>} PutTracks `media.putTracks` */

/**
 * Bytes that may wait in the browser: enough to keep a fast path busy while the page is busy, and little enough that a
 * slow path does not delay PINGs for long. libwebrtc itself refuses more than 16 MiB.
 */
export const BUFFER_HIGH = 1024 * 1024;
export const BUFFER_LOW = 256 * 1024;
/** RFC 8839 section 5.1 leads to some 200 characters. */
export const MAX_CANDIDATE = 1024;

/**
 * How long things may take, all in seconds.
 * @typedef {object} PeerTiming
 * @property {number} attempt Seconds from the offer to the exchange of HELLOs. 30
 * @property {number} heal Seconds from the loss of an established path to its return, by itself or by an ICE restart. 15
 * @property {number} heartbeat The least number of seconds between PINGs; see `quality.js`. 1.5
 * @property {number} silence Seconds without any frame, after which the path counts as lost: three lost PINGs are no
 *   accident. 5
 * @property {number} probe Seconds in which something has to arrive after a `bye` through the server, which may be
 *   false. 1.5
 * @property {number} linger Seconds that closing waits until the other side has the GOODBYE, and the server the other
 *   messages. 1
 */

/** @type {PeerTiming} */
export const TIMING = { attempt: 30, heal: 15, heartbeat: 1.5, silence: 5, probe: 1.5, linger: 1 };

/**
 * What the transports of a `PeerConnection` share: its options, and its callbacks.
 * @typedef {object} TransportOwner
 * @property {string} remote
 * @property {string} called the address that offers go to
 * @property {Pick<Trust, 'check' | 'sign'>} trust
 * @property {SignalSender} signaling
 * @property {() => OurHello} hello
 * @property {() => EngineConfig} config the current configuration for connections
 * @property {PeerTiming} timing
 * @property {Timers} timers
 * @property {typeof globalThis.RTCPeerConnection} [RTCPeerConnection]
 * @property {MediaStream | null} stream whose tracks are to be sent
 * @property {PutTracks} putTracks puts them onto a connection
 * @property {<Call extends Happening>(call: Call, name: string, ...values: Told<Call>) => void} happened call the machine,
 *   and carry out its commands
 * @property {<What extends keyof PeerListener>(what: What, ...values: Parameters<PeerListener[What]>) => void} tell call
 *   the listener, soon
 * @property {() => void} tellNow make the waiting calls of the listener now
 * @property {(sending: Promise<unknown>) => void} keep make closing wait for it
 */

/** The sender and the checked proof of an offer or answer. @typedef {{ address: string, proof: Proof }} Origin */

/** One connection and its session, see the module. */
export class PeerTransport {
  /** of the device at the other end, after its first message */
  address;
  /** @type {Signed | null} */
  ourOffer = null;
  /** The nonces of their last accepted offer, and of our offer before `ourOffer`: a message with one of these is a
   * repetition
   *  or late, and no forgery. */
  formerNonces = ['', ''];
  greeted = false; // HELLOs are exchanged, and the owner knows
  #owner;
  #native;
  /** @type {Promise<void>} */
  #operations = Promise.resolve();
  /** @type {RTCSessionDescriptionInit | null} an offer of ours that is applied together with its answer */
  #held = null;
  /** @type {RTCDataChannel | null} */
  #channel = null;
  /** @type {PeerSession | null} once the channel is open */
  #session = null;
  /** @type {Parameters<PeerListener['trackReceived']>[]} tracks that came before the HELLO, because signaling may be faster */
  #early = [];
  #saidHello = false;
  #lost = false; // before there is a session
  #closed = false;
  #relayed = false; // a TURN server has given us a candidate
  #lingers = false;
  #deadline = Infinity;
  #cancelTimer = () => {};

  /**
   * Throws what `makeConnection` throws.
   *
   * @param {string} name
   * @param {boolean} openChannel whether to make the channel, as the side that offers first
   * @param {TransportOwner} owner
   */
  constructor(name, openChannel, owner) {
    const native = makeConnection(owner.config(), owner.RTCPeerConnection);
    this.name = name;
    this.address = owner.called;
    this.#owner = owner;
    this.#native = native;
    native.onicecandidate = ({ candidate }) => {
      // An empty one ends the candidates of one media section (section 4.8.1.3); null, which follows, ends all of them.
      this.#relayed ||= / typ relay/.test(candidate?.candidate ?? '');
      if (candidate?.candidate !== '')
        this.#happened('candidateGathered', candidate && /** @type {Candidate} */ (candidate.toJSON()));
    };
    native.onconnectionstatechange = () => {
      const { connectionState: state } = native;
      const final = state === 'failed';
      if (state === 'connected') this.#session?.ping(this.#now); // its PONG shows whether the channel works again
      if (final || state === 'disconnected') this.#pathLost(final);
    };
    native.onnegotiationneeded = this.#renegotiate;
    native.ontrack = ({ track, streams }) => {
      if (this.greeted) this.#tell('trackReceived', track, streams);
      else this.#early.push([track, streams]);
    };
    native.ondatachannel = ({ channel }) => this.#watch(channel, false);
    if (openChannel) this.#watch(native.createDataChannel(LABEL), true);
  }

  // --- commands ----------------------------------------------------------------------------------------------------

  /**
   * The first offer is applied at once, and gathering starts. An offer on an open connection is applied only together
   * with its answer, so that nothing has to be rolled back when the other side's offer crosses it: after a rollback,
   * Chromium 156 never again shows the pictures in the sections of that offer.
   *
   * @param {{ serial: number, restart: boolean }} command
   */
  makeOffer({ serial, restart }) {
    const native = this.#native;
    this.#describe('offerMade', serial, async () => {
      if (restart) {
        // Its TURN credentials may have expired.
        const Native = /** @type {typeof RTCPeerConnection} */ (native.constructor);
        configure(this.#owner.config(), Native, (all) => native.setConfiguration?.(all));
        native.restartIce();
      }
      if (native.remoteDescription) this.#held = await native.createOffer();
      else await native.setLocalDescription();
    });
  }

  /**
   * @param {{ serial: number, sdp: string }} command
   * @param {Origin} origin of the offer
   */
  makeAnswer({ serial, sdp }, { address, proof }) {
    const native = this.#native;
    this.address = address;
    this.formerNonces[0] = proof.nonce;
    this.#describe(
      'answerMade',
      serial,
      async () => {
        this.#held = null;
        await apply(native, 'offer', sdp);
        try {
          await native.setLocalDescription();
        } catch (error) {
          // Otherwise our next offer would come out as an answer.
          await native.setRemoteDescription({ type: 'rollback' });
          throw error;
        }
      },
      { sdp, proof },
    );
  }

  /**
   * @param {{ serial: number, sdp: string }} command
   * @param {Origin} origin of the answer
   */
  applyAnswer({ serial, sdp }, { address }) {
    this.address = address;
    this.#enqueue(async () => {
      const held = this.#held;
      this.#held = null;
      if (held) await this.#native.setLocalDescription(held);
      await apply(this.#native, 'answer', sdp);
    }, serial);
  }

  /**
   * If the browser refuses the candidate, nothing is lost.
   *
   * @param {{ candidate: Candidate | null }} command
   */
  addCandidate({ candidate }) {
    if (candidate && candidate.candidate.length > MAX_CANDIDATE) return;
    this.#enqueue(() => this.#native.addIceCandidate(candidate).catch(() => {}));
  }

  /** @param {{ candidate: Candidate | null }} command */
  sendCandidate({ candidate }) {
    const { signaling, keep } = this.#owner;
    keep(signaling.sendIceCandidate(this.address, candidate, { connection: this.name }));
  }

  /** @param {{ type: 'sendOffer' | 'sendAnswer', serial: number, sdp: Signed }} command */
  sendOffer(command) {
    if (this.ourOffer !== command.sdp) {
      this.formerNonces[1] = this.ourOffer?.proof.nonce ?? '';
      this.ourOffer = command.sdp;
    }
    this.sendAnswer(command);
  }

  /** @param {{ type: 'sendOffer' | 'sendAnswer', serial: number, sdp: Signed }} command */
  sendAnswer({ type, serial, sdp: { sdp, proof } }) {
    const { signaling, keep } = this.#owner;
    const options = { connection: this.name, proof, capabilities: CAPABILITIES };
    keep(
      signaling[type](this.address, sdp, options).catch((error) => this.#happened('operationFailed', serial, error)),
    );
  }

  /**
   * A message says that this connection is over. Believe it if nothing arrives soon.
   *
   * @param {{ reason: string }} command
   */
  probe({ reason }) {
    this.#session?.probe(reason, this.#now);
    this.#setTimer();
  }

  // --- the RTCPeerConnection ---------------------------------------------------------------------------------------

  /** Send the tracks of `TransportOwner.stream` and no others. */
  setTracks() {
    this.#enqueue(async () => {
      await this.#owner.putTracks(this.#native, this.#owner.stream);
      // If an offer of ours never got its answer, the browser does not ask for a negotiation.
      if (this.#held || this.#native.signalingState !== 'stable') this.#renegotiate();
    });
  }

  /** The browser's statistics of the path; null without a path, and after the end. */
  async stats() {
    try {
      return await statsOf(this.#native);
    } catch {
      return null;
    }
  }

  /** A possible reason why there was no path, to add to a text: no browser reports a TURN server that refuses us. */
  get relayMissing() {
    const servers = this.#owner.config().iceServers ?? [];
    const urls = servers.flatMap((server) => server.urls).filter((url) => url.startsWith('turn'));
    return urls.length && !this.#relayed && !this.#channel
      ? `; no relay candidate from ${urls.join(', ')}: the server cannot be reached, or refuses the credentials`
      : '';
  }

  /**
   * @param {'offerMade' | 'answerMade'} made the machine's input after that
   * @param {number} serial
   * @param {() => Promise<void>} operation
   * @param {Signed} [offer] the offer that is answered
   */
  #describe(made, serial, operation, offer) {
    this.#enqueue(async () => {
      await operation();
      const sdp = (this.#held ?? this.#native.localDescription)?.sdp ?? '';
      const { trust, remote } = this.#owner;
      this.#happened(made, serial, { sdp, proof: await trust.sign(remote, this.name, sdp, offer), serial });
    }, serial);
  }

  /**
   * @param {() => Promise<void>} operation
   * @param {number} [serial] of the command that fails with it
   */
  #enqueue(operation, serial) {
    this.#operations = this.#operations
      .then(() => (this.#closed ? undefined : operation()))
      .catch((error) => {
        if (serial) this.#happened('operationFailed', serial, error);
        else if (!this.#closed) console.error(error);
      });
  }

  #renegotiate = () => this.#happened('renegotiate', this.#now);

  /** @param {boolean} final the browser has given up */
  #pathLost(final) {
    this.#lost = true;
    this.#session?.lose();
    this.#happened('pathLost', this.#now, final);
  }

  /**
   * @template {Happening} Call
   * @param {Call} call
   * @param {Told<Call>} values
   */
  #happened(call, ...values) {
    if (!this.#closed) this.#owner.happened(call, this.name, ...values);
  }

  /**
   * @template {keyof PeerListener} What
   * @param {What} what
   * @param {Parameters<PeerListener[What]>} values
   */
  #tell(what, ...values) {
    if (!this.#closed) this.#owner.tell(what, ...values);
  }

  // --- the channel -------------------------------------------------------------------------------------------------

  /**
   * @param {RTCDataChannel} channel
   * @param {boolean} ours we have made it
   */
  #watch(channel, ours) {
    channel.binaryType = 'arraybuffer';
    channel.onopen = () => this.#opened(channel, ours);
  }

  /**
   * @param {RTCDataChannel} channel
   * @param {boolean} ours
   */
  #opened(channel, ours) {
    if (this.#closed || this.#channel || channel.label !== LABEL) {
      channel.close(); // only one channel is allowed
      return;
    }
    this.#channel = channel;
    this.#session = new PeerSession(
      pathOver(channel, () => this.#closed),
      this.#now,
      this.#owner.timing,
    );
    if (this.#lost) this.#session.lose();
    channel.bufferedAmountLowThreshold = BUFFER_LOW;
    channel.onbufferedamountlow = () => {
      if (this.#session?.drained()) this.#tell('writable');
    };
    channel.onmessage = ({ data }) => {
      if (this.#session && !this.#closed) this.#tellAll(this.#session.received(data, this.#now));
      catchUp(); // only now, because a frame that has arrived is a sign of life
    };
    channel.onclose = () => this.#happened('attemptEnded', 'the other side closed the channel', false);
    this.#happened('channelOpened');
    // Chromium reports their channel as open before it can send, and then drops data silently. So our HELLO waits for
    // theirs, which proves that the channel is open.
    if (ours && !this.#closed) this.#greet();
  }

  #greet() {
    this.#saidHello = true;
    this.#owner.tellNow(); // the end of the channel before, so that the HELLO starts where it ended
    if (this.#session && !this.#closed) this.#tellAll(this.#session.open(this.#owner.hello(), this.#now));
  }

  // --- the session -------------------------------------------------------------------------------------------------

  /** Seconds from a PING to its PONG, the median of the last few; null before the first one. */
  get roundTripTime() {
    return this.#session?.roundTripTime ?? null;
  }

  /**
   * Send a frame of the store. False without room; then `writable` follows.
   *
   * @param {Bytes} frame
   */
  sendFrame(frame) {
    return this.#session?.send(frame) ?? false;
  }

  /** @param {SessionEvent[]} events */
  #tellAll(events) {
    this.#setTimer();
    for (const event of events) if (!this.#closed) this.#tellOne(event);
  }

  /** @param {SessionEvent} event */
  #tellOne(event) {
    switch (event.type) {
      case 'hello':
        if (!this.#saidHello) this.#greet();
        this.greeted = !this.#closed;
        this.#tell('channelOpened', event);
        this.#happened('channelReady');
        for (const track of this.#early) this.#tell('trackReceived', ...track);
        if (this.#owner.stream) this.setTracks();
        break;
      case 'pathLost':
        this.#pathLost(false);
        break;
      case 'pathRestored':
        this.#happened('pathRestored');
        break;
      case 'ended':
        this.#happened('attemptEnded', event.reason, event.orderly);
        break;
      case 'violated':
        this.sayGoodbye(event.reason);
        this.#happened('abandon', event.reason);
        break;
      default:
        this.#tell('frameReceived', event);
    }
  }

  #setTimer() {
    const deadline = this.#session?.deadline ?? Infinity;
    if (deadline === this.#deadline || this.#closed) return;
    this.#deadline = deadline;
    this.#cancelTimer();
    if (deadline < Infinity) {
      this.#cancelTimer = this.#owner.timers.callLater(Math.max(deadline - this.#now, 0), () => {
        this.#deadline = Infinity;
        if (this.#session) this.#tellAll(this.#session.tick(this.#now));
      });
    }
  }

  // --- the end -----------------------------------------------------------------------------------------------------

  /**
   * Send GOODBYE as the last frame if the channel works; `close` waits until it has arrived.
   *
   * @param {string} reason
   */
  sayGoodbye(reason) {
    if (!this.#channel || !this.#session || this.#session.lost) return;
    this.#lingers = this.#session.goodbye(reason);
    this.#channel.close(); // after sending what is queued; the other side closes its end when it has read everything
  }

  /** Release everything. After a GOODBYE, first wait a short time for the other side to close the channel. */
  async close() {
    this.#closed = true;
    this.#cancelTimer();
    const channel = this.#channel;
    if (this.#lingers) await linger(this.#owner, new Promise((gone) => channel && (channel.onclose = gone)));
    this.#native.close();
  }

  get #now() {
    return this.#owner.timers.time();
  }
}

/**
 * The channel as the path of a session.
 *
 * @param {RTCDataChannel} channel
 * @param {() => boolean} isClosed
 * @returns {Path}
 */
const pathOver = (channel, isClosed) => ({
  get room() {
    return BUFFER_HIGH - channel.bufferedAmount;
  },
  get closed() {
    return isClosed();
  },
  send(frame) {
    try {
      channel.send(frame);
      return true;
    } catch {
      return false; // it is closing, and its event follows
    }
  },
});

/**
 * Wait for a last promise, but no longer than `linger`.
 *
 * @param {TransportOwner} owner
 * @param {Promise<unknown>} last which does not reject
 * @returns {Promise<void>}
 */
export const linger = ({ timers, timing }, last) =>
  new Promise((done) => {
    const cancel = timers.callLater(timing.linger, done);
    void last.then(() => done(cancel()));
  });
