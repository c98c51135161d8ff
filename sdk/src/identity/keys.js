/**
 * Ed25519 identity keys: made, kept in the browser, used to sign, shown to people.
 *
 * Rules: a private key is a `CryptoKey` that no script can read, unless it was made `extractable` on purpose; it leaves
 * this module only through `export()`, and into IndexedDB. Verification says yes or no and never why, so that no caller
 * can tell an attacker more.
 *
 * @import { Bytes } from '../protocol/codec.js'
 */
import { IdentityError } from '../errors.js';
import { fromBase64, fromBase64url, toBase64 } from '../protocol/codec.js';
import * as database from './database.js';

export const PUBLIC_KEY_BYTES = 32; // RFC 8032 section 5.1.5
export const SIGNATURE_BYTES = 64; // RFC 8032 section 5.1.6
const FINGERPRINT_BYTES = 20; // 160 bits: a second key with the same fingerprint is out of reach
const ED25519 = 'Ed25519';
const STORE = 'identities';

/** @typedef {{ privateKey: CryptoKey, publicKey: Bytes }} KeyPair */

/**
 * An Ed25519 key pair: who a program is, towards servers and peers alike.
 *
 * Get one with `Identity.loadOrCreate()`, which keeps it in this browser, or `Identity.generate()`, which does not.
 */
export class Identity {
  /** @type {KeyPair} */
  #pair;
  #fingerprint;

  /**
   * Made by the static methods, not by applications.
   *
   * @param {KeyPair} pair
   * @param {string} fingerprint
   */
  constructor(pair, fingerprint) {
    this.#pair = pair;
    this.#fingerprint = fingerprint;
  }

  /**
   * Make a new identity. With `extractable`, `export` can write it down, and so can any script of the page.
   *
   * @param {{ extractable?: boolean }} [options]
   */
  static async generate({ extractable = false } = {}) {
    const { privateKey, publicKey } = await attempt(
      (subtle) => /** @type {Promise<CryptoKeyPair>} */ (subtle.generateKey(ED25519, extractable, ['sign', 'verify'])),
      'this browser cannot make Ed25519 keys: it is too old',
    );
    return identityOf(privateKey, new Uint8Array(await subtle().exportKey('raw', publicKey)));
  }

