/**
 * What the server says of one user: whether they are online, with which devices, and which key belongs to the name.
 *
 * It outlives the peer: a user can be watched and be no peer.
 */
import { PeerKeyChanged, PeerOffline, PeerUnknown, RequestFailed } from '../../errors.js';
import { DEFAULT_DEVICE } from '../../protocol/addresses.js';
import { sameKey } from './pinning.js';

/**
 * @import { SignalingClient } from '../../client/client.js'
 * @import { PresenceChanged } from '../../client/events.js'
 * @import { PublishedSealKey } from '../../identity/seal_keys.js'
 * @import { DirectoryPins } from './pinning.js'
 */

/**
 * @typedef {object} PresenceContext What it needs of the store.
 * @property {Pick<SignalingClient, 'watch' | 'discover'>} client
 * @property {DirectoryPins} pins
 */

/**
 * Whether one of the devices that are online `now`, newest first, has registered since `before`. If not, devices have
 * left and nothing else: what is there now is what was there, in the same order, without some.
 *
 * @param {readonly string[]} before
 * @param {readonly string[]} now
 */
export function registeredAnew(before, now) {
  const rest = before.values();
  const stayed = now.every((device) => {
    for (let next = rest.next(); !next.done; next = rest.next()) {
      if (next.value === device) {
        return true;
      }
    }
    return false;
  });
  return !stayed || before.length === now.length;
}

export class PeerPresence {
  shown = false; // the application watches it
  watched = false; // the server tells of it
  /** @type {boolean | null} what the server says */
  online = null;
  /** @type {readonly string[]} those that are online, newest first */
  devices = [];
  /** Of the devices that have one; nobody has checked them. @type {ReadonlyMap<string, PublishedSealKey>} */
  sealKeys = new Map();
  isCurrent = false; // the server has said so since we have registered

  /** @param {string} userId */
  constructor(userId) {
    this.userId = userId;
  }

  /**
   * The server has told of a change.
   *
   * @param {PresenceChanged} event
   * @returns {boolean} Whether a device has just registered.
   */
  changed({ online, devices, sealKeys, initial }) {
    const before = this.devices;
    this.#told(online, devices, sealKeys);
    return !initial && registeredAnew(before, this.devices);
  }

  /**
   * @param {boolean} online
   * @param {readonly string[]} listed
   * @param {ReadonlyMap<string, PublishedSealKey>} sealKeys
   */
  #told(online, listed, sealKeys) {
    // A server that lists no device of somebody who is online knows of one only, which is called so.
    const devices = online && !listed.length ? [DEFAULT_DEVICE] : listed;
    Object.assign(this, { online, devices, sealKeys, isCurrent: true });
  }

  /** The server does not tell of changes any more. */
  watchEnded() {
    Object.assign(this, { online: null, devices: [], sealKeys: new Map(), isCurrent: false, watched: false });
  }

  /**
   * Ask the server for the user, and have presence told from now on. Throws `SignalingError`, `PeerError`.
   *
   * @param {PresenceContext} context
   */
  async find({ client, pins }) {
    const { userId } = this;
    // Both at once: the first message waits for the answer.
    const [, { online, publicKey, devices, sealKeys }] = await Promise.all([
      this.#watch(client),
      client.discover(userId),
    ]);
    this.#told(online, devices, sealKeys);
    if (publicKey) {
      const standing = await pins.expect(userId, publicKey);
      if (!sameKey(standing, publicKey)) throw new PeerKeyChanged(userId, standing, publicKey);
    }
    if (!online) throw publicKey ? new PeerOffline(userId) : new PeerUnknown(userId);
  }

  /** @param {PresenceContext['client']} client */
  async #watch(client) {
    if (this.watched) return;
    try {
      await client.watch(this.userId);
      this.watched = true;
    } catch (error) {
      if (!(error instanceof RequestFailed)) throw error;
      // Else the server allows no more watches: it is asked at each attempt then.
    }
  }
}
