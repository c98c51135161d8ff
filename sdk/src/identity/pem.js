/**
 * Ed25519 keys as key files have them: unencrypted PEM (PKCS #8, RFC 8410). Loaded when it is first used.
 *
 * JavaScript only: in Python a library does this.
 */
import { fromBase64, fromBase64url, toBase64 } from '../protocol/codec.js';

const HEAD = '-----BEGIN PRIVATE KEY-----';
const FOOT = '-----END PRIVATE KEY-----';

/**
 * Throws anything for what is no such key.
 *
 * @param {SubtleCrypto} subtle
 * @param {string} pem
 * @param {boolean} extractable
 */
export async function readPem(subtle, pem, extractable) {
  const [, body = ''] = /-----BEGIN PRIVATE KEY-----([^-]+)-----END PRIVATE KEY-----/.exec(pem) ?? [];
  const bytes = fromBase64(body.replace(/\s/g, ''));
  const read = (/** @type {boolean} */ may) => subtle.importKey('pkcs8', bytes, 'Ed25519', may, ['sign']);
  // Only an extractable key gives its public key, so it is read twice.
  const { x = '' } = await subtle.exportKey('jwk', await read(true));
  return { privateKey: await read(extractable), publicKey: fromBase64url(x, 32) };
}

/**
 * Throws anything for a key that is not extractable.
 *
 * @param {SubtleCrypto} subtle
 * @param {CryptoKey} key
 */
export async function writePem(subtle, key) {
  return `${HEAD}\n${toBase64(new Uint8Array(await subtle.exportKey('pkcs8', key)))}\n${FOOT}\n`;
}
