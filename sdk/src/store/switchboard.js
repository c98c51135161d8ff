/**
 * Everything between one signaling client and the links of its peers.
 *
 * It turns what the server brings into calls of the links, makes and forgets links within the limits, gives them what
 * they need (`link.Home`), leads files and calls to those who know about them, and puts the state together.
 *
 * Rules: one client, one life; it begins with `start` and ends with `close`. A fault of one peer stays with that peer.
 * What the application sees of all this is `store.NetworkStore`.
 */
import { timers } from '../client/timers.js';
import { ConnectionLost, PeerConnectionFailed, StateError, TooManyPeers, UsageError } from '../errors.js';
import { Identity } from '../identity/keys.js';
import { PeerConnection } from '../peer/connection.js';
import { Trust } from '../peer/trust.js';
import { checkUserId, split } from '../protocol/addresses.js';
import { Calls } from './calls.js';
import { decodeControl } from './controls.js';
import { IceKeeper } from './ice.js';
import { DirectoryPins, sameKey } from './keys.js';
import { Link } from './link.js';
import { admit, refuse } from './reception.js';
import { peerView, same, storeState } from './state.js';
import { Transfers } from './transfer.js';

/**
 * @import { Backoff } from '../client/backoff.js'
 * @import { SignalingClient } from '../client/client.js'
 * @import { PeerEvent, SignalingEvent } from '../client/events.js'
 * @import { AldisError } from '../errors.js'
 * @import { Pins } from '../identity/pins.js'
 * @import { PeerListener } from '../peer/connection.js'
 * @import { PeerTiming } from '../peer/transport.js'
 * @import { OurHello } from '../protocol/channel.js'
 * @import { Bytes } from '../protocol/codec.js'
 * @import { Call } from './calls.js'
 * @import { Mailbox, StateFeed } from './feeds.js'
 * @import { Callbacks } from '../client/callbacks.js'
 * @import { Home } from './link.js'
 * @import { Accept } from './reception.js'
 * @import { StoreLimits } from './state.js'
 * @import { Transfer } from './transfer.js'
 */

/**
 * What the application has chosen; see `NetworkStore`.
 *
 * @typedef {object} Setup
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
 * @property {Callbacks<Transfer>} onFile
 * @property {Callbacks<Call>} onCall
 */

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
 * @implements {Home}
 */
