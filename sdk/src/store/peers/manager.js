/**
 * The peers of one store: made and forgotten within the limits, and given what they need (`peer.PeerContext`).
 *
 * Rules: it lives as long as the store, with one login at most (`signaling`). So what is queued waits for the first
 * one. A fault of one peer stays with that peer. What the application sees of all this is `store.NetworkStore`.
 */
import { timers } from '../../client/timers.js';
import { PeerConnectionFailed, StateError, TooManyPeers, UsageError } from '../../errors.js';
import { Identity } from '../../identity/keys.js';
import { checkUserId } from '../../protocol/addresses.js';
import { decodeControl } from '../messages/control.js';
import { PeerServices } from '../services.js';
import { CLOSED } from '../state.js';
import { watchPage } from './page.js';
import { Peer } from './peer.js';
import { DirectoryPins, sameKey } from './pinning.js';
import { PeerPresence } from './presence.js';
import { PeerSignaling } from './signaling.js';
import { PeerViews } from './views.js';

/**
 * @import { Backoff } from '../../client/backoff.js'
 * @import { SignalingClient } from '../../client/client.js'
 * @import { WatchEnded } from '../../client/events.js'
 * @import { Pins } from '../../identity/pins.js'
 * @import { PeerTiming } from '../../peer/transport.js'
 * @import { OurHello } from '../../protocol/channel.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { Mailbox } from '../messages/mailbox.js'
 * @import { ServiceCallbacks } from '../services.js'
 * @import { StoreLimits } from '../state.js'
 * @import { StateFeed } from '../subscriptions.js'
 * @import { Accept } from './admission.js'
 * @import { PeerDevice } from './device.js'
 * @import { Listening } from './path.js'
 * @import { PeerContext } from './peer.js'
 */

/**
 * What the application has chosen; see `NetworkStore`.
 *
 * @typedef {object} OwnSetup
 * @property {Identity | Promise<Identity>} [identity] Made, or waited for, when it is needed.
 * @property {Pins} pins
 * @property {readonly RTCIceServer[] | null} [iceServers]
 * @property {Accept | null} [accept]
 * @property {StoreLimits} limits
 * @property {Backoff} backoff
 * @property {PeerTiming} timing
 * @property {typeof globalThis.RTCPeerConnection} [RTCPeerConnection]
 * @property {Mailbox} mailbox
 * @property {StateFeed} feed
 */

/** @typedef {OwnSetup & ServiceCallbacks} Setup */

/**
 * The identity, if it is there already.
 *
 * @param {Identity | Promise<Identity> | undefined} identity
 */
export const known = (identity) => (identity instanceof Identity ? identity : null);

// The share of the peers that strangers cannot fill: enough for the people that somebody knows, while a program that is
// called by many has most of its places for them.
const OF_WHICH_OURS = 4;
const OURSELVES = 'that is our own name';
const PULSE_SECONDS = 1; // how often round-trip times are looked at; the heartbeat is not faster

/**
 * @implements {PeerContext}
 */
export class PeerManager {
  timers = timers;
  /** @type {PeerSignaling | null} The login, also while it is tried. */
  signaling = null;
  /** @type {Map<string, Peer>} */
  #peers = new Map();
  #arriving = 0;
  #closed = false;
  #stopPulse = () => {};
  #ignorePage = () => {};
  /** @type {Promise<void>} Goodbyes are on their way until then. */
  #leaving = Promise.resolve();

  /** @param {Setup} setup */
  constructor(setup) {
    this.setup = setup;
    this.pins = new DirectoryPins(setup.pins);
    this.services = new PeerServices(setup);
    this.views = new PeerViews(setup.feed, () => this.#server);
  }

  /**
   * Connect and register. Throws what the client throws, and can be called again then; and `StateError` when it was
   * closed meanwhile.
   *
   * @param {SignalingClient} client
   */
  async start(client) {
    const signaling = (this.signaling = new PeerSignaling(client, this));
    this.pins.use(client.server);
    try {
      const identity = (this.setup.identity = await (this.setup.identity ?? Identity.generate()));
      this.peers.forEach((peer) => this.#loadPin(peer));
      await signaling.start(identity);
    } catch (error) {
      if (!this.#closed) {
        this.signaling = null;
        await signaling.close();
        this.pins.use(''); // no key of that server is shown from now on
        this.peers.forEach((peer) => this.views.counted(peer));
        this.publish();
      }
      throw error;
    }
    this.#pulse();
    this.#ignorePage = watchPage({
      frozen: () => {
        this.#devices
          .filter(({ path }) => path.connected)
          .forEach((device) => device.drop('the page was left', 'closed'));
      },
      thawed: () => this.#devices.forEach(({ dialer }) => dialer.poke(true)),
      gone: () => void this.close(),
    });
  }

