/**
 * From the messages of a server to what a client tells: events and results.
 *
 * Pure functions. Two kinds of fault meet here and must not be confused: what the *server* has written (a sender's
 * address, a reply) is the server's responsibility, and `ProtocolViolation` ends the connection to it; what a *peer* has
 * put into a relayed message is passed on by every server unread, and `PeerFault` only drops that message.
 *
 * @import { Bytes } from '../protocol/codec.js'
 * @import { DiscoverResponse, ErrorMessage, Presence, Relayed } from '../protocol/messages.js'
 * @import { Discovery, SignalingEvent } from './events.js'
 */
import { ProtocolViolation, RequestFailed } from '../errors.js';
import { PUBLIC_KEY_BYTES } from '../identity/keys.js';
import { deviceProblem, split, userIdProblem } from '../protocol/addresses.js';
import { fromBase64, readCandidate, readCapabilities, readDescription, readProof } from '../protocol/codec.js';
import { isTemporary } from '../protocol/codes.js';

/** @typedef {Presence | Relayed} Numbered All that counts for resume. */

/** Another user sent something that cannot be read. */
export class PeerFault extends ProtocolViolation {}

/**
 * The event that a numbered message stands for; null for what this version does not use.
 *
 * @param {Numbered} message
 * @returns {SignalingEvent | null} Throws `PeerFault` when the sender is to blame, else `ProtocolViolation`.
 */
export function eventOf(message) {
  if (message.type === 'presence') return { type: 'presenceChanged', ...discoveryOf(message) };
  const sender = senderOf(message.from);
  if (message.type === 'relay') return null;
  const connection = message.connection ?? null;
  if (message.type === 'bye') return { type: 'byeReceived', sender, connection, reason: message.reason ?? null };
  try {
    if (message.type === 'ice-candidate') {
      return { type: 'candidateReceived', sender, candidate: readCandidate(message.candidate), connection };
    }
    const fromPeer = {
      sender,
      description: readDescription(message.type === 'offer' ? message.offer : message.answer, message.type),
      connection,
      proof: message.proof === undefined ? null : readProof(message.proof),
      capabilities: readCapabilities(message.capabilities),
    };
    return { type: message.type === 'offer' ? 'offerReceived' : 'answerReceived', ...fromPeer };
  } catch (error) {
    throw new PeerFault(`${sender} sent ${/** @type {Error} */ (error).message}`);
  }
}

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

/** @param {string | undefined} address */
function senderOf(address) {
  const [userId, device] = split(address ?? '');
  const problem = userIdProblem(userId) || (device !== null && deviceProblem(device));
  if (problem) throw new ProtocolViolation(`a message from nobody: ${problem}`);
  return /** @type {string} */ (address);
}
