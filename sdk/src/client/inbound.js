/**
 * From the messages of a server to what a client tells: events and results.
 *
 * Pure functions. Two kinds of fault meet here and must not be confused: what the *server* has written (a sender's
 * address, a reply) is the server's responsibility, and `ProtocolViolation` ends the connection to it; what a *peer* has
 * put into a relayed message is passed on by every server unread, and a fault in it only drops that message.
 *
 * @import { DiscoverResponse, ErrorMessage, Presence, Relayed, ServerMessage } from '../protocol/messages.js'
 * @import { Result } from './effects.js'
 * @import { Discovery, SignalingEvent } from './events.js'
 * @import { Request } from './requests.js'
 */
import { RequestFailed } from '../errors.js';
import { PUBLIC_KEY_BYTES } from '../identity/keys.js';
import { DEFAULT_DEVICE, deviceProblem, split, userIdProblem } from '../protocol/addresses.js';
import { clean, fromBase64, readCandidate, readCapabilities, readDescription, readProof } from '../protocol/codec.js';
import { isTemporary, LONGEST_PAUSE } from '../protocol/codes.js';
import { check } from '../protocol/shapes.js';

// Characters of a connection's name, which is kept while candidates wait for their offer; ours have 22.
const MAX_CONNECTION = 128;

// The newest ones; no server of this project has more of one user.
const MAX_DEVICES = 16;

/** @typedef {Presence | Relayed} Numbered All that counts for resume. */
/** @typedef {Extract<ServerMessage, { re?: unknown }>} Reply */

/**
 * The event that a numbered message stands for; null for what this version does not use, or what a peer has garbled.
 *
 * @param {Numbered} message
 * @param {(userId: string) => boolean} states Whether a presence of a user answers a `watch`.
 * @returns {SignalingEvent | null} Throws `ProtocolViolation` when the server is to blame.
 */
export function eventOf(message, states) {
  if (message.type === 'presence') {
    return { type: 'presenceChanged', ...discoveryOf(message), initial: states(message.userId) };
  }
  const { from: sender = '', connection = null } = /** @type {{ from?: string, connection?: string }} */ (message);
  const [userId, device] = split(sender);
  check(!userIdProblem(userId) && !deviceProblem(device ?? DEFAULT_DEVICE), 'a bad sender');
  if ((connection?.length ?? 0) > MAX_CONNECTION) return null;
  try {
    switch (message.type) {
      case 'bye':
        return {
          type: 'byeReceived',
          sender,
          connection,
          reason: clean(message.reason ?? '') || null,
          code: clean(message.code ?? '') || null,
          retryAfter: message.retryAfter === undefined ? null : Math.min(message.retryAfter, LONGEST_PAUSE),
        };
      case 'ice-candidate':
        return { type: 'candidateReceived', sender, connection, candidate: readCandidate(message.candidate) };
      case 'offer':
      case 'answer': {
        const { type, proof, capabilities } = message;
        return {
          type: `${type}Received`,
          sender,
          connection,
          description: readDescription('offer' in message ? message.offer : message.answer, type),
          proof: proof === undefined ? null : readProof(proof),
          capabilities: readCapabilities(capabilities),
        };
      }
    }
  } catch {}
  return null;
}

/**
 * What a reply says, which must be one to this request; throws `ProtocolViolation`.
 *
 * @param {Request} request
 * @param {Reply} reply
 * @returns {Result}
 */
export function resultOf(request, reply) {
  if (reply.type === 'discover-response' && request.type === 'discover' && reply.userId === request.userId) {
    return discoveryOf(reply);
  }
  if (reply.type === 'ice-servers' && request.type === reply.type) {
    return { iceServers: reply.iceServers, ttl: Math.max(0, reply.ttl) };
  }
  const acknowledged = !['register', 'discover', 'ice-servers'].includes(request.type);
  check(reply.type === 'ack' && acknowledged, `${reply.type} is no reply to ${request.type}`);
  return null;
}

/**
 * What a `discover-response` or a `presence` says.
 *
 * @param {DiscoverResponse | Presence} message
 * @returns {Discovery}
 */
const discoveryOf = ({ userId, online, publicKey, devices = [] }) => ({
  userId,
  online,
  publicKey: publicKeyOf(publicKey),
  devices: devices.slice(0, MAX_DEVICES).map(({ device }) => device),
});

// What to do about it, where the server cannot know.
const HINTS = /** @type {Record<string, string>} */ ({
  'key-mismatch': ': choose another, or keep your key (Identity.loadOrCreate)',
});

/**
 * What an `error` reply means. A server that does not say whether it is temporary is taken by the code's word.
 *
 * @param {ErrorMessage} error
 */
export const failureOf = ({ code = 'internal', message, temporary = isTemporary(code), retryAfter }) =>
  new RequestFailed(code, message + (HINTS[code] ?? ''), {
    temporary,
    retryAfter: retryAfter && Math.max(0, retryAfter),
  });

/**
 * The key, or null without one. A classic client may register any string as its key; that is none for us.
 *
 * @param {string} [text]
 */
function publicKeyOf(text = '') {
  try {
    return fromBase64(text, PUBLIC_KEY_BYTES);
  } catch {
    return null;
  }
}
