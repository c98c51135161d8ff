/**
 * The exact bytes to sign, one function for each purpose.
 *
 * Every text starts with the name of its purpose, so that a signature for one purpose is worthless for another. A zero
 * byte separates the parts. Only the last part and parts of fixed length can contain a zero byte: user ids, device and
 * host names have no control characters, and a connection name is checked here.
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
 * The bytes for a registration, which prove that a client owns its key. `host` is what it dialled.
 *
 * @param {string} host
 * @param {Uint8Array} nonce
 * @param {string} userId
 * @param {string} device
 */
export const registration = (host, nonce, userId, device) =>
  join('aldis register v1', host.toLowerCase(), nonce, userId, device);

/**
 * The bytes that the old key signs to hand a name over to a new key (32 bytes).
 *
 * @param {string} userId
 * @param {Uint8Array} newPublicKey
 */
export const rotation = (userId, newPublicKey) => join('aldis rotate v1', userId, newPublicKey);

/**
 * The bytes that the identity key signs for the sealing key of a registration.
 *
 * @param {string} userId
 * @param {string} device
 * @param {Uint8Array} sealKey
 */
export const seal = (userId, device, sealKey) => join('aldis seal v1', userId, device, sealKey);

/**
 * The bytes for an offer. `sender` and `recipient` are user ids without device.
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
 * The bytes for an answer. `nonce` is the offer's own, and the text of the offer is signed too.
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
 * Whether a connection name is valid in a proof: 1 to 128 characters of the base64url alphabet.
 *
 * @param {unknown} connection
 * @returns {connection is string}
 */
export const validConnectionName = (connection) =>
  typeof connection === 'string' && /^[A-Za-z0-9_-]{1,128}$/.test(connection);
