/**
 * Which STUN and TURN servers to use: those that were given, else those that the signaling server names.
 *
 * The credentials of TURN servers run out, so they are asked for anew in time, and whenever a lost server is back. Until the
 * first answer is known, what others say through the server is held back: an answer made without TURN servers may never
 * lead to a connection.
 */
import { RequestFailed, SignalingError, StateError } from '../../errors.js';
import { usableServers } from '../../protocol/ice.js';

/**
 * @import { OfferReceived, PeerEvent } from '../../client/events.js'
 * @import { EngineConfig } from '../../peer/engine.js'
 */

const RENEW_AT = 0.75; // of their life: an attempt that begins now must end with credentials that still hold
const RETRY_SECONDS = 30;
const SHORTEST_SECONDS = 10; // whatever the server says, it is not asked more often
const LONGEST_SECONDS = 24 * 3600;
const MAX_HELD_BACK = 256; // messages; one caller with a dozen candidates sends some 15

/** Keeps the configuration of peer connections up to date. */
export class IceServerCache {
  #client;
  #timers;
  #given;
  #closed = false;
  /** @type {PeerEvent[] | null} */
  #heldBack = [];
  #cancel = () => {};

  /**
   * @param {import('../../client/client.js').SignalingClient} client
   * @param {readonly RTCIceServer[] | null | undefined} given
   * @param {import('../../client/timers.js').Timers} timers
   */
  constructor(client, given, timers) {
    this.#client = client;
    this.#timers = timers;
    this.#given = given;
    /** @type {EngineConfig} what to make connections with now */
    this.config = { iceServers: given ?? [] };
  }

  /**
   * Ask, and ask again in time until `close`. Returns, after the first answer, what was held back until then.
   *
   * @returns {Promise<PeerEvent[]>}
   */
  async keep() {
    if (!this.#given) await this.#ask();
    const heldBack = this.#heldBack ?? [];
    this.#heldBack = null;
    return heldBack;
  }

  /**
   * The server is back: it may name others now, and a machine that has slept has expired credentials, and a timer that
   * slept as well. Asked before anything else, it answers before a call can need them.
   */
  renew() {
    if (!(this.#given || this.#heldBack)) {
      void this.#ask();
    }
  }

  async #ask() {
    let pause = RETRY_SECONDS;
    try {
      const { iceServers, ttl } = await this.#client.iceServers();
      // A bad one is left out: a browser would refuse every connection because of it.
      this.config = {
        iceServers: usableServers(iceServers, (problem) => console.warn('an ICE server is left out:', problem)),
      };
      pause = Math.min(Math.max(ttl * RENEW_AT, SHORTEST_SECONDS), LONGEST_SECONDS);
    } catch (error) {
      if (!(error instanceof SignalingError || error instanceof StateError)) {
        console.error(error);
      }
      // A server that limits says for how long.
      if (error instanceof RequestFailed) pause = Math.max(pause, Math.min(error.retryAfter ?? 0, LONGEST_SECONDS));
    }
    this.#cancel();
    if (!this.#closed) {
      this.#cancel = this.#timers.callLater(pause, () => void this.#ask());
    }
  }

  close() {
    this.#closed = true;
    this.#cancel();
  }

  /**
   * Keep an event for later; false when it is time to act on it.
   *
   * @param {PeerEvent} event
   * @param {(offer: OfferReceived) => void} refuse An offer for which there is no room; for what else is dropped nobody
   *   waits.
   */
  holdBack(event, refuse) {
    const held = this.#heldBack;
    if (held && held.length < MAX_HELD_BACK) {
      held.push(event);
    } else if (held && event.type === 'offerReceived') {
      refuse(event);
    }
    return !!held;
  }
}