  /** Say goodbye to all, and release everything. */
  async close() {
    this.#closed = true;
    this.#ignorePage();
    this.signaling?.stop();
    this.services.close();
    const error = new StateError(CLOSED);
    for (const peer of this.peers) {
      void peer.close('the other side has left', error.message, error);
    }
    this.#stopPulse();
    await this.#leaving; // a second or two at most
    await this.signaling?.close();
    this.publish();
  }

  // --- peers -------------------------------------------------------------------------------------------------------

  /** All peers. */
  get peers() {
    return [...this.#peers.values()];
  }

  get #devices() {
    return this.peers.flatMap(({ devices }) => devices);
  }

  /**
   * A peer, if it is known.
   *
   * @param {string} userId
   */
  find(userId) {
    return this.#peers.get(userId);
  }

  /**
   * A peer, made if need be. Throws `InvalidAddress`, `UsageError`, `TooManyPeers`; and `StateError` as soon as
   * it is being closed: a callback that calls again what has just ended would do so for ever.
   *
   * @param {string} userId
   * @param {boolean} [stranger] The user has called us.
   */
  peer(userId, stranger = false) {
    if (this.#closed) {
      throw new StateError(CLOSED);
    }
    let peer = this.find(userId);
    if (!peer?.known) {
      this.#checkOther(userId);
      this.#makeRoom(stranger);
      peer = this.#meet(userId);
      peer.known = true;
    }
    peer.stranger &&= stranger;
    return peer;
  }

