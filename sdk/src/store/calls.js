/**
 * Calls between two users: they ring, are accepted or not, and then have sound and pictures on the connection that is
 * there already.
 *
 * Rules of this module:
 *
 * - Who is called decides: no track of ours is sent, and none of theirs shown, before the call is accepted. What arrives
 *   earlier is kept, since signaling may be faster than the word that accepts.
 * - Everything that is said goes through control messages (`controls`), which arrive once and in order over however many
 *   connections. So a call does not notice a path that is lost and mended; its tracks go onto each new one. When nothing
 *   is mended for `AWAY_SECONDS`, it has ended.
 * - One call per peer; another offer of theirs is declined as busy. When both call each other at once, that is an answer:
 *   the two offers are one call, which goes by either id, and who ends it takes back both.
 * - Who ends a call says so, also when the other side is believed to be gone. What is said about a call that is not known
 *   here is ignored.
 *
 * It does not know how tracks are negotiated, and never stops a track: camera and microphone are the application's.
 */
import { Callbacks } from '../client/callbacks.js';
import { timers as realTimers } from '../client/timers.js';
import { FeatureMissing, PeerConnectionFailed, StateError } from '../errors.js';
import { randomBytes } from '../peer/trust.js';
import { clean, toBase64url } from '../protocol/codec.js';
import { bind } from '../proxies.js';
import { encodeControl, ID_BYTES } from './controls.js';

/** @import { Timers } from '../client/timers.js' */
/** @import { AldisError } from '../errors.js' */
/** @import { Bytes } from '../protocol/codec.js' */
/** @import { CallOffer, CallWord, Control } from './controls.js' */

/** How long it rings, in seconds: some ten rings, as with telephones. */
export const RING_SECONDS = 45;
/**
 * How long a call waits for a connection that was lost, in seconds: for a path to heal (15), and for another to be found.
 * Nobody looks longer at a picture that stands still, while the camera is on and whoever else calls hears that it is busy.
 */
export const AWAY_SECONDS = 30;
const FEATURE = 'calls';

/**
 * The other user, and the way to them.
 *
 * @typedef {object} Way
 * @property {string} userId
 * @property {readonly string[] | null} features What the peer's program can do; null while it is not connected.
 * @property {(control: Bytes) => unknown} sendControl Queue a control message. Throws `AldisError`.
 * @property {() => void} call Have the peer called, for as long as `Calls.busy`. Throws `AldisError`.
 * @property {{ setTracks(stream: MediaStream | null): void } | null} connection What connects us, or is about to: it
 *   keeps the tracks for when it is open.
 * @property {{ reconsider: () => void }} caller Is told when a call has got on or ended.
 */

/**
 * `ringing`: nobody has answered yet. `connecting`: it is accepted, nothing of the other side has come yet. `connected`:
 * it has; also while the path is being mended. `ended`: for good, `reason` tells why.
 *
 * @typedef {'ringing' | 'connecting' | 'connected' | 'ended'} CallState
 */

/** @typedef {Map<MediaStreamTrack, MediaStream | undefined>} Tracks What somebody sends, and as part of what. */

/**
 * A call. Its properties are there to be read; `subscribe` tells when they change.
 *
 * What is for `Calls` alone is static, so that applications do not see it at their calls.
 */
export class Call {
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
  #way;
  /** @type {Callbacks<Call>} */
  #watchers = new Callbacks();
  /** @type {Set<string>} those that the other side knows it by; none before it was offered */
  #ids = new Set();
  /** Whether the other side sends something. */
  #expects = false;
  /** Whether the other side has been told that we send something. */
  #promised;
  /** Cancels the end of waiting: for an answer, or for a connection. */
  #silence;

  /**
   * Made by `NetworkStore.call`, or given to the callback of `NetworkStore.onCall`.
   *
   * @param {Calls} calls
   * @param {Way} way
   * @param {Omit<CallOffer, 'type'>} offer
   * @param {MediaStream | null} [stream] What is offered; none when it comes in.
   */
  constructor(calls, way, { id, audio, video }, stream) {
    this.#id = id;
    /** The other user. */
    this.userId = way.userId;
    /** @type {'in' | 'out'} */
    this.direction = stream === undefined ? 'in' : 'out';
    /** Whether the caller offers sound. */
    this.audio = audio;
    /** Whether the caller offers pictures. */
    this.video = video;
    this.#promised = !!stream && (audio || video);
    this.#localStream = stream ?? null;
    if (this.direction === 'in') this.#ids.add(id);
    this.#calls = calls;
    this.#way = way;
    this.#silence = calls.timers.callLater(RING_SECONDS, () => Call.finish(this, 'no answer'));
    bind(this, 'Call');
    calls.open.set(way, this);
  }

  // --- for the application -------------------------------------------------------------------------------------------

