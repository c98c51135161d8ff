/**
 * Signs our offers and answers, checks those of others: the server that carries them is not trusted.
 *
 * Rules:
 * - What is signed is exactly the text that goes to the engine. It carries the fingerprint of the DTLS certificate, so a
 *   channel that opens leads to whoever holds the identity key.
 * - A key is pinned at its first use, and only after its signature has proved to be right; another one is refused until
 *   a person accepts it (`identity/pins.js`).
 * - An offer's nonce is taken once. Nonces are remembered for a peer only when the peer itself has signed them, so nobody
 *   but the peer can push its own out, and the peer that has offered least recently is forgotten first.
 *
 * A proof carries no time, so an offer from before this page was loaded would pass a second time. It gains nothing: the
 * handshake fails without the private key of its certificate, and no attempt touches a connection that works.
 *
 * Everything here waits for WebCrypto: whether an offer or answer is still wanted afterwards is for the caller to say.
 */

import { FingerprintMismatch, PeerKeyChanged, ProofInvalid } from '../errors.js';
import { PUBLIC_KEY_BYTES, SIGNATURE_BYTES, verify } from '../identity/keys.js';
import * as proofs from '../identity/proofs.js';
import { fromBase64, toBase64 } from '../protocol/codec.js';
import { limit } from './attempts.js';

/** @import { AldisError } from '../errors.js' */
/** @import { Identity } from '../identity/keys.js' */
/** @import { Pins } from '../identity/pins.js' */
/** @import { RefusalCode } from '../protocol/codes.js' */
/** @import { Proof } from '../protocol/messages.js' */

export const MAX_NONCES = 256; // for each peer; an attempt every half minute makes that two hours
export const MAX_PEERS = 1024;
/** Seconds after which an offer without a valid proof may be made again. */
export const PROOF_PAUSE = 60;

/**
 * @typedef {{ sdp: string, proof: Proof, serial?: number }} Signed a description with its proof; `serial` is that of the
 *   operation in which one of ours was made
 */

/** @param {number} size */
export const randomBytes = (size) => crypto.getRandomValues(new Uint8Array(size));

/** What one user of one server signs and believes. */
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
   * @param {string} server the host and port by which pins are kept
   * @param {Pick<Pins, 'pin'>} pins
   */
  constructor(identity, userId, server, pins) {
    this.#identity = identity;
    this.#userId = userId;
    this.#server = server;
    this.#pins = pins;
  }

  /**
   * The proof of an offer to the user `remote`, with a nonce of its own; or of the answer to an offer of theirs that has
   * been checked.
   *
   * @param {string} remote
   * @param {string} connection
   * @param {string} sdp
   * @param {Signed | null} [offer] what it answers
   * @returns {Promise<Proof>}
   */
  async sign(remote, connection, sdp, offer) {
    const nonce = offer ? offer.proof.nonce : toBase64(randomBytes(proofs.NONCE_BYTES));
    const message = await signed(this.#userId, remote, connection, nonce, sdp, offer);
    const [publicKey, signature] = [this.#identity.publicKey, await this.#identity.sign(message)].map(toBase64);
    return /** @type {Proof} */ ({ publicKey, nonce, signature });
  }

  /**
   * Returns if the user `remote` has made this offer to us, and it has not been taken before; or this answer to that offer
   * of ours. Throws `ProofInvalid`, or `PeerKeyChanged` when all is right but the key, or what the pins throw, or
   * `ProtocolViolation` for a proof that cannot be read.
   *
   * @param {string} remote
   * @param {string | null} connection
   * @param {string} sdp
   * @param {Proof | null} proof
   * @param {Signed | null} [offer] what it answers
   */
  async check(remote, connection, sdp, proof, offer) {
    const refuse = (/** @type {string} */ problem) => new ProofInvalid(remote, problem);
    if (!proofs.validConnectionName(connection)) throw refuse('it names no connection');
    if (!proof) throw refuse('it carries no proof');
    const { nonce } = proof; // base64 is strict, so that it has one spelling
    if (offer && offer.proof.nonce !== nonce) throw refuse('it belongs to another offer');
    const key = fromBase64(proof.publicKey, PUBLIC_KEY_BYTES);
    const signature = fromBase64(proof.signature, SIGNATURE_BYTES);
    if (!(await verify(key, signature, await signed(remote, this.#userId, connection, nonce, sdp, offer)))) {
      throw refuse('its signature is wrong');
    }
    const pinned = await this.#pins.pin(this.#server, remote, key);
    if (toBase64(pinned) !== proof.publicKey) throw new PeerKeyChanged(remote, pinned, key);
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
}

/**
 * What the signature of a description has to cover.
 *
 * @param {string} sender
 * @param {string} recipient
 * @param {string} connection
 * @param {string} nonce
 * @param {string} sdp
 * @param {Signed | null} [offer] what it answers
 */
function signed(sender, recipient, connection, nonce, sdp, offer) {
  const raw = fromBase64(nonce, proofs.NONCE_BYTES);
  return offer
    ? proofs.answer(sender, recipient, connection, raw, sdp, offer.sdp)
    : proofs.offer(sender, recipient, connection, raw, sdp);
}

/**
 * What is told of an offer that has not passed the check: reason, code, seconds. Nothing about our pins.
 *
 * @param {AldisError} error
 * @returns {[string, RefusalCode, number]}
 */
export function refusalOf(error) {
  if (error instanceof PeerKeyChanged || error instanceof FingerprintMismatch) {
    return ['another key is expected of you', 'key-refused', 30]; // a person has to accept it first
  }
  return error instanceof ProofInvalid
    ? ['the proof is not valid', 'bad-proof', PROOF_PAUSE]
    : ['keys cannot be checked now', 'internal', 10];
}
