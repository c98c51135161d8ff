/** Tracks for `fake_rtc.js`, and the transceivers that carry them. */
import { fault } from './fake_descriptions.js';

/** A track of audio or video; there is nothing on it. */
export class FakeTrack extends EventTarget {
  readyState = 'live';

  /** @param {string} kind */
  constructor(kind, id = `${kind}-${Math.random()}`) {
    super();
    this.kind = kind;
    this.id = id;
  }
}

/** A stream, with a list of tracks that a test may change. */
export class FakeStream {
  /** @param {...string} kinds */
  constructor(...kinds) {
    this.id = `stream-${Math.random()}`;
    this.tracks = kinds.map((kind) => new FakeTrack(kind));
  }

  getTracks() {
    return [...this.tracks];
  }
}

class Sender {
  /** @type {FakeTrack | null} */ track = null;
  /** @type {string[]} */ streams = [];
  everSent = false;
  #transceiver;

  constructor(transceiver) {
    this.#transceiver = transceiver;
  }

  replaceTrack(track) {
    return this.#transceiver.owner.chained('replaceTrack', () => {
      if (this.#transceiver.direction === 'stopped') throw fault('InvalidStateError');
      if (track && track.kind !== this.#transceiver.kind) throw new TypeError('another kind');
      this.track = track;
    });
  }

  setStreams(...streams) {
    this.streams = streams.map(({ id }) => id);
    this.#transceiver.owner.updateNeeded();
  }
}

export class Transceiver {
  /** @type {string | null} */ mid = null;
  /** @type {string | null} */ currentDirection = null;
  /** what the other side has sent so far, for the `track` event */ receives = false;
  /** @type {string | undefined} the stream that this was part of */ heardIn;
  fromTrack = false;
  fresh = true; // made or associated in an exchange that is not over
  #direction;

  constructor(owner, kind, direction) {
    this.owner = owner;
    this.kind = kind;
    this.#direction = direction;
    this.sender = new Sender(this);
    this.receiver = { track: new FakeTrack(kind) };
  }

  get direction() {
    return this.#direction;
  }

  set direction(direction) {
    if (direction === this.#direction) return;
    this.#direction = direction;
    this.owner.updateNeeded();
  }
}
