/**
 * One login: the signaling client, and what the server brings, led to the peers.
 *
 * Rules:
 *
 * - One client, one life. An address is taken apart here, and nowhere behind it.
 * - What comes before it is loaded how to answer it is kept (`direct_login`).
 * - What connections are made of is loaded while the client connects and registers. Nothing goes without direct
 *   connections: a login fails with them. Without the relay it goes on, and loads it again until it is there.
 */
import { timers } from '../../client/timers.js';
import { ConnectionLost, OverLimits, StateError } from '../../errors.js';
import { split } from '../../protocol/addresses.js';
import { OVER_LIMITS } from '../../protocol/codes.js';
import { PARTS } from '../parts.js';
import { CLOSED } from '../state.js';

/**
 * @import { Timers } from '../../client/timers.js'
 * @import { SignalingClient } from '../../client/client.js'
 * @import { PeerEvent, SignalingEvent, WatchEnded } from '../../client/events.js'
 * @import { AldisError } from '../../errors.js'
 * @import { Identity } from '../../identity/keys.js'
 * @import { Limits } from '../../protocol/messages.js'
 * @import { OurHello } from '../../protocol/channel.js'
 * @import { Privacy } from '../../protocol/privacy.js'
 * @import * as Direct from './direct.js'
 * @import { DirectLogin } from './direct_login.js'
 * @import { Setup } from './manager.js'
 * @import { Peer } from './peer.js'
 * @import { Listening } from './path.js'
 * @import { PathMode } from './paths.js'
 * @import { DirectoryPins } from './pinning.js'
 * @import { RelayLogin } from './relay_login.js'
 */

/**
 * @typedef {object} SignalingContext The peers that are told.
 * @property {Setup} setup
 * @property {typeof Direct | null} direct What connects them; null until it is loaded.
 * @property {() => Promise<typeof Direct>} load Load it.
 * @property {DirectoryPins} pins
 * @property {readonly Peer[]} peers
 * @property {(userId: string) => Peer | undefined} find
 * @property {(userId: string, stranger: boolean) => Peer} peer A peer, made if need be. Throws `UsageError`,
 *   `TooManyPeers`.
 * @property {(event: WatchEnded) => void} watchEnded The server has ended some watches.
 * @property {(userId: string) => boolean} blocks Whether our user has blocked another one.
 * @property {(userId: string) => PathMode} pathMode The paths that may be used with a user.
 * @property {(privacy: Readonly<Privacy>) => void} privacyChanged The server has said who may see and call our user.
 * @property {Timers} timers
 * @property {() => void} signalingLost The connection to the server is lost.
 * @property {() => void} registeredAgain We have registered with the server once more.
 * @property {(userId: string) => void} named We have registered, under this name.
 * @property {() => void} publish How things stand with the server has changed.
 */

/** Seconds for which a connected client waits for the relay before it registers: the key goes with the registration. */
export const RELAY_PATIENCE = 2;
// Seconds until the relay is loaded again: the first pause, each is twice the one before, and the longest.
const RELAY_PAUSE = 1;
const RELAY_PAUSE_MOST = 60;

// Messages that may wait until it is loaded how to answer them.
const MAX_EARLY = 1024;

export class PeerSignaling {
  /** Whether the server can be asked. @type {boolean} */
  started = false;
  /** @type {AldisError | null} what is wrong with the server */
  error = null;
  /** @type {AldisError | null} why the server will never be there again */
  ended = null;
  /** @type {RelayLogin | null} */
  relay = null;
  /** @type {Limits | null} of the last registration */
  #limits = null;
  #cancelPause = () => {};
  #context;
  /** @type {DirectLogin | null} null until it is loaded */
  #login = null;
  /** @type {PeerEvent[]} what has come before that */
  #early = [];
  #unsubscribe;
  #closed = false;

  /**
   * @param {SignalingClient} client
   * @param {SignalingContext} context
   */
  constructor(client, context) {
    this.client = client;
    this.#context = context;
    this.#unsubscribe = client.subscribe((event) => this.#received(event));
  }

  /** The ICE servers, and whether the server relays sealed messages. */
  get ways() {
    const { config } = this.#login ?? { config: { iceServers: this.#context.setup.iceServers ?? [] } };
    return { config, relay: !!this.relay?.available };
  }

  get registered() {
    return this.started && !this.#closed && this.client.state === 'connected';
  }

