/**
 * HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM, on WebCrypto.
 *
 * Our own, where Python uses a library: the kept ones (`hpke`, `@hpke/core`) have 4.8 and 5.3 KB for this one suite,
 * gzipped, which is as much as all else of the relay, and the SDK depends on nothing. The RFC's vectors check it
 * (`tests/vectors/hpke.json`). Names in the code are those of the RFC.
 *
 * @import { SealKeyPair } from '../identity/seal_keys.js'
 * @import { Bytes } from '../protocol/codec.js'
 */
import { makePair } from '../identity/seal_keys.js';
import { toUtf8 } from '../protocol/codec.js';

export const ENC_BYTES = 32; // Nenc, section 7.1
export const KEY_BYTES = 32; // Nk, section 7.3
export const NONCE_BYTES = 12; // Nn
const HASH_BYTES = 32; // Nh, section 7.2

const X25519 = { name: 'X25519' };
const HMAC = { name: 'HMAC', hash: 'SHA-256' };
const VERSION = toUtf8('HPKE-v1');
// Section 7: KEM 0x0020, KDF 0x0001, AEAD 0x0002.
const KEM_SUITE = concat(toUtf8('KEM'), Uint8Array.of(0, 0x20));
const HPKE_SUITE = concat(toUtf8('HPKE'), Uint8Array.of(0, 0x20, 0, 1, 0, 2));
const EMPTY = new Uint8Array();

/**
 * The bytes of several arrays, one after the other.
 *
 * @param {Uint8Array[]} parts
 * @returns {Bytes}
 */
