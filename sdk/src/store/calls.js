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
import { toBase64url } from '../protocol/codec.js';
import { clean, encodeControl, ID_BYTES } from './controls.js';
import { Callbacks } from './feeds.js';

/** @import { Timers } from '../client/timers.js' */
/** @import { AldisError } from '../errors.js' */
/** @import { Bytes } from '../protocol/codec.js' */
/** @import { CallWord } from './controls.js' */

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

/**
 * What a call begins with.
 *
 * @typedef {object} About
 * @property {string} id
 * @property {string} userId
 * @property {'in' | 'out'} direction
 * @property {boolean} audio
 * @property {boolean} video
 * @property {MediaStream | null} localStream
 */

/**
 * What is known of a call besides.
 *
 * @typedef {object} Job
 * @property {Call} call
 * @property {Callbacks<Call>} watchers
 * @property {Set<string>} ids Those that the other side knows it by; none before it was offered.
 * @property {boolean} expects Whether the other side sends something.
 * @property {() => void} silence Ends the time that it may ring.
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
  #calls;
  #watchers;

  /**
   * Made by `NetworkStore.call`, or given to the callback of `NetworkStore.onCall`.
   *
   * @param {Calls} calls
   * @param {Callbacks<Call>} watchers
   * @param {About & { remoteStream: MediaStream }} about
   */
  constructor(calls, watchers, about) {
    this.#calls = calls;
    this.#watchers = watchers;
    this.id = about.id;
    /** The other user. */
    this.userId = about.userId;
    this.direction = about.direction;
    /** Whether the caller offers sound. */
    this.audio = about.audio;
    /** Whether the caller offers pictures. */
    this.video = about.video;
    /** What we send; the application's own, which also stops its tracks when the call has ended. */
    this.localStream = about.localStream;
    /** What the other side sends: one object for the whole call, in which tracks come and go. */
    this.remoteStream = about.remoteStream;
  }

  /**
   * Take the call. Throws `StateError` when it is not ringing here (any more: stop the tracks then).
   *
   * @param {MediaStream | null} [stream] What the caller is to hear and see; null to only listen and look.
   */
  accept(stream = null) {
    this.#calls.accept(this, stream);
  }

  /**
   * Refuse the call, or end it; the other side is told the reason. Nothing happens when it has ended already.
   *
   * @param {string} [reason] At most 200 characters.
   */
  decline(reason = 'declined') {
    this.#calls.end(this, reason);
  }

  /**
   * End the call, or stop ringing; the other side is told the reason. Nothing happens when it has ended already.
   *
   * @param {string} [reason] At most 200 characters.
   */
  end(reason = 'ended') {
    this.#calls.end(this, reason);
  }

  /**
   * Send another stream from now on, or the same one with other tracks. Throws `StateError` when the call has ended.
   *
   * @param {MediaStream | null} stream
   */
  replaceStream(stream) {
    this.#calls.replace(this, stream);
  }

  /**
   * Have `run` called now, and at each change. Returns what ends it. Bound to its call, as `NetworkStore.subscribe`.
   *
   * @param {(call: Call) => void} run
   * @returns {() => void}
   */
  subscribe = (run) => this.#watchers.follow(run, this);
}

/** All calls of one store. */
export class Calls {
  #route;
  #onCall;
  #timers;
  #random;
  #MediaStream;
  /** @type {Map<string, Job>} by user */
  #jobs = new Map();
  /** @type {Map<string, Map<MediaStreamTrack, MediaStream | undefined>>} by user: what they send, and as part of what */
  #tracks = new Map();

  /**
   * @param {Route} route
   * @param {Callbacks<Call>} onCall Are told of calls that come in; while there are none, calls are declined.
   * @param {object} [platform]
   * @param {Timers} [platform.timers]
   * @param {(size: number) => Bytes} [platform.random]
   * @param {typeof globalThis.MediaStream} [platform.MediaStream]
   */
  constructor(
    route,
    onCall,
    {
      timers = realTimers,
      random = (size) => crypto.getRandomValues(new Uint8Array(size)),
      MediaStream = globalThis.MediaStream,
    } = {},
  ) {
    this.#route = route;
    this.#onCall = onCall;
    this.#timers = timers;
    this.#random = random;
    this.#MediaStream = MediaStream;
  }

  // --- for the application -------------------------------------------------------------------------------------------

