/**
 * What an application asks of the server about other users, once there is a login: watches, and to accept another key.
 *
 * JavaScript only: in Python this is in `manager`. Here it is apart, because it is loaded with direct connections.
 */
import { sameKey } from './pinning.js';

/**
 * @import { WatchEnded } from '../../client/events.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { PeerManager } from './manager.js'
 */

/** Have presence shown. Throws `SignalingError`, `InvalidAddress`, `UsageError`. @param {PeerManager} manager @param {string[]} userIds */
export async function watchAll(manager, userIds) {
  userIds.forEach((userId) => manager.checkOther(userId));
  const fresh = userIds.filter((userId) => !manager.find(userId)?.presence.shown);
  // First: the server tells how they stand before it says that it will.
  const shown = fresh.map((userId) => manager.meet(userId).presence);
  shown.forEach((presence) => (presence.shown = true));
  try {
    await manager.client.watch(...fresh);
  } catch (error) {
    ignore(manager, fresh);
    throw error;
  }
  shown.forEach((presence) => (presence.watched = true));
}

/** End that. Throws `SignalingError`. @param {PeerManager} manager @param {string[]} userIds */
export async function unwatchAll(manager, userIds) {
  await manager.client.unwatch(...ignore(manager, userIds));
}

/** The application has ended its watches; returns the users that nobody watches now. @param {PeerManager} manager @param {string[]} userIds */
function ignore(manager, userIds) {
  const unused = userIds.filter((userId) => {
    const peer = manager.find(userId);
    if (!peer?.presence.shown) {
      return false;
    }
    peer.presence.shown = false;
    if (!peer.known) {
      manager.forget(peer);
    }
    return !peer.known;
  });
  manager.publish();
  return unused;
}

/** The server has ended some watches. @param {PeerManager} manager @param {WatchEnded} event */
export function watchEnded(manager, { userIds, error }) {
  console.warn(`the server does not tell of ${userIds.length} users any more: ${error.message}`);
  ignore(manager, userIds);
  userIds.forEach((userId) => manager.find(userId)?.watchEnded());
}

/**
 * Pin a key in place of any other.
 *
 * @param {PeerManager} manager
 * @param {string} userId
 * @param {Bytes} publicKey
 */
export async function acceptKey(manager, userId, publicKey) {
  const known = await manager.pins.load(userId);
  await manager.pins.accept(userId, publicKey);
  if (!manager.closed) {
    manager.find(userId)?.accept(known !== null && !sameKey(known, publicKey));
  }
}
