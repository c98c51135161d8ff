/**
 * One login: the signaling client, and what the server brings, led to the peers.
 *
 * Rules: one client, one life. An address is taken apart here, and nowhere behind it. Nobody is called, and no offer is
 * answered, before it is known through which ICE servers.
 */
import { timers } from '../../client/timers.js';
import { ConnectionLost, StateError, TooManyPeers } from '../../errors.js';
import { PeerConnection } from '../../peer/connection.js';
import { Trust } from '../../peer/trust.js';
import { DEFAULT_DEVICE, split } from '../../protocol/addresses.js';
import { CLOSED } from '../state.js';
import { Admission, TOO_MANY } from './admission.js';
import { IceServerCache } from './ice.js';

/**
 * @import { SignalingClient } from '../../client/client.js'
 * @import { PeerEvent, SignalingEvent, WatchEnded } from '../../client/events.js'
 * @import { AldisError } from '../../errors.js'
 * @import { Identity } from '../../identity/keys.js'
 * @import { OurHello } from '../../protocol/channel.js'
 * @import { Setup } from './manager.js'
 * @import { Peer } from './peer.js'
 * @import { Listening } from './path.js'
 * @import { DirectoryPins } from './pinning.js'
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
 * @property {(userId: string) => void} named We have registered, under this name.
 * @property {() => void} publish How things stand with the server has changed.
 */

export class PeerSignaling {
  /** Whether the server can be asked. @type {boolean} */
  started = false;
  /** @type {AldisError | null} what is wrong with the server */
  error = null;
  /** @type {AldisError | null} why the server will never be there again */
  ended = null;
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

  get registered() {
    return this.started && !this.#closed && this.client.state === 'connected';
  }

  /**
   * Connect and register. Throws what the client throws, and `StateError` when it was closed meanwhile.
   *
   * @param {Identity} identity
   */
  async start(identity) {
    const { client } = this;
    this.#trust = new Trust(identity, client.userId, client.server, this.#context.pins);
    this.#context.publish();
    await client.connect();
    await client.register(identity);
    this.#context.named(client.userId);
    const heldBack = await this.#ice.keep();
    if (this.#closed) throw new StateError(CLOSED);
    this.started = true;
    heldBack.forEach((event) => this.#peerEvent(event));
    this.#returned(false);
  }

  /** Stop calling peers and taking in offers. */
  stop() {
    this.#closed = true;
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
   * @param {Listening} listener The device.
   * @param {() => OurHello} hello
   */
  connect(listener, hello) {
    return new PeerConnection({
      ...this.#context.setup,
      local: this.client.userId,
      remote: listener.userId,
      device: listener.name,
      trust: /** @type {Trust} */ (this.#trust),
      signaling: this.client,
      listener,
      hello,
      config: () => this.#ice.config,
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
      case 'registered':
        this.error = null;
        this.#ice.renew();
        this.#returned(event.resumed);
        break;
      case 'disconnected':
        if (event.retryIn === null) return; // `closed` follows, and knows more
        this.error = new ConnectionLost(event.reason);
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

  /** @param {boolean} resumed */
  #returned(resumed) {
    this.#context.peers.forEach((peer) => peer.signalingReturned(resumed));
  }

  /** @param {PeerEvent} event */
  #peerEvent(event) {
    if (this.#closed) return;
    // A bare user id as sender is the device `main`; as recipient it would be whichever device came last.
    const [userId, device] = split(event.sender);
    const name = device ?? DEFAULT_DEVICE;
    const sender = `${userId}/${name}`;
    const there = this.#context.find(userId);
    let peer = there?.known ? there : undefined; // else there is nothing that could be said to it
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
