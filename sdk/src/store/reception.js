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
 * @import { SignalingClient } from '../client/client.js'
 * @import { OfferReceived } from '../client/events.js'
 * @import { Bytes } from '../protocol/codec.js'
 * @import { Link } from './link.js'
 */

/** @typedef {(userId: string, publicKey: Bytes) => boolean} Accept Whether to let somebody in. */

/**
 * @typedef {object} House
 * @property {Pick<SignalingClient, 'userId' | 'sendBye'>} client
 * @property {{ accept?: Accept | null }} setup Everybody is let in without it.
 * @property {(userId: string, stranger: boolean) => Link} link The link of a user, made if need be. Throws `UsageError`, `TooManyPeers`.
 */

/**
 * The link of a user who calls; undefined when they are not let in.
 *
 * @param {OfferReceived} offer
 * @param {string} userId
 * @param {Link | undefined} link The one that there is already.
 * @param {House} house
 * @returns {Link | undefined}
 */
export function admit({ proof, sender, connection }, userId, link, house) {
  const { client, setup } = house;
  const key = claimedKey(proof);
  if (!key || userId === client.userId) {
    return link; // without one, or from ourselves, it will not pass the check
  }
  if (link && (link.wanted || (link.admitted && sameKey(link.admitted, key)))) {
    return link;
  }
  let reason = 'not accepted';
  try {
    // Not what counts as true: a promise does, and whoever writes `async` by mistake would let everybody in.
    const answer = !setup.accept || setup.accept(userId, key);
    if (answer === true) {
      reason = 'too many peers';
      link = house.link(userId, true);
      link.admitted = key;
      return link;
    }
    if (answer) throw new TypeError('accept has to answer true or false at once');
  } catch (error) {
    if (error instanceof UsageError && !(error instanceof TooManyPeers)) {
      return undefined; // a name that breaks the rules: no honest server has admitted it
    }
    if (!(error instanceof TooManyPeers)) {
      console.error(error);
    }
  }
  // Whether it arrives is all the same to us.
  client.sendBye(sender, { connection, reason }).catch(() => {});
  return undefined;
}
