/**
 * What Aldis needs of an RTCPeerConnection beyond its own methods; `PeerTransport` holds one.
 *
 * Rules:
 * - Nothing here knows of signaling, users, proofs or frames.
 * - It uses only the STUN and TURN servers that it was given.
 * - Descriptions from outside are hostile until proven otherwise: whatever the browser does with them, the call rejects
 *   and the connection can be closed.
 *
 * Sections cited are those of https://www.w3.org/TR/webrtc/.
 */

import { check } from '../protocol/shapes.js';
import { engine, messageOf } from './platform.js';

/** @import { Capabilities, IceServer } from '../protocol/messages.js' */

/**
 * The configuration of a connection; the browser gets everything but the servers as it is.
 * @typedef {Omit<RTCConfiguration, 'iceServers'> & { iceServers?: readonly (IceServer | RTCIceServer)[] }} EngineConfig
 */

/** @type {Capabilities} */
export const CAPABILITIES = { trickle: true, restart: true };

/** The most characters that a signaling frame can carry; SDP parsers are not made for gigabytes. */
export const MAX_SDP = 64 * 1024;

/**
 * Make a connection. Throws `EngineMissing`, and the browser's exception for a configuration that it refuses.
 *
 * @param {EngineConfig} config
 * @param {typeof globalThis.RTCPeerConnection} [RTCPeerConnection]
 */
export function makeConnection(config, RTCPeerConnection) {
  const Native = engine(RTCPeerConnection);
  return configure(config, Native, (all) => new Native(all));
}

/**
 * Use a configuration. A browser refuses all of it for one URL that it does not accept; Firefox does so for `stuns:`
 * and for ports that it blocks. Such URLs are left out then, with a warning.
 *
 * @template Result
 * @param {EngineConfig} config
 * @param {typeof RTCPeerConnection} Native the class of the connection
 * @param {(configuration: RTCConfiguration) => Result} use throws when the configuration is refused
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
 * The configuration for the browser.
 *
 * @param {EngineConfig} config
 * @returns {RTCConfiguration}
 */
const configuration = (config) => ({
  // Later tracks share the path of the channel.
  bundlePolicy: 'max-bundle',
  ...config,
  // The browser would convert null to the text "null".
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
    // The first is necessary for a channel, the second for the peer's identity.
    sdp.length <= MAX_SDP && /^m=application /m.test(sdp) && /^a=fingerprint:/m.test(sdp),
    'a description too long, or without channel or fingerprint',
  );
  await native.setRemoteDescription({ type, sdp });
}
