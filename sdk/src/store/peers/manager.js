/**
 * The peers of one user of one server: everything between the signaling client and them.
 *
 * It turns what the server brings into calls of the peers, makes and forgets peers within the limits, gives them what
 * they need (`peer.PeerContext`), leads files and calls to those who know about them, and puts the state together.
 *
 * Rules: one client, one life; it begins with `start` and ends with `close`. A fault of one peer stays with that peer.
 * What the application sees of all this is `store.NetworkStore`.
 */
import { timers } from '../../client/timers.js';
import { ConnectionLost, PeerConnectionFailed, StateError, TooManyPeers, UsageError } from '../../errors.js';
import { Identity } from '../../identity/keys.js';
import { PeerConnection } from '../../peer/connection.js';
import { Trust } from '../../peer/trust.js';
import { checkUserId, split } from '../../protocol/addresses.js';
import { decodeControl } from '../messages/control.js';
import { IceServerCache } from './ice.js';
import { DirectoryPins, sameKey } from './pinning.js';
import { Peer } from './peer.js';
import { admit, refuse } from './admission.js';
import { peerView, same, storeState } from '../state.js';
import { PeerServices } from '../services.js';

/**
 * @import { Backoff } from '../../client/backoff.js'
 * @import { SignalingClient } from '../../client/client.js'
 * @import { PeerEvent, SignalingEvent } from '../../client/events.js'
 * @import { AldisError } from '../../errors.js'
 * @import { Pins } from '../../identity/pins.js'
 * @import { PeerListener } from '../../peer/connection.js'
 * @import { PeerTiming } from '../../peer/transport.js'
 * @import { OurHello } from '../../protocol/channel.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { Mailbox } from '../messages/mailbox.js'
 * @import { PeerContext } from './peer.js'
 * @import { StateFeed } from '../subscriptions.js'
 * @import { Accept } from './admission.js'
 * @import { ServiceCallbacks } from '../services.js'
 * @import { StoreLimits } from '../state.js'
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

/** What a closed store says. */
export const CLOSED = 'the store was closed';
/**
 * The identity, if it is there already.
 *
 * @param {Identity | Promise<Identity> | undefined} identity
 */
export const known = (identity) => (identity instanceof Identity ? identity : null);

// The share of the peers that strangers cannot fill: enough for the people that somebody knows, while a program that is
// called by many has most of its places for them.
const OF_WHICH_OURS = 4;
const PULSE_SECONDS = 1; // how often round-trip times are looked at; the heartbeat is not faster

/**
 * The peers of one user of one server.
 *
 * @implements {PeerContext}
 */
export class PeerManager {
  timers = timers;
  /** @type {AldisError | null} */
  ended = null;
  /** @type {Trust | undefined} there when there is a server */
  #trust;
  #unsubscribe;
  /** @type {Map<string, Peer>} */
  #peers = new Map();
  /** @type {AldisError | null} */
  #signalingError = null;
  #publishingSoon = false;
  #closed = false;
  #stopPulse = () => {};
  /** @type {Promise<void>} Goodbyes are on their way until then. */
  #leaving = Promise.resolve();

  /**
   * @param {Setup} setup
   * @param {SignalingClient} client
   */
  constructor(setup, client) {
    this.client = client;
    this.setup = setup;
    this.pins = new DirectoryPins(setup.pins, client.server);
    this.ice = new IceServerCache(client, setup.iceServers, timers);
    this.#unsubscribe = client.subscribe((event) => this.#signalingEvent(event));
    this.services = new PeerServices(setup);
  }

