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

import { PeerKeyChanged, ProofInvalid } from '../errors.js';
import { PUBLIC_KEY_BYTES, SIGNATURE_BYTES, verify } from '../identity/keys.js';
import * as proofs from '../identity/proofs.js';
import { fromBase64, toBase64 } from '../protocol/codec.js';

/** @import { Identity } from '../identity/keys.js' */
/** @import { Pins } from '../identity/pins.js' */
/** @import { Bytes } from '../protocol/codec.js' */
/** @import { Proof } from '../protocol/messages.js' */

export const MAX_NONCES = 256; // for each peer; an attempt every half minute makes that two hours
export const MAX_PEERS = 1024;

/** @param {number} size */
export const randomBytes = (size) => crypto.getRandomValues(new Uint8Array(size));

/** What one user of one server signs and believes. */
export class Trust {
  #identity;
  #userId;
  #server;
  #pins;
  #random;
  /** @type {Map<string, Set<string>>} */
  #nonces = new Map();

  /**
   * @param {Pick<Identity, 'publicKey' | 'sign'>} identity
   * @param {string} userId our own, without device
   * @param {string} server the host and port by which pins are kept
   * @param {Pick<Pins, 'pin'>} pins
   * @param {(size: number) => Bytes} [random]
   */
  constructor(identity, userId, server, pins, random = randomBytes) {
    this.#identity = identity;
    this.#userId = userId;
    this.#server = server;
    this.#pins = pins;
    this.#random = random;
  }

  /**
   * The proof of an offer to the user `remote`, with a nonce of its own.
   *
   * @param {string} remote
   * @param {string} connection
   * @param {string} sdp
   */
  async signOffer(remote, connection, sdp) {
    const nonce = this.#random(proofs.NONCE_BYTES);
    return this.#prove(nonce, await proofs.offer(this.#userId, remote, connection, nonce, sdp));
  }

  /**
   * The proof of an answer to an offer that has been checked.
   *
   * @param {string} remote
   * @param {string} connection
   * @param {string} sdp
   * @param {string} offerSdp
   * @param {string} nonce of the offer's proof
   */
  async signAnswer(remote, connection, sdp, offerSdp, nonce) {
    const raw = fromBase64(nonce, proofs.NONCE_BYTES);
    return this.#prove(raw, await proofs.answer(this.#userId, remote, connection, raw, sdp, offerSdp));
  }

  /**
   * @param {Bytes} nonce
   * @param {Bytes} message
   * @returns {Promise<Proof>}
   */
  async #prove(nonce, message) {
    const [publicKey, signature] = [this.#identity.publicKey, await this.#identity.sign(message)].map(toBase64);
    return /** @type {Proof} */ ({ publicKey, nonce: toBase64(nonce), signature });
  }

  /**
   * Returns if the user `remote` has made this offer to us, and it has not been taken before. Throws `ProofInvalid`, or
   * `PeerKeyChanged` when all is right but the key, or what the pins throw, or `ProtocolViolation` for a proof that
   * cannot be read.
   *
   * @param {string} remote
   * @param {string | null} connection
   * @param {string} sdp
   * @param {Proof | null} proof
   */
  async checkOffer(remote, connection, sdp, proof) {
    const nonce = await this.#check('offer', remote, connection, proof, (name, raw) =>
      proofs.offer(remote, this.#userId, name, raw, sdp),
    );
    /** @type {Set<string>} */
    const taken = this.#nonces.get(remote) ?? new Set();
    this.#nonces.delete(remote); // and put back as the latest
    this.#nonces.set(remote, taken);
    if (taken.has(nonce)) throw new ProofInvalid(remote, 'the offer has been used before');
    taken.add(nonce);
    if (taken.size > MAX_NONCES) taken.delete([...taken][0] ?? '');
    if (this.#nonces.size > MAX_PEERS) this.#nonces.delete([...this.#nonces.keys()][0] ?? '');
  }

  /**
   * Returns if the user `remote` has made this answer to the offer that we have signed with `nonce`. Throws as
   * `checkOffer`.
   *
   * @param {string} remote
   * @param {string | null} connection
   * @param {string} sdp
   * @param {Proof | null} proof
   * @param {string} offerSdp
   * @param {string} nonce
   */
  async checkAnswer(remote, connection, sdp, proof, offerSdp, nonce) {
    if (proof && proof.nonce !== nonce) throw new ProofInvalid(remote, 'the answer belongs to another offer');
    await this.#check('answer', remote, connection, proof, (name, raw) =>
      proofs.answer(remote, this.#userId, name, raw, sdp, offerSdp),
    );
  }

  /**
   * @param {string} what
   * @param {string} remote
   * @param {string | null} connection
   * @param {Proof | null} proof
   * @param {(name: string, nonce: Bytes) => Promise<Bytes>} signed the bytes that the signature has to cover
   */
  async #check(what, remote, connection, proof, signed) {
    const refuse = (/** @type {string} */ problem) => new ProofInvalid(remote, problem);
    if (!proofs.validConnectionName(connection)) throw refuse('it names no connection');
    if (!proof) throw refuse('it carries no proof');
    const key = fromBase64(proof.publicKey, PUBLIC_KEY_BYTES);
    const message = await signed(connection, fromBase64(proof.nonce, proofs.NONCE_BYTES));
    if (!(await verify(key, fromBase64(proof.signature, SIGNATURE_BYTES), message))) {
      throw refuse(`the signature of the ${what} is wrong`);
    }
    const pinned = await this.#pins.pin(this.#server, remote, key);
    if (toBase64(pinned) !== proof.publicKey) throw new PeerKeyChanged(remote, pinned, key);
    return proof.nonce; // base64 is strict, so that a nonce has one spelling
  }
}
