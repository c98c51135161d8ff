/**
 * Who is let in: what happens to an offer before a peer comes of it.
 *
 * Rules: the application is asked once for each key with which somebody calls, and not at all for those whom it wants
 * itself. The key is the one that the offer claims; that the offer was made with it is checked by the connection
 * afterwards, so a claim alone opens nothing. Who is not let in is told so, since waiting would not help: once for each
 * offer, at most `MAX_REFUSALS` at a time, so that a flood of offers does not become one of refusals. The others wait: one
 * of each sender, the newest.
 */
import { TooManyPeers, UsageError } from '../../errors.js';
import { PROOF_PAUSE } from '../../peer/trust.js';
import { claimedKey, sameKey } from './pinning.js';

/**
 * @import { SignalingClient } from '../../client/client.js'
 * @import { OfferReceived } from '../../client/events.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { RefusalCode } from '../../protocol/codes.js'
 * @import { Peer } from './peer.js'
 */

/** @typedef {(userId: string, publicKey: Bytes) => boolean} Accept Whether to let somebody in. */

/**
 * @typedef {object} AdmissionContext
 * @property {Pick<SignalingClient, 'userId' | 'sendBye'>} client
 * @property {{ accept?: Accept | null }} setup Everybody is let in without it.
 * @property {(userId: string, stranger: boolean) => Peer} peer A peer, made if need be. Throws `UsageError`, `TooManyPeers`.
 */

export const MAX_REFUSALS = 64;
/** Refusals that wait: all callers of a popular program may come at once, after a restart. */
export const MAX_WAITING = 1024;
// Seconds after which an offer that was refused may be made again.
const PEERS_PAUSE = 30;

/** @type {WeakMap<object, { busy: number, waiting: Map<string, () => Promise<void>> }>} by client; `busy` are on their way */
const queues = new WeakMap();

/**
 * Tell who has made an offer, or an answer, that it is not taken: why, and in how many seconds another one may be. Whether it arrives is
 * all the same to us.
 *
 * @param {AdmissionContext['client']} client
 * @param {Pick<OfferReceived, 'sender' | 'connection'>} offer
 * @param {string} reason
 * @param {RefusalCode} [code]
 * @param {number} [retryAfter]
 */
export function refuse(client, { sender, connection }, reason, code, retryAfter) {
  const queue = queues.get(client) ?? { busy: 0, waiting: new Map() };
  const { waiting } = queue;
  queues.set(client, queue);
  if (waiting.size < MAX_WAITING || waiting.has(sender)) {
    waiting.set(sender, () => client.sendBye(sender, { connection, reason, code, retryAfter }));
  }
  const next = () => {
    for (const [to, send] of waiting) {
      if (queue.busy >= MAX_REFUSALS) return;
      waiting.delete(to);
      queue.busy++;
      const done = () => {
        queue.busy--;
        next();
      };
      send().then(done, done);
    }
  };
  next();
}

/**
 * The peer that an offer comes from; undefined when it is not let in.
 *
 * @param {OfferReceived} offer
 * @param {string} userId
 * @param {Peer | undefined} peer If it is known already.
 * @param {AdmissionContext} context
 * @returns {Peer | undefined}
 */
export function admit(offer, userId, peer, context) {
  const { client, setup } = context;
  const key = claimedKey(offer.proof);
  if (!key || userId === client.userId) {
    if (!peer) {
      refuse(client, offer, 'it carries no proof of a key', 'bad-proof', PROOF_PAUSE);
    }
    return peer; // without one, or from ourselves, it will not pass the check
  }
  if (peer && (peer.wanted || (peer.admitted && sameKey(peer.admitted, key)))) {
    return peer;
  }
  /** @type {[string, RefusalCode, number?]} */
  let refusal = ['not accepted', 'not-accepted'];
  try {
    // Not what counts as true: a promise does, and whoever writes `async` by mistake would let everybody in.
    const answer = !setup.accept || setup.accept(userId, key);
    if (answer === true) {
      refusal = ['too many peers', 'too-many-peers', PEERS_PAUSE];
      peer = context.peer(userId, true);
      peer.admitted = key;
      return peer;
    }
    if (answer) throw new TypeError('accept has to answer true or false at once');
  } catch (error) {
    if (error instanceof UsageError) {
      refusal = ['the name breaks the rules', 'not-accepted']; // no honest server has admitted it
    } else if (!(error instanceof TooManyPeers)) {
      console.error(error);
    }
  }
  refuse(client, offer, ...refusal);
  return undefined;
}
