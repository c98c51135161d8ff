/**
 * What one login is for direct connections: who is let in, by which proof, and through which ICE servers.
 *
 * Rules: nobody is called, and no offer is answered, before it is known through which ICE servers. What comes before is held
 * back. An address is taken apart here, and nowhere behind it.
 *
 * JavaScript only: in Python this is in `signaling`. Here it is apart, because it is loaded with direct connections.
 */
import { timers } from '../../client/timers.js';
import { TooManyPeers } from '../../errors.js';
import { PeerConnection } from '../../peer/connection.js';
import { limitedCalls } from '../../peer/limited.js';
import { TOO_MANY } from '../../peer/refusal_reasons.js';
import { Trust } from '../../peer/trust.js';
import { DEFAULT_DEVICE, split } from '../../protocol/addresses.js';
import { Admission } from './admission.js';
import { IceServerCache } from './ice.js';

/**
 * @import { SignalingClient } from '../../client/client.js'
 * @import { PeerEvent, RequestsDelayed } from '../../client/events.js'
 * @import { PeerListener } from '../../peer/connection.js'
 * @import { Identity } from '../../identity/keys.js'
 * @import { OurHello } from '../../protocol/channel.js'
 * @import { Listening } from './path.js'
 * @import { SignalingContext } from './signaling.js'
 */

export class DirectLogin {
  /** Nothing is answered any more. */
  stopped = false;
  #client;
  #context;
  #ice;

  /**
   * @param {SignalingClient} client
   * @param {Identity} identity
   * @param {SignalingContext} context
   */
  constructor(client, identity, context) {
    const { iceServers, accept } = context.setup;
    this.#client = client;
    this.#context = context;
    this.trust = new Trust(identity, client.userId, client.server, context.pins);
    this.admission = new Admission(client, accept, (userId, stranger) => context.peer(userId, stranger));
    this.#ice = new IceServerCache(client, iceServers, timers);
  }

  /** The ICE servers, as far as they are known. */
  get config() {
    return this.#ice.config;
  }

  /** Registered: get to know the ICE servers. Returns what was held back until then. */
  ready() {
    return this.#ice.keep();
  }

  /** Registered once more: the ICE servers may be others. */
  renew() {
    this.#ice.renew();
  }

  /** Take nothing in any more. */
  stop() {
    this.stopped = true;
    this.#ice.close();
    this.admission.close();
  }

  /**
   * Make a connection.
   *
   * @param {Listening} device
   * @param {() => OurHello} hello
   */
  connect({ userId, name, listener }, hello) {
    return new PeerConnection({
      ...this.#context.setup,
      local: this.#client.userId,
      remote: userId,
      device: name,
      trust: this.trust,
      signaling: this.#client,
      listener: /** @type {PeerListener} */ (listener),
      hello,
      config: () => {
        const { config } = this.#ice;
        return this.#context.pathMode(userId) === 'turn' ? { ...config, iceTransportPolicy: 'relay' } : config;
      },
    });
  }

  /** Something comes from a peer. @param {PeerEvent} event */
  received(event) {
    const { admission } = this;
    if (!this.#ice.holdBack(event, (offer) => admission.refuse(offer, 'still starting', 'rate-limited', 2))) {
      this.#peerEvent(event);
    }
  }

  /** The server limits what is asked of it. @param {RequestsDelayed} event */
  delayed({ request, to, retryIn, error }) {
    if (request === 'relay') return; // how a sender learns the pace of the server; calls go on
    const what = `${request}${to ? ` to ${to}` : ''}`;
    console.warn(`the server limits ${what}: ${error.message}. It is sent again in ${retryIn.toFixed(1)} s`);
    if (!to) return;
    const [userId, device] = split(to);
    this.#context.find(userId)?.delayed(device, limitedCalls(userId, error, retryIn));
  }

  /** @param {PeerEvent} event */
  #peerEvent(event) {
    if (this.stopped) return;
    // A bare user id as sender is the device `main`; as recipient it would be whichever device came last.
    const [userId, device] = split(event.sender);
    // A server that keeps who is blocked lets nothing through. No answer, as if we were offline.
    if (this.#context.blocks(userId)) return;
    const name = device ?? DEFAULT_DEVICE;
    const sender = `${userId}/${name}`;
    const there = this.#context.find(userId);
    let peer = there?.known ? there : undefined; // else there is nothing that could be said to it
    if (event.type === 'offerReceived' && this.#context.pathMode(userId) === 'relay') {
      this.admission.refuse(event, 'only the relay is used here', 'not-accepted');
      return;
    }
    if (event.type === 'offerReceived') peer = this.admission.admit(event, userId, peer);
    try {
      if (!peer?.receive({ ...event, sender }, name) && event.type === 'answerReceived') {
        // Perhaps it answers an offer that was made before this page was loaded: its sender waits in vain.
        this.admission.refuse(event, 'this connection is over');
      }
    } catch (error) {
      if (!(error instanceof TooManyPeers)) throw error;
      this.admission.refuse(event, ...TOO_MANY);
    }
  }
}
