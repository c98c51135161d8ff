/**
 * From the messages of a server to what a client tells: events and results.
 *
 * Pure functions. Two kinds of fault meet here and must not be confused: what the *server* has written (a sender's
 * address, a reply) is the server's responsibility, and `ProtocolViolation` ends the connection to it; what a *peer* has
 * put into a relayed message is passed on by every server unread, and a fault in it only drops that message.
 *
 * @import { Bytes } from '../protocol/codec.js'
 * @import { DiscoverResponse, ErrorMessage, Presence, Relayed, RelayedAnswer, RelayedOffer } from '../protocol/messages.js'
 * @import { Discovery, SignalingEvent } from './events.js'
 */
import { ProtocolViolation, RequestFailed } from '../errors.js';
import { PUBLIC_KEY_BYTES } from '../identity/keys.js';
import { deviceProblem, split, userIdProblem } from '../protocol/addresses.js';
import { fromBase64, readCandidate, readCapabilities, readDescription, readProof } from '../protocol/codec.js';
import { isTemporary } from '../protocol/codes.js';

/** @typedef {Presence | Relayed} Numbered All that counts for resume. */

/**
 * The event that a numbered message stands for; null for what this version does not use, or what a peer has garbled.
 *
 * @param {Numbered} message
 * @returns {SignalingEvent | null} Throws `ProtocolViolation` when the server is to blame.
 */
export function eventOf(message) {
  if (message.type === 'presence') return { type: 'presenceChanged', ...discoveryOf(message) };
  const { type, from = '' } = message;
  const [userId, device] = split(from);
  if (userIdProblem(userId) || (device !== null && deviceProblem(device))) throw new ProtocolViolation('a bad sender');
  if (type === 'relay') return null;
  const common = { sender: from, connection: message.connection ?? null };
  try {
    switch (message.type) {
      case 'bye':
        return { type: 'byeReceived', ...common, reason: message.reason ?? null };
      case 'ice-candidate':
        return { type: 'candidateReceived', ...common, candidate: readCandidate(message.candidate) };
      case 'offer':
        return { type: 'offerReceived', ...common, ...fromPeer(message, message.offer) };
      case 'answer':
        return { type: 'answerReceived', ...common, ...fromPeer(message, message.answer) };
    }
  } catch {}
  return null;
}

/** @param {RelayedOffer | RelayedAnswer} message @param {unknown} description */
const fromPeer = ({ type, proof, capabilities }, description) => ({
  description: readDescription(description, type),
  proof: proof === undefined ? null : readProof(proof),
  capabilities: readCapabilities(capabilities),
});

/**
 * What a `discover-response` or a `presence` says.
 *
 * @param {DiscoverResponse | Presence} message
 * @returns {Discovery}
 */
export const discoveryOf = ({ userId, online, publicKey, devices }) => ({
  userId,
  online,
  publicKey: publicKeyOf(publicKey),
  devices: devices?.map(({ device }) => device) ?? [],
});

/**
 * What an `error` reply means. A server that does not say whether it is temporary is taken by the code's word.
 *
 * @param {ErrorMessage} error
 */
export function failureOf({ code = 'internal', message, temporary = isTemporary(code), retryAfter }) {
  return new RequestFailed(code, message, {
    temporary,
    retryAfter: retryAfter === undefined ? null : Math.max(0, retryAfter),
  });
}

/**
 * The key, or null when there is none, or none of ours: a classic client may register any string as its key.
 *
 * @param {string | undefined} text
 * @returns {Bytes | null}
 */
function publicKeyOf(text) {
  try {
    return text === undefined ? null : fromBase64(text, PUBLIC_KEY_BYTES);
  } catch {
    return null;
  }
}
