/**
 * The one call that this page is in, from the first ring to the end.
 *
 * Rules: one call at a time, a second caller hears "busy". Microphone and camera are opened for a call and let go of with
 * it, whatever way it ends. Knows of a call only what the SDK's `Call` tells; how calls are made is an argument.
 */

/** @import { Call } from '../sdk/index.js' */
/** @import { Person } from './person.js' */
import { openMedia, stopTracks, withCamera, without } from './media.js';
import { callEnded, explainShort } from './words.js';

/** @type {{ direction: 'in', reason: null, error: null }} */
const MISSED = { direction: 'in', reason: null, error: null };
const QUIET = 120; // seconds in which strangers do not ring, after one of them was declined or missed

export class Calling {
  /** @type {Person | null} who we are in a call with, or who is calling */
  person = null;
  /** @type {Call | null} */
  call = null;
  /** @type {MediaStream | null} */
  localStream = null;
  /** Waiting for the microphone: perhaps the browser asks whether it may be used. */
  opening = false;
  muted = false;
  /** Whether we wanted to be seen when we called last. */
  video = false;
  /** A sentence about our side, such as a camera that cannot be used. */
  note = '';
  /** @type {unknown} why the microphone or camera could not be opened */
  error = null;
  /** When the other side was first heard, in seconds of `performance.now()`. @type {number | null} */
  since = null;

  #changed;
  #unsubscribe = () => {};
  /** Counts calls, so that a microphone that opens late is noticed as belonging to an earlier one. */
  #calls = 0;
  /** @type {Call | null} theirs, come in while we were about to call them */
  #crossing = null;
  /** Until when strangers do not ring, in seconds of `performance.now()`. */
  #quietUntil = 0;

  /** @param {() => void} changed  called whenever a field has changed */
  constructor(changed) {
    this.#changed = changed;
  }

  /** Being in a call, or about to be. */
  get busy() {
    return this.call !== null || (this.person !== null && this.error === null);
  }

  /** Somebody is calling, and we have not answered. */
  get incoming() {
    return this.call?.direction === 'in' && this.call.state === 'ringing';
  }

