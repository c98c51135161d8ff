/**
 * Pins, what the directory says while there is no pin yet, and what an invitation says.
 *
 * At the first contact the server names the peer's key, and the peer then proves one. Both have to be the same: so a
 * server that only lies once is found out even then. A pin is made by a proof alone, never by the server's word. Where
 * an invitation has brought a fingerprint, no key with another one is pinned at all.
 *
 * What the directory says is noted as long as the peer is known: strangers can make it many. What an invitation says
 * stands until a person accepts a key, or the store ends: nobody else makes it more, or less.
 *
 * Whatever `pins` throws is an `IdentityError` here: callers need not know what an application keeps them in.
 *
 * Everything is of one server. What is pinned is also kept here, for callers that cannot wait for an answer.
 */
import { AldisError, FingerprintMismatch, IdentityError, PeerConnectionFailed, UsageError } from '../../errors.js';
import { fingerprint, PUBLIC_KEY_BYTES } from '../../identity/keys.js';
import { fromBase64 } from '../../protocol/codec.js';

/**
 * @typedef {import('../../protocol/codec.js').Bytes} Bytes
 * @typedef {import('../../identity/pins.js').Pins} Pins
 * @typedef {import('../../client/timers.js').Timers} Timers
 * @typedef {{ publicKey: Bytes | null, fingerprint: string | null }} Known The pinned key of a user, if there is one.
 */

/**
 * @typedef {object} Entry What there is to say of one user's key.
 * @property {Known} known
 * @property {Bytes | null} named By the directory, while there is no pin.
 */

/** The pins of a store: those of `pins`, and expectations. */
export class DirectoryPins {
  #pins;
  #server;
  /** @type {Map<string, Entry>} */
  #entries = new Map();
  /** @type {Map<string, string | undefined>} The fingerprints that invitations have brought. */
  #required = new Map();

  /**
   * @param {Pins} pins
   * @param {string} [server]
   */
  constructor(pins, server = '') {
    this.#pins = pins;
    this.#server = server;
  }

  /**
   * Go on with the pins of this server; what was known is of another one.
   *
   * @param {string} server
   */
  use(server) {
    this.#server = server;
    this.#entries.clear();
    this.#required.clear();
  }

