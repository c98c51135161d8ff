/**
 * The exact bytes that are signed, each in a function; and nothing else.
 *
 * Every text begins with a name of its own, so that a signature made for one purpose is worthless for another. Parts are
 * separated by a zero byte; no part but the last and those of fixed length can contain one (user ids, device and host
 * names have no control characters, a connection name is checked here).
 *
 * @import { Bytes } from '../protocol/codec.js'
 */
import { toUtf8 } from '../protocol/codec.js';
import { sha256 } from './keys.js';

export const NONCE_BYTES = 32;

/**
 * @param {...(string | Iterable<number>)} parts
 * @returns {Bytes}
 */
function join(...parts) {
  return Uint8Array.from(
    parts.flatMap((part, index) => [...(index ? [0] : []), ...(typeof part === 'string' ? toUtf8(part) : part)]),
  );
}

/**
 * What a client signs to prove at registration that it owns its key. `host` is what it dialled.
 *
 * @param {string} host
 * @param {Uint8Array} nonce
 * @param {string} userId
 * @param {string} device
 */
export const registration = (host, nonce, userId, device) =>
  join('aldis register v1', host.toLowerCase(), nonce, userId, device);

/**
 * What the old key signs to hand a name over to a new key (its 32 bytes).
 *
 * @param {string} userId
 * @param {Uint8Array} newPublicKey
 */
export const rotation = (userId, newPublicKey) => join('aldis rotate v1', userId, newPublicKey);

/**
 * What the identity key signs to vouch for the HPKE key of a registration.
 *
 * @param {string} userId
 * @param {string} device
 * @param {Uint8Array} sealKey
 */
export const seal = (userId, device, sealKey) => join('aldis seal v1', userId, device, sealKey);

/**
 * What is signed with an offer. `sender` and `recipient` are user ids without device.
 *
 * @param {string} sender
 * @param {string} recipient
 * @param {string} connection
 * @param {Uint8Array} nonce
 * @param {string} sdp
 */
export const offer = async (sender, recipient, connection, nonce, sdp) =>
  join('aldis offer v1', sender, recipient, connection, nonce, await sha256(toUtf8(sdp)));

/**
 * What is signed with an answer; `nonce` is the offer's own, and the offer's text is covered too.
 *
 * @param {string} sender
 * @param {string} recipient
 * @param {string} connection
 * @param {Uint8Array} nonce
 * @param {string} sdp
 * @param {string} offerSdp
 */
export async function answer(sender, recipient, connection, nonce, sdp, offerSdp) {
  const [ours, theirs] = [await sha256(toUtf8(sdp)), await sha256(toUtf8(offerSdp))];
  return join('aldis answer v1', sender, recipient, connection, nonce, [...ours, ...theirs]);
}

/**
 * Whether a connection name can stand in a proof: 1 to 128 characters of the base64url alphabet.
 *
 * @param {unknown} connection
 * @returns {connection is string}
 */
export const validConnectionName = (connection) =>
  typeof connection === 'string' && /^[A-Za-z0-9_-]{1,128}$/.test(connection);