  /** Connect and register. Throws what the client throws, and `StateError` when it was closed meanwhile. */
  async start() {
    const { client, setup, pins } = this;
    const identity = (setup.identity = await (setup.identity ?? Identity.generate()));
    this.#trust = new Trust(identity, client.userId, client.server, pins);
    this.#publish();
    await client.connect();
    await client.register(identity);
    const heldBack = await this.ice.keep();
    if (this.#closed) {
      throw new StateError(CLOSED);
    }
    this.#pulse();
    heldBack.forEach((event) => this.#peerEvent(event));
    globalThis.addEventListener?.('pagehide', this.#pageGone);
    globalThis.addEventListener?.('pageshow', this.#pageBack);
  }

  /**
   * The page goes away: what is said at once still leaves. With `persisted` the browser may keep the page for the back
   * button, frozen, and only where no RTCPeerConnection is open. So the peers are told goodbye in either case, and called
   * again when the page comes back. Chromium closes the WebSocket of a page that it keeps; the client makes another then.
   */
  #pageGone = (/** @type {PageTransitionEvent} */ { persisted }) => {
    if (persisted) {
      this.peers.filter(({ connected }) => connected).forEach((peer) => peer.drop('the page was left', 'closed'));
    } else {
      void this.close();
    }
  };

  #pageBack = (/** @type {PageTransitionEvent} */ { persisted }) => {
    if (persisted) {
      this.peers.forEach((peer) => peer.dialer.poke(true));
    }
  };

  /** Say goodbye to all, and release everything. */
  async close() {
    this.#closed = true;
    globalThis.removeEventListener?.('pagehide', this.#pageGone);
    globalThis.removeEventListener?.('pageshow', this.#pageBack);
    this.services.close();
    const error = new StateError(CLOSED);
    for (const peer of this.peers) {
      void peer.close('the other side has left', error.message, error);
    }
    this.ice.close();
    this.#stopPulse();
    await this.#leaving; // a second or two at most
    await this.client.close();
    this.#unsubscribe();
    this.#publish();
  }

  // --- peers -------------------------------------------------------------------------------------------------------

  /** All peers. */
  get peers() {
    return [...this.#peers.values()];
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
   * @param {boolean} [stranger] It is they who want one.
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
    if (checkUserId(userId) === this.client.userId) {
      throw new UsageError('that is our own name');
    }
  }

  /**
   * A peer, made if need be: one that takes no place among the peers yet.
   *
   * @param {string} userId
   * @param {Partial<Peer>} [facts]
   */
  #meet(userId, facts) {
    let peer = this.find(userId);
    if (!peer) {
      const made = (peer = Object.assign(new Peer(userId, this), facts));
      this.#peers.set(userId, made);
      this.peerChanged(made);
      // Pins that cannot be read are told when a key has to be compared with them.
      this.pins.load(userId).then(
        () => this.peerChanged(made),
        () => {},
      );
    }
    return peer;
  }

  /**
   * See that there may be one more, if need be by forgetting one with whom nothing is going on: strangers first, as of each
   * that is forgotten nobody knows any more which messages have arrived.
   *
   * @param {boolean} stranger
   */
  #makeRoom(stranger) {
    const { peers } = this.setup.limits;
    const callers = peers - Math.floor(peers / OF_WHICH_OURS);
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
    const { userId, shown, watched, online, devices } = peer;
    void peer.close('forgotten', 'too many peers', new PeerConnectionFailed(userId, 'too many peers'));
    this.#peers.delete(userId);
    if (shown) {
      this.#meet(userId, { shown, watched, online, devices });
      return;
    }
    this.pins.forget(userId);
    if (watched) {
      this.client.unwatch(userId).catch(() => {}); // what comes of it nevertheless is not looked at
    }
  }

  /**
   * Have presence shown. Throws `SignalingError`, `InvalidAddress`, `UsageError`.
   *
   * @param {string[]} userIds
   */
  async watchAll(userIds) {
    userIds.forEach((userId) => this.#checkOther(userId));
    const fresh = userIds.filter((userId) => !this.find(userId)?.shown);
    // First: the server tells how they stand before it says that it will.
    const peers = fresh.map((userId) => Object.assign(this.#meet(userId), { shown: true }));
    try {
      await this.client.watch(...fresh);
    } catch (error) {
      this.#ignore(fresh);
      throw error;
    }
    peers.forEach((peer) => (peer.watched = true));
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
   * The application does not want to know any more; returns those of whom nobody does.
   *
   * @param {string[]} userIds
   */
  #ignore(userIds) {
    const unused = userIds.filter((userId) => {
      const peer = this.find(userId);
      if (!peer?.shown) {
        return false;
      }
      peer.shown = false;
      if (!peer.known) {
        this.#peers.delete(userId);
        this.pins.forget(userId);
      }
      return !peer.known;
    });
    this.#publish();
    return unused;
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
    for (const peer of this.peers) {
      if (peer.messages.waiting) {
        peer.messages.handOver();
      }
    }
  }

  /**
   * A message of a peer is not what it says it is.
   *
   * @param {string} userId
   * @param {string} reason
   */
  unreadable(userId, reason) {
    if (!this.#closed) {
      this.find(userId)?.broke(reason);
    }
  }

  // --- state -------------------------------------------------------------------------------------------------------

  /** Tell how things stand. */
  #publish() {
    this.#publishingSoon = false;
    const { feed, identity } = this.setup;
    const { state, userId, server } = this.client;
    const fingerprint = known(identity)?.fingerprint ?? null;
    const peers = this.peers.flatMap(({ told }) => told ?? []);
    const signalingError = this.#signalingError;
    feed.publish(storeState({ signaling: state, signalingError, userId, server, fingerprint, peers }, feed.current));
  }

  #pulse() {
    this.#stopPulse = timers.callLater(PULSE_SECONDS, () => {
      for (const peer of this.peers) {
        this.peerChanged(peer);
      }
      this.#pulse();
    });
  }

  /**
   * Tell how things stand with one user, if that has changed.
   *
   * @param {Peer} peer
   */
  peerChanged(peer) {
    const before = peer.told;
    if (this.find(peer.userId) !== peer) {
      return; // it was forgotten
    }
    const view = peerView(peer.view, before);
    if (view === before) {
      return;
    }
    peer.told = view;
    if (!before || !same({ ...before, queued: view.queued }, view)) {
      this.#publish();
    } else if (!this.#publishingSoon) {
      // Only a count has changed, as it does with every message: once for all that happens now is enough.
      this.#publishingSoon = true;
      queueMicrotask(() => this.#publishingSoon && this.#publish());
    }
  }

  // --- what the server brings --------------------------------------------------------------------------------------

  /** @param {SignalingEvent} event */
  #signalingEvent(event) {
    switch (event.type) {
      case 'presenceChanged':
        this.find(event.userId)?.presenceChanged(event);
        return;
      case 'watchEnded': {
        const { userIds, error } = event;
        console.warn(`the server does not tell of ${userIds.length} users any more: ${error.message}`);
        this.#ignore(userIds);
        for (const peer of userIds.map((userId) => this.find(userId))) {
          if (peer) {
            // It has to be asked from now on whether the peer is there.
            Object.assign(peer, { watched: false, online: null, devices: [] });
            peer.dialer.poke(true);
            this.peerChanged(peer);
          }
        }
        return;
      }
      case 'offerReceived':
      case 'answerReceived':
      case 'candidateReceived':
      case 'byeReceived':
        // Not before it is known through which servers to answer.
        if (!this.ice.holdBack(event, (offer) => refuse(this.client, offer, 'still starting', 'rate-limited', 2))) {
          this.#peerEvent(event);
        }
        return;
      case 'registered':
        this.#signalingError = null;
        this.ice.renew();
        this.peers.forEach((peer) => peer.dialer.poke(!event.resumed));
        break;
      case 'disconnected':
        if (event.retryIn === null) {
          return; // `closed` follows, and knows more
        }
        this.#signalingError = new ConnectionLost(event.reason);
        break;
      case 'closed': {
        const { error } = event;
        this.#signalingError = error;
        if (error) {
          this.ended = error;
          this.peers.forEach((peer) => peer.signalingEnded(error));
        }
      }
    }
    this.#publish();
  }

  /** @param {PeerEvent} event */
  #peerEvent(event) {
    if (this.#closed) {
      return;
    }
    const [userId] = split(event.sender);
    const there = this.find(userId);
    let peer = there?.known ? there : undefined; // else there is nothing that could be said to it
    if (event.type === 'offerReceived') {
      peer = admit(event, userId, peer, this);
    }
    if (!peer || peer.receive(event) === null) {
      // To an offer of before this page was loaded, perhaps: whoever has answered it waits in vain.
      if (event.type === 'answerReceived') refuse(this.client, event, 'this connection is over');
    }
  }

