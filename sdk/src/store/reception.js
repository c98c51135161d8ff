/**
 * Who is let in: what happens to an offer before a peer comes of it.
 *
 * Rules: the application is asked once for each key with which somebody calls, and not at all for those whom it wants
 * itself. The key is the one that the offer claims; that the offer was made with it is checked by the connection
 * afterwards, so a claim alone opens nothing. Who is not let in is told so, since waiting would not help.
 */
import { TooManyPeers, UsageError } from '../errors.js';
import { claimedKey, sameKey } from './keys.js';

/**
 * @typedef {import('../protocol/codec.js').Bytes} Bytes
 * @typedef {import('../client/events.js').OfferReceived} OfferReceived
 * @typedef {import('./link.js').Link} Link
 * @typedef {(userId: string, publicKey: Bytes) => boolean} Accept
 */

/** Decides about callers. */
export class Reception {
  #client;
  #accept;

  /**
   * @param {import('../client/client.js').SignalingClient} client
   * @param {Accept | null} accept Whether to let somebody in; everybody when null.
   */
  constructor(client, accept) {
    this.#client = client;
    this.#accept = accept;
  }

  /**
   * The link of a user who calls, made by `make` for a new one; null when they are not let in.
   *
   * @param {OfferReceived} offer
   * @param {string} userId
   * @param {Link | null} link
   * @param {(userId: string) => Link} make
   * @returns {Link | null}
   */
  admit(offer, userId, link, make) {
    const key = claimedKey(offer.proof);
    if (!key || userId === this.#client.userId) {
      return link; // without one, or from ourselves, it will not pass the check
    }
    if (link && (link.wanted || (link.admitted && sameKey(link.admitted, key)))) {
      return link;
    }
    if (!this.#accepted(userId, key)) {
      this.#refuse(offer, 'not accepted');
      return null;
    }
    try {
      link = make(userId);
    } catch (error) {
      if (error instanceof TooManyPeers) {
        this.#refuse(offer, 'too many peers');
      } else if (!(error instanceof UsageError)) {
        throw error;
      } // else a name that breaks the rules: no honest server has admitted it
      return null;
    }
    link.admitted = key;
    return link;
  }

  /**
   * @param {string} userId
   * @param {Bytes} key
   */
  #accepted(userId, key) {
    if (!this.#accept) {
      return true;
    }
    try {
      // Not what counts as true: a promise does, and whoever writes `async` by mistake would let everybody in.
      return this.#accept(userId, key) === true;
    } catch (error) {
      console.error(error);
      return false;
    }
  }

  /**
   * @param {OfferReceived} offer
   * @param {string} reason
   */
  #refuse({ sender, connection }, reason) {
    // Whether it arrives is all the same to us.
    this.#client.sendBye(sender, { connection, reason }).catch(() => {});
  }
}
