/**
 * Calls between two users: they ring, are accepted or not, and then have sound and pictures on the connection that is
 * there already.
 *
 * Rules of this module:
 *
 * - Who is called decides: no track of ours is sent, and none of theirs shown, before the call is accepted. What arrives
 *   earlier is kept, since signaling may be faster than the word that accepts.
 * - Everything that is said goes through control messages (`controls`), which arrive once and in order over however many
 *   connections. So a call does not notice a path that is lost and mended; its tracks go onto each new one.
 * - One call per peer; another offer of theirs is declined as busy. When both call each other at once, that is an answer:
 *   the two offers are one call, which goes by either id, and who ends it takes back both.
 * - Who ends a call says so, also when the other side is believed to be gone. What is said about a call that is not known
 *   here is ignored.
 *
 * It does not know how tracks are negotiated, and never stops a track: camera and microphone are the application's.
 */
import { timers as realTimers } from '../client/timers.js';
import { FeatureMissing, PeerConnectionFailed, StateError } from '../errors.js';
import { randomBytes } from '../peer/trust.js';
import { toBase64url } from '../protocol/codec.js';
import { clean, encodeControl, ID_BYTES } from './controls.js';
import { Callbacks } from './feeds.js';

/** @import { Timers } from '../client/timers.js' */
/** @import { AldisError } from '../errors.js' */
/** @import { Bytes } from '../protocol/codec.js' */
/** @import { CallOffer, CallWord, Control } from './controls.js' */

/** How long it rings, in seconds: some ten rings, as with telephones. */
export const RING_SECONDS = 45;
const FEATURE = 'calls';

/**
 * The way to the peers.
 *
 * @typedef {object} Route
 * @property {(userId: string, control: Bytes) => unknown} sendControl Queue a control message. Throws `AldisError`.
 * @property {(userId: string) => readonly string[] | null} features What the peer's program can do; null while it is not
 *   connected.
 * @property {(userId: string) => void} open Have the peer called, for as long as `Calls.busy`. Throws `AldisError`.
 * @property {(userId: string) => { setTracks(stream: MediaStream | null): void } | null} connection What connects us, or
 *   is about to: it keeps the tracks for when it is open.
 * @property {() => void} changed A call has begun, got on or ended.
 */

/**
 * `ringing`: nobody has answered yet. `connecting`: it is accepted, nothing of the other side has come yet. `connected`:
 * it has; also while the path is being mended. `ended`: for good, `reason` tells why.
 *
 * @typedef {'ringing' | 'connecting' | 'connected' | 'ended'} CallState
 */

/** @typedef {Map<MediaStreamTrack, MediaStream | undefined>} Tracks What somebody sends, and as part of what. */

/**
 * What all calls of a store share.
 *
 * @typedef {object} Exchange
 * @property {Route} route
 * @property {Timers} timers
 * @property {Map<string, Call>} calls Those that have not ended, by user.
 * @property {Map<string, Tracks>} tracks By user.
 */

/** A call. Its properties are there to be read; `subscribe` tells when they change. */
export class Call {
  /** @type {CallState} */
  state = 'ringing';
  /**
   * Why it has ended, in a few words, those of the other side where it has ended it (`declined`, `busy`, `no answer`,
   * `ended`); null before.
   *
   * @type {string | null}
   */
  reason = null;
  /**
   * The fault that has ended it; null when nobody is at fault.
   *
   * @type {AldisError | null}
   */
  error = null;
  #exchange;
  /** @type {Callbacks<Call>} */
  #watchers = new Callbacks();
  /** @type {Set<string>} those that the other side knows it by; none before it was offered */
  #ids = new Set();
  /** Whether the other side sends something. */
  #expects = false;
  #silence;

  /**
   * Made by `NetworkStore.call`, or given to the callback of `NetworkStore.onCall`.
   *
   * @param {Exchange} exchange
   * @param {string} userId
   * @param {Omit<CallOffer, 'type'>} offer
   * @param {MediaStream | null} [stream] What is offered; none when it comes in.
   */
  constructor(exchange, userId, { id, audio, video }, stream) {
    this.id = id;
    /** The other user. */
    this.userId = userId;
    /** @type {'in' | 'out'} */
    this.direction = stream === undefined ? 'in' : 'out';
    /** Whether the caller offers sound. */
    this.audio = audio;
    /** Whether the caller offers pictures. */
    this.video = video;
    /** What we send; the application's own, which also stops its tracks when the call has ended. */
    this.localStream = stream ?? null;
    /** What the other side sends: one object for the whole call, in which tracks come and go. */
    this.remoteStream = new MediaStream();
    if (this.direction === 'in') this.#ids.add(id);
    this.#exchange = exchange;
    this.#silence = exchange.timers.callLater(RING_SECONDS, () => this.finish('no answer'));
    exchange.calls.set(userId, this);
    exchange.route.changed();
  }

  // --- for the application -------------------------------------------------------------------------------------------