  /**
   * Call somebody; or take their call, when they are calling. Throws `FeatureMissing`, `StateError` when there is a call
   * with them already, and what `Route.open` throws.
   *
   * @param {string} userId
   * @param {MediaStream | null} stream
   * @returns {Call}
   */
  call(userId, stream) {
    const there = this.#jobs.get(userId)?.call;
    if (there) {
      if (!rings(there, 'in')) throw new StateError(`there is a call with ${userId} already`);
      there.accept(stream);
      return there;
    }
    const features = this.#route.features(userId);
    if (features && !features.includes(FEATURE)) throw new FeatureMissing(userId, FEATURE);
    const job = this.#begin({
      id: toBase64url(this.#random(ID_BYTES)),
      userId,
      direction: 'out',
      ...mediaOf(stream),
      localStream: stream,
    });
    try {
      this.#route.open(userId);
      if (features) this.#offer(job);
    } catch (error) {
      job.ids.clear();
      this.#finish(job, '');
      throw error;
    }
    return job.call;
  }

  /**
   * See `Call.accept`.
   *
   * @param {Call} call
   * @param {MediaStream | null} stream
   */
  accept(call, stream) {
    const job = this.#jobs.get(call.userId);
    if (job?.call !== call || !rings(call, 'in')) throw new StateError('the call is not ringing here');
    call.localStream = stream;
    try {
      this.#route.open(call.userId);
      this.#say(job, { type: 'call-accept', id: call.id, ...mediaOf(stream) });
    } catch (error) {
      this.#fail(job, error);
      throw error;
    }
    this.#connect(job, call);
  }

  /**
   * See `Call.decline` and `Call.end`.
   *
   * @param {Call} call
   * @param {string} reason
   */
  end(call, reason) {
    const job = this.#jobs.get(call.userId);
    if (job?.call === call) this.#finish(job, clean(reason));
  }

  /**
   * See `Call.replaceStream`.
   *
   * @param {Call} call
   * @param {MediaStream | null} stream
   */
  replace(call, stream) {
    if (call.state === 'ended') throw new StateError('the call has ended');
    call.localStream = stream;
    this.#send(call);
    this.#jobs.get(call.userId)?.watchers.tell(call);
  }

  // --- from the store ------------------------------------------------------------------------------------------------

  /**
   * Whether a connection with this user is needed. A call that nobody has answered here needs none: else strangers could
   * make us call them.
   *
   * @param {string} userId
   */
  busy(userId) {
    const call = this.#jobs.get(userId)?.call;
    return !!call && !rings(call, 'in');
  }

  /**
   * The peer is connected, now or again.
   *
   * @param {string} userId
   * @param {readonly string[]} features
   */
  connected(userId, features) {
    const job = this.#jobs.get(userId);
    if (!job) return;
    if (job.ids.size) {
      this.#send(job.call);
      this.#show(userId); // without what has ended with the connection before
    } else if (features.includes(FEATURE)) {
      try {
        this.#offer(job);
      } catch (error) {
        this.#fail(job, error);
      }
    } else {
      this.#fail(job, new FeatureMissing(userId, FEATURE));
    }
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
    this.#tracks.delete(userId);
    const job = this.#jobs.get(userId);
    if (job && (job.ids.size || !restarted)) this.#fail(job, error);
  }

  /**
   * The peer's store has said something; what is not about calls is ignored.
   *
   * @param {string} userId
   * @param {import('./controls.js').Control} control
   */
  received(userId, control) {
    const job = this.#jobs.get(userId);
    if (control.type === 'call-offer') {
      this.#offered(userId, control, job);
    } else if (job?.ids.has(control.id)) {
      if (control.type === 'call-accept') {
        if (rings(job.call, 'out')) this.#connect(job, control);
      } else if (control.type === 'call-decline' || control.type === 'call-end') {
        job.ids.delete(control.id);
        this.#finish(job, clean(control.reason));
      }
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
    const tracks = this.#tracks.get(userId) ?? new Map();
    this.#tracks.set(userId, tracks);
    // A new connection brings new tracks, and the end of the old ones is told by nobody.
    for (const [other, its] of tracks) {
      if (other !== track && other.kind === track.kind && its !== stream) tracks.delete(other);
    }
    tracks.set(track, stream);
    const gone = () => {
      if (tracks.get(track) === stream) tracks.delete(track);
      this.#show(userId);
    };
    track.addEventListener('ended', gone);
    stream?.addEventListener('removetrack', (event) => event.track === track && gone());
    this.#show(userId);
  }

  /** End all calls. */
  close() {
    for (const job of [...this.#jobs.values()]) this.#finish(job, 'the store was closed');
  }

  // --- from ringing to the end ---------------------------------------------------------------------------------------

  /** @param {About} about */
  #begin(about) {
    /** @type {Callbacks<Call>} */
    const watchers = new Callbacks();
    const call = new Call(this, watchers, { ...about, remoteStream: new this.#MediaStream() });
    /** @type {Job} */
    const job = {
      call,
      watchers,
      ids: new Set(),
      expects: false,
      silence: this.#timers.callLater(RING_SECONDS, () => this.#finish(job, 'no answer')),
    };
    this.#jobs.set(call.userId, job);
    this.#route.changed();
    return job;
  }

  /** @param {Job} job */
  #offer(job) {
    const { id, audio, video } = job.call;
    job.ids.add(id);
    this.#say(job, { type: 'call-offer', id, audio, video });
  }

  /**
   * @param {string} userId
   * @param {import('./controls.js').CallOffer} offer
   * @param {Job | undefined} there
   */
  #offered(userId, { id, audio, video }, there) {
    if (there && rings(there.call, 'out')) {
      // Both want this call, and the other side comes to the same conclusion, if it has heard of ours.
      if (there.ids.size === 0) {
        there.call.id = id;
        this.#try(userId, { type: 'call-accept', id, ...mediaOf(there.call.localStream) });
      }
      there.ids.add(id);
      this.#connect(there, { audio, video });
    } else if (there || this.#onCall.size === 0) {
      if (!there?.ids.has(id))
        this.#try(userId, { type: 'call-decline', id, reason: there ? 'busy' : 'no calls here' });
    } else {
      const job = this.#begin({ id, userId, direction: 'in', audio, video, localStream: null });
      job.ids.add(id);
      this.#onCall.tell(job.call);
    }
  }

  /**
   * Both want the call.
   *
   * @param {Job} job
   * @param {{ audio: boolean, video: boolean }} theirs
   */
  #connect(job, { audio, video }) {
    job.silence();
    job.expects = audio || video;
    job.call.state = 'connecting';
    this.#send(job.call);
    this.#show(job.call.userId);
  }

  /**
   * @param {Job} job
   * @param {unknown} error
   */
  #fail(job, error) {
    const fault = /** @type {AldisError} */ (error);
    job.call.error = fault;
    this.#finish(job, fault instanceof PeerConnectionFailed ? fault.reason : fault.message);
  }

  /**
   * @param {Job} job
   * @param {string} reason
   */
  #finish(job, reason) {
    const { call } = job;
    const { userId } = call;
    if (this.#jobs.get(userId) !== job) return;
    this.#jobs.delete(userId);
    job.silence();
    const type = rings(call, 'in') ? 'call-decline' : 'call-end';
    for (const id of job.ids) this.#try(userId, { type, id, reason });
    if (call.state !== 'ringing') this.#route.connection(userId)?.setTracks(null);
    call.state = 'ended';
    call.reason = reason;
    for (const track of call.remoteStream.getTracks()) call.remoteStream.removeTrack(track);
    this.#changed(job);
  }

  /** @param {Job} job */
  #changed(job) {
    job.watchers.tell(job.call);
    this.#route.changed();
  }

  // --- words and tracks ----------------------------------------------------------------------------------------------

  /**
   * @param {Job} job
   * @param {CallWord} word
   */
  #say(job, word) {
    this.#route.sendControl(job.call.userId, encodeControl(word));
  }

  /**
   * Say something that may as well not be said, when there is no way to.
   *
   * @param {string} userId
   * @param {CallWord} word
   */
  #try(userId, word) {
    try {
      this.#route.sendControl(userId, encodeControl(word));
    } catch {}
  }

  /** @param {Call} call */
  #send({ state, userId, localStream }) {
    if (state !== 'ringing') this.#route.connection(userId)?.setTracks(localStream);
  }

  /**
   * Have the remote stream hold what the other side sends.
   *
   * @param {string} userId
   */
  #show(userId) {
    const job = this.#jobs.get(userId);
    if (!job || job.call.state === 'ringing') return;
    const { call, expects } = job;
    const tracks = this.#tracks.get(userId) ?? new Map();
    for (const track of tracks.keys()) {
      if (track.readyState === 'ended') tracks.delete(track);
      else call.remoteStream.addTrack(track); // nothing happens for one that is there already
    }
    for (const track of call.remoteStream.getTracks()) {
      if (!tracks.has(track)) call.remoteStream.removeTrack(track);
    }
    if (tracks.size || !expects) call.state = 'connected';
    this.#changed(job);
  }
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
