/**
 * From the messages of a server to the events and results of a client.
 *
 * Pure functions. Two kinds of fault must be kept apart. The server is responsible for what it writes itself (a
 * sender's address, a reply): a fault there is a `ProtocolViolation`, which ends the connection. A *peer* is
 * responsible for what it puts into a relayed message, which every server passes on unread: a fault there only drops
 * that message.
 *
 * @import { PublishedSealKey } from '../identity/seal_keys.js'
 * @import { Device, DiscoverResponse, Presence, Relayed, ServerMessage, WatchFault } from '../protocol/messages.js'
 * @import { Result } from './effects.js'
 * @import { Discovery, SignalingEvent } from './events.js'
 * @import { Request } from './requests.js'
 */
import { RequestFailed } from '../errors.js';
import { PUBLIC_KEY_BYTES, SIGNATURE_BYTES } from '../identity/keys.js';
import { DEFAULT_DEVICE, deviceProblem, split, userIdProblem } from '../protocol/addresses.js';
import { clean, fromBase64, readCandidate, readCapabilities, readDescription, readProof } from '../protocol/codec.js';
import { isTemporary, LONGEST_PAUSE } from '../protocol/codes.js';
import { privacyOf } from '../protocol/privacy.js';
import { check } from '../protocol/shapes.js';

// Characters of a connection's name, which is kept while candidates wait for their offer. Our own names have 22.
const MAX_CONNECTION = 128;

// The newest devices; no server of this project has more of one user.
const MAX_DEVICES = 16;

/** @typedef {Presence | Relayed} Numbered The messages that count for resume. */
/** @typedef {Extract<ServerMessage, { re?: unknown }>} Reply */

/**
 * The event for a numbered message; null for a peer's fault.
 *
 * @param {Numbered} message
 * @param {(userId: string) => boolean} states Whether a presence of a user answers a `watch`.
 * @returns {SignalingEvent | null} Throws `ProtocolViolation` when the server is at fault.
 */
export function eventOf(message, states) {
  if (message.type === 'presence' && message.ended) {
    return { type: 'watchEnded', userIds: [message.userId], error: failureOf(message.ended, 'watch') };
  }
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
      case 'relay':
        return { type: 'relayReceived', sender, sealed: fromBase64(message.sealed) };
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
 * The result in a reply to this request; throws `ProtocolViolation` when it does not fit.
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
  if (reply.type === 'privacy' && request.type === reply.type) return privacyOf(reply);
  const acknowledged = !['register', 'discover', 'ice-servers', 'privacy'].includes(request.type);
  check(reply.type === 'ack' && acknowledged, `${reply.type} is no reply to ${request.type}`);
  return null;
}

/**
 * The content of a `discover-response` or a `presence`.
 *
 * @param {DiscoverResponse | Presence} message
 * @returns {Discovery}
 */
const discoveryOf = ({ userId, online, publicKey, devices = [] }) => ({
  userId,
  online,
  publicKey: publicKeyOf(publicKey),
  devices: devices.slice(0, MAX_DEVICES).map(({ device }) => device),
  sealKeys: sealKeysOf(devices.slice(0, MAX_DEVICES)),
});

/** The sealing keys of the devices that have a readable one. @param {Device[]} devices */
function sealKeysOf(devices) {
  /** @type {Map<string, PublishedSealKey>} */
  const found = new Map();
  for (const { device, sealKey } of devices) {
    try {
      const signature = sealKey && fromBase64(sealKey.signature, SIGNATURE_BYTES);
      if (signature) found.set(device, { publicKey: fromBase64(sealKey.publicKey), signature });
    } catch {}
  }
  return found;
}

// What to do about an error, when the server cannot know it.
const HINTS = /** @type {Record<string, string>} */ ({
  'key-mismatch': ': choose another, or keep your key (Identity.loadOrCreate)',
});

/**
 * The exception for an `error` reply to a `request`, its type, or for the end of a watch. If the server does not say
 * whether it is temporary, the code decides.
 *
 * @param {WatchFault} error
 * @param {string} request
 */
export const failureOf = ({ code = 'internal', message, temporary = isTemporary(code), retryAfter }, request) =>
  new RequestFailed(code, message + (HINTS[code] ?? ''), {
    temporary,
    retryAfter: retryAfter && Math.max(0, retryAfter),
    request,
  });

/**
 * The key, or null. A classic client may register any string as its key; such a string gives null.
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
