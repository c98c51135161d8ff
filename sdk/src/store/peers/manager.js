/**
 * The peers of one store: made and forgotten within the limits, and given what they need (`peer.PeerContext`).
 *
 * Rules: it lives as long as the store, with one login at most (`signaling`). So what is queued waits for the first
 * one. A fault of one peer stays with that peer. What the application sees of all this is `store.NetworkStore`.
 */
import { timers } from '../../client/timers.js';
import {
  PeerBlocked,
  PeerConnectionFailed,
  RequestFailed,
  StateError,
  TooManyPeers,
  UsageError,
} from '../../errors.js';
import { Identity } from '../../identity/keys.js';
import { checkUserId } from '../../protocol/addresses.js';
import { decodeControl } from '../messages/control.js';
import { PARTS } from '../parts.js';
import { CLOSED } from '../state.js';
import { Blocking } from './blocking.js';
import { Peer } from './peer.js';
import { DirectoryPins } from './pinning.js';
import { PeerPresence } from './presence.js';
import { PeerSignaling } from './signaling.js';
import { PeerViews } from './views.js';

/**
 * @import { Backoff } from '../../client/backoff.js'
 * @import { SignalingClient } from '../../client/client.js'
 * @import { WatchEnded } from '../../client/events.js'
 * @import { Privacy } from '../../protocol/privacy.js'
 * @import { Pins } from '../../identity/pins.js'
 * @import { PeerTiming } from '../../peer/timing.js'
 * @import { OurHello } from '../../protocol/channel.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { Journal } from '../journal/journal.js'
 * @import { JournalMailbox } from '../journal/mailbox.js'
 * @import { Mailbox } from '../messages/mailbox.js'
 * @import { PeerServices, ServiceCallbacks } from '../services.js'
 * @import { StoreLimits } from '../state.js'
 * @import { StateFeed } from '../subscriptions.js'
 * @import { Accept } from './admission.js'
 * @import { DeviceOwner, PeerDevice } from './device.js'
 * @import * as Direct from './direct.js'
 * @import { Listening } from './path.js'
 * @import { PathMode } from './paths.js'
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
 * @property {Mailbox | JournalMailbox} mailbox
 * @property {Journal | null} [journal]
 * @property {StateFeed} feed
 * @property {PathMode} path The paths that may be used.
 */

/** @typedef {OwnSetup & ServiceCallbacks} Setup */

