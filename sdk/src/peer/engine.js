/**
 * What Aldis asks of an RTCPeerConnection beyond its own methods; `PeerTransport` holds one.
 *
 * Rules:
 * - Nothing here knows of signaling, users, proofs or frames.
 * - No STUN or TURN server is used that was not given.
 * - Descriptions from outside are hostile until proven otherwise: whatever the browser makes of them, the call rejects and
 *   the connection can be closed.
 *
 * Sections cited are those of https://www.w3.org/TR/webrtc/.
 */

import { EngineMissing } from '../errors.js';
import { check } from '../protocol/shapes.js';

/** @import { Capabilities, IceServer } from '../protocol/messages.js' */

/**
 * What a connection is made with; everything but the servers goes to the browser as it is.
 * @typedef {Omit<RTCConfiguration, 'iceServers'> & { iceServers?: readonly (IceServer | RTCIceServer)[] }} EngineConfig
 */

/** @typedef {'host' | 'srflx' | 'prflx' | 'relay'} CandidateType RFC 8445 section 4. */

/**
 * What the browser tells of the path that ICE has chosen, and of all bytes of the connection, also over paths before:
 * those of its transport, or where it has none, as in Firefox, those of channels and tracks without the overhead.
 * @typedef {object} EngineStats
 * @property {'direct' | 'turn'} path whether it leads through a TURN server on either side
 * @property {'udp' | 'tcp'} protocol of the path, or of our way to the TURN server
 * @property {CandidateType} local
 * @property {CandidateType} remote
 * @property {number} bytesSent
 * @property {number} bytesReceived
 */

/** @type {Capabilities} */
export const CAPABILITIES = { trickle: true, restart: true };

/** A parser is not written for gigabytes: what a signaling frame can carry at most, in characters. */
export const MAX_SDP = 64 * 1024;

/**
 * What makes connections: that of the browser, or what was brought along. Throws `EngineMissing` where there is no WebRTC.
 *
 * @param {typeof globalThis.RTCPeerConnection} [RTCPeerConnection]
 */
export function engine(RTCPeerConnection = globalThis.RTCPeerConnection) {
  if (!RTCPeerConnection) throw new EngineMissing('WebRTC', 'the browser has none, or it is off');
  return RTCPeerConnection;
}

/**
 * A connection. Throws `EngineMissing`, and what the browser throws for a configuration that it refuses.
 *
 * @param {EngineConfig} config
 * @param {typeof globalThis.RTCPeerConnection} [RTCPeerConnection]
 */
export function makeConnection(config, RTCPeerConnection) {
  const Native = engine(RTCPeerConnection);
  return configure(config, Native, (all) => new Native(all));
}

/**
 * Have a configuration used. For one URL that it does not take, a browser refuses all; Firefox does so for `stuns:` and for
 * ports that it blocks. Those URLs are left out then, with a warning.
 *
 * @template Result
 * @param {EngineConfig} config
 * @param {typeof RTCPeerConnection} Native the class of the connection
 * @param {(configuration: RTCConfiguration) => Result} use which throws when it is refused
 */
export function configure(config, Native, use) {
  const all = configuration(config);
  try {
    return use(all);
  } catch {
    const iceServers = (all.iceServers ?? []).flatMap((server) =>
      [server.urls].flat().flatMap((urls) => {
        try {
          new Native({ iceServers: [{ ...server, urls }] }).close();
          return [{ ...server, urls }];
        } catch (error) {
          console.warn(messageOf(error));
          return [];
        }
      }),
    );
    return use({ ...all, iceServers });
  }
}

/**
 * What the browser is told.
 *
 * @param {EngineConfig} config
 * @returns {RTCConfiguration}
 */
export const configuration = (config) => ({
  // Tracks that come later share the path that the channel has found.
  bundlePolicy: 'max-bundle',
  ...config,
  // The browser would take null for the text "null".
  iceServers: JSON.parse(JSON.stringify(config.iceServers ?? [], (_, value) => value ?? undefined)),
});

/**
 * Apply a description of the other side.
 *
 * @param {RTCPeerConnection} native
 * @param {'offer' | 'answer'} type
 * @param {string} sdp
 */
export async function apply(native, type, sdp) {
  check(
    // Without the one there is no channel, without the other nobody knows whom it leads to.
    sdp.length <= MAX_SDP && /^m=application /m.test(sdp) && /^a=fingerprint:/m.test(sdp),
    'a description too long, or without channel or fingerprint',
  );
  await native.setRemoteDescription({ type, sdp });
}

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
export async function setTracks(native, stream) {
  /** @type {(MediaStreamTrack | null)[]} */
  const tracks = stream?.getTracks() ?? [];
  const all = () => native.getTransceivers();
  const sent = all().map(({ sender }) => sender.track);
  let free = all().filter(({ direction, sender }) => direction !== 'stopped' && !tracks.includes(sender.track));
  for (const kind of ['audio', 'video']) {
    if (!stream || !tracks.length) break;
    const isOne = (/** @type {RTCRtpTransceiver} */ { receiver }) => receiver.track.kind === kind;
    for (const track of stream.getTracks()) {
      if (track.kind !== kind || sent.includes(track)) continue;
      const transceiver = free.find(isOne);
      if (!transceiver) {
        native.addTrack(track, stream);
        continue;
      }
      free = free.filter((each) => each !== transceiver);
      await transceiver.sender.replaceTrack(track);
      if (!transceiver.direction.startsWith('send')) {
        transceiver.sender.setStreams(stream);
        transceiver.direction = 'sendrecv';
      }
    }
    if (!all().some(isOne)) native.removeTrack(native.addTrack(borrow(native, kind), stream));
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

/**
 * @param {RTCPeerConnection} native
 * @returns {Promise<EngineStats | null>} null while there is no path
 */
export async function statsOf(native) {
  const report = await native.getStats();
  const all = [...report.values()];
  const transport = all.find((entry) => entry.selectedCandidatePairId);
  const pair =
    report.get(transport?.selectedCandidatePairId) ??
    all.find((entry) => entry.nominated && entry.state === 'succeeded'); // a Firefox that names no transport
  const local = report.get(pair?.localCandidateId);
  const remote = report.get(pair?.remoteCandidateId);
  if (!pair || !local || !remote) return null;
  // The counts of a pair begin at 0 when ICE takes another one. Firefox has no transport, and forgets pairs.
  const total = (/** @type {'bytesSent' | 'bytesReceived'} */ what) =>
    transport?.[what] ??
    all.reduce((sum, { type, [what]: bytes = 0 }) => sum + (/^(data|in|out)/.test(type) && bytes), 0);
  return {
    path: [local, remote].some((end) => end.candidateType === 'relay') ? 'turn' : 'direct',
    protocol: (local.relayProtocol ?? local.protocol) === 'udp' ? 'udp' : 'tcp',
    local: local.candidateType,
    remote: remote.candidateType,
    bytesSent: total('bytesSent'),
    bytesReceived: total('bytesReceived'),
  };
}

/** @param {any} error whatever was thrown, or the text that says why */
export const messageOf = (error) => error?.message || String(error);