  /**
   * Take the call. Throws `StateError` when it is not ringing here (any more: stop the tracks then).
   *
   * @param {MediaStream | null} [stream] What the caller is to hear and see; null to only listen and look.
   */
  accept(stream = null) {
    if (!rings(this, 'in')) throw new StateError('the call is not ringing here');
    this.localStream = stream;
    this.#open(() => this.#say({ type: 'call-accept', id: this.id, ...mediaOf(stream) }));
    this.#connect(this);
  }

  /**
   * Refuse the call, or end it; the other side is told the reason. Nothing happens when it has ended already.
   *
   * @param {string} [reason] At most 200 characters.
   */
  decline(reason = 'declined') {
    this.finish(clean(reason));
  }

  /**
   * End the call, or stop ringing; the other side is told the reason. Nothing happens when it has ended already.
   *
   * @param {string} [reason] At most 200 characters.
   */
  end(reason = 'ended') {
    this.finish(clean(reason));
  }

  /**
   * Send another stream from now on, or the same one with other tracks. Throws `StateError` when the call has ended.
   *
   * @param {MediaStream | null} stream
   */
  replaceStream(stream) {
    if (this.state === 'ended') throw new StateError('the call has ended');
    this.localStream = stream;
    this.#send(stream);
    this.#watchers.tell(this);
  }

  /**
   * Have `run` called now, and at each change. Returns what ends it. Bound to its call, as `NetworkStore.subscribe`.
   *
   * @param {(call: Call) => void} run
   * @returns {() => void}
   */
  subscribe = (run) => this.#watchers.follow(run, this);

  // --- for `Calls` ---------------------------------------------------------------------------------------------------

  /**
   * Have the peer called, and offer the call as soon as it is connected. Throws what comes of that.
   *
   * @param {readonly string[] | null} features What its program can do; null while it is not connected.
   */
  begin(features) {
    this.#open(() => features && this.#offer(features));
  }

  /**
   * The peer is connected, now or again.
   *
   * @param {readonly string[]} features
   */
  connected(features) {
    if (this.#ids.size) {
      this.#send(this.localStream);
      this.show(); // without what has ended with the connection before
    } else {
      try {
        this.#offer(features);
      } catch (error) {
        this.#fail(error);
      }
    }
  }

  /**
   * The other side calls, too: both want this call, and it comes to the same conclusion, if it has heard of ours.
   *
   * @param {CallOffer} offer
   */
  meet(offer) {
    if (this.#ids.size === 0) {
      this.id = offer.id;
      attempt(this.#exchange.route, this.userId, { type: 'call-accept', id: this.id, ...mediaOf(this.localStream) });
    }
    this.#ids.add(offer.id);
    this.#connect(offer);
  }

  /**
   * Whether the other side knows the call by this id.
   *
   * @param {string} id
   */
  is(id) {
    return this.#ids.has(id);
  }

  /**
   * The other side has said something that may be about this call.
   *
   * @param {Control} word
   */
  heard(word) {
    if (!this.is(word.id)) return;
    if (word.type === 'call-accept') {
      if (rings(this, 'out')) this.#connect(word);
    } else if (word.type === 'call-decline' || word.type === 'call-end') {
      this.#ids.delete(word.id);
      this.finish(clean(word.reason));
    }
  }

  /**
   * See `Calls.ended`.
   *
   * @param {AldisError} error
   * @param {boolean} restarted
   */
  lost(error, restarted) {
    if (this.#ids.size || !restarted) this.#fail(error);
  }

  /**
   * End the call, and say so.
   *
   * @param {string} reason
   */
  finish(reason) {
    if (this.state === 'ended') return;
    const { route, calls } = this.#exchange;
    const type = rings(this, 'in') ? 'call-decline' : 'call-end';
    this.#silence();
    this.#send(null);
    this.state = 'ended';
    this.reason = reason;
    calls.delete(this.userId);
    for (const id of this.#ids) attempt(route, this.userId, { type, id, reason });
    for (const track of this.remoteStream.getTracks()) this.remoteStream.removeTrack(track);
    this.#changed();
  }

  /** Have the remote stream hold what the other side sends. */
  show() {
    if (this.state === 'ringing') return;
    const { remoteStream } = this;
    /** @type {Tracks} */
    const tracks = this.#exchange.tracks.get(this.userId) ?? new Map();
    for (const track of tracks.keys()) {
      if (track.readyState === 'ended') tracks.delete(track);
      else remoteStream.addTrack(track); // nothing happens for one that is there already
    }
    for (const track of remoteStream.getTracks()) {
      if (!tracks.has(track)) remoteStream.removeTrack(track);
    }
    if (tracks.size || !this.#expects) this.state = 'connected';
    this.#changed();
  }

  // --- from ringing to the end ---------------------------------------------------------------------------------------

  /**
   * Have the peer called, and go on; the call has failed when that fails.
   *
   * @param {() => void} goOn
   */
  #open(goOn) {
    try {
      this.#exchange.route.open(this.userId);
      goOn();
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
  #connect({ audio, video }) {
    this.#silence();
    this.#expects = audio || video;
    this.state = 'connecting';
    this.#send(this.localStream);
    this.show();
  }

  /** @param {unknown} error */
  #fail(error) {
    const fault = (this.error = /** @type {AldisError} */ (error));
    this.finish(fault instanceof PeerConnectionFailed ? fault.reason : fault.message);
  }

  #changed() {
    this.#watchers.tell(this);
    this.#exchange.route.changed();
  }

  /** @param {CallWord} word */
  #say(word) {
    this.#exchange.route.sendControl(this.userId, encodeControl(word));
  }

  /** @param {MediaStream | null} stream */
  #send(stream) {
    if (this.state !== 'ringing') this.#exchange.route.connection(this.userId)?.setTracks(stream);
  }
}

