/**
 * Calls between two users: they ring, are accepted or not, and then have sound and pictures on the connection that is
 * there already.
 *
 * Rules of this module:
 *
 * - The user who is called decides: no track of ours is sent, and none of theirs shown, before the call is accepted.
 *   What arrives earlier is kept, since signaling may be faster than the message that accepts.
 * - Everything that is said goes through control messages (`control`), which arrive once and in order over however many
 *   connections. So a call does not notice a path that is lost and mended; its tracks go onto each new one. When
 *   nothing is mended for `AWAY_SECONDS`, it has ended.
 * - One call per user, with one of their devices; another offer of theirs is declined as busy. When both call each other at once, that is an
 *   answer: the two offers are one call, which goes by either id. The side that ends it takes back both.
 * - The side that ends a call says so, even if the other side seems to be gone. A message about an unknown call is
 *   ignored.
 *
 * It does not know how tracks are negotiated, and never stops a track: camera and microphone are the application's.
 */
import { Callbacks } from '../../client/callbacks.js';
import { ConfigError, FeatureMissing, PeerConnectionFailed, StateError } from '../../errors.js';
import { clean } from '../../protocol/codec.js';
import { putTracks } from '../../peer/media.js';
import { CALLS } from '../../protocol/names.js';
import { bind } from '../../proxies.js';
import { encodeControl } from '../messages/control.js';
import { RemoteTracks } from './tracks.js';

/** @import { AldisError } from '../../errors.js' */
/** @import { CallOffer, CallMessage, ControlMessage } from '../messages/control.js' */
/** @import { PeerDevice } from '../peers/device.js' */
/** @import { CallService } from './service.js' */
/** @import { Media } from './tracks.js' */

/** How long it rings, in seconds: some ten rings, as with telephones. */
export const RING_SECONDS = 45;
/**
 * How long a call waits for a connection that was lost, in seconds: for a path to heal (15), and for another to be
 * found. Nobody looks longer at a picture that stands still, while the camera is on and whoever else calls hears that
 * it is busy.
 */
export const AWAY_SECONDS = 30;

const NOTHING = { audio: false, video: false };

/**
 * `ringing`: nobody has answered yet. `connecting`: it is accepted, nothing of the other side has come yet.
 * `connected`: it has; also while the path is being mended. `ended`: for good, `reason` tells why.
 *
 * @typedef {'ringing' | 'connecting' | 'connected' | 'ended'} CallState
 */

/**
 * A call. Its properties are there to be read; `subscribe` tells when they change.
 *
 * What is for `CallService` alone is static, so that applications do not see it at their calls.
 */
export class Call {
  // As fields, since TypeScript takes `@readonly` for no property that a constructor makes.
  /** The other user. @readonly */
  userId;
  /** @readonly @type {'in' | 'out'} */
  direction;
  /** Whether the caller offers sound. @readonly */
  audio;
  /** Whether the caller offers pictures. @readonly */
  video;
  /** @type {CallState} */
  #state = 'ringing';
  /** @type {string | null} */
  #reason = null;
  /** @type {AldisError | null} */
  #error = null;
  #id;
  #localStream;
  #remoteStream = new MediaStream();
  #calls;
  #peer;
  #addressed;
  /** @type {Callbacks<Call>} */
  #watchers = new Callbacks();
  /** @type {Set<string>} those that the other side knows it by; none before it was offered */
  #ids = new Set();
  /** What the other side says that it sends. @type {Media} */
  #theirs = NOTHING;
  /** What the other side has been told that we send. @type {Media} */
  #told;
  /** Cancels the end of waiting: for an answer, or for a connection. */
  #silence;

  /**
   * Made by `NetworkStore.call`, or given to the callback of `NetworkStore.onCall`.
   *
   * @param {CallService} calls
   * @param {PeerDevice} peer
   * @param {Omit<CallOffer, 'type'>} offer
   * @param {MediaStream | null} [stream] What is offered; none when it comes in.
   * @param {boolean} [addressed] It is for this device and no other of the user.
   */
  constructor(calls, peer, { id, audio, video }, stream, addressed = true) {
    this.#id = id;
    this.userId = peer.userId;
    this.direction = stream === undefined ? 'in' : 'out';
    this.audio = audio;
    this.video = video;
    this.#told = stream ? { audio, video } : NOTHING;
    this.#localStream = stream ?? null;
    if (this.direction === 'in') this.#ids.add(id);
    this.#calls = calls;
    this.#peer = peer;
    this.#addressed = addressed;
    this.#silence = calls.timers.callLater(RING_SECONDS, () => Call.finish(this, 'no answer'));
    bind(this, 'Call');
    calls.open.set(peer.userId, this);
  }

  // --- for the application -------------------------------------------------------------------------------------------

  /** Its name between the two programs. */
  get id() {
    return this.#id;
  }

  /** The other user's device. null while it is not known; it may change before it has heard of the call. */
  get device() {
    return this.#peer.name;
  }

