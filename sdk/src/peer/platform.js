/**
 * The browser's class for connections, which `engine` uses; apart, because the core looks for it before anything is sent.
 */
import { EngineMissing } from '../errors.js';

/**
 * The class for connections: the browser's, or the given one. Throws `EngineMissing` when the platform has no WebRTC.
 *
 * @param {typeof globalThis.RTCPeerConnection} [RTCPeerConnection]
 */
export function engine(RTCPeerConnection = globalThis.RTCPeerConnection) {
  if (!RTCPeerConnection) throw new EngineMissing('WebRTC', 'the browser has none, or it is off');
  return RTCPeerConnection;
}

/** @param {any} error an exception, or the text that says why */
export const messageOf = (error) => error?.message || String(error);
