/**
 * One connection to the other side: an RTCPeerConnection, what is said about it through signaling, its channel, and the
 * session over that.
 *
 * Rules:
 * - Each command of the negotiation machine but those that make and drop connections is carried out by the method of the
 *   same name.
 * - Operations on the RTCPeerConnection run one after the other; `close` forgets those that are left, and waits for none.
 *   One that was under way then stays pending for ever.
 * - Descriptions are signed before the machine is told that they are made, so that all that is to be sent can leave at
 *   once, and in its order.
 * - What comes through the channel, and its times, are the session's business: see `session.js`. The side that has not made
 *   the channel says HELLO when the other's has come.
 * - What happens is told to `TransportOwner`; after `close` nothing is.
 *
 * It does not know that there may be other connections to the same peer.
 */

import { catchUp } from '../client/timers.js';
import { LABEL } from '../protocol/channel.js';
import { apply, CAPABILITIES, configure, makeConnection } from './engine.js';
import { PeerSession } from './session.js';

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
 * How much may wait in the browser, in bytes. Enough to keep a fast path busy while the page does something else, little
 * enough that a slow one does not hold up PINGs for long; libwebrtc itself refuses beyond 16 MiB.
 */
export const BUFFER_HIGH = 1024 * 1024;
export const BUFFER_LOW = 256 * 1024;
/** RFC 8839 section 5.1 leads to some 200 characters. */
export const MAX_CANDIDATE = 1024;

/**
 * How long things may take, all in seconds.
 * @typedef {object} PeerTiming
 * @property {number} attempt Seconds from the offer to HELLOs exchanged. 30
 * @property {number} heal Seconds from the loss of an established path to its return, by itself or by an ICE restart. 15
 * @property {number} heartbeat Seconds between PINGs at least; see `quality.js`. 1.5
 * @property {number} silence Seconds without any frame, after which the path counts as lost: three lost PINGs are no
 *   accident. 5
 * @property {number} probe Seconds in which something has to arrive after a `bye` from the server, which may be lying. 1.5
 * @property {number} linger Seconds that closing waits for the other side to have got the goodbye, and the server the
 *   rest. 1
 */

/** @type {PeerTiming} */
export const TIMING = { attempt: 30, heal: 15, heartbeat: 1.5, silence: 5, probe: 1.5, linger: 1 };

/**
 * What the transports of a `PeerConnection` share: what it was made with, and how they tell it.
 * @typedef {object} TransportOwner
 * @property {string} remote
 * @property {string} called the address that offers go to
 * @property {Pick<Trust, 'check' | 'sign'>} trust
 * @property {SignalSender} signaling
 * @property {() => OurHello} hello
 * @property {() => EngineConfig} config what to make connections with now
 * @property {PeerTiming} timing
 * @property {Timers} timers
 * @property {typeof globalThis.RTCPeerConnection} [RTCPeerConnection]
 * @property {MediaStream | null} stream whose tracks are to be sent
 * @property {PutTracks} putTracks what puts them onto a connection
 * @property {<Call extends Happening>(call: Call, name: string, ...values: Told<Call>) => void} happened tell the machine,
 *   and do what it wants
 * @property {<What extends keyof PeerListener>(what: What, ...values: Parameters<PeerListener[What]>) => void} tell tell
 *   the listener, soon
 * @property {() => void} tellNow what it has not been told yet
 * @property {(sending: Promise<unknown>) => void} keep have closing wait for it
 */

/** What an offer or answer has come with, once it has been checked. @typedef {{ address: string, proof: Proof }} Origin */

/**
 * What it is given becomes a part of the URL: Firefox never asks twice for a module that it did not get.
 * @type {(again: string) => Promise<typeof import('./stats.js')>}
 */
const loadStats = (_again) => import('./stats.js');
let failedLoads = 0;

