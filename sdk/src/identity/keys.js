/**
 * Ed25519 identity keys: make them, keep them in the browser, sign with them, show them to people.
 *
 * Rules: a private key is a `CryptoKey` that no script can read, unless it was made `extractable` on purpose. It leaves
 * this module only through `export()`, and into IndexedDB. Verification returns yes or no and never the reason, so that
 * no caller can tell an attacker more.
 *
 * @import { Bytes } from '../protocol/codec.js'
 */
import { IdentityError, LoadFailed } from '../errors.js';
import { bind } from '../proxies.js';
import * as database from './database.js';

export const PUBLIC_KEY_BYTES = 32; // RFC 8032 section 5.1.5
export const SIGNATURE_BYTES = 64; // RFC 8032 section 5.1.6
const FINGERPRINT_BITS = 160; // nobody can make a second key with the same fingerprint
const ED25519 = 'Ed25519';
const STORE = 'identities';

/** @param {number} size */
export const randomBytes = (size) => crypto.getRandomValues(new Uint8Array(size));

/** @typedef {{ privateKey: CryptoKey, publicKey: Bytes }} KeyPair */

/**
 * An Ed25519 key pair, which identifies a program to servers and peers.
 *
 * Get one with `Identity.loadOrCreate()`, which keeps it in this browser, or `Identity.generate()`, which does not.
 */
export class Identity {
  /** @type {KeyPair} */
  #pair;

  /**
   * Called by the static methods, not by applications.
   *
   * @param {KeyPair} pair
   * @param {string} fingerprint
   */
  constructor(pair, fingerprint) {
    this.#pair = pair;
    /**
     * The fingerprint of the public key, for people to compare; see `fingerprint`.
     *
     * @readonly
     */
    this.fingerprint = fingerprint;
    bind(this, 'Identity');
  }

  /**
   * Make a new identity. If it is `extractable`, `export` can read the key, and so can any script of the page.
   *
   * @param {{ extractable?: boolean }} [options]
   */
  static async generate({ extractable = false } = {}) {
    const { privateKey, publicKey } = await attempt(
      (subtle) => /** @type {Promise<CryptoKeyPair>} */ (subtle.generateKey(ED25519, extractable, ['sign', 'verify'])),
      'this browser cannot make Ed25519 keys: it is too old',
    );
    return identityOf({ privateKey, publicKey: new Uint8Array(await subtle().exportKey('raw', publicKey)) });
  }

  /**
   * Read the identity that is kept in this browser as `name`, or make one and keep it there. Two tabs may call this at
   * the same time. Throws `IdentityError` when the browser keeps nothing (storage switched off, a full disk). A browser
   * without free space may delete what a page keeps; `navigator.storage.persist()` asks it not to.
   *
   * @param {string} [name]
   */
  static async loadOrCreate(name = 'default') {
    return (
      (await Identity.load(name)) ?? identityOf(await database.keep(STORE, name, (await Identity.generate()).#pair))
    );
  }

  /**
   * Read the identity that is kept as `name`; null when no identity has this name.
   *
   * @param {string} name
   */
  static async load(name) {
    const pair = await database.find(STORE, name);
    return pair ? identityOf(/** @type {KeyPair} */ (pair)) : null;
  }

  /**
   * Delete the identity that is kept as `name`, and the journal of that name. Without a copy of it, nobody can ever prove
   * its user ids again. A tab that has the journal open loses it (`JournalInUse` in `state.journalError`).
   *
   * @param {string} name
   */
  static remove(name) {
    return database.remove(name);
  }

  /**
   * Read an unencrypted PEM (PKCS #8), such as Aldis's key files on other machines; throws `IdentityError`, and `LoadFailed`.
   *
   * @param {string} pem
   * @param {{ extractable?: boolean }} [options]
   */
  static async import(pem, { extractable = false } = {}) {
    const { readPem } = await loadPem();
    return attempt(
      async (subtle) => identityOf(await readPem(subtle, pem, extractable)),
      'not the PEM of an unencrypted Ed25519 private key',
    );
  }

  /** The 32 bytes of the public key. */
  get publicKey() {
    return this.#pair.publicKey.slice();
  }

  /**
   * Keep the identity in this browser as `name`. Never overwrites: throws `IdentityError` when the name has one.
   *
   * @param {string} name
   */
  async save(name) {
    if ((await database.keep(STORE, name, this.#pair)) !== this.#pair) {
      throw new IdentityError(`there is an identity '${name}' already`);
    }
  }

  /** The private key as PEM (PKCS #8), as in Aldis's key files. Throws `IdentityError` when it is not extractable. */
  async export() {
    const { writePem } = await loadPem();
    return attempt((subtle) => writePem(subtle, this.#pair.privateKey), 'this identity was made not to be exported');
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

/** Key files are rare: what reads and writes them is loaded then. */
async function loadPem() {
  const pem = await import('./pem.js').catch((cause) => {
    throw new LoadFailed('keys', { cause });
  });
  return pem;
}

/** @param {KeyPair} pair */
const identityOf = async (pair) => new Identity(pair, await fingerprint(pair.publicKey));

/** WebCrypto; throws `IdentityError` when the platform has none. */
function subtle() {
  const subtle = globalThis.crypto?.subtle;
  if (subtle) {
    return subtle;
  }
  throw new IdentityError('no cryptography here: use https:// or localhost');
}

/**
 * @template T
 * @param {(subtle: SubtleCrypto) => Promise<T>} work
 * @param {string} problem The text of the error when it fails.
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
 * Whether `signature` is the signature of `message` under `publicKey`. Never throws for bad input.
 *
 * @param {Bytes} publicKey
 * @param {Bytes} signature
 * @param {Bytes} message
 */
export const verify = async (publicKey, signature, message) =>
  subtle()
    .importKey('raw', publicKey, ED25519, false, ['verify'])
    .then((key) => subtle().verify(ED25519, key, signature, message))
    .catch(() => false);

/**
 * The fingerprint of a public key: eight groups of four characters, such as `k3ul-7q2a-...`.
 *
 * The first 160 bits of the SHA-256 of the 32 key bytes in lower-case base32 (RFC 4648 section 6).
 *
 * @param {Bytes} publicKey
 */
export async function fingerprint(publicKey) {
  const bits = Array.from(await sha256(publicKey), (byte) => byte.toString(2).padStart(8, '0')).join('');
  return bits
    .slice(0, FINGERPRINT_BITS)
    .replace(/.{5}/g, (five) => 'abcdefghijklmnopqrstuvwxyz234567'[parseInt(five, 2)] ?? '')
    .replace(/.{4}(?=.)/g, '$&-');
}

/**
 * @param {Bytes} bytes
 * @returns {Promise<Bytes>}
 */
export const sha256 = async (bytes) => new Uint8Array(await subtle().digest('SHA-256', bytes));
