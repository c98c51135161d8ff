/**
 * One login: the signaling client, and what the server brings, led to the peers.
 *
 * Rules:
 *
 * - One client, one life. An address is taken apart here, and nowhere behind it.
 * - Nobody is called, and no offer is answered, before it is known through which ICE servers.
 * - What connections are made of is loaded while the client connects and registers. Nothing goes without direct
 *   connections: a login fails with them. Without the relay it goes on, and loads it again until it is there.
 */
import { timers } from '../../client/timers.js';
import { ConnectionLost, OverLimits, StateError, TooManyPeers } from '../../errors.js';
import { limitedCalls } from '../../peer/limited.js';
import { Trust } from '../../peer/trust.js';
import { DEFAULT_DEVICE, split } from '../../protocol/addresses.js';
import { OVER_LIMITS } from '../../protocol/codes.js';
import { PARTS } from '../services.js';
import { CLOSED } from '../state.js';
import { Admission, TOO_MANY } from './admission.js';
import { IceServerCache } from './ice.js';

/**
 * @import { SignalingClient } from '../../client/client.js'
 * @import { PeerEvent, RequestsDelayed, SignalingEvent, WatchEnded } from '../../client/events.js'
 * @import { AldisError } from '../../errors.js'
 * @import * as Direct from '../../peer/direct.js'
 * @import { Identity } from '../../identity/keys.js'
 * @import { Limits } from '../../protocol/messages.js'
 * @import { OurHello } from '../../protocol/channel.js'
 * @import { Privacy } from '../../protocol/privacy.js'
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
 * @property {DirectoryPins} pins
 * @property {readonly Peer[]} peers
 * @property {(userId: string) => Peer | undefined} find
 * @property {(userId: string, stranger: boolean) => Peer} peer A peer, made if need be. Throws `UsageError`,
 *   `TooManyPeers`.
 * @property {(event: WatchEnded) => void} watchEnded The server has ended some watches.
 * @property {(userId: string) => boolean} blocks Whether our user has blocked another one.
 * @property {(userId: string) => PathMode} pathMode The paths that may be used with a user.
 * @property {(privacy: Readonly<Privacy>) => void} privacyChanged The server has said who may see and call our user.
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
  /** @type {typeof Direct | null} null until it is loaded */
  #direct = null;
  #context;
  /** @type {Trust | undefined} */
  #trust;
  #ice;
  #admission;
  #unsubscribe;
  #closed = false;

  /**
   * @param {SignalingClient} client
   * @param {SignalingContext} context
   */
  constructor(client, context) {
    const { iceServers, accept } = context.setup;
    this.client = client;
    this.#context = context;
    this.#ice = new IceServerCache(client, iceServers, timers);
    this.#admission = new Admission(client, accept, (userId, stranger) => context.peer(userId, stranger));
    this.#unsubscribe = client.subscribe((event) => this.#received(event));
  }

  /** The ICE servers, and whether the server relays sealed messages. */
  get ways() {
    return { config: this.#ice.config, relay: !!this.relay?.available };
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
    this.#trust = new Trust(identity, client.userId, client.server, this.#context.pins);
    this.#context.publish();
    const direct = PARTS.direct.load().then((module) => (this.#direct = module));
    direct.catch(() => {}); // it is waited for below
    // The seal key is published with the registration.
    const loading = this.#context.setup.path === 'direct' ? null : this.#loadRelay(identity);
    await client.connect();
    if (loading) await inTime(loading);
    const isLate = !this.relay;
    await client.register(identity);
    this.#context.named(client.userId);
    const heldBack = await this.#ice.keep(direct);
    if (this.#closed) throw new StateError(CLOSED);
    this.started = true;
    this.relay?.started();
    heldBack.forEach((event) => this.#peerEvent(event));
    this.#returned(false);
    if (isLate && this.relay) void this.#showRelay();
  }

  /**
   * Load what the relay is made of. Returns when that was tried once; then it goes on until it is there.
   *
   * @param {Identity} identity
   */
  async #loadRelay(identity, pause = RELAY_PAUSE) {
    try {
      const [{ RelayLogin }, { PeerSession }] = await Promise.all([PARTS.relay.load(), PARTS.direct.load()]);
      if (this.#closed) return;
      this.relay = new RelayLogin(
        this.client,
        identity,
        /** @type {Trust} */ (this.#trust),
        this.#admission,
        this.#context,
        PeerSession,
      );
      if (this.started) void this.#showRelay();
    } catch (error) {
      if (this.#closed) return;
      console.warn(error);
      const next = Math.min(2 * pause, RELAY_PAUSE_MOST);
      this.#cancelPause = timers.callLater(pause, () => void this.#loadRelay(identity, next));
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
    this.#ice.close();
  }

  /** Leave the server. */
  async close() {
    this.stop();
    await this.client.close();
    this.#unsubscribe();
  }

  /**
   * Make a connection.
   *
   * @param {Listening} device
   * @param {() => OurHello} hello
   */
  connect({ userId, name, listener }, hello) {
    const { PeerConnection } = /** @type {typeof Direct} */ (this.#direct); // nobody is called before it is there
    return new PeerConnection({
      ...this.#context.setup,
      local: this.client.userId,
      remote: userId,
      device: name,
      trust: /** @type {Trust} */ (this.#trust),
      signaling: this.client,
      listener,
      hello,
      config: () => {
        const { config } = this.#ice;
        return this.#context.pathMode(userId) === 'turn' ? { ...config, iceTransportPolicy: 'relay' } : config;
      },
    });
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
        if (!this.#ice.holdBack(event, (offer) => this.#admission.refuse(offer, 'still starting', 'rate-limited', 2))) {
          this.#peerEvent(event);
        }
        return;
      case 'relayReceived':
        if (!this.#closed && !this.#context.blocks(split(event.sender)[0])) this.relay?.received(event);
        return;
      case 'requestsDelayed':
        this.#delayed(event);
        break;
      case 'privacyChanged':
        this.#context.privacyChanged(event.privacy);
        return;
      case 'registered':
        this.error = null;
        this.#limits = event.limits;
        this.relay?.registered(event.limits);
        this.#ice.renew();
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

  /** @param {RequestsDelayed} event */
  #delayed({ request, to, retryIn, error }) {
    if (request === 'relay') return; // how a sender learns the pace of the server; calls go on
    const what = `${request}${to ? ` to ${to}` : ''}`;
    console.warn(`the server limits ${what}: ${error.message}. It is sent again in ${retryIn.toFixed(1)} s`);
    if (!to) return;
    const [userId, device] = split(to);
    this.#context.find(userId)?.delayed(device, limitedCalls(userId, error, retryIn));
  }

  /** @param {boolean} resumed */
  #returned(resumed) {
    this.#context.peers.forEach((peer) => peer.signalingReturned(resumed));
  }

  /** @param {PeerEvent} event */
  #peerEvent(event) {
    if (this.#closed) return;
    // A bare user id as sender is the device `main`; as recipient it would be whichever device came last.
    const [userId, device] = split(event.sender);
    // A server that keeps who is blocked lets nothing through. No answer, as if we were offline.
    if (this.#context.blocks(userId)) return;
    const name = device ?? DEFAULT_DEVICE;
    const sender = `${userId}/${name}`;
    const there = this.#context.find(userId);
    let peer = there?.known ? there : undefined; // else there is nothing that could be said to it
    if (event.type === 'offerReceived' && this.#context.pathMode(userId) === 'relay') {
      this.#admission.refuse(event, 'only the relay is used here', 'not-accepted');
      return;
    }
    if (event.type === 'offerReceived') peer = this.#admission.admit(event, userId, peer);
    try {
      if (!peer?.receive({ ...event, sender }, name) && event.type === 'answerReceived') {
        // Perhaps it answers an offer that was made before this page was loaded: its sender waits in vain.
        this.#admission.refuse(event, 'this connection is over');
      }
    } catch (error) {
      if (!(error instanceof TooManyPeers)) throw error;
      this.#admission.refuse(event, ...TOO_MANY);
    }
  }
}

/** Wait, but no longer than the patience for the relay. @param {Promise<void>} last which does not reject @returns {Promise<void>} */
const inTime = (last) =>
  new Promise((done) => {
    const cancel = timers.callLater(RELAY_PATIENCE, done);
    void last.then(() => done(cancel()));
  });
