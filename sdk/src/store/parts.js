/**
 * All parts that are loaded later.
 *
 * Rules of this module:
 *
 * - Nothing else imports these modules: what the core imports is in the core.
 * - A part that cannot be loaded loses nothing. Whoever asked gets `LoadFailed`, after `LOAD_SECONDS` at the latest, and may
 *   ask again.
 * - What several parts share is in the core.
 *
 * JavaScript only: in Python there is nothing to load.
 */
import { timers } from '../client/timers.js';
import { LoadFailed } from '../errors.js';
// Several parts use these.
import '../peer/bounded.js';
import '../peer/refusal_reasons.js';

/** @import { Timers } from '../client/timers.js' */

/** Seconds that one load may take. A request that gets no answer would hold up whoever asked for ever. */
export const LOAD_SECONDS = 10;

/**
 * A part of the SDK that is loaded later, once for all stores.
 *
 * @template {object} T
 */
export class Part {
  /** @type {T | null} null until it is loaded */
  module = null;
  /** @type {Promise<T> | null} */
  #loading = null;
  #failures = 0;
  #load;
  #timers;

  /**
   * @param {string} name
   * @param {(again: string) => Promise<T>} load Import it. `again` is empty at first, then a different query each time:
   *   `tools/build.js` appends it to the URL, because Firefox never asks twice for a module that it did not get.
   * @param {Timers} [clock]
   */
  constructor(name, load, clock = timers) {
    this.name = name;
    this.#load = load;
    this.#timers = clock;
  }

  /** Load it, unless it is there or on its way. Rejects with `LoadFailed`. */
  load() {
    return (this.#loading ??= this.#try());
  }

  async #try() {
    let cancel = () => {};
    const late = new Promise((_, reject) => {
      const error = new Error(`nothing came within ${LOAD_SECONDS} s`);
      cancel = this.#timers.callLater(LOAD_SECONDS, () => reject(error));
    });
    try {
      const module = await Promise.race([late, this.#load(this.#failures ? `?${this.#failures}` : '')]);
      return (this.module = /** @type {T} */ (module));
    } catch (cause) {
      this.#loading = null;
      this.#failures++;
      throw new LoadFailed(this.name, { cause });
    } finally {
      cancel();
    }
  }
}

export const PARTS = {
  files: new Part('files', (_again) => import('./files/service.js')),
  calls: new Part('calls', (_again) => import('./calls/service.js')),
  readings: new Part('readings', (_again) => import('./readings.js')),
  direct: new Part('direct', (_again) => import('./peers/direct.js')),
  relay: new Part('relay', (_again) => import('./peers/relay_login.js')),
  journal: new Part('journal', (_again) => import('./journal/service.js')),
};

/**
 * Open the journal that this browser keeps as `name`, or begin one, for the option `journal` of one store.
 *
 * Rejects with `JournalError`: `JournalInUse` when another tab has it, and `wait` is false; `JournalReadOnly` where the
 * browser keeps nothing (a private window); `JournalTooNew`, `JournalCorrupt`, `JournalDiskFull`. And with `LoadFailed`
 * when the part of the SDK for journals cannot be loaded.
 *
 * @param {string} name Such as that of the identity: `Identity.remove(name)` erases the journal of that name.
 * @param {{ wait?: boolean, signal?: AbortSignal }} [options] `wait`: until the tab that has it closes it, or is closed;
 *   `signal` ends the waiting.
 */
export const openJournal = async (name, options) => (await PARTS.journal.load()).open(name, options);
