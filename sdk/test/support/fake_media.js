/** Media for Node, which has none: tracks, streams, and two ends between which tracks flow. */

/** @implements {Partial<MediaStreamTrack>} */
export class FakeTrack extends EventTarget {
  readyState = 'live';

  /** @param {'audio' | 'video'} kind */
  constructor(kind) {
    super();
    this.kind = kind;
  }

  /** The end of the track, as its receiver sees it; not told when its connection has been closed. */
  finish({ told = true } = {}) {
    this.readyState = 'ended';
    if (told) {
      this.dispatchEvent(new Event('ended'));
    }
  }
}

export class FakeStream extends EventTarget {
  /** @type {Set<FakeTrack>} */
  #tracks;

  /** @param {FakeTrack[]} [tracks] */
  constructor(tracks = []) {
    super();
    this.#tracks = new Set(tracks);
  }

  getTracks() {
    return [...this.#tracks];
  }

  getAudioTracks() {
    return this.getTracks().filter(({ kind }) => kind === 'audio');
  }

  getVideoTracks() {
    return this.getTracks().filter(({ kind }) => kind === 'video');
  }

  /** @param {FakeTrack} track */
  addTrack(track) {
    this.#tracks.add(track);
  }

  /** @param {FakeTrack} track */
  removeTrack(track) {
    this.#tracks.delete(track);
  }

  /** What a browser does when the other side does not send the track any more. @param {FakeTrack} track */
  lose(track) {
    this.removeTrack(track);
    this.dispatchEvent(Object.assign(new Event('removetrack'), { track }));
  }
}

/** @param {('audio' | 'video')[]} kinds */
export const camera = (...kinds) => /** @type {any} */ (new FakeStream(kinds.map((kind) => new FakeTrack(kind))));
