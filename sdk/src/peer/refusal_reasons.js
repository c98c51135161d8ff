/**
 * What a caller is told who is not let in. In Python this is in `peer/trust` and `peers/admission`; here it is apart, because
 * direct connections and the relay, which are loaded separately, share it.
 */
import { FingerprintMismatch, PeerKeyChanged, ProofInvalid } from '../errors.js';

/** @import { AldisError } from '../errors.js' */
/** @import { RefusalCode } from '../protocol/codes.js' */

/** Seconds after which an offer without a valid proof may be made again. */
export const PROOF_PAUSE = 60;
/** What a caller is told for whom, or for whose device, there is no place: it may call again in so many seconds. */
export const TOO_MANY = /** @type {[string, RefusalCode, number]} */ (['too many peers', 'too-many-peers', 30]);

/**
 * The refusal for an offer that failed the check: reason, code, seconds. It reveals nothing about our pins.
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
