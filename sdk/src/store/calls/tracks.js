/**
 * The tracks that a peer sends: kept from the moment they come, also before the call is accepted, since signaling may be
 * faster than the message that accepts. Calls are in JavaScript only.
 */

export class RemoteTracks {
  /** @type {Map<MediaStreamTrack, MediaStream | undefined>} What the peer sends, and as part of what. */
  #tracks = new Map();

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
    const ended = () => {
      if (tracks.get(track) === stream) tracks.delete(track);
      gone();
    };
    track.addEventListener('ended', ended);
    stream?.addEventListener('removetrack', (event) => event.track === track && ended());
  }

  /**
   * Have a stream hold what the peer sends, and nothing else.
   *
   * @param {MediaStream} stream
   * @returns {boolean} Whether there is anything.
   */
  show(stream) {
    const tracks = this.#tracks;
    for (const track of tracks.keys()) {
      if (track.readyState === 'ended') tracks.delete(track);
      else stream.addTrack(track); // nothing happens for one that is there already
    }
    for (const track of stream.getTracks()) {
      if (!tracks.has(track)) stream.removeTrack(track);
    }
    return tracks.size > 0;
  }
}
