/**
 * When a client has to publish another sealing key. It publishes one with each registration; while a session is
 * resumed, its key stays. `identity/seal_keys.js` makes and keeps the keys.
 *
 * @import { Limits, Register } from '../protocol/messages.js'
 * @import { Effect } from './effects.js'
 */

// Seconds. What was sealed to a key can be read as long as the key is kept.
const RENEWAL_SECONDS = 3600;
// Seconds until the next try, if a key could not be published.
const RETRY_SECONDS = 60;

/** When another key is due, for one client. Then it asks for it by an effect. */
export class SealKeySchedule {
  /** When to publish another key; Infinity without one, and where the server relays no sealed messages. */
  due = Infinity;
  #effects;

  /** @param {Effect[]} effects */
  constructor(effects) {
    this.#effects = effects;
  }

  /**
   * The server shows the key of this registration, if it has one.
   *
   * @param {Register} request
   * @param {Limits | undefined} limits
   * @param {number} now
   * @param {boolean} resumed
   */
  registered(request, limits, now, resumed) {
    if (!request.sealKey || !limits?.relay) {
      this.due = Infinity;
    } else if (request.resume && !resumed) {
      this.#ask(now); // the key is that of the session that is over
    } else if (!resumed || this.due === Infinity) {
      this.due = now + RENEWAL_SECONDS;
    }
  }

  /** The server shows the key of a `seal-key`, be it the first one. @param {number} now */
  published(now) {
    this.due = now + RENEWAL_SECONDS;
  }

  /** Time has passed. @param {number} now */
  look(now) {
    if (now >= this.due) this.#ask(now);
  }

  /** @param {number} now */
  #ask(now) {
    this.due = now + RETRY_SECONDS;
    this.#effects.push({ type: 'sealKeyDue' });
  }
}
