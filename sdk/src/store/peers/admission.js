/**
 * Whether a user who calls is let in: what happens to an offer before there is a peer.
 *
 * Rules: the application is asked once for each key that makes offers, and not at all for peers that it wants itself.
 * The key is the one that the offer claims; that the offer was made with it is checked by the connection afterwards, so
 * a claim alone opens nothing. A refused user is told so, since waiting would not help: once for each offer, at most
 * `MAX_REFUSALS` at a time and `REFUSALS_PER_SECOND` after that, so that a flood of offers does not become one of
 * refusals. The others wait: one of each sender, the newest.
 */
import { TooManyPeers, UsageError } from '../../errors.js';
import { timers as realTimers } from '../../client/timers.js';
import { PROOF_PAUSE, TOO_MANY } from '../../peer/refusal_reasons.js';
import { claimedKey, sameKey } from './pinning.js';

/**
 * @import { SignalingClient } from '../../client/client.js'
 * @import { OfferReceived } from '../../client/events.js'
 * @import { Timers } from '../../client/timers.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { RefusalCode } from '../../protocol/codes.js'
 * @import { Peer } from './peer.js'
 */

/** @typedef {Pick<OfferReceived, 'sender' | 'connection'>} Refusable An offer, an answer, or a sealed handshake. */
/** @typedef {(userId: string, publicKey: Bytes) => boolean} Accept Whether to let somebody in. */

export const MAX_REFUSALS = 64;
/**
 * A server reads 200 messages of a client in a second. What the user has to say must not stand behind those to
 * strangers.
 */
export const REFUSALS_PER_SECOND = 40;
const SHORTEST_WAIT = 0.001; // in seconds
/** Refusals that wait: all callers of a popular program may come at once, after a restart. */
export const MAX_WAITING = 1024;

/** Decides about the offers that one client receives. */
export class Admission {
  #client;
  #accept;
  #peer;
  #busy = 0; // refusals that are on their way
  /** @type {Map<string, () => Promise<void>>} those that wait, by sender */
  #waiting = new Map();
  #timers;
  #left = MAX_REFUSALS; // refusals that may go out now
  #counted; // when that was worked out
  /** @type {(() => void) | null} until another one may */
  #cancel = null;

  /**
   * @param {Pick<SignalingClient, 'userId' | 'sendBye'>} client
   * @param {Accept | null | undefined} accept Everybody is let in without it.
   * @param {(userId: string, stranger: boolean) => Peer} peer A peer, made if need be. Throws `UsageError`,
   *   `TooManyPeers`.
   * @param {Timers} [timers]
   */
  constructor(client, accept, peer, timers = realTimers) {
    this.#timers = timers;
    this.#counted = timers.time();
    this.#client = client;
    this.#accept = accept;
    this.#peer = peer;
  }

  /**
   * Tell the sender of an offer, or an answer, that it is not taken: why, and in how many seconds another one may be.
   * Whether it arrives is all the same to us.
   *
   * @param {Refusable} offer
   * @param {string} reason
   * @param {RefusalCode} [code]
   * @param {number} [retryAfter]
   */
  refuse({ sender, connection }, reason, code, retryAfter) {
    if (this.#waiting.size < MAX_WAITING || this.#waiting.has(sender)) {
      this.#waiting.set(sender, () => this.#client.sendBye(sender, { connection, reason, code, retryAfter }));
    }
    this.#sendNext();
  }

  /** Nobody is told any more. */
  close() {
    this.#waiting.clear();
    this.#cancel?.();
  }

  #sendNext() {
    const now = this.#timers.time();
    this.#left = Math.min(this.#left + (now - this.#counted) * REFUSALS_PER_SECOND, MAX_REFUSALS);
    this.#counted = now;
    for (const [to, send] of this.#waiting) {
      if (this.#busy >= MAX_REFUSALS) return;
      if (this.#left < 1) {
        // Not for less, which may be too little for the clock to notice.
        const wait = Math.max((1 - this.#left) / REFUSALS_PER_SECOND, SHORTEST_WAIT);
        this.#cancel ??= this.#timers.callLater(wait, () => {
          this.#cancel = null;
          this.#sendNext();
        });
        return;
      }
      this.#left--;
      this.#waiting.delete(to);
      this.#busy++;
      const done = () => {
        this.#busy--;
        this.#sendNext();
      };
      send().then(done, done);
    }
  }

  /**
   * The peer that an offer comes from; undefined when it is not let in.
   *
   * @param {OfferReceived} offer
   * @param {string} userId
   * @param {Peer | undefined} peer If it is known already.
   * @returns {Peer | undefined}
   */
  admit(offer, userId, peer) {
    return this.admitKey(offer, claimedKey(offer.proof), userId, peer);
  }

  /**
   * The same for who shows this key, in an offer or in a sealed handshake.
   *
   * @param {Refusable} offer
   * @param {Bytes | null} key
   * @param {string} userId
   * @param {Peer | undefined} peer
   */
  admitKey(offer, key, userId, peer) {
    if (!key || userId === this.#client.userId) {
      if (!peer) this.refuse(offer, 'it carries no proof of a key', 'bad-proof', PROOF_PAUSE);
      return peer; // without one, or from ourselves, it will not pass the check
    }
    if (peer && (peer.wanted || (peer.admitted && sameKey(peer.admitted, key)))) return peer;
    /** @type {[string, RefusalCode, number?]} */
    let refusal = ['not accepted', 'not-accepted'];
    try {
      // Not what counts as true: a promise does, and an `async` by mistake would let everybody in.
      const answer = !this.#accept || this.#accept(userId, key);
      if (answer === true) {
        refusal = TOO_MANY;
        const admitted = this.#peer(userId, true);
        admitted.admitted = key;
        return admitted;
      }
      if (answer) throw new TypeError('accept has to answer true or false at once');
    } catch (error) {
      if (error instanceof UsageError) {
        refusal = ['the name breaks the rules', 'not-accepted']; // no honest server has admitted it
      } else if (!(error instanceof TooManyPeers)) {
        console.error(error);
      }
    }
    this.refuse(offer, ...refusal);
    return undefined;
  }
}