export class Switchboard {
  timers = timers;
  /** @type {AldisError | null} */
  ended = null;
  /** @type {Trust | undefined} there when there is a server */
  #trust;
  #unsubscribe;
  /** @type {Map<string, Link>} */
  #links = new Map();
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
    this.ice = new IceKeeper(client, setup.iceServers, timers);
    this.#unsubscribe = client.subscribe((event) => this.#signalingEvent(event));
    this.transfers = new Transfers(setup.onFile);
    this.calls = new Calls(setup.onCall);
    this.services = [this.transfers, this.calls];
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
      this.links.filter(({ connected }) => connected).forEach((link) => link.drop('the page was left', 'closed'));
    } else {
      void this.close();
    }
  };

  #pageBack = (/** @type {PageTransitionEvent} */ { persisted }) => {
    if (persisted) {
      this.links.forEach((link) => link.caller.poke(true));
    }
  };

  /** Say goodbye to all, and release everything. */
  async close() {
    this.#closed = true;
    globalThis.removeEventListener?.('pagehide', this.#pageGone);
    globalThis.removeEventListener?.('pageshow', this.#pageBack);
    this.services.forEach((service) => service.close());
    const error = new StateError(CLOSED);
    for (const link of this.links) {
      void link.close('the other side has left', error.message, error);
    }
    this.ice.close();
    this.#stopPulse();
    await this.#leaving; // a second or two at most
    await this.client.close();
    this.#unsubscribe();
    this.#publish();
  }

  // --- links -------------------------------------------------------------------------------------------------------

  /** All peers. */
  get links() {
    return [...this.#links.values()];
  }

  /**
   * The link of a peer, if there is one.
   *
   * @param {string} userId
   */
  find(userId) {
    return this.#links.get(userId);
  }

  /**
   * The link of a peer, made if need be. Throws `InvalidAddress`, `UsageError`, `TooManyPeers`; and `StateError` as soon as
   * it is being closed: a callback that calls again what has just ended would do so for ever.
   *
   * @param {string} userId
   * @param {boolean} [stranger] It is they who want one.
   */
  link(userId, stranger = false) {
    if (this.#closed) {
      throw new StateError(CLOSED);
    }
    let link = this.find(userId);
    if (!link?.known) {
      this.#checkOther(userId);
      this.#makeRoom(stranger);
      link = this.#meet(userId);
      link.known = true;
    }
    link.stranger &&= stranger;
    return link;
  }

  /** @param {string} userId */
  #checkOther(userId) {
    if (checkUserId(userId) === this.client.userId) {
      throw new UsageError('that is our own name');
    }
  }

  /**
   * The link of somebody, made if need be: one that takes no place among the peers yet.
   *
   * @param {string} userId
   * @param {Partial<Link>} [facts]
   */
  #meet(userId, facts) {
    let link = this.find(userId);
    if (!link) {
      const made = (link = Object.assign(new Link(userId, this), facts));
      this.#links.set(userId, made);
      this.linkChanged(made);
      // Pins that cannot be read are told when a key has to be compared with them.
      this.pins.load(userId).then(
        () => this.linkChanged(made),
        () => {},
      );
    }
    return link;
  }

  /**
   * See that there may be one more, if need be by forgetting one with whom nothing is going on: strangers first, as of each
   * that is forgotten nobody knows any more where the conversation stood.
   *
   * @param {boolean} stranger
   */
  #makeRoom(stranger) {
    const { peers } = this.setup.limits;
    const callers = peers - Math.floor(peers / OF_WHICH_OURS);
    const known = this.links.filter((link) => link.known);
    const strangers = known.filter((link) => link.stranger);
    if (stranger && strangers.length >= callers) {
      this.#forgetOne(strangers, callers);
    } else if (known.length >= peers) {
      this.#forgetOne(known, peers);
    }
  }

  /**
   * @param {Link[]} links
   * @param {number} limit
   */
  #forgetOne(links, limit) {
    const [link] = links
      .filter(({ idle }) => idle)
      .sort((one, other) => +other.stranger - +one.stranger || one.touched - other.touched);
    if (!link) {
      throw new TooManyPeers(limit);
    }
    const { userId, shown, watched, online, devices } = link;
    void link.close('forgotten', 'too many peers', new PeerConnectionFailed(userId, 'too many peers'));
    this.#links.delete(userId);
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
    const links = fresh.map((userId) => Object.assign(this.#meet(userId), { shown: true }));
    try {
      await this.client.watch(...fresh);
    } catch (error) {
      this.#ignore(fresh);
      throw error;
    }
    links.forEach((link) => (link.watched = true));
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
      const link = this.find(userId);
      if (!link?.shown) {
        return false;
      }
      link.shown = false;
      if (!link.known) {
        this.#links.delete(userId);
        this.pins.forget(userId);
      }
      return !link.known;
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
    for (const link of this.links) {
      if (link.conversation.waiting) {
        link.conversation.handOver();
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
    const peers = this.links.flatMap(({ told }) => told ?? []);
    const signalingError = this.#signalingError;
    feed.publish(storeState({ signaling: state, signalingError, userId, server, fingerprint, peers }, feed.current));
  }

  #pulse() {
    this.#stopPulse = timers.callLater(PULSE_SECONDS, () => {
      for (const link of this.links) {
        this.linkChanged(link);
      }
      this.#pulse();
    });
  }

  /**
   * Tell how things stand with one user, if that has changed.
   *
   * @param {Link} link
   */
  linkChanged(link) {
    const before = link.told;
    if (this.find(link.userId) !== link) {
      return; // it was forgotten
    }
    const view = peerView(link.view, before);
    if (view === before) {
      return;
    }
    link.told = view;
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
        this.links.forEach((link) => link.caller.poke(!event.resumed));
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
          this.links.forEach((link) => link.signalingEnded(error));
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
    let link = there?.known ? there : undefined; // else there is nothing that could be said to it
    if (event.type === 'offerReceived') {
      link = admit(event, userId, link, this);
    }
    if (!link || link.receive(event) === null) {
      // To an offer of before this page was loaded, perhaps: whoever has answered it waits in vain.
      if (event.type === 'answerReceived') refuse(this.client, event, 'this connection is over');
    }
  }

  // --- for the links (`link.Home`) ---------------------------------------------------------------------------------

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
    const size = (/** @type {Link} */ link) => link.conversation.arriving;
    const { links } = this;
    if (links.reduce((sum, link) => sum + size(link), 0) > this.setup.limits.arrivingSize) {
      const [most] = links.sort((one, other) => size(other) - size(one));
      most?.drop('no room for what it sends');
      most?.conversation.letGo();
    }
  }

  /**
   * @param {Link} link
   * @param {Bytes} data
   */
  controlReceived(link, data) {
    const control = this.#closed ? null : decodeControl(data);
    if (control) {
      this.services.forEach((service) => service.received(link, control));
    }
  }
}