/** All calls of one store. */
export class Calls {
  /** @type {Exchange} */
  #exchange;
  #onCall;
  #random;

  /**
   * @param {Route} route
   * @param {Callbacks<Call>} onCall Are told of calls that come in; while there are none, calls are declined.
   * @param {object} [platform]
   * @param {Timers} [platform.timers]
   * @param {(size: number) => Bytes} [platform.random]
   */
  constructor(route, onCall, { timers = realTimers, random = randomBytes } = {}) {
    this.#exchange = { route, timers, calls: new Map(), tracks: new Map() };
    this.#onCall = onCall;
    this.#random = random;
  }

  /** @param {string} userId */
  #with(userId) {
    return this.#exchange.calls.get(userId);
  }

  /**
   * Call somebody; or take their call, when they are calling. Throws `FeatureMissing`, `StateError` when there is a call
   * with them already, and what `Route.open` throws.
   *
   * @param {string} userId
   * @param {MediaStream | null} stream
   * @returns {Call}
   */
  call(userId, stream) {
    let call = this.#with(userId);
    if (!call) {
      const id = toBase64url(this.#random(ID_BYTES));
      call = new Call(this.#exchange, userId, { id, ...mediaOf(stream) }, stream);
      call.begin(this.#exchange.route.features(userId));
    } else if (rings(call, 'in')) {
      call.accept(stream);
    } else {
      throw new StateError(`there is a call with ${userId} already`);
    }
    return call;
  }

  // --- from the store ------------------------------------------------------------------------------------------------

  /**
   * Whether a connection with this user is needed. A call that nobody has answered here needs none: else strangers could
   * make us call them.
   *
   * @param {string} userId
   */
  busy(userId) {
    const call = this.#with(userId);
    return !!call && !rings(call, 'in');
  }

  /**
   * The peer is connected, now or again.
   *
   * @param {string} userId
   * @param {readonly string[]} features
   */
  connected(userId, features) {
    this.#with(userId)?.connected(features);
  }

  /**
   * What is under way with this user will not get any further. With `restarted` somebody else has taken the peer's place,
   * to whom can be offered what was not offered yet.
   *
   * @param {string} userId
   * @param {AldisError} error
   * @param {boolean} [restarted]
   */
  ended(userId, error, restarted = false) {
    this.#exchange.tracks.delete(userId);
    this.#with(userId)?.lost(error, restarted);
  }

  /**
   * The peer's store has said something; what is not about calls is ignored.
   *
   * @param {string} userId
   * @param {Control} control
   */
  received(userId, control) {
    const call = this.#with(userId);
    if (control.type !== 'call-offer') {
      call?.heard(control);
    } else if (call && rings(call, 'out')) {
      call.meet(control);
    } else if (!call && this.#onCall.size) {
      this.#onCall.tell(new Call(this.#exchange, userId, control));
    } else if (!call?.is(control.id)) {
      const reason = call ? 'busy' : 'no calls here';
      attempt(this.#exchange.route, userId, { type: 'call-decline', id: control.id, reason });
    }
  }

  /**
   * The peer sends a track.
   *
   * @param {string} userId
   * @param {MediaStreamTrack} track
   * @param {readonly MediaStream[]} streams Those that it belongs to there; one, or none.
   */
  trackReceived(userId, track, [stream]) {
    /** @type {Tracks} */
    const tracks = this.#exchange.tracks.get(userId) ?? new Map();
    this.#exchange.tracks.set(userId, tracks);
    // A new connection brings new tracks, and the end of the old ones is told by nobody.
    for (const [other, its] of tracks) {
      if (other !== track && other.kind === track.kind && its !== stream) tracks.delete(other);
    }
    tracks.set(track, stream);
    const gone = () => {
      if (tracks.get(track) === stream) tracks.delete(track);
      this.#with(userId)?.show();
    };
    track.addEventListener('ended', gone);
    stream?.addEventListener('removetrack', (event) => event.track === track && gone());
    this.#with(userId)?.show();
  }

  /** End all calls. */
  close() {
    for (const call of this.#exchange.calls.values()) call.finish('the store was closed');
  }
}

/**
 * Say something that may as well not be said, when there is no way to.
 *
 * @param {Route} route
 * @param {string} userId
 * @param {CallWord} word
 */
function attempt(route, userId, word) {
  try {
    route.sendControl(userId, encodeControl(word));
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