  /**
   * Connect and register. Throws what the client throws, `LoadFailed`, and `StateError` when it was closed meanwhile.
   *
   * @param {Identity} identity
   */
  async start(identity) {
    const { client } = this;
    this.#context.publish();
    const direct = this.#context.load().then(({ DirectLogin }) => {
      const login = (this.#login = new DirectLogin(client, identity, this.#context));
      if (this.#closed) login.stop();
      this.#early.splice(0).forEach((event) => login.received(event));
      return login;
    });
    direct.catch(() => {}); // it is waited for below
    // The seal key is published with the registration.
    const loading = this.#context.setup.path === 'direct' ? null : this.#loadRelay(identity, direct);
    await client.connect();
    if (loading) await inTime(loading);
    const isLate = !this.relay;
    await client.register(identity);
    this.#context.named(client.userId);
    const login = await direct;
    const heldBack = await login.ready();
    if (this.#closed) throw new StateError(CLOSED);
    this.started = true;
    this.relay?.started();
    heldBack.forEach((event) => login.received(event));
    this.#returned(false);
    if (isLate && this.relay) void this.#showRelay();
  }

  /**
   * Load what the relay is made of. Returns when that was tried once; then it goes on until it is there.
   *
   * @param {Identity} identity
   * @param {Promise<DirectLogin>} direct Direct connections are loaded: the relay shares some of them.
   */
  async #loadRelay(identity, direct, pause = RELAY_PAUSE) {
    try {
      const [{ RelayLogin }, { trust, admission }] = await Promise.all([PARTS.relay.load(), direct]);
      if (this.#closed) return;
      const { PeerSession } = /** @type {typeof Direct} */ (this.#context.direct);
      this.relay = new RelayLogin(this.client, identity, trust, admission, this.#context, PeerSession);
      if (this.started) void this.#showRelay();
    } catch (error) {
      if (this.#closed) return;
      console.warn(error);
      const next = Math.min(2 * pause, RELAY_PAUSE_MOST);
      this.#cancelPause = timers.callLater(pause, () => void this.#loadRelay(identity, direct, next));
    }
  }

  /** The relay has come after the registration: publish its key, and look at what waits. */
  async #showRelay() {
    const { client, relay } = this;
    relay?.registered(this.#limits);
    relay?.started();
    // If it fails, the key goes with the next registration.
    if (this.#limits?.relay) await client.renewSealKey().catch(() => {});
    if (this.registered) this.#returned(true);
  }

  /** Stop calling peers and taking in offers. */
  stop() {
    this.#closed = true;
    this.#cancelPause();
    if (this.relay) this.relay.stopped = true;
    this.#login?.stop();
  }

  /** Leave the server. */
  async close() {
    this.stop();
    await this.client.close();
    this.#unsubscribe();
  }

  /** @param {SignalingEvent} event */
  #received(event) {
    switch (event.type) {
      case 'presenceChanged':
        this.#context.find(event.userId)?.presenceChanged(event);
        return;
      case 'watchEnded':
        this.#context.watchEnded(event);
        return;
      case 'offerReceived':
      case 'answerReceived':
      case 'candidateReceived':
      case 'byeReceived':
        if (this.#login) this.#login.received(event);
        else if (this.#early.length < MAX_EARLY) this.#early.push(event);
        return;
      case 'relayReceived':
        if (!this.#closed && !this.#context.blocks(split(event.sender)[0])) this.relay?.received(event);
        return;
      case 'requestsDelayed':
        this.#login?.delayed(event);
        break;
      case 'privacyChanged':
        this.#context.privacyChanged(event.privacy);
        return;
      case 'registered':
        this.error = null;
        this.#limits = event.limits;
        this.relay?.registered(event.limits);
        this.#login?.renew();
        this.#returned(event.resumed);
        this.#context.registeredAgain();
        break;
      case 'disconnected':
        if (event.retryIn === null) return; // `closed` follows, and knows more
        this.error =
          event.code === OVER_LIMITS ? new OverLimits(event.reason, event.retryIn) : new ConnectionLost(event.reason);
        if (this.started) this.#context.signalingLost();
        break;
      case 'closed': {
        const { error } = event;
        this.error = error;
        // A store that was never registered may try again, with what is queued.
        if (error && this.started) {
          this.ended = error;
          this.#context.peers.forEach((peer) => peer.signalingEnded(error));
        }
      }
    }
    this.#context.publish();
  }

  /**
   * Make a connection: nobody is called before the login is there.
   *
   * @param {Listening} device
   * @param {() => OurHello} hello
   */
  connect(device, hello) {
    return /** @type {DirectLogin} */ (this.#login).connect(device, hello);
  }

  /** @param {boolean} resumed */
  #returned(resumed) {
    this.#context.peers.forEach((peer) => peer.signalingReturned(resumed));
  }
}

/** Wait, but no longer than the patience for the relay. @param {Promise<void>} last which does not reject @returns {Promise<void>} */
const inTime = (last) =>
  new Promise((done) => {
    const cancel = timers.callLater(RELAY_PATIENCE, done);
    void last.then(() => done(cancel()));
  });