  /** How it stands. */
  get state() {
    return this.#state;
  }

  /**
   * Why it has ended, in a few words, those of the other side where it has ended it (`declined`, `busy`, `no answer`,
   * `ended`); null before.
   */
  get reason() {
    return this.#reason;
  }

  /** The fault that has ended it; null when nobody is at fault. */
  get error() {
    return this.#error;
  }

  /** What we send; the application's own, which also stops its tracks when the call has ended. */
  get localStream() {
    return this.#localStream;
  }

  /** What the other side sends: one object for the whole call, in which tracks come and go. */
  get remoteStream() {
    return this.#remoteStream;
  }

  /**
   * Take the call. Throws `StateError` when it is not ringing here (any more: stop the tracks then), and `ConfigError`
   * for what is no stream.
   *
   * @param {MediaStream | null} [stream] What the caller is to hear and see; null to only listen and look.
   */
  accept(stream = null) {
    checkStream(stream);
    if (!rings(this, 'in')) throw new StateError('the call is not ringing here');
    this.#localStream = stream;
    this.#told = mediaOf(stream);
    this.#open(() => this.#say({ type: 'call-accept', id: this.id, ...this.#told }));
    this.#connect(this);
  }

  /**
   * Refuse the call, or end it; the other side is told the reason. Nothing happens when it has ended already.
   *
   * @param {string} [reason] At most 200 characters.
   */
  decline(reason = 'declined') {
    Call.finish(this, clean(reason));
  }

  /**
   * End the call, or stop ringing; the other side is told the reason. Nothing happens when it has ended already.
   *
   * @param {string} [reason] At most 200 characters.
   */
  end(reason = 'ended') {
    Call.finish(this, clean(reason));
  }

  /**
   * Send another stream from now on, or the same one with other tracks. Throws `StateError` when the call has ended,
   * and `ConfigError` for what is no stream.
   *
   * @param {MediaStream | null} stream
   */
  replaceStream(stream) {
    checkStream(stream);
    if (this.state === 'ended') throw new StateError('the call has ended');
    this.#localStream = stream;
    this.#send(stream);
    this.#watchers.tell(this);
  }

  /**
   * Have `run` called now, and at each change. Returns what ends it. Bound to its call, as `NetworkStore.subscribe`.
   *
   * @param {(call: Call) => void} run
   * @returns {() => void}
   */
  subscribe(run) {
    return this.#watchers.follow(run, this);
  }

  // --- for `CallService` ---------------------------------------------------------------------------------------------------

  /**
   * Have the peer called, and offer the call as soon as it is connected. Throws what comes of that.
   *
   * @param {Call} call
   */
  static begin(call) {
    call.#open((features) => features && call.#offer(features));
  }

  /**
   * Whether it is with this device.
   *
   * @param {Call} call
   * @param {PeerDevice} peer
   */
  static isWith(call, peer) {
    return call.#peer === peer;
  }

  /**
   * Whether another device of the user will do as well.
   *
   * @param {Call} call
   */
  static movable(call) {
    return !call.#addressed && !call.#ids.size;
  }

  /**
   * It is for another device now.
   *
   * @param {Call} call
   * @param {PeerDevice} peer
   */
  static move(call, peer) {
    call.#peer = peer;
    if (peer.directFeatures) Call.connected(call, peer.directFeatures);
  }

  /**
   * The peer is connected, now or again.
   *
   * @param {Call} call
   * @param {readonly string[]} features
   */
  static connected(call, features) {
    if (call.state !== 'ringing') call.#silence();
    if (call.#ids.size) {
      call.#send(call.localStream);
      Call.show(call); // without what has ended with the connection before
    } else {
      try {
        call.#offer(features);
      } catch (error) {
        call.#fail(error);
      }
    }
  }