  /**
   * Call somebody.
   *
   * @param {Person} person
   * @param {boolean} video
   * @param {(stream: MediaStream) => Promise<Call>} dial
   */
  async start(person, video, dial) {
    if (this.busy) return;
    this.#reset();
    this.video = video;
    this.person = person; // from now on others hear "busy"
    this.#changed();
    const calls = this.#calls;
    try {
      if (await this.#open(video)) {
        const call = await dial(/** @type {MediaStream} */ (this.localStream));
        if (calls === this.#calls) this.#follow(call);
        else call.end(); // hung up meanwhile
      }
    } catch (error) {
      if (calls !== this.#calls) return;
      const theirs = this.#crossing;
      this.#reset();
      this.person = person;
      this.error = error;
      if (theirs?.state === 'ringing') this.#follow(theirs);
    }
    this.#changed();
  }

  /**
   * Somebody calls. Whoever is online can, as often as they like and under as many names, and each time a dialog takes the
   * screen; so strangers, but for the one whose conversation is `open`, get one attempt between them.
   *
   * @param {Person} person
   * @param {Call} call
   * @param {boolean} open
   * @returns {boolean}  false when it was declined, and has only been noted
   */
  ring(person, call, open) {
    // Both want it: dialling takes their call, as soon as the microphone is open.
    if (this.busy && !this.call && this.person === person) this.#crossing = call;
    else if (this.busy) call.decline('busy');
    else if (person.isKnown || open || performance.now() / 1000 >= this.#quietUntil) {
      this.#reset();
      this.person = person;
      this.#follow(call);
    } else {
      call.decline();
      person.note(callEnded({ ...MISSED, userId: person.name }, null));
      return false;
    }
    return true;
  }

  /** Answer. When microphone or camera are refused it goes on ringing, and `error` says why. @param {boolean} video */
  async answer(video) {
    if (this.opening) return;
    const calls = this.#calls;
    try {
      if (await this.#open(video)) this.call?.accept(this.localStream);
    } catch (error) {
      if (calls === this.#calls) this.error = error;
    }
    this.#changed();
  }

  /** Hang up, stop calling, or put away the error of a call that never was. */
  end() {
    if (this.incoming) this.call?.decline('declined');
    else if (this.call) this.call.end();
    else {
      this.#crossing?.decline();
      this.#reset();
    }
    this.#changed();
  }

  toggleMicrophone() {
    this.muted = !this.muted;
    for (const track of this.localStream?.getAudioTracks() ?? []) track.enabled = !this.muted;
    this.#changed();
  }

  get cameraOn() {
    return this.localStream?.getVideoTracks().some((track) => track.readyState === 'live') ?? false;
  }

  async toggleCamera() {
    const call = this.call;
    if (!call || !this.localStream || this.opening) return;
    this.opening = true;
    try {
      const stream = this.cameraOn
        ? without(this.localStream, this.localStream.getVideoTracks())
        : await withCamera(this.localStream);
      if (call !== this.call) return stopTracks(stream.getTracks()); // it has ended meanwhile
      this.#use(stream);
      call.replaceStream(stream);
    } catch (error) {
      if (call === this.call) this.note = explainShort(error);
    }
    if (call === this.call) this.opening = false;
    this.#changed();
  }

  /**
   * Open microphone and camera. False when the call has ended meanwhile: people take their time to allow it.
   *
   * @param {boolean} video
   */
  async #open(video) {
    const calls = this.#calls;
    this.error = null;
    this.opening = true;
    this.#changed();
    try {
      const { stream, note } = await openMedia({ video });
      const wanted = calls === this.#calls;
      if (wanted) this.#use(stream, note);
      else stopTracks(stream.getTracks());
      return wanted;
    } finally {
      if (calls === this.#calls) this.opening = false;
    }
  }

  /**
   * Have this heard and seen: as somebody wants it, who may have pressed "mute" while the browser still asked.
   *
   * @param {MediaStream} stream
   * @param {string} [note]
   */
  #use(stream, note = '') {
    Object.assign(this, { localStream: stream, note });
    for (const track of stream.getAudioTracks()) track.enabled = !this.muted;
    for (const track of stream.getTracks()) track.addEventListener('ended', () => this.#lost(track), { once: true });
  }

  /** A device is gone: unplugged, or taken away by the browser. @param {MediaStreamTrack} track */
  #lost(track) {
    if (!this.localStream?.getTracks().includes(track)) return; // not in use any more
    const video = track.kind === 'video';
    this.localStream = without(this.localStream, [track]);
    this.note = video
      ? 'Your camera is gone: they do not see you any more.'
      : 'Your microphone is gone: they do not hear you any more.';
    // A call that rings here gets its first stream when it is accepted.
    if (this.call && !this.incoming) this.call.replaceStream(this.localStream);
    this.#changed();
  }

  /** @param {Call} call */
  #follow(call) {
    this.call = call;
    this.#unsubscribe = call.subscribe(() => {
      if (call.state === 'connected') this.since ??= performance.now() / 1000;
      if (call.state === 'ended' && this.call === call) {
        const now = performance.now() / 1000;
        const ours = call.direction === 'out' || this.since !== null;
        if (!ours && !this.person?.isKnown) this.#quietUntil = now + QUIET;
        this.person?.note(callEnded(call, this.since === null ? null : now - this.since), ours);
        this.#reset();
      }
      this.#changed();
    });
  }

  #reset() {
    this.#unsubscribe();
    this.#calls += 1;
    this.#crossing = null;
    stopTracks(this.localStream?.getTracks() ?? []);
    Object.assign(this, {
      person: null,
      call: null,
      localStream: null,
      opening: false,
      muted: false,
      note: '',
      error: null,
      since: null,
    });
  }
}
