/**
 * Who is let in: what happens to an offer before a peer comes of it.
 *
 * Rules: the application is asked once for each key with which somebody calls, and not at all for those whom it wants
 * itself. The key is the one that the offer claims; that the offer was made with it is checked by the connection
 * afterwards, so a claim alone opens nothing. Who is not let in is told so, since waiting would not help: once for each
 * offer, and at most `MAX_REFUSALS` at a time, so that a flood of offers does not become one of refusals.
 */
import { TooManyPeers, UsageError } from '../errors.js';
import { PROOF_PAUSE } from '../peer/trust.js';
import { claimedKey, sameKey } from './keys.js';

/**
 * @import { SignalingClient } from '../client/client.js'
 * @import { OfferReceived } from '../client/events.js'
 * @import { Bytes } from '../protocol/codec.js'
 * @import { RefusalCode } from '../protocol/codes.js'
 * @import { Link } from './link.js'
 */

/** @typedef {(userId: string, publicKey: Bytes) => boolean} Accept Whether to let somebody in. */

/**
 * @typedef {object} House
 * @property {Pick<SignalingClient, 'userId' | 'sendBye'>} client
 * @property {{ accept?: Accept | null }} setup Everybody is let in without it.
 * @property {(userId: string, stranger: boolean) => Link} link The link of a user, made if need be. Throws `UsageError`, `TooManyPeers`.
 */

export const MAX_REFUSALS = 64;
// Seconds after which an offer that was refused may be made again.
const PEERS_PAUSE = 30;

/** @type {WeakMap<object, number>} how many refusals of a client are on their way */
const refusing = new WeakMap();

/**
 * Tell who has made an offer that it is not taken: why, and in how many seconds another one may be. Whether it arrives is
 * all the same to us.
 *
 * @param {House['client']} client
 * @param {Pick<OfferReceived, 'sender' | 'connection'>} offer
 * @param {string} reason
 * @param {RefusalCode} code
 * @param {number} [retryAfter]
 */
export function refuse(client, { sender, connection }, reason, code, retryAfter) {
  const count = refusing.get(client) ?? 0;
  if (count < MAX_REFUSALS) {
    refusing.set(client, count + 1);
    const done = () => refusing.set(client, Number(refusing.get(client)) - 1);
    client.sendBye(sender, { connection, reason, code, retryAfter }).then(done, done);
  }
}

/**
 * The link of a user who calls; undefined when they are not let in.
 *
 * @param {OfferReceived} offer
 * @param {string} userId
 * @param {Link | undefined} link The one that there is already.
 * @param {House} house
 * @returns {Link | undefined}
 */
export function admit(offer, userId, link, house) {
  const { client, setup } = house;
  const key = claimedKey(offer.proof);
  if (!key || userId === client.userId) {
    if (!link) {
      refuse(client, offer, 'it carries no proof of a key', 'bad-proof', PROOF_PAUSE);
    }
    return link; // without one, or from ourselves, it will not pass the check
  }
  if (link && (link.wanted || (link.admitted && sameKey(link.admitted, key)))) {
    return link;
  }
  /** @type {[string, RefusalCode, number?]} */
  let refusal = ['not accepted', 'not-accepted'];
  try {
    // Not what counts as true: a promise does, and whoever writes `async` by mistake would let everybody in.
    const answer = !setup.accept || setup.accept(userId, key);
    if (answer === true) {
      refusal = ['too many peers', 'too-many-peers', PEERS_PAUSE];
      link = house.link(userId, true);
      link.admitted = key;
      return link;
    }
    if (answer) throw new TypeError('accept has to answer true or false at once');
  } catch (error) {
    if (error instanceof UsageError && !(error instanceof TooManyPeers)) {
      refusal = ['the name breaks the rules', 'not-accepted']; // no honest server has admitted it
    } else if (!(error instanceof TooManyPeers)) {
      console.error(error);
    }
  }
  refuse(client, offer, ...refusal);
  return undefined;
}