export function concat(...parts) {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/**
 * SetupBaseS (section 5.1.1). Rejects when the recipient's key is none.
 *
 * @param {Bytes} publicKey Of the recipient: pkR.
 * @param {Bytes} info
 * @param {SealKeyPair} [ephemeral] Only test vectors give one.
 * @returns {Promise<[enc: Bytes, context: Context]>}
 */
export async function setupSender(publicKey, info, ephemeral) {
  const pair = ephemeral ?? (await makePair());
  const dh = await diffieHellman(pair.privateKey, publicKey);
  const enc = pair.publicKey;
  return [enc, await schedule(dh, concat(enc, publicKey), info)];
}

/**
 * SetupBaseR (section 5.1.1). Rejects when `enc` is no key.
 *
 * @param {Bytes} enc
 * @param {SealKeyPair} pair Of the recipient: skR, pkR.
 * @param {Bytes} info
 */
export async function setupRecipient(enc, { privateKey, publicKey }, info) {
  return schedule(await diffieHellman(privateKey, enc), concat(enc, publicKey), info);
}

/** What both sides have after the setup, for one message (sequence 0) and for exports. */
export class Context {
  /** @param {Bytes} key @param {Bytes} baseNonce @param {Bytes} exporterSecret */
  constructor(key, baseNonce, exporterSecret) {
    this.key = key;
    this.baseNonce = baseNonce;
    this.exporterSecret = exporterSecret;
  }

  /** Section 5.3. @param {Bytes} label @param {number} length Bytes. */
  export(label, length) {
    return labeledExpand(this.exporterSecret, HPKE_SUITE, 'sec', label, length);
  }
}

/** One key and base nonce, for all messages of one direction (section 5.2). */
export class Direction {
  #key;
  #base;

  /** @param {CryptoKey} key @param {Bytes} base */
  constructor(key, base) {
    this.#key = key;
    this.#base = base;
  }

  /** @param {Bytes} key @param {Bytes} base */
  static async of(key, base) {
    return new Direction(await crypto.subtle.importKey('raw', key, 'AES-GCM', false, ['encrypt', 'decrypt']), base);
  }

  /** ComputeNonce. @param {number} counter */
  nonce(counter) {
    const nonce = this.#base.slice();
    const view = new DataView(nonce.buffer);
    const at = NONCE_BYTES - 8;
    view.setBigUint64(at, view.getBigUint64(at) ^ BigInt(counter));
    return nonce;
  }

  /** @param {number} counter @param {Bytes} plaintext @param {Bytes} aad */
  async seal(counter, plaintext, aad) {
    return new Uint8Array(await crypto.subtle.encrypt(this.#gcm(counter, aad), this.#key, plaintext));
  }

  /** Rejects when it was not sealed so. @param {number} counter @param {Bytes} ciphertext @param {Bytes} aad */
  async open(counter, ciphertext, aad) {
    return new Uint8Array(await crypto.subtle.decrypt(this.#gcm(counter, aad), this.#key, ciphertext));
  }

  /** @param {number} counter @param {Bytes} aad */
  #gcm(counter, aad) {
    return { name: 'AES-GCM', iv: this.nonce(counter), additionalData: aad };
  }
}

/** @param {CryptoKey} privateKey @param {Bytes} publicKey */
async function diffieHellman(privateKey, publicKey) {
  const { subtle } = crypto;
  const key = await subtle.importKey('raw', publicKey, X25519, false, []);
  const dh = new Uint8Array(await subtle.deriveBits({ ...X25519, public: key }, privateKey, 256));
  // Section 7.1.4; not every WebCrypto looks.
  if (!dh.some((byte) => byte)) throw new RangeError('a key of small order');
  return dh;
}

/** ExtractAndExpand (section 4.1) and KeySchedule (section 5.1). @param {Bytes} dh @param {Bytes} kemContext @param {Bytes} info */
async function schedule(dh, kemContext, info) {
  const eaePrk = await labeledExtract(EMPTY, KEM_SUITE, 'eae_prk', dh);
  const sharedSecret = await labeledExpand(eaePrk, KEM_SUITE, 'shared_secret', kemContext, HASH_BYTES);
  const pskIdHash = await labeledExtract(EMPTY, HPKE_SUITE, 'psk_id_hash', EMPTY);
  const infoHash = await labeledExtract(EMPTY, HPKE_SUITE, 'info_hash', info);
  const context = concat(Uint8Array.of(0), pskIdHash, infoHash);
  const secret = await labeledExtract(sharedSecret, HPKE_SUITE, 'secret', EMPTY);
  const expand = (/** @type {string} */ label, /** @type {number} */ length) =>
    labeledExpand(secret, HPKE_SUITE, label, context, length);
  return new Context(await expand('key', KEY_BYTES), await expand('base_nonce', NONCE_BYTES), await expand('exp', 32));
}

/** @param {Bytes} salt @param {Bytes} suite @param {string} label @param {Bytes} ikm */
const labeledExtract = (salt, suite, label, ikm) => hmac(salt, concat(VERSION, suite, toUtf8(label), ikm));

/** @param {Bytes} prk @param {Bytes} suite @param {string} label @param {Bytes} info @param {number} length */
async function labeledExpand(prk, suite, label, info, length) {
  const labeled = concat(Uint8Array.of(length >> 8, length & 255), VERSION, suite, toUtf8(label), info);
  /** @type {Bytes} */
  let block = EMPTY;
  const blocks = [];
  // HKDF-Expand, RFC 5869 section 2.3.
  for (let number = 1; (number - 1) * HASH_BYTES < length; number++) {
    block = await hmac(prk, concat(block, labeled, Uint8Array.of(number)));
    blocks.push(block);
  }
  return concat(...blocks).slice(0, length);
}

/** @param {Bytes} key @param {Bytes} data */
async function hmac(key, data) {
  const { subtle } = crypto;
  // WebCrypto takes no empty key. HMAC pads with zeros, so these are the same (RFC 2104 section 2).
  const usable = await subtle.importKey('raw', key.length ? key : new Uint8Array(HASH_BYTES), HMAC, false, ['sign']);
  return new Uint8Array(await subtle.sign('HMAC', usable, data));
}