  /** Its name between the two programs. */
  get id() {
    return this.#id;
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
   * Take the call. Throws `StateError` when it is not ringing here (any more: stop the tracks then).
   *
   * @param {MediaStream | null} [stream] What the caller is to hear and see; null to only listen and look.
   */
  accept(stream = null) {
    if (!rings(this, 'in')) throw new StateError('the call is not ringing here');
    this.#localStream = stream;
    this.#open(() => this.#say({ type: 'call-accept', id: this.id, ...mediaOf(stream) }));
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
   * Send another stream from now on, or the same one with other tracks. Throws `StateError` when the call has ended.
   *
   * @param {MediaStream | null} stream
   */
  replaceStream(stream) {
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

  // --- for `Calls` ---------------------------------------------------------------------------------------------------

  /**
   * Have the peer called, and offer the call as soon as it is connected. Throws what comes of that.
   *
   * @param {Call} call
   */
  static begin(call) {
    call.#open((features) => features && call.#offer(features));
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
      attempt(call.#way, { type: 'call-accept', id: call.id, ...mediaOf(call.localStream) });
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
   * @param {Control} word
   */
  static heard(call, word) {
    if (!call.#ids.has(word.id)) return;
    if (word.type === 'call-accept') {
      if (rings(call, 'out')) call.#connect(word);
      else call.#hears(word);
    } else if (word.type === 'call-decline' || word.type === 'call-end') {
      call.#ids.delete(word.id);
      Call.finish(call, clean(word.reason));
    }
  }

  /**
   * See `Calls.ended`.
   *
   * @param {Call} call
   * @param {AldisError} error
   * @param {boolean} restarted
   */
  static lost(call, error, restarted) {
    if (call.#ids.size || !restarted) call.#fail(error);
  }

  /**
   * Nothing gets through any more: the call ends unless it does again in time.
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
    const way = call.#way;
    const type = rings(call, 'in') ? 'call-decline' : 'call-end';
    call.#silence();
    call.#promised = false;
    call.#send(null);
    call.#state = 'ended';
    call.#reason = reason;
    call.#calls.open.delete(way);
    for (const id of call.#ids) attempt(way, { type, id, reason });
    for (const track of call.#remoteStream.getTracks()) call.#remoteStream.removeTrack(track);
    call.#changed();
  }

  /**
   * Have the remote stream hold what the other side sends.
   *
   * @param {Call} call
   */
  static show(call) {
    if (call.state === 'ringing') return;
    const remoteStream = call.#remoteStream;
    /** @type {Tracks} */
    const tracks = call.#calls.tracks.get(call.#way) ?? new Map();
    for (const track of tracks.keys()) {
      if (track.readyState === 'ended') tracks.delete(track);
      else remoteStream.addTrack(track); // nothing happens for one that is there already
    }
    for (const track of remoteStream.getTracks()) {
      if (!tracks.has(track)) remoteStream.removeTrack(track);
    }
    if (tracks.size || !call.#expects) call.#state = 'connected';
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
      this.#way.call();
      goOn(this.#way.features);
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  /** @param {readonly string[]} features */
  #offer(features) {
    const { id, userId, audio, video } = this;
    if (!features.includes(FEATURE)) throw new FeatureMissing(userId, FEATURE);
    this.#say({ type: 'call-offer', id, audio, video });
    this.#ids.add(id);
  }

  /**
   * Both want the call.
   *
   * @param {{ audio: boolean, video: boolean }} theirs
   */
  #connect(theirs) {
    this.#silence();
    this.#state = 'connecting';
    this.#send(this.localStream);
    if (!this.#way.features) Call.parted(this);
    this.#hears(theirs);
  }

  /**
   * What the other side sends is known, or has become known to be nothing.
   *
   * @param {{ audio: boolean, video: boolean }} theirs
   */
  #hears({ audio, video }) {
    this.#expects = audio || video;
    Call.show(this);
  }

  /** @param {unknown} error */
  #fail(error) {
    const fault = (this.#error = /** @type {AldisError} */ (error));
    Call.finish(this, fault instanceof PeerConnectionFailed ? fault.reason : fault.message);
  }

  #changed() {
    this.#watchers.tell(this);
    this.#way.caller.reconsider();
  }

  /** @param {CallWord} word */
  #say(word) {
    this.#way.sendControl(encodeControl(word));
  }

  /** @param {MediaStream | null} stream */
  #send(stream) {
    if (this.state === 'ringing') return;
    this.#way.connection?.setTracks(stream);
    const media = mediaOf(stream);
    const sends = media.audio || media.video;
    // Else the other side would wait for what does not come any more: a microphone that was unplugged while it rang.
    if (this.#promised && !sends) attempt(this.#way, { type: 'call-accept', id: this.id, ...media });
    this.#promised = sends;
  }
}

/** All calls of one store. */
export class Calls {
  /** @type {Map<Way, Call>} Those that have not ended. */
  open = new Map();
  /** @type {Map<Way, Tracks>} */
  tracks = new Map();
  #onCall;
  #random;

  /**
   * @param {Callbacks<Call>} onCall Are told of calls that come in; while there are none, calls are declined.
   * @param {object} [platform]
   * @param {Timers} [platform.timers]
   * @param {(size: number) => Bytes} [platform.random]
   */
  constructor(onCall, { timers = realTimers, random = randomBytes } = {}) {
    this.timers = timers;
    this.#onCall = onCall;
    this.#random = random;
  }

  /**
   * Call somebody; or take their call, when they are calling. Throws `FeatureMissing`, `StateError` when there is a call
   * with them already, and what `Way.call` throws.
   *
   * @param {Way} way
   * @param {MediaStream | null} stream
   * @returns {Call}
   */
  call(way, stream) {
    let call = this.open.get(way);
    if (!call) {
      const id = toBase64url(this.#random(ID_BYTES));
      call = new Call(this, way, { id, ...mediaOf(stream) }, stream);
      Call.begin(call);
    } else if (rings(call, 'in')) {
      call.accept(stream);
    } else {
      throw new StateError('there is a call already');
    }
    return call;
  }

  // --- from the store ------------------------------------------------------------------------------------------------

  /**
   * Whether a connection with this user is needed. A call that nobody has answered here needs none: else strangers could
   * make us call them.
   *
   * @param {Way} way
   */
  busy(way) {
    const call = this.open.get(way);
    return !!call && !rings(call, 'in');
  }

  /**
   * The peer is connected, now or again.
   *
   * @param {Way} way
   * @param {readonly string[]} features
   */
  connected(way, features) {
    const call = this.open.get(way);
    if (call) Call.connected(call, features);
  }

  /**
   * The peer is not connected any more, for now.
   *
   * @param {Way} way
   */
  parted(way) {
    const call = this.open.get(way);
    if (call) Call.parted(call);
  }

  /**
   * What is under way with this user will not get any further. With `restarted` somebody else has taken the peer's place,
   * to whom can be offered what was not offered yet.
   *
   * @param {Way} way
   * @param {AldisError} error
   * @param {boolean} [restarted]
   */
  ended(way, error, restarted = false) {
    this.tracks.delete(way);
    const call = this.open.get(way);
    if (call) Call.lost(call, error, restarted);
  }

  /**
   * The peer's store has said something; what is not about calls is ignored.
   *
   * @param {Way} way
   * @param {Control} control
   */
  received(way, control) {
    const call = this.open.get(way);
    if (control.type !== 'call-offer') {
      if (call) Call.heard(call, control);
    } else if (call && rings(call, 'out')) {
      Call.meet(call, control);
    } else if (!call && this.#onCall.size) {
      this.#onCall.tell(new Call(this, way, control));
    } else if (!call || !Call.is(call, control.id)) {
      const reason = call ? 'busy' : 'no calls here';
      attempt(way, { type: 'call-decline', id: control.id, reason });
    }
  }

  /**
   * The peer sends a track.
   *
   * @param {Way} way
   * @param {MediaStreamTrack} track
   * @param {readonly MediaStream[]} streams Those that it belongs to there; one, or none.
   */
  trackReceived(way, track, [stream]) {
    /** @type {Tracks} */
    const tracks = this.tracks.get(way) ?? new Map();
    this.tracks.set(way, tracks);
    // A new connection brings new tracks, and the end of the old ones is told by nobody.
    for (const [other, its] of tracks) {
      if (other !== track && other.kind === track.kind && its !== stream) tracks.delete(other);
    }
    tracks.set(track, stream);
    const show = () => {
      const call = this.open.get(way);
      if (call) Call.show(call);
    };
    const gone = () => {
      if (tracks.get(track) === stream) tracks.delete(track);
      show();
    };
    track.addEventListener('ended', gone);
    stream?.addEventListener('removetrack', (event) => event.track === track && gone());
    show();
  }

  /** End all calls. */
  close() {
    for (const call of this.open.values()) Call.finish(call, 'the store was closed');
  }
}

/**
 * Say something that may as well not be said, when there is no way to.
 *
 * @param {Way} way
 * @param {CallWord} word
 */
function attempt(way, word) {
  try {
    way.sendControl(encodeControl(word));
  } catch {}
}

/**
 * @param {Call} call
 * @param {'in' | 'out'} direction
 */
const rings = (call, direction) => call.state === 'ringing' && call.direction === direction;

/** @param {MediaStream | null} stream */
const mediaOf = (stream) => ({
  audio: !!stream?.getAudioTracks().length,
  video: !!stream?.getVideoTracks().length,
});
