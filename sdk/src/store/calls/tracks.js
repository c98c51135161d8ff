/**
 * The tracks that a peer sends: kept from the moment they come, also before the call is accepted, since signaling may be
 * faster than the message that accepts. Calls are in JavaScript only.
 */

/** @typedef {{ audio: boolean, video: boolean }} Media Of which kinds there are tracks. */

export class RemoteTracks {
  /** @type {Map<MediaStreamTrack, MediaStream | undefined>} What the peer sends, and as part of what. */
  #tracks = new Map();
  /** @type {Set<MediaStreamTrack>} Those of a call before: perhaps the peer sends them no more, and signaling is slow. */
  #old = new Set();

  /**
   * A track has come.
   *
   * @param {MediaStreamTrack} track
   * @param {MediaStream | undefined} stream The one that it belongs to at the peer.
   * @param {() => void} gone Is called when it has ended.
   */
  add(track, stream, gone) {
    const tracks = this.#tracks;
    // A new connection brings new tracks, and the end of the old ones is told by nobody.
    for (const [other, its] of tracks) {
      if (other !== track && other.kind === track.kind && its !== stream) tracks.delete(other);
    }
    tracks.set(track, stream);
    this.#old.delete(track);
    const ended = () => {
      if (tracks.get(track) !== stream) return; // told already, or it has come back as part of another
      tracks.delete(track);
      gone();
    };
    track.addEventListener('ended', ended);
    stream?.addEventListener('removetrack', (event) => event.track === track && ended());
  }

  /** A call has ended. */
  age() {
    this.#old = new Set(this.#tracks.keys());
  }

  /**
   * Have a stream hold what the peer sends, and nothing else.
   *
   * @param {MediaStream} stream
   * @param {Media} said What the peer says that it sends.
   * @returns {boolean} Whether there is anything.
   */
  show(stream, said) {
    const shown = new Set();
    for (const track of this.#tracks.keys()) {
      if (track.readyState === 'ended') this.#tracks.delete(track);
      else if (!this.#old.has(track) || said[/** @type {keyof Media} */ (track.kind)]) shown.add(track);
    }
    for (const track of shown) stream.addTrack(track); // nothing happens for one that is there already
    for (const track of stream.getTracks()) {
      if (!shown.has(track)) stream.removeTrack(track);
    }
    return shown.size > 0;
  }
}
