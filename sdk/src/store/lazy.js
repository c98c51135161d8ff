/**
 * Files and calls, which are loaded when they are first used: most pages only send and receive messages.
 *
 * Rules of this module:
 *
 * - First use is `sendFile`, `call`, or a callback for what comes in. A stranger cannot make us load anything: without a
 *   callback an offer is declined here.
 * - While it loads, offers of peers wait; at most `MAX_WAITING` of them, and nothing else. An offer that is taken back, or
 *   whose peer is gone, waits no more.
 * - A part that cannot be loaded loses nothing. For offers that wait, it is tried again for `PATIENCE` seconds; then they
 *   are declined with a reason.
 *
 * JavaScript only: in Python there is nothing to load.
 */
import { encodeControl } from './messages/control.js';

/**
 * @import { Callbacks } from '../client/callbacks.js'
 * @import { Timers } from '../client/timers.js'
 * @import { AldisError, LoadFailed } from '../errors.js'
 * @import { CallOffer, ControlMessage, FileOffer } from './messages/control.js'
 * @import { Part } from './parts.js'
 * @import { PeerDevice } from './peers/device.js'
 */

/** @typedef {{
 *   busy(peer: PeerDevice): boolean,
 *   movable(peer: PeerDevice): boolean,
 *   moved(peer: PeerDevice, other: PeerDevice): void,
 *   connected(peer: PeerDevice, features: readonly string[]): void,
 *   parted?(peer: PeerDevice): void,
 *   ended(peer: PeerDevice, error: AldisError, restarted?: boolean | 'same' | 'left'): void,
 *   notDirect?(peer: PeerDevice): void,
 *   relayed?(peer: PeerDevice): void,
 *   acknowledged?(peer: PeerDevice): void,
 *   received(peer: PeerDevice, control: ControlMessage): void,
 *   trackReceived?(peer: PeerDevice, track: MediaStreamTrack, streams: readonly MediaStream[]): void,
 *   close(): void,
 * }} Service What files and calls have in common. */

/** How many offers of all peers may wait, for each part. */
export const MAX_WAITING = 64;
/** Seconds for which loading is tried for offers that wait: a call does not ring much longer. */
export const PATIENCE = 30;
const FIRST_PAUSE = 1; // seconds; each is twice the one before

/**
 * What is on its way: an offer that a peer has made before there was a service for it.
 *
 * @typedef {{ peer: PeerDevice, offer: FileOffer | CallOffer }} Waiting
 */

/**
 * A service that is made when its part is loaded, and stands in for it until then.
 *
 * @template {object} T The module.
 * @template {Service} S
 * @implements {Service}
 */
export class LazyService {
  /** @type {S | null} */
  #service = null;
  /** @type {Waiting[]} */
  #waiting = [];
  #cancel = () => {};
  #part;
  #make;
  #kind;
  #callbacks;
  #timers;

  /**
   * @param {Part<T>} part
   * @param {(module: T) => S} make
   * @param {'file' | 'call'} kind How the types of its control messages begin.
   * @param {Callbacks<any>} callbacks Those of the application for what comes in.
   * @param {Timers} timers
   */
  constructor(part, make, kind, callbacks, timers) {
    this.#part = part;
    this.#make = make;
    this.#kind = kind;
    this.#callbacks = callbacks;
    this.#timers = timers;
    if (part.module) this.#there(part.module);
  }

  /** The service. Rejects with `LoadFailed`. */
  async get() {
    return this.#service ?? this.#there(await this.#part.load());
  }