  /** @param {string} userId */
  #checkOther(userId) {
    if (checkUserId(userId) === this.signaling?.client.userId) {
      throw new UsageError(OURSELVES);
    }
  }

  /**
   * A peer, made if need be: one that takes no place among the peers yet.
   *
   * @param {string} userId
   * @param {PeerPresence} [presence]
   */
  #meet(userId, presence = new PeerPresence(userId)) {
    let peer = this.find(userId);
    if (!peer) {
      peer = new Peer(userId, this, presence);
      this.#peers.set(userId, peer);
      this.views.add(peer);
      this.#loadPin(peer);
    }
    return peer;
  }

  /** @param {Peer} peer */
  #forget(peer) {
    this.#peers.delete(peer.userId);
    this.views.remove(peer);
    this.pins.forget(peer.userId);
  }

  /** @param {Peer} peer */
  #loadPin(peer) {
    if (!this.signaling) return;
    // Pins that cannot be read are told when a key has to be compared with them.
    this.pins.load(peer.userId).then(
      () => this.views.changed(peer),
      () => {},
    );
  }

  /** How many strangers there may be, and how many devices these have together besides the first of each. */
  get #callers() {
    const { peers } = this.setup.limits;
    return peers - Math.floor(peers / OF_WHICH_OURS);
  }

  /**
   * See that there may be one more, if need be by forgetting an idle one: strangers first, since with a peer the record
   * of the messages that have arrived is lost.
   *
   * @param {boolean} stranger
   */
  #makeRoom(stranger) {
    const { peers } = this.setup.limits;
    const callers = this.#callers;
    const known = this.peers.filter((peer) => peer.known);
    const strangers = known.filter((peer) => peer.stranger);
    if (stranger && strangers.length >= callers) {
      this.#forgetOne(strangers, callers);
    } else if (known.length >= peers) {
      this.#forgetOne(known, peers);
    }
  }

  /**
   * @param {Peer[]} peers
   * @param {number} limit
   */
  #forgetOne(peers, limit) {
    const [peer] = peers
      .filter(({ idle }) => idle)
      .sort((one, other) => +other.stranger - +one.stranger || one.touched - other.touched);
    if (!peer) {
      throw new TooManyPeers(limit);
    }
    const { userId, presence } = peer;
    this.#forget(peer); // first: what a callback sends from now on goes to a new one
    if (presence.shown) {
      this.#meet(userId, presence);
    } else if (presence.watched) {
      this.client.unwatch(userId).catch(() => {}); // what comes of it nevertheless is not looked at
    }
    void peer.close('forgotten', 'too many peers', new PeerConnectionFailed(userId, 'too many peers'));
  }

  /**
   * See that a peer may have one device more. All strangers together may have as many as there may be strangers, besides
   * the first of each: a device is a connection. Throws `TooManyPeers`.
   *
   * @param {Peer} peer
   */
  makeDeviceRoom(peer) {
    const strangers = this.peers.filter(({ known, stranger }) => known && stranger);
    const more = strangers.filter(({ devices }) => devices.length > 1);
    const callers = this.#callers;
    if (!strangers.includes(peer) || more.reduce((sum, { devices }) => sum + devices.length - 1, 0) < callers) return;
    if (!more.some((each) => each.forgetDevice())) throw new TooManyPeers(callers);
  }

  /** @param {string} userId Our name from now on, to which something may have been sent before it was ours. */
  named(userId) {
    const peer = this.find(userId);
    if (peer) {
      void peer.close('', OURSELVES, new UsageError(OURSELVES));
      this.#forget(peer);
      this.publish();
    }
  }

  /**
   * Have presence shown. Throws `SignalingError`, `InvalidAddress`, `UsageError`.
   *
   * @param {string[]} userIds
   */
  async watchAll(userIds) {
    userIds.forEach((userId) => this.#checkOther(userId));
    const fresh = userIds.filter((userId) => !this.find(userId)?.presence.shown);
    // First: the server tells how they stand before it says that it will.
    const shown = fresh.map((userId) => this.#meet(userId).presence);
    shown.forEach((presence) => (presence.shown = true));
    try {
      await this.client.watch(...fresh);
    } catch (error) {
      this.#ignore(fresh);
      throw error;
    }
    shown.forEach((presence) => (presence.watched = true));
  }

  /**
   * End that. Throws `SignalingError`.
   *
   * @param {string[]} userIds
   */
  async unwatchAll(userIds) {
    await this.client.unwatch(...this.#ignore(userIds));
  }

  /**
   * The application has ended its watches; returns the users that nobody watches now.
   *
   * @param {string[]} userIds
   */
  #ignore(userIds) {
    const unused = userIds.filter((userId) => {
      const peer = this.find(userId);
      if (!peer?.presence.shown) {
        return false;
      }
      peer.presence.shown = false;
      if (!peer.known) {
        this.#forget(peer);
      }
      return !peer.known;
    });
    this.publish();
    return unused;
  }

  /**
   * The server has ended some watches.
   *
   * @param {WatchEnded} event
   */
  watchEnded({ userIds, error }) {
    console.warn(`the server does not tell of ${userIds.length} users any more: ${error.message}`);
    this.#ignore(userIds);
    userIds.forEach((userId) => this.find(userId)?.watchEnded());
  }

  /**
   * Pin a key in place of any other.
   *
   * @param {string} userId
   * @param {Bytes} publicKey
   */
  async acceptKey(userId, publicKey) {
    const known = await this.pins.load(userId);
    await this.pins.accept(userId, publicKey);
    if (!this.#closed) {
      this.find(userId)?.accept(known !== null && !sameKey(known, publicKey));
    }
  }

  /** The mailbox has room: give it what waits. */
  handOver() {
    for (const { messages } of this.#devices) {
      if (messages.waiting) {
        messages.handOver();
      }
    }
  }

  /**
   * A message of a device is not what it says it is.
   *
   * @param {string} userId
   * @param {string} device
   * @param {string} reason
   */
  unreadable(userId, device, reason) {
    if (!this.#closed) {
      this.find(userId)?.findDevice(device)?.broke(reason);
    }
  }

  // --- state -------------------------------------------------------------------------------------------------------

  /** How things stand with the server. */
  get #server() {
    if (!this.signaling) return {};
    const { client, error: signalingError } = this.signaling;
    const { state: signaling, userId, server } = client;
    return { signaling, signalingError, userId, server, fingerprint: known(this.setup.identity)?.fingerprint ?? null };
  }

  publish() {
    this.views.publish();
  }

  #pulse() {
    this.#stopPulse = timers.callLater(PULSE_SECONDS, () => {
      this.peers.forEach((peer) => this.views.counted(peer));
      this.#pulse();
    });
  }

  // --- for the peers (`peer.PeerContext`) --------------------------------------------------------------------------

  /** The client; there is one where the server is asked. */
  get client() {
    return /** @type {PeerSignaling} */ (this.signaling).client;
  }

  get registered() {
    return !!this.signaling?.registered;
  }

  get ended() {
    return this.signaling?.ended ?? null;
  }

  /**
   * @param {Listening} device
   * @param {() => OurHello} hello
   */
  connect(device, hello) {
    return /** @type {PeerSignaling} */ (this.signaling).connect(device, hello);
  }

  /** @param {Promise<void> | undefined} farewell */
  leaving(farewell) {
    return (this.#leaving = this.#leaving.then(() => farewell));
  }

  /** @param {number} size */
  arrived(size) {
    // An estimate that is never too low; looked at closely only when it comes to the limit.
    this.#arriving += size;
    const { arrivingSize } = this.setup.limits;
    if (this.#arriving <= arrivingSize) return;
    const devices = this.#devices;
    this.#arriving = devices.reduce((sum, { messages }) => sum + messages.arriving, 0);
    if (this.#arriving > arrivingSize) {
      const [most] = devices.sort((one, other) => other.messages.arriving - one.messages.arriving);
      most?.drop('no room for what it sends');
      most?.messages.letGo();
    }
  }

  /**
   * @param {PeerDevice} device
   * @param {Bytes} data
   */
  controlReceived(device, data) {
    const control = this.#closed ? null : decodeControl(data);
    if (control) {
      this.services.received(device, control);
    }
  }
}
