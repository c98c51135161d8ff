/**
 * How much of the files for one peer may be on its way, so that a message does not wait long behind it.
 *
 * A message stands behind all pieces that are said and not acknowledged. On a quick line a full window of them is gone in
 * milliseconds; on one of 25 KB a second it takes 40 s. So each acknowledged piece tells how quick the line is: in the time
 * that it took, all went through that was on its way with it. As much as goes through in `DELAY` seconds, beyond the time that
 * the line takes by itself, may be on its way, or one piece where that is more. (LEDBAT, RFC 6817, has such a target for the
 * delay, too.)
 *
 * Pure: no I/O, no clock. It does not know what a file is.
 */
import { MAX_PIECE } from '../messages/control.js';
import { CONFIRM, WINDOW } from './window.js';

/** Seconds that a message may wait behind files. */
export const DELAY = 0.5;
// The longest time that a line may take by itself: even one by satellite hardly does. On a slow line nobody can tell it from
// the time of the piece.
const MOST_LATENCY = 0.5;
/** One piece: on a slow line the acknowledgement of one is awaited before the next. */
export const LEAST = MAX_PIECE;
/** Before anything is known. */
export const BEGIN = CONFIRM;

/** What is known of the line to one peer. Bytes and seconds. */
export class Pace {
  #limit = BEGIN;
  #quickest = Infinity;

  /** Whether it ever says no: the window of files may be less. */
  get limits() {
    return this.#limit < WINDOW;
  }

  /** Whether one more piece may go, while so many bytes are said and not acknowledged. @param {number} onItsWay */
  allows(onItsWay) {
    return onItsWay < this.#limit;
  }

  /**
   * A piece was acknowledged so long after it was said, when so much was on its way with it, itself included.
   *
   * @param {number} onItsWay
   * @param {number} seconds
   */
  took(onItsWay, seconds) {
    this.#quickest = Math.min(this.#quickest, seconds);
    const target = Math.min(this.#quickest, MOST_LATENCY) + DELAY;
    const passes = (onItsWay * target) / Math.max(seconds, 1e-3);
    if (seconds > target || passes > this.#limit) this.#limit = Math.min(Math.max(passes, LEAST), WINDOW);
  }
}
