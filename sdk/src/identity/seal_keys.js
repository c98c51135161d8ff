/**
 * Seal keys: the X25519 keys to which others encrypt what goes through the server (docs/protocol.md, "Relaying").
 *
 * A client publishes one with each registration, signed by its identity key. `SealKeys` keeps the one that the server
 * shows, the one that is about to be published, and a few earlier ones, because handshakes to an earlier one may be on
 * their way. `checkedSealKey` is for whoever uses the key of another device.
 *
 * Rules:
 *
 * - A private key is a `CryptoKey` that no script can read, and is kept nowhere: what was sealed to a key cannot be read
 *   any more when the key is gone. Call `purge` when `nextExpiry` has come.
 * - At most one key waits to be published. A try that fails leaves it for the next try: the server may have taken it.
 * - Time is an argument, in monotonic seconds.
 *
 * @import { Bytes } from '../protocol/codec.js'
 * @import { Identity } from './keys.js'
 */
import { verify } from './keys.js';
import * as proofs from './proofs.js';

export const SEAL_KEY_BYTES = 32; // RFC 7748 section 6.1
// Seconds for which an earlier key opens handshakes: others may have asked for the key just before it changed.
const OLD_KEY_SECONDS = 60;
// Keys that are kept, the newest included. A client publishes one an hour, and one when a resume has failed. The key that
// the server shows and one that waits to be published are the last two, so they never go for want of room.
const MOST_KEYS = 4;

/**
 * @typedef {{ publicKey: Bytes, signature: Bytes }} PublishedSealKey The seal key of a device, and its signature by the
 *   identity key, as the server shows them. Nobody has checked those of others: see `checkedSealKey`.
 *
 * @typedef {{ privateKey: CryptoKey, publicKey: Bytes }} SealKeyPair One seal key of ours: `privateKey` opens what was
 *   sealed to `publicKey` (32 bytes).
 */

/**
 * The 32 bytes of a device's seal key, if `identityKey` has signed them for this user and device. Null when there is no
 * key, when the signature is wrong, and for a key of another kind.
 *
 * @param {PublishedSealKey | undefined} published
 * @param {Bytes} identityKey
 * @param {string} userId
 * @param {string} device
 */
export async function checkedSealKey(published, identityKey, userId, device) {
  if (published?.publicKey.length !== SEAL_KEY_BYTES) return null;
  const { publicKey, signature } = published;
  return (await verify(identityKey, signature, proofs.seal(userId, device, publicKey))) ? publicKey : null;
}

/** A new X25519 key pair. Rejects where WebCrypto has no X25519. @returns {Promise<SealKeyPair>} */
export async function makePair() {
  const { subtle } = globalThis.crypto;
  const made = await subtle.generateKey({ name: 'X25519' }, false, ['deriveBits']);
  const { privateKey, publicKey } = /** @type {CryptoKeyPair} */ (made);
  return { privateKey, publicKey: new Uint8Array(await subtle.exportKey('raw', publicKey)) };
}

/** The seal keys of one client, which is one device of a user. */
export class SealKeys {
  #userId;
  #device;
  /** @type {{ pair: SealKeyPair, published: boolean, until: number }[]} The newest last; only that one may be unpublished. */
  #kept = [];
  /** @type {SealKeyPair | undefined} */
  #registering;

  /** @param {string} userId @param {string} device */
  constructor(userId, device) {
    this.#userId = userId;
    this.#device = device;
  }

  /** The key that the server shows; null before the first registration. */
  get current() {
    return this.#kept.filter(({ published }) => published).at(-1)?.pair ?? null;
  }

  /** When `purge` is due. */
  get nextExpiry() {
    return Math.min(...this.#kept.map(({ until }) => until));
  }

  /**
   * The key for a registration: a new one, unless it resumes a session or one was made and never published. Rejects where
   * WebCrypto has no X25519.
   *
   * @param {Identity} identity
   * @param {boolean} resuming
   */
  async toRegister(identity, resuming) {
    this.#registering = (resuming && this.current) || (await this.#unpublished());
    return this.#signed(this.#registering, identity);
  }

  /** The server shows the key of the last `toRegister`, if there was one. @param {number} now */
  registered(now) {
    if (this.#registering) this.published(this.#registering, now);
    this.#registering = undefined;
  }

  /**
   * A new key, to publish while registered. Call `published` with the pair when the server shows it; until then each try
   * gets the same one.
   *
   * @param {Identity} identity
   */
  async toPublish(identity) {
    const pair = await this.#unpublished();
    return { pair, sealKey: await this.#signed(pair, identity) };
  }

  /**
   * The server shows this key to others. Earlier ones open handshakes for `OLD_KEY_SECONDS` more.
   *
   * @param {SealKeyPair} pair
   * @param {number} now
   */
  published(pair, now) {
    for (const kept of this.#kept) {
      if (kept.pair === pair) {
        kept.published = true;
        break;
      }
      kept.until = Math.min(kept.until, now + OLD_KEY_SECONDS);
    }
  }

  /** The key of ours with these 32 bytes, if it still opens handshakes. @param {Uint8Array} publicKey @param {number} now */
  find(publicKey, now) {
    this.purge(now);
    const isIt = (/** @type {number} */ byte, /** @type {number} */ index) => byte === publicKey[index];
    return this.#kept.find(({ pair }) => pair.publicKey.every(isIt))?.pair ?? null;
  }

  /** Forget the keys that open handshakes no more; all of them at the end of time. @param {number} now */
  purge(now) {
    this.#kept = this.#kept.filter(({ until }) => until > now);
  }

  /** The key that waits to be published, or a new one. */
  async #unpublished() {
    const waiting = () => this.#kept.find(({ published }) => !published)?.pair;
    let pair = waiting();
    if (!pair) {
      const made = await makePair();
      pair = waiting() ?? made; // another call may have been faster
      if (pair === made) this.#kept = [...this.#kept, { pair, published: false, until: Infinity }].slice(-MOST_KEYS);
    }
    return pair;
  }

  /** @param {SealKeyPair} pair @param {Identity} identity @returns {Promise<PublishedSealKey>} */
  async #signed({ publicKey }, identity) {
    return { publicKey, signature: await identity.sign(proofs.seal(this.#userId, this.#device, publicKey)) };
  }
}
