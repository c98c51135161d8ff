/**
 * Signs our offers and answers, and checks those of others: the server that carries them is not trusted.
 *
 * Rules:
 * - The signed text is exactly the text for the engine. It carries the fingerprint of the DTLS certificate, so an open
 *   channel leads to the owner of the identity key.
 * - A key is pinned at its first use, and only after a correct signature. Another key is refused until a person accepts
 *   it (`identity/pins.js`).
 * - An offer's nonce is accepted once. A nonce is remembered only if the peer itself has signed it, so only the peer
 *   can push its own nonces out. The peer whose last offer is oldest is forgotten first.
 *
 * A proof has no time, so an offer from before this page was loaded would pass a second time. An attacker gains
 * nothing: the handshake fails without the private key of its certificate, and no attempt touches a connection that
 * works.
 *
 * Everything here waits for WebCrypto; the caller has to check afterwards whether an offer or answer is still wanted.
 */

import { PeerKeyChanged, ProofInvalid } from '../errors.js';
import { PUBLIC_KEY_BYTES, randomBytes, SIGNATURE_BYTES, verify } from '../identity/keys.js';
import * as proofs from '../identity/proofs.js';
import { fromBase64, toBase64 } from '../protocol/codec.js';
import { limit } from './bounded.js';

/** @import { Identity } from '../identity/keys.js' */
/** @import { Pins } from '../identity/pins.js' */
/** @import { Bytes } from '../protocol/codec.js' */
/** @import { Proof } from '../protocol/messages.js' */

export const MAX_NONCES = 256; // for each peer; with an attempt every half minute, two hours
export const MAX_PEERS = 1024;

/**
 * @typedef {{ sdp: string, proof: Proof, serial?: number }} Signed a description with its proof; `serial` is the number
 *   of the operation that made ours
 */

/** The signatures and checks of one user of one server. */
export class Trust {
  #identity;
  #userId;
  #server;
  #pins;
  /** @type {Map<string, Set<string>>} */
  #nonces = new Map();

  /**
   * @param {Pick<Identity, 'publicKey' | 'sign'>} identity
   * @param {string} userId our own, without device
   * @param {string} server the host and port for the pins
   * @param {Pick<Pins, 'pin'>} pins
   */
  constructor(identity, userId, server, pins) {
    this.#identity = identity;
    this.#userId = userId;
    this.#server = server;
    this.#pins = pins;
  }

  /**
   * The proof of an offer to the user `remote`, with a new nonce; or of the answer to their checked offer.
   *
   * @param {string} remote
   * @param {string} connection
   * @param {string} sdp
   * @param {Signed | null} [offer] the offer that it answers
   * @returns {Promise<Proof>}
   */
  async sign(remote, connection, sdp, offer) {
    const nonce = offer ? offer.proof.nonce : toBase64(randomBytes(proofs.NONCE_BYTES));
    const message = await signed(this.#userId, remote, connection, nonce, sdp, offer);
    const [publicKey, signature] = [this.#identity.publicKey, await this.#identity.sign(message)].map(toBase64);
    return /** @type {Proof} */ ({ publicKey, nonce, signature });
  }

  /**
   * Returns if the user `remote` has made this offer to us, and the offer is new; or this answer to that offer of ours.
   * Throws `ProofInvalid`, or `PeerKeyChanged` when only the key is wrong, or an exception of the pins, or
   * `ProtocolViolation` for a proof that cannot be read.
   *
   * @param {string} remote
   * @param {string | null} connection
   * @param {string} sdp
   * @param {Proof | null} proof
   * @param {Signed | null} [offer] the offer that it answers
   */
  async check(remote, connection, sdp, proof, offer) {
    const refuse = (/** @type {string} */ problem) => new ProofInvalid(remote, problem);
    if (!proofs.validConnectionName(connection)) throw refuse('it names no connection');
    if (!proof) throw refuse('it carries no proof');
    const { nonce } = proof; // base64 is strict, so it has one spelling
    if (offer && offer.proof.nonce !== nonce) throw refuse('it belongs to another offer');
    const key = fromBase64(proof.publicKey, PUBLIC_KEY_BYTES);
    const signature = fromBase64(proof.signature, SIGNATURE_BYTES);
    if (!(await verify(key, signature, await signed(remote, this.#userId, connection, nonce, sdp, offer)))) {
      throw refuse('its signature is wrong');
    }
    await this.checkKey(remote, key);
    if (offer) return;
    /** @type {Set<string>} */
    const taken = this.#nonces.get(remote) ?? new Set();
    this.#nonces.delete(remote); // and put back as the latest
    this.#nonces.set(remote, taken);
    if (taken.has(nonce)) throw refuse('it has been used before');
    taken.add(nonce);
    limit(taken, MAX_NONCES);
    limit(this.#nonces, MAX_PEERS);
  }

  /**
   * Returns if the key that the user `remote` has proved is the pinned one; the first one is pinned. Throws
   * `PeerKeyChanged`, or an exception of the pins.
   *
   * @param {string} remote
   * @param {Bytes} key
   */
  async checkKey(remote, key) {
    const pinned = await this.#pins.pin(this.#server, remote, key);
    if (toBase64(pinned) !== toBase64(key)) throw new PeerKeyChanged(remote, pinned, key);
  }
}

/**
 * The bytes that the signature of a description covers.
 *
 * @param {string} sender
 * @param {string} recipient
 * @param {string} connection
 * @param {string} nonce
 * @param {string} sdp
 * @param {Signed | null} [offer] the offer that it answers
 */
function signed(sender, recipient, connection, nonce, sdp, offer) {
  const raw = fromBase64(nonce, proofs.NONCE_BYTES);
  return offer
    ? proofs.answer(sender, recipient, connection, raw, sdp, offer.sdp)
    : proofs.offer(sender, recipient, connection, raw, sdp);
}