/** See the module. */
export class PeerTransport {
  /** of the device at the other end, once it has said something */
  address;
  /** @type {Signed | null} */
  ourOffer = null;
  /** The nonces of the offer of theirs that has been taken last, and of our offer before `ourOffer`: what comes with one of
   *  these is a repetition or late, and no forgery. */
  formerNonces = ['', ''];
  greeted = false; // HELLOs have been exchanged, and the owner knows
  #owner;
  #native;
  /** @type {Promise<void>} */
  #operations = Promise.resolve();
  /** @type {RTCSessionDescriptionInit | null} an offer of ours that is applied with its answer */
  #held = null;
  /** @type {RTCDataChannel | null} */
  #channel = null;
  /** @type {PeerSession | null} once the channel is open */
  #session = null;
  /** @type {Parameters<PeerListener['trackReceived']>[]} those that overtook the HELLO: signaling may be faster */
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
   * @param {boolean} openChannel whether to make the channel, as the first offerer does
   * @param {TransportOwner} owner
   */
  constructor(name, openChannel, owner) {
    const native = makeConnection(owner.config(), owner.RTCPeerConnection);
    this.name = name;
    this.address = owner.called;
    this.#owner = owner;
    this.#native = native;
    native.onicecandidate = ({ candidate }) => {
      // An empty one ends those of one media section (section 4.8.1.3); null, which follows, ends them all.
      this.#relayed ||= / typ relay/.test(candidate?.candidate ?? '');
      if (candidate?.candidate !== '')
        this.#happened('candidateGathered', candidate && /** @type {Candidate} */ (candidate.toJSON()));
    };
    native.onconnectionstatechange = () => {
      const { connectionState: state } = native;
      const final = state === 'failed';
      if (state === 'connected') this.#session?.ping(this.#now); // its PONG tells whether the channel works again
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
   * The first offer is applied at once, and candidates are gathered. One on a connection that stands is applied with its
   * answer only, so that there is nothing to roll back when the other side's offer crosses it: in Chromium 156 whoever
   * rolls back an offer never sees the pictures again that come in the sections of it.
   *
   * @param {{ serial: number, restart: boolean }} command
   */
  makeOffer({ serial, restart }) {
    const native = this.#native;
    this.#describe('offerMade', serial, async () => {
      if (restart) {
        // Its TURN credentials may have run out.
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
          // Or the next offer of ours would come out as an answer.
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
   * One that is of no use is no loss.
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
   * Somebody says that this connection is over: believe it if nothing comes through soon.
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
      // An offer of ours that never got its answer keeps the browser from asking.
      if (this.#held || this.#native.signalingState !== 'stable') this.#renegotiate();
    });
  }

  /** What the browser tells of the path; null when there is none, or none any more, or what reads it cannot be loaded. */
  async stats() {
    try {
      const { statsOf } = await loadStats(failedLoads ? `?${failedLoads}` : '').catch((error) => {
        failedLoads++;
        throw error;
      });
      return await statsOf(this.#native);
    } catch {
      return null;
    }
  }

  /** What may be why there was no path, to be added to a reason: no browser tells of a TURN server that refuses us. */
  get relayMissing() {
    const servers = this.#owner.config().iceServers ?? [];
    const urls = servers.flatMap((server) => server.urls).filter((url) => url.startsWith('turn'));
    return urls.length && !this.#relayed && !this.#channel
      ? `; no relay candidate from ${urls.join(', ')}: the server cannot be reached, or refuses the credentials`
      : '';
  }

  /**
   * @param {'offerMade' | 'answerMade'} made what to tell the machine then
   * @param {number} serial
   * @param {() => Promise<void>} operation
   * @param {Signed} [offer] what is answered
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
   * @param {number} [serial] of what fails with it
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
      channel.close(); // one channel is all there is
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
      catchUp(); // only now: a frame that has arrived is a sign of life
    };
    channel.onclose = () => this.#happened('attemptEnded', 'the other side closed the channel', false);
    this.#happened('channelOpened');
    // Chromium announces a channel of theirs as open before it can send, and then drops what is sent without a word. So
    // our HELLO waits for theirs, which proves that the channel is open.
    if (ours && !this.#closed) this.#greet();
  }

  #greet() {
    this.#saidHello = true;
    this.#owner.tellNow(); // that the channel before is gone, so that the HELLO starts where it ended
    if (this.#session && !this.#closed) this.#tellAll(this.#session.open(this.#owner.hello(), this.#now));
  }

  // --- the session -------------------------------------------------------------------------------------------------

  /** Seconds from a PING to its PONG, the median of the last few; null before the first one. */
  get roundTripTime() {
    return this.#session?.roundTripTime ?? null;
  }

  /**
   * Send a frame of the store's if there is room for it; false if not, and `writable` follows.
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
   * Send GOODBYE as the last frame, if there is a channel that works; `close` will wait until it has arrived.
   *
   * @param {string} reason
   */
  sayGoodbye(reason) {
    if (!this.#channel || !this.#session || this.#session.lost) return;
    this.#lingers = this.#session.goodbye(reason);
    this.#channel.close(); // after what is queued; the other side closes its end as soon as it has read it all
  }

  /** Release everything; after a goodbye not before the other side has closed the channel, or a short time. */
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
      return false; // it is closing, and will say so
    }
  },
});

/**
 * Wait for the last of something, but no longer than to linger.
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
