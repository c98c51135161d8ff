/**
 * Microphone and camera: as much of what was asked for as this machine has.
 *
 * What the person has to decide (a permission) is an error; what is merely not there is left out, with a note about it.
 */

/**
 * @param {{ video: boolean }} wanted  the microphone always is
 * @returns {Promise<{ stream: MediaStream, note: string }>}
 * @throws {DOMException} NotAllowedError, NotReadableError: words.js explains them
 */
export async function openMedia({ video }) {
  if (!navigator.mediaDevices) throw new DOMException('', 'NotAllowedError');
  const attempts = [{ wanted: { audio: true, video: video && CAMERA }, note: '' }];
  if (video) {
    attempts.push({
      wanted: { audio: true, video: false },
      note: 'Your camera cannot be used: they hear you, and do not see you.',
    });
    attempts.push({
      wanted: { audio: false, video: CAMERA },
      note: 'Your microphone cannot be used: they see you, and do not hear you.',
    });
  }
  /** @type {DOMException | null} */
  let first = null;
  for (const { wanted, note } of attempts) {
    try {
      return {
        stream: await navigator.mediaDevices.getUserMedia(wanted),
        note,
      };
    } catch (cause) {
      const error = /** @type {DOMException} */ (cause);
      first ??= error;
      if (error.name === 'NotAllowedError') throw error;
    }
  }
  if (first?.name !== 'NotFoundError') throw first;
  return { stream: new MediaStream(), note: 'No microphone was found: you hear them, and they do not hear you.' };
}

/** A stream with the tracks of `stream` and a picture. @param {MediaStream | null} stream */
export async function withCamera(stream) {
  const camera = await navigator.mediaDevices.getUserMedia({ video: CAMERA });
  return new MediaStream([...(stream?.getAudioTracks() ?? []), ...camera.getTracks()]);
}

/**
 * A stream with the tracks of `stream` but for some, which are let go of.
 *
 * @param {MediaStream} stream
 * @param {MediaStreamTrack[]} tracks
 */
export function without(stream, tracks) {
  stopTracks(tracks);
  return new MediaStream(stream.getTracks().filter((track) => !tracks.includes(track)));
}

/** Let go of microphone and camera. @param {MediaStreamTrack[]} tracks */
export function stopTracks(tracks) {
  for (const track of tracks) track.stop();
}

// What a conversation needs; more would only cost bandwidth. "ideal" lets every camera give what it has.
const CAMERA = {
  width: { ideal: 1280 },
  height: { ideal: 720 },
  facingMode: 'user',
};
