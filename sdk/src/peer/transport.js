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
import { BUNDLED, encodeBundle, LABEL, MAX_BUNDLE, MESSAGE } from '../protocol/channel.js';
import { clean } from '../protocol/codec.js';
import { apply, CAPABILITIES, configure, makeConnection } from './engine.js';
import { quietSeconds } from './last_packet.js';
import { PeerSession } from './session.js';

/** @import { Timers } from '../client/timers.js' */
/** @import { OurHello } from '../protocol/channel.js' */
/** @import { Bytes } from '../protocol/codec.js' */
/** @import { Candidate, Proof } from '../protocol/messages.js' */
/** @import { statsOf } from './stats.js' */
/** @import { PeerListener, SignalSender, Turn } from './connection.js' */
/** @import { EngineConfig } from './engine.js' */
/** @import { Happening, Told } from './negotiation.js' */
/** @import { Path, SessionEvent } from './session.js' */
/** @import { PeerTiming } from './timing.js' */
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
// Seconds for the browser to say when it has got something last.
const LOOK = 1;

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
  /** @type {ChannelPath | null} */
  #path = null;
  /** @type {PeerSession | null} once the channel is open */
  #session = null;
  /** @type {Parameters<PeerListener['trackReceived']>[]} tracks that came before the HELLO, because signaling may be faster */
  #early = [];
  #saidHello = false;
  #lost = false; // before there is a session
  #closed = false;
  #relayed = false; // a TURN server has given us a candidate
  #refusal = ''; // by a TURN server
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
    native.onicecandidateerror = ({ url, errorCode: code, errorText: text }) => {
      // An answer of the server (RFC 8489 section 14.8); 701 only says that an address of ours does not reach it.
      if (/^turn/i.test(url ?? '') && code < 700) {
        this.#refusal = `the server refuses ${code === 401 ? 'the credentials ' : ''}(${code} ${clean(text)})`;
      }
    };
    native.onconnectionstatechange = () => {
      const { connectionState: state } = native;
      const final = state === 'failed';
      if (state === 'connected') this.#pathFound();
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

  /**
   * The browser's statistics of the path; null without a path, and after the end.
   *
   * @param {typeof statsOf} read it is not in the core: few programs ask
   */
  async stats(read) {
    try {
      return await read(this.#native);
    } catch {
      return null;
    }
  }

  /**
   * What became of the TURN servers, for an attempt without a path: the word for `PeerConnectionFailed`, and what to add
   * to its text. Where a path was found, the browser stops asking TURN servers.
   * @returns {Turn}
   */
  get turn() {
    const servers = this.#owner.config().iceServers ?? [];
    const urls = servers.flatMap((server) => server.urls).filter((url) => url.startsWith('turn'));
    if (this.#channel || ['connected', 'completed'].includes(this.#native.iceConnectionState)) return ['', ''];
    if (!urls[0]) return ['none', '; no TURN server is configured'];
    if (this.#relayed) return ['tried', `; not through ${urls.join(', ')} either`];
    const why = this.#refusal || 'the server cannot be reached, or refuses the credentials';
    return [this.#refusal ? 'refused' : 'unreachable', `; no relay candidate from ${urls.join(', ')}: ${why}`];
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

  #pathFound() {
    this.#session?.ping(this.#now); // its PONG shows whether the channel works again
    if (this.greeted && this.#session?.lost) this.#tell('pathFound');
  }

  /** There is reason to doubt the path: unless something arrives soon, it is lost. */
  suspect() {
    this.#session?.suspect(this.#now);
    this.#setTimer();
  }

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
    this.#path = new ChannelPath(channel);
    this.#session = new PeerSession(this.#path, this.#now, this.#owner.timing);
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

  /** What the heartbeat has measured, if it has begun. */
  get pulse() {
    return this.#session?.pulse;
  }

  /**
   * Send a frame of the store. False without room; then `writable` follows.
   *
   * @param {Bytes} frame
   */
  sendFrame(frame) {
    if (!this.#session?.send(frame)) return false;
    if (frame[0] === MESSAGE && this.#session.expect(frame.length, this.#now)) this.#setTimer();
    return true;
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
      this.#cancelTimer = this.#owner.timers.callLater(Math.max(deadline - this.#now, 0), () => this.#tick());
    }
  }

  #tick() {
    const session = this.#session;
    if (session?.silent(this.#now)) {
      void this.#look(session);
      return;
    }
    this.#deadline = Infinity;
    if (session) this.#tellAll(session.tick(this.#now));
  }

  /** Before the path counts as lost: maybe only the program at the other end is late. @param {PeerSession} session */
  async #look(session) {
    const { timers } = this.#owner;
    const began = this.#now;
    const quiet = await new Promise((resolve) => {
      const cancel = timers.callLater(LOOK, () => resolve(Infinity));
      const found = (/** @type {number} */ seconds) => resolve((cancel(), seconds));
      quietSeconds(this.#native).then(found, () => found(Infinity));
    });
    if (this.#closed) return;
    session.answered(began - quiet);
    this.#deadline = Infinity;
    this.#tellAll(session.tick(this.#now));
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
    this.#path?.flush();
    this.#channel.close(); // after sending what is queued; the other side closes its end when it has read everything
  }

  /** Release everything. After a GOODBYE, first wait a short time for the other side to close the channel. */
  async close() {
    this.#closed = true;
    if (this.#path) this.#path.closed = true;
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
 * The channel as the path of a session. Small frames of one task go together, if the other side can read that.
 *
 * @implements {Path}
 */
class ChannelPath {
  mayBundle = false;
  closed = false;
  #channel;
  /** @type {Bytes[]} */
  #bundle = [];
  #bundleBytes = 0;

  /** @param {RTCDataChannel} channel */
  constructor(channel) {
    this.#channel = channel;
  }

  get room() {
    return BUFFER_HIGH - this.#channel.bufferedAmount - this.#bundleBytes;
  }

  /** @param {Bytes} frame */
  send(frame) {
    const { length } = frame;
    if (!this.mayBundle || length > BUNDLED) return this.flush() && this.#send(frame);
    if (this.#bundleBytes + length > MAX_BUNDLE && !this.flush()) return false;
    if (!this.#bundle.length) queueMicrotask(() => this.flush());
    this.#bundle.push(frame);
    this.#bundleBytes += length;
    return true;
  }

  /** Send the frames that wait for others; false when the path is about to close. */
  flush() {
    const [first, ...more] = this.#bundle;
    const frame = more.length ? encodeBundle(this.#bundle) : first;
    this.#bundle = [];
    this.#bundleBytes = 0;
    return !frame || this.#send(frame);
  }

  /** @param {Bytes} frame */
  #send(frame) {
    try {
      this.#channel.send(frame);
      return true;
    } catch {
      return false; // it is closing, and its event follows
    }
  }
}

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
