/**
 * Time as an argument: the clock and the timers that everything above `protocol/` is given, and the real ones.
 *
 * Rules: seconds everywhere, monotonic. `callLater` never calls back at once, also not for a time that has passed.
 * Cancelling twice, or after the call, does no harm. `seconds` is a number, of any size; NaN is refused where it comes in.
 */

/**
 * @typedef {object} Timers
 * @property {() => number} time Monotonic seconds since an arbitrary moment.
 * @property {(seconds: number, callback: () => void) => () => void} callLater Call back once, after so many seconds;
 *   returns what cancels it.
 */

// What setTimeout can wait at most, in milliseconds: beyond 31 bits it would call back at once.
const LONGEST = 2 ** 31 - 1;

/** @type {Timers} */
export const timers = {
  time: () => performance.now() / 1000,
  callLater(seconds, callback) {
    /** @type {ReturnType<typeof setTimeout>} */
    let timer;
    const wait = (/** @type {number} */ left) => {
      timer = left > LONGEST ? setTimeout(wait, LONGEST, left - LONGEST) : setTimeout(callback, left);
    };
    wait(seconds * 1000);
    return () => clearTimeout(timer);
  },
};