/** The identity, if it is there already. @param {Identity | Promise<Identity> | undefined} identity */
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
  /** @type {typeof Direct | null} null until it is loaded; a login is not done before */
  direct = PARTS.direct.module;
  /** @type {PeerServices | null} */
  #services = null;
  /** @type {PeerSignaling | null} The login, also while it is tried. */
  signaling = null;
  #blocking = new Blocking();
  /** @type {Map<string, PathMode>} of users for whom the application has chosen another one */
  #modes = new Map();
  /** @type {Map<string, Peer>} */
  #peers = new Map();
  #arriving = 0;
  closed = false;
  #stopPulse = () => {};
  #ignorePage = () => {};
  #network = { look() {}, end() {} };
  /** @type {Promise<void>} Goodbyes are on their way until then. */
  #leaving = Promise.resolve();

  /** @param {Setup} setup */
  constructor(setup) {
    this.setup = setup;
    this.pins = new DirectoryPins(setup.pins);
    this.views = new PeerViews(setup.feed, () => this.#server);
    this.load().catch(() => {}); // so that it is there after the registration; if it is not, it is tried again
  }

  /** Load what connects devices, unless it is there. Rejects with `LoadFailed`. */
  async load() {
    return (this.direct ??= await PARTS.direct.load());
  }

  /** Files and calls; null until there can be connections. @returns {PeerServices | null} */
  get services() {
    return (this.#services ??= this.direct && new this.direct.PeerServices(this.setup));
  }

  /** Files and calls, as soon as they are there. Rejects with `LoadFailed`. */
  async loadServices() {
    await this.load();
    return /** @type {PeerServices} */ (this.services);
  }

  /**
   * Connect and register. Throws what the client throws, and can be called again then; and `StateError` when it was
   * closed meanwhile.
   *
   * @param {SignalingClient} client
   * @param {Promise<void>} [restored] What the journal has is under way again then.
   */
  async start(client, restored) {
    const signaling = (this.signaling = new PeerSignaling(client, this));
    this.pins.use(client.server);
    try {
      await restored;
      const identity = (this.setup.identity = await (this.setup.identity ?? Identity.generate()));
      this.peers.forEach((peer) => this.#loadPin(peer));
      await signaling.start(identity);
      if (this.closed) throw new StateError(CLOSED);
    } catch (error) {
      if (!this.closed) {
        this.signaling = null;
        await signaling.close();
        this.pins.use(''); // no key of that server is shown from now on
        this.peers.forEach((peer) => this.views.counted(peer));
        this.publish();
      }
      throw error;
    }
    const { watchNetwork, watchPage } = /** @type {typeof Direct} */ (this.direct); // the login has waited for it
    this.#network = watchNetwork({
      changed: () => this.#recheck('networkChanged'),
      woke: () => this.#recheck('suspect'),
    });
    this.#pulse();
    this.#ignorePage = watchPage({
      frozen: () => {
        this.#devices
          .filter(({ path }) => path.connected)
          .forEach((device) => device.drop('the page was left', 'closed'));
        this.setup.journal?.hurry();
      },
      thawed: () => this.#devices.forEach(({ dialer }) => dialer?.poke(true)),
      gone: () => {
        void this.close();
        this.setup.journal?.hurry();
      },
    });
  }

  // --- the network -------------------------------------------------------------------------------------------------

  /** This device has another network, or has slept: what was open may be dead. @param {'networkChanged' | 'suspect'} how */
  #recheck(how) {
    this.client.networkChanged();
    for (const { path, dialer } of this.#devices) {
      path.connection?.[how]();
      dialer?.networkChanged();
    }
  }

  /** The connection to the server is lost. */
  signalingLost() {
    this.#devices.forEach(({ dialer }) => dialer?.poke());
  }

  needServer() {
    if (!this.closed) this.signaling?.client.hurry();
  }

  pathLost() {
    if (!this.closed) this.signaling?.client.suspect();
  }

  pathFound() {
    if (!this.closed) this.signaling?.client.networkChanged();
  }

  /** Say goodbye to all, and release everything. */
  async close() {
    this.closed = true;
    this.#ignorePage();
    this.#network.end();
    this.signaling?.stop();
    this.services?.close();
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

  /** A peer, if it is known. @param {string} userId */
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
    if (this.closed) {
      throw new StateError(CLOSED);
    }
    let peer = this.find(userId);
    if (!peer?.known) {
      this.checkOther(userId);
      this.#makeRoom(stranger);
      peer = this.meet(userId);
      peer.known = true;
    }
    peer.stranger &&= stranger;
    return peer;
  }

  /** @param {string} userId */
  checkOther(userId) {
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
  meet(userId, presence = new PeerPresence(userId)) {
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
  forget(peer) {
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
    this.forget(peer); // first: what a callback sends from now on goes to a new one
    if (presence.shown) {
      this.meet(userId, presence);
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
      this.forget(peer);
      this.publish();
    }
  }

  /** The server has ended some watches. @param {WatchEnded} event */
  watchEnded(event) {
    this.direct?.watchEnded(this, event);
  }

  /**
   * Have nothing to do with some users any more: here at once, then by the server. Throws `InvalidAddress`, `UsageError`
   * for ourselves, `SignalingError`.
   *
   * @param {string[]} userIds
   */
  async block(userIds) {
    userIds.forEach((userId) => this.checkOther(userId));
    const goodbyes = this.#endBlocked(this.#blocking.block(userIds));
    await this.client.changePrivacy({ block: userIds }).finally(() => goodbyes);
  }

  /** End that. Throws `InvalidAddress`, `SignalingError`. @param {string[]} userIds */
  async unblock(userIds) {
    userIds.forEach(checkUserId);
    this.#blocking.unblock(userIds);
    this.#privacyTold();
    try {
      await this.client.changePrivacy({ unblock: userIds });
    } catch (error) {
      // An older server keeps no blocks: those that held here have ended.
      if (!(error instanceof RequestFailed && error.code === 'unknown-type')) throw error;
    }
  }

  /** Tell the server of blocks that it could not be told of before. Where it does not keep them, they hold here alone. */
  registeredAgain() {
    const { here } = this.#blocking;
    if (here.length) this.client.changePrivacy({ block: here }).catch(() => {});
  }

  /** Whether our user has blocked another one. @param {string} userId */
  blocks(userId) {
    return this.#blocking.blocks(userId);
  }

  /** The server has said who may see and call our user, and who is blocked. @param {Readonly<Privacy>} privacy */
  privacyChanged(privacy) {
    void this.#endBlocked(this.#blocking.told(privacy));
  }

  /** End everything with users that are blocked from now on. @param {string[]} userIds */
  #endBlocked(userIds) {
    const goodbyes = userIds.map((userId) => {
      const error = new PeerBlocked(userId);
      this.services?.files.ended(/** @type {any} */ ({ userId }), error); // what it had offered before this page, too
      return this.find(userId)?.close('it has hung up', error.message, error);
    });
    this.#privacyTold();
    return Promise.all(goodbyes);
  }

  #privacyTold() {
    this.peers.forEach((peer) => this.views.changed(peer));
    this.publish();
  }

  /** Choose the paths that may be used with a user; null for those of the store. @param {string} userId @param {PathMode | null} mode */
  setPath(userId, mode) {
    const before = this.pathMode(userId);
    if (mode) this.#modes.set(userId, mode);
    else this.#modes.delete(userId);
    if (this.pathMode(userId) !== before) this.find(userId)?.pathChanged();
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
    if (!this.closed) {
      this.find(userId)?.findDevice(device)?.broke(reason);
    }
  }

  // --- state -------------------------------------------------------------------------------------------------------

  /** How things stand with the server. */
  get #server() {
    const here = { privacy: this.#blocking.privacy, journalError: this.setup.journal?.error ?? null };
    if (!this.signaling) return here;
    const { client, error: signalingError } = this.signaling;
    const { state: signaling, userId, server } = client;
    const fingerprint = known(this.setup.identity)?.fingerprint ?? null;
    return { ...here, signaling, signalingError, userId, server, fingerprint };
  }

  publish() {
    this.views.publish();
  }

  #pulse() {
    this.#stopPulse = timers.callLater(PULSE_SECONDS, () => {
      this.#network.look();
      this.peers.forEach((peer) => this.views.counted(peer));
      this.#pulse();
    });
  }

  // --- for the peers (`peer.PeerContext`) --------------------------------------------------------------------------

  /** There is one where the server is asked. */
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

  /** The paths that may be used with a user. @param {string} userId */
  pathMode(userId) {
    return this.#modes.get(userId) ?? this.setup.path;
  }

  /** The relay, while the server can be asked and relays messages. */
  get relay() {
    return (this.registered && this.signaling?.relay?.available && this.signaling.relay) || null;
  }

  /** @param {PeerDevice} device @param {DeviceOwner} owner */
  relayPath(device, owner) {
    return this.signaling?.relay?.path(device, owner, device.listener, this) ?? null;
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
    const control = this.closed ? null : decodeControl(data);
    if (control) {
      this.services?.received(device, control);
    }
  }
}