  /** @param {string} userId */
  #of(userId) {
    let entry = this.#entries.get(userId);
    if (!entry) {
      entry = { known: { publicKey: null, fingerprint: null }, named: null };
      this.#entries.set(userId, entry);
    }
    return entry;
  }

  /**
   * What was pinned when it was looked at last.
   *
   * @param {string} userId
   * @returns {Known}
   */
  known(userId) {
    return this.#of(userId).known;
  }

  /** The key that is pinned, else the one that the directory has told; null without either. @param {string} userId */
  standing(userId) {
    const { known, named } = this.#of(userId);
    return known.publicKey ?? named;
  }

  /**
   * Look what is pinned; `known` tells it from then on.
   *
   * @param {string} userId
   * @returns {Promise<Bytes | null>}
   */
  async load(userId) {
    const server = this.#server;
    const publicKey = await this.#ask((pins) => pins.find(server, userId));
    return server === this.#server ? this.#learn(userId, publicKey) : publicKey;
  }

  /**
   * Refuse every key with another fingerprint from now on. Throws `FingerprintMismatch` when such a key is pinned, and
   * changes nothing then.
   *
   * @param {string} userId
   * @param {string} expected
   */
  async require(userId, expected) {
    const before = this.#required.get(userId);
    this.#required.set(userId, expected); // first: nothing else is to be pinned while we look
    await this.load(userId);
    const pinned = this.known(userId).fingerprint;
    if (pinned && pinned !== expected) {
      this.#required.set(userId, before);
      throw new FingerprintMismatch(userId, expected, pinned);
    }
  }

  /**
   * The same, as long as somebody waits for it: the pins are the application's, and may never answer. Throws
   * `PeerConnectionFailed` then.
   *
   * @param {string} userId
   * @param {string} expected
   * @param {number} seconds
   * @param {Timers} timers
   * @returns {Promise<number>} The seconds that are left.
   */
  async requireInTime(userId, expected, seconds, timers) {
    const began = timers.time();
    const required = this.require(userId, expected);
    await new Promise((resolve, reject) => {
      const late = () => reject(new PeerConnectionFailed(userId, `the pins have not answered after ${seconds} s`));
      required.finally(timers.callLater(seconds, late)).then(resolve, reject);
    });
    return +(seconds - timers.time() + began).toFixed(1);
  }

  /**
   * Note what the directory says; return the pinned key, or `publicKey` when there is none. Throws
   * `FingerprintMismatch`.
   *
   * @param {string} userId
   * @param {Bytes} publicKey
   */
  expect(userId, publicKey) {
    return this.#judge(userId, publicKey, (entry, pinned) => {
      entry.named = publicKey;
      return pinned ?? publicKey;
    });
  }

  /**
   * For `Trust`: pin a proved key, unless another one is pinned or expected; return the key that stands. Throws
   * `FingerprintMismatch`.
   *
   * @param {string} server
   * @param {string} userId
   * @param {Bytes} publicKey
   */
  pin(server, userId, publicKey) {
    return this.#judge(userId, publicKey, async ({ named }, pinned) => {
      const standing = pinned ?? named;
      return standing && !sameKey(standing, publicKey)
        ? standing
        : this.#learn(userId, await this.#ask((pins) => pins.pin(server, userId, publicKey)));
    });
  }

  /**
   * Pin a key in place of any other: a person has decided.
   *
   * @param {string} userId
   * @param {Bytes} publicKey
   */
  async accept(userId, publicKey) {
    // First: as long as it is not written, nothing has changed.
    await this.#ask((pins) => pins.accept(this.#server, userId, publicKey));
    this.forget(userId);
    this.#required.delete(userId);
    await this.#learn(userId, publicKey);
  }

  /**
   * The peer was forgotten: let go of what the directory said.
   *
   * @param {string} userId
   */
  forget(userId) {
    this.#entries.delete(userId);
  }

  /**
   * Go on with a key, unless an invitation has meant another one. Nothing may be waited for between the two.
   *
   * @param {string} userId
   * @param {Bytes} publicKey
   * @param {(entry: Entry, pinned: Bytes | null) => Bytes | Promise<Bytes>} goOn
   */
  async #judge(userId, publicKey, goOn) {
    const print = await fingerprint(publicKey);
    const pinned = await this.load(userId);
    const required = this.#required.get(userId) ?? print;
    if (required !== print) {
      throw new FingerprintMismatch(userId, required, print);
    }
    return goOn(this.#of(userId), pinned);
  }

  /**
   * @template T
   * @param {(pins: Pins) => Promise<T>} work
   */
  async #ask(work) {
    try {
      return await work(this.#pins);
    } catch (error) {
      throw error instanceof AldisError
        ? error
        : new IdentityError(`the pins cannot be used: ${error}`, { cause: error });
    }
  }

  /**
   * @template {Bytes | null} T
   * @param {string} userId
   * @param {T} publicKey
   */
  async #learn(userId, publicKey) {
    if (publicKey) {
      this.#of(userId).known = { publicKey, fingerprint: await fingerprint(publicKey) };
    }
    return publicKey;
  }
}

/**
 * @param {Bytes} one
 * @param {Bytes} other
 */
export function sameKey(one, other) {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}

/**
 * The key that a proof claims to be made with, unchecked; null when there is none that could be one.
 *
 * @param {import('../../protocol/messages.js').Proof | null} proof
 */
export function claimedKey(proof) {
  try {
    return proof && fromBase64(proof.publicKey, PUBLIC_KEY_BYTES);
  } catch {
    return null;
  }
}

/**
 * A fingerprint as people write it, in the spelling of `fingerprint`: capitals count as small letters, and what people
 * and their programs put between the characters (white space, and whatever dash a word processor makes of a hyphen) may
 * stand anywhere, or nowhere. Throws `UsageError` for what is none.
 *
 * @param {string} text
 */
export function checkFingerprint(text) {
  const plain = String(text).replace(/[ \t\r\n\xa0\u2010-\u2015\u2212-]/g, '');
  if (!/^[a-z2-7]{32}$/i.test(plain)) {
    throw new UsageError(`'${text}' is no fingerprint`);
  }
  return plain.toLowerCase().replace(/.{4}(?=.)/g, '$&-');
}
