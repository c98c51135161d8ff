/**
 * Audio and video of a call on the RTCPeerConnection that is there already. JavaScript only, as calls are, and loaded with
 * them (`store/calls/`).
 */

/**
 * The stream that the other side knows our tracks on a connection by, whatever streams the application has them in: the
 * first one. So what joins later belongs to the rest, and a track that comes back is where it was; Chromium would take
 * back another stream by one more negotiation, and the picture would go and come in between.
 *
 * @type {WeakMap<RTCPeerConnection, MediaStream>}
 */
const streams = new WeakMap();

/**
 * Send these tracks, and no others. A track takes the place of one of its kind that is not among them, without
 * negotiation where one was being sent; for what else changes, the browser wants one (`negotiationneeded`).
 *
 * Whoever sends anything offers a section for audio and then one for video, so that the offers of two sides that begin
 * at once have the same sections. Chromium cannot take audio in a section for which it has offered video, applied or not
 * ("RTP extension ID reassignment not supported"), and would never answer again.
 *
 * @param {RTCPeerConnection} native
 * @param {MediaStream | null} stream
 */
export async function putTracks(native, stream) {
  /** @type {(MediaStreamTrack | null)[]} */
  const tracks = stream?.getTracks() ?? [];
  const shared = streams.get(native) ?? stream;
  const all = () => native.getTransceivers();
  const sent = all().map(({ sender }) => sender.track);
  let free = all().filter(({ direction, sender }) => direction !== 'stopped' && !tracks.includes(sender.track));
  for (const kind of ['audio', 'video']) {
    if (!stream || !shared || !tracks.length) break;
    streams.set(native, shared);
    const isOne = (/** @type {RTCRtpTransceiver} */ { receiver }) => receiver.track.kind === kind;
    for (const track of stream.getTracks()) {
      if (track.kind !== kind || sent.includes(track)) continue;
      const transceiver = free.find(isOne);
      if (!transceiver) {
        native.addTrack(track, shared);
        continue;
      }
      free = free.filter((each) => each !== transceiver);
      await transceiver.sender.replaceTrack(track);
      if (!transceiver.direction.startsWith('send')) {
        transceiver.sender.setStreams(shared);
        transceiver.direction = 'sendrecv';
      }
    }
    if (!all().some(isOne)) native.removeTrack(native.addTrack(borrow(native, kind), shared));
  }
  for (const { sender } of free) if (sender.track) native.removeTrack(sender);
}

/**
 * A track with nothing on it. Only a section that `addTrack` has made can become one of an offer of theirs that crosses
 * ours (RFC 8829 section 5.10); one of `addTransceiver` would be left over.
 *
 * @param {RTCPeerConnection} native
 * @param {string} kind
 */
function borrow(native, kind) {
  const lender = new /** @type {typeof RTCPeerConnection} */ (native.constructor)();
  const { track } = lender.addTransceiver(kind).receiver;
  lender.close();
  return track;
}