  /**
   * The other side calls, too: both want this call, and it comes to the same conclusion, if it has heard of ours.
   *
   * @param {Call} call
   * @param {CallOffer} offer
   */
  static meet(call, offer) {
    if (call.#ids.size === 0) {
      call.#id = offer.id;
      call.#told = mediaOf(call.localStream);
      attempt(call.#peer, { type: 'call-accept', id: call.id, ...call.#told });
    }
    call.#ids.add(offer.id);
    call.#connect(offer);
  }

  /**
   * Whether the other side knows the call by this id.
   *
   * @param {Call} call
   * @param {string} id
   */
  static is(call, id) {
    return call.#ids.has(id);
  }

  /**
   * The other side has said something that may be about this call.
   *
   * @param {Call} call
   * @param {ControlMessage} message
   */
  static heard(call, message) {
    if (!call.#ids.has(message.id)) return;
    if (message.type === 'call-accept') {
      if (rings(call, 'out')) call.#connect(message);
      else call.#hears(message);
    } else if (message.type === 'call-decline' || message.type === 'call-end') {
      call.#ids.delete(message.id);
      Call.finish(call, clean(message.reason));
    }
  }

  /**
   * See `CallService.ended`.
   *
   * @param {Call} call
   * @param {AldisError} error
   * @param {boolean} restarted
   */
  static lost(call, error, restarted) {
    if (call.#ids.size || !restarted) call.#fail(error);
  }

  /**
   * The connection is lost: the call ends unless it comes back in time.
   *
   * @param {Call} call
   */
  static parted(call) {
    if (call.state === 'ringing') return; // which has an end of its own
    call.#silence();
    call.#silence = call.#calls.timers.callLater(AWAY_SECONDS, () =>
      call.#fail(new PeerConnectionFailed(call.userId, 'the connection was lost')),
    );
  }

  /**
   * End the call, and say so.
   *
   * @param {Call} call
   * @param {string} reason
   */
  static finish(call, reason) {
    if (call.state === 'ended') return;
    const peer = call.#peer;
    const type = rings(call, 'in') ? 'call-decline' : 'call-end';
    call.#silence();
    call.#told = NOTHING;
    call.#send(null);
    call.#state = 'ended';
    call.#reason = reason;
    call.#calls.open.delete(call.userId);
    for (const id of call.#ids) attempt(peer, { type, id, reason });
    call.#calls.tracks.get(peer)?.age();
    new RemoteTracks().show(call.#remoteStream, NOTHING);
    call.#changed();
  }

  /**
   * Have the remote stream hold what the other side sends.
   *
   * @param {Call} call
   */
  static show(call) {
    if (call.state === 'ringing') return;
    const theirs = call.#theirs;
    const hasTracks = (call.#calls.tracks.get(call.#peer) ?? new RemoteTracks()).show(call.#remoteStream, theirs);
    if (hasTracks || !(theirs.audio || theirs.video)) call.#state = 'connected';
    call.#changed();
  }

  // --- from ringing to the end ---------------------------------------------------------------------------------------

  /**
   * Have the peer called, and go on; the call has failed when that fails.
   *
   * @param {(features: readonly string[] | null) => void} goOn
   */
  #open(goOn) {
    try {
      const { features } = this.#peer;
      if (features) this.#check(features); // also while only the relay is there, which carries no call
      this.#peer.call();
      goOn(this.#peer.directFeatures);
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  /** @param {readonly string[]} features */
  #check(features) {
    if (!features.includes(CALLS)) throw new FeatureMissing(this.userId, CALLS);
  }

  /** @param {readonly string[]} features */
  #offer(features) {
    const { id, audio, video } = this;
    this.#check(features);
    this.#say({ type: 'call-offer', id, audio, video });
    this.#ids.add(id);
  }

  /**
   * Both want the call.
   *
   * @param {Media} theirs
   */
  #connect(theirs) {
    this.#silence();
    this.#state = 'connecting';
    this.#send(this.localStream);
    if (!this.#peer.directFeatures) Call.parted(this);
    this.#hears(theirs);
  }

  /**
   * What the other side sends is known, or has changed.
   *
   * @param {Media} theirs
   */
  #hears(theirs) {
    this.#theirs = theirs;
    Call.show(this);
  }

  /** @param {unknown} error */
  #fail(error) {
    const fault = (this.#error = /** @type {AldisError} */ (error));
    Call.finish(this, fault instanceof PeerConnectionFailed ? fault.reason : fault.message);
  }

  #changed() {
    this.#watchers.tell(this);
    this.#peer.reconsider();
  }

  /** @param {CallMessage} message */
  #say(message) {
    this.#peer.sendControl(encodeControl(message));
  }

  /** @param {MediaStream | null} stream */
  #send(stream) {
    if (this.state === 'ringing') return;
    this.#peer.connection?.setTracks(stream, putTracks);
    const media = mediaOf(stream);
    const { audio, video } = this.#told;
    this.#told = media;
    // Else the other side would wait for what does not come any more, or show what is left of a call before.
    if (media.audio !== audio || media.video !== video)
      attempt(this.#peer, { type: 'call-accept', id: this.id, ...media });
  }
}

/**
 * Say something that may as well not be said, when there is no way to.
 *
 * @param {PeerDevice} peer
 * @param {CallMessage} message
 */
export function attempt(peer, message) {
  try {
    peer.sendControl(encodeControl(message));
  } catch {}
}

/**
 * @param {Call} call
 * @param {'in' | 'out'} direction
 */
export const rings = (call, direction) => call.state === 'ringing' && call.direction === direction;

/**
 * Throws `ConfigError` for what is no stream, such as the promise of one.
 *
 * @param {MediaStream | null} stream
 */
function checkStream(stream) {
  if (stream && !stream.getAudioTracks) throw new ConfigError('stream', 'not a MediaStream: await it');
}

/** @param {MediaStream | null} stream */
export const mediaOf = (stream) => ({
  audio: !!stream?.getAudioTracks().length,
  video: !!stream?.getVideoTracks().length,
});
