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
const configuration = (config) => ({
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

/** @param {any} error whatever was thrown, or the text that says why */
export const messageOf = (error) => error?.message || String(error);