  /** What the application may see of it. @returns {S extends { transfers: infer T } ? T : never[]} */
  get transfers() {
    return /** @type {any} */ (this.#service)?.transfers ?? [];
  }

  // --- `Service` -----------------------------------------------------------------------------------------------------

  /** @param {PeerDevice} peer */
  busy(peer) {
    return this.#service?.busy(peer) ?? false;
  }

  /** @param {PeerDevice} peer */
  movable(peer) {
    return this.#service?.movable(peer) ?? false;
  }

  /**
   * @param {PeerDevice} peer
   * @param {PeerDevice} other
   */
  moved(peer, other) {
    this.#service?.moved(peer, other);
  }

  /**
   * @param {PeerDevice} peer
   * @param {readonly string[]} features
   */
  connected(peer, features) {
    this.#service?.connected(peer, features);
  }

  /** @param {PeerDevice} peer */
  parted(peer) {
    this.#service?.parted?.(peer);
  }

  /**
   * @param {PeerDevice} peer
   * @param {AldisError} error
   * @param {boolean | 'same' | 'left'} [restarted]
   */
  ended(peer, error, restarted) {
    this.#forget((each) => each.peer === peer);
    this.#service?.ended(peer, error, restarted);
  }

  /** @param {PeerDevice} peer */
  notDirect(peer) {
    this.#service?.notDirect?.(peer);
  }

  /** @param {PeerDevice} peer */
  relayed(peer) {
    this.#service?.relayed?.(peer);
  }

  /** @param {PeerDevice} peer */
  acknowledged(peer) {
    this.#service?.acknowledged?.(peer);
  }

  /**
   * Without a service there is no call that a track could belong to.
   *
   * @param {PeerDevice} peer
   * @param {MediaStreamTrack} track
   * @param {readonly MediaStream[]} streams
   */
  trackReceived(peer, track, streams) {
    this.#service?.trackReceived?.(peer, track, streams);
  }

  /**
   * @param {PeerDevice} peer
   * @param {ControlMessage} control
   */
  received(peer, control) {
    if (this.#service) {
      this.#service.received(peer, control);
    } else if (control.type === 'file-offer' || control.type === 'call-offer') {
      if (control.type.startsWith(this.#kind)) this.#offered({ peer, offer: control });
    } else {
      // Only its end matters: nobody has answered the offer, so nothing else can have been said about it yet.
      const over = control.type === 'file-cancel' || control.type === 'call-end';
      if (over) this.#forget(({ peer: other, offer }) => other === peer && offer.id === control.id);
    }
  }

  /** End everything. */
  close() {
    this.#cancel();
    this.#decline('the store was closed');
    this.#service?.close();
  }

  // --- until it is there ---------------------------------------------------------------------------------------------

  /** @param {Waiting} waiting */
  #offered(waiting) {
    const { size } = this.#callbacks;
    if (size && this.#waiting.length < MAX_WAITING) {
      if (this.#waiting.push(waiting) === 1) this.#try(FIRST_PAUSE, this.#timers.time() + PATIENCE);
    } else {
      decline(waiting, size ? `too many ${this.#part.name}` : `no ${this.#part.name} here`);
    }
  }

  /**
   * @param {number} pause Seconds until the next attempt, if this one fails.
   * @param {number} until
   */
  #try(pause, until) {
    this.get().catch((/** @type {LoadFailed} */ error) => {
      if (!this.#waiting.length) return;
      if (this.#timers.time() + pause < until) {
        this.#cancel = this.#timers.callLater(pause, () => this.#try(2 * pause, until));
      } else {
        (globalThis.reportError ?? console.error)(error); // the application has not asked, and can do something about it
        this.#decline(`cannot load ${this.#part.name}`);
      }
    });
  }

  /** @param {T} module */
  #there(module) {
    if (!this.#service) {
      this.#service = this.#make(module);
      for (const { peer, offer } of this.#waiting.splice(0)) this.#service.received(peer, offer);
    }
    return this.#service;
  }

  /** @param {(waiting: Waiting) => boolean} which */
  #forget(which) {
    this.#waiting = this.#waiting.filter((each) => !which(each));
  }

  /** @param {string} reason */
  #decline(reason) {
    for (const waiting of this.#waiting.splice(0)) decline(waiting, reason);
  }
}

/**
 * @param {Waiting} waiting
 * @param {string} reason
 */
function decline({ peer, offer: { type, id } }, reason) {
  try {
    peer.sendControl(encodeControl({ type: type === 'file-offer' ? 'file-decline' : 'call-decline', id, reason }));
  } catch {} // there is no way to them any more
}