  // --- for the peers (`peer.PeerContext`) ---------------------------------------------------------------------------------

  get registered() {
    return this.client.state === 'connected' && !this.#closed;
  }

  /**
   * @param {string} userId
   * @param {PeerListener} listener
   * @param {() => OurHello} hello
   */
  connect(userId, listener, hello) {
    return new PeerConnection({
      ...this.setup,
      local: this.client.userId,
      remote: userId,
      trust: /** @type {Trust} */ (this.#trust),
      signaling: this.client,
      listener,
      hello,
      config: () => this.ice.config,
    });
  }

  /** @param {Promise<void> | undefined} farewell */
  leaving(farewell) {
    return (this.#leaving = this.#leaving.then(() => farewell));
  }

  arrived() {
    const size = (/** @type {Peer} */ peer) => peer.messages.arriving;
    const { peers } = this;
    if (peers.reduce((sum, peer) => sum + size(peer), 0) > this.setup.limits.arrivingSize) {
      const [most] = peers.sort((one, other) => size(other) - size(one));
      most?.drop('no room for what it sends');
      most?.messages.letGo();
    }
  }

  /**
   * @param {Peer} peer
   * @param {Bytes} data
   */
  controlReceived(peer, data) {
    const control = this.#closed ? null : decodeControl(data);
    if (control) {
      this.services.received(peer, control);
    }
  }
}
