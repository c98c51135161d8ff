/**
 * What was told of each peer, and the state that is put together from it.
 *
 * Rules: a change is told at once. A count that has changed, as one does with every message, marks the peer, and is told
 * once for all that happens now. It does not know how any of it comes about.
 */
import { peerView, storeState } from '../state.js';

/**
 * @import { PeerView, StoreState } from '../state.js'
 * @import { StateFeed } from '../subscriptions.js'
 */

/** @typedef {{ userId: string, view: PeerView }} Viewed A peer. */

export class PeerViews {
  #feed;
  #server;
  /** @type {Map<Viewed, Readonly<PeerView> | null>} */
  #told = new Map();
  /** @type {Set<Viewed>} those of which only a count has changed */
  #counted = new Set();

  /**
   * @param {StateFeed} feed
   * @param {() => Partial<Omit<StoreState, 'peers'>>} server How things stand with the server.
   */
  constructor(feed, server) {
    this.#feed = feed;
    this.#server = server;
  }

  /**
   * Show a peer from now on.
   *
   * @param {Viewed} peer
   */
  add(peer) {
    this.#told.set(peer, null);
    this.changed(peer);
  }

  /**
   * Show a peer no more. What is told next tells it.
   *
   * @param {Viewed} peer
   */
  remove(peer) {
    this.#told.delete(peer);
  }

  /**
   * Something in the view of a peer may have changed.
   *
   * @param {Viewed} peer
   */
  changed(peer) {
    if (this.#look(peer)) this.publish();
  }

  /**
   * Only a number in the view of a peer may have changed.
   *
   * @param {Viewed} peer
   */
  counted(peer) {
    if (!this.#counted.size) queueMicrotask(() => this.publish());
    this.#counted.add(peer);
  }

  /** Tell how things stand. */
  publish() {
    this.#counted.forEach((peer) => this.#look(peer));
    this.#counted.clear();
    const peers = [...this.#told.values()].flatMap((view) => view ?? []);
    this.#feed.publish(storeState({ ...this.#server(), peers }, this.#feed.current));
  }

  /** @param {Viewed} peer Whether its view has changed; nobody looks at one that was forgotten. */
  #look(peer) {
    const before = this.#told.get(peer);
    if (before === undefined) return false;
    const view = peerView(peer.view, before);
    this.#told.set(peer, view);
    return view !== before;
  }
}
