/**
 * Time as an argument: the clock and the timers for everything above `protocol/`, and the real ones.
 *
 * Rules: seconds everywhere, monotonic. `callLater` never calls back at once, also not for a time that has passed.
 * Cancelling twice, or after the call, does no harm. `seconds` is a number of any size; callers refuse NaN.
 *
 * Browsers run the timers of a hidden page once a second, and some once a minute after five minutes. A hidden page should
 * be as quick as a visible one. So it has a second clock, `hidden.js`. Where that clock is slow or missing, `catchUp`
 * makes the network the clock: each input calls back what is overdue.
 *
 * A callback that is very late means that the page was frozen or the machine asleep. What arrived meanwhile is not read
 * yet, so a time-out would blame a peer that has answered. So such a callback waits once more, for a moment.
 */

import { secondClock } from './hidden.js';

/** @import { Page } from './hidden.js' */

/**
 * @typedef {object} Timers
 * @property {() => number} time Monotonic seconds since an arbitrary moment.
 * @property {(seconds: number, callback: () => void) => () => void} callLater Call back once, after so many seconds.
 *   Returns a function that cancels it.
 */

/** What waits, until `due` in milliseconds of `performance.now()`. @typedef {{ due: number, run: () => void }} Waiting */

/**
 * What the timers use of the platform; tests pass another one.
 *
 * @typedef {Pick<typeof globalThis, 'performance' | 'setTimeout' | 'clearTimeout'> & (Page | { document?: undefined })} Platform
 */

// All in milliseconds.
// The longest time for setTimeout: beyond 31 bits it would call back at once.
const LONGEST = 2 ** 31 - 1;
// More than the second by which browsers delay the timers of a hidden page.
const LATE = 2000;
// How long a late callback waits, so that arrived data is read first.
const GRACE = 1000;

/** @param {Platform} platform */
export function timersOf(platform) {
  const { performance, setTimeout, clearTimeout, document } = platform;
  /** @type {Set<Waiting>} */
  const waiting = new Set();
  const clock = document && secondClock(platform, waiting, callDue);

  function callDue() {
    const now = performance.now();
    for (const each of [...waiting].sort((one, other) => one.due - other.due)) {
      if (each.due <= now && waiting.has(each)) each.run();
    }
  }

  return {
    time: () => performance.now() / 1000,

    /** @type {Timers['callLater']} */
    callLater(seconds, callback) {
      /** @type {ReturnType<typeof setTimeout> | undefined} */
      let timer;
      let excused = false;
      /** @type {Waiting} */
      const each = {
        due: 0,
        run() {
          cancel();
          if (!excused && performance.now() - each.due > LATE) {
            excused = true;
            wait(Math.min(delay, GRACE));
          } else {
            callback();
          }
        },
      };
      const cancel = () => {
        clearTimeout(timer);
        waiting.delete(each);
      };
      const wait = (/** @type {number} */ milliseconds) => {
        each.due = performance.now() + milliseconds;
        waiting.add(each);
        timer =
          milliseconds > LONGEST
            ? setTimeout(() => wait(milliseconds - LONGEST), LONGEST)
            : setTimeout(each.run, milliseconds);
        clock?.added(each, milliseconds);
      };
      const delay = Math.max(seconds * 1000, 0);
      wait(delay);
      return cancel;
    },

    catchUp() {
      if (document?.hidden && !clock?.isGood) callDue();
    },
  };
}

export const timers = timersOf(globalThis);
/** The network has brought something, which has been handled: call back what browsers are late with. */
export const { catchUp } = timers;
