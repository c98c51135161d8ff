/**
 * How a store's state reaches the application: callbacks that are told of each change, in order
 * (`client/callbacks.js`).
 */
import { Callbacks } from '../client/callbacks.js';

/** @import { StoreState } from './state.js' */

/** The state, and its subscribers. */
export class StateFeed {
  /** @type {Callbacks<Readonly<StoreState>>} */
  #callbacks = new Callbacks();

  /** @param {Readonly<StoreState>} state The first one. */
  constructor(state) {
    this.current = state;
  }

  /**
   * Tell a new state; nothing happens when it is the current one.
   *
   * @param {Readonly<StoreState>} state
   */
  publish(state) {
    if (state === this.current) return;
    this.current = state;
    this.#callbacks.tell(state);
  }

  /**
   * Call back now and at each change.
   *
   * @param {(state: Readonly<StoreState>) => void} run
   * @returns {() => void} Ends it; may be repeated.
   */
  subscribe(run) {
    return this.#callbacks.follow(run, this.current);
  }
}