  /**
   * Read the identity that is kept in this browser as `name`, or make one and keep it there. Safe when two tabs do so
   * at once. Throws `IdentityError` when the browser keeps nothing (a private window, storage switched off). Browsers
   * that run out of room may clear what a page keeps; `navigator.storage.persist()` asks them not to.
   *
   * @param {string} [name]
   */
  static async loadOrCreate(name = 'default') {
    const there = await Identity.load(name);
    if (there) {
      return there;
    }
    const made = await Identity.generate();
    return restored(await database.keep(STORE, name, made.#pair));
  }

  /**
   * Read the identity that is kept as `name`; null when there is none.
   *
   * @param {string} name
   */
  static async load(name) {
    const pair = await database.find(STORE, name);
    return pair === undefined ? null : restored(/** @type {KeyPair} */ (pair));
  }

  /**
   * Forget the identity that is kept as `name`. Whoever has no copy of it can never prove its user ids again.
   *
   * @param {string} name
   */
  static remove(name) {
    return database.remove(STORE, name);
  }

  /**
   * Read an unencrypted PEM (PKCS #8), such as Aldis's key files on other machines; throws `IdentityError`.
   *
   * @param {string} pem
   * @param {{ extractable?: boolean }} [options]
   */
  static async import(pem, { extractable = false } = {}) {
    const problem = 'not the PEM of an unencrypted Ed25519 private key';
    const [, body = ''] = /-----BEGIN PRIVATE KEY-----([^-]+)-----END PRIVATE KEY-----/.exec(pem) ?? [];
    return attempt(async (subtle) => {
      const bytes = fromBase64(body.replace(/\s/g, ''));
      // Only an extractable key tells its public half, so it is read twice.
      const [open, kept] = await Promise.all(
        [true, extractable].map((may) => subtle.importKey('pkcs8', bytes, ED25519, may, ['sign'])),
      );
      const { x = '' } = await subtle.exportKey('jwk', /** @type {CryptoKey} */ (open));
      return identityOf(/** @type {CryptoKey} */ (kept), fromBase64url(x, PUBLIC_KEY_BYTES));
    }, problem);
  }

  /** The 32 bytes of the public key. */
  get publicKey() {
    return this.#pair.publicKey.slice();
  }

  /** The fingerprint of the public key, for people to compare; see `fingerprint`. */
  get fingerprint() {
    return this.#fingerprint;
  }

  /**
   * Keep the identity in this browser as `name`. Never overwrites: throws `IdentityError` when there is one already.
   *
   * @param {string} name
   */
  async save(name) {
    const kept = await database.keep(STORE, name, this.#pair);
    if (kept !== this.#pair) {
      throw new IdentityError(`there is an identity '${name}' already`);
    }
  }

  /** The private key as PEM (PKCS #8), as in Aldis's key files; throws `IdentityError` unless it is extractable. */
  async export() {
    const bytes = await attempt(
      (subtle) => subtle.exportKey('pkcs8', this.#pair.privateKey),
      'this identity was made not to be exported',
    );
    return `-----BEGIN PRIVATE KEY-----\n${toBase64(new Uint8Array(bytes))}\n-----END PRIVATE KEY-----\n`;
  }

  /**
   * The 64-byte Ed25519 signature of `message`.
   *
   * @param {Bytes} message
   * @returns {Promise<Bytes>}
   */
  async sign(message) {
    return new Uint8Array(await subtle().sign(ED25519, this.#pair.privateKey, message));
  }
}

/**
 * @param {CryptoKey} privateKey
 * @param {Bytes} publicKey
 */
const identityOf = (privateKey, publicKey) => restored({ privateKey, publicKey });

/** @param {KeyPair} pair */
const restored = async (pair) => new Identity(pair, await fingerprint(pair.publicKey));

/** WebCrypto; throws `IdentityError` where there is none. */
function subtle() {
  const { subtle } = globalThis.crypto ?? {};
  if (!subtle) {
    throw new IdentityError('no cryptography here: open the page with https://, or on localhost');
  }
  return subtle;
}

/**
 * @template T
 * @param {(subtle: SubtleCrypto) => Promise<T>} work
 * @param {string} problem What it means that it fails.
 */
async function attempt(work, problem) {
  const available = subtle();
  try {
    return await work(available);
  } catch (cause) {
    throw new IdentityError(problem, { cause });
  }
}

/**
 * Whether `signature` is that of `message` under `publicKey`. Never throws for bad input.
 *
 * @param {Bytes} publicKey
 * @param {Bytes} signature
 * @param {Bytes} message
 */
export async function verify(publicKey, signature, message) {
  const available = subtle();
  try {
    const key = await available.importKey('raw', publicKey, ED25519, false, ['verify']);
    return await available.verify(ED25519, key, signature, message);
  } catch {
    return false;
  }
}

/**
 * The fingerprint of a public key: eight groups of four characters, such as `k3ul-7q2a-...`.
 *
 * The first 160 bits of the SHA-256 of the 32 key bytes in lower-case base32 (RFC 4648 section 6).
 *
 * @param {Bytes} publicKey
 */
export async function fingerprint(publicKey) {
  let text = '';
  let bits = 0;
  let held = 0;
  for (const byte of (await sha256(publicKey)).subarray(0, FINGERPRINT_BYTES)) {
    held = (held << 8) | byte;
    for (bits += 8; bits >= 5; bits -= 5) {
      text += 'abcdefghijklmnopqrstuvwxyz234567'[(held >> (bits - 5)) & 31];
    }
    held &= 31;
  }
  return text.replace(/.{4}(?=.)/g, '$&-');
}

/**
 * @param {Bytes} bytes
 * @returns {Promise<Bytes>}
 */
export const sha256 = async (bytes) => new Uint8Array(await subtle().digest('SHA-256', bytes));
