/**
 * Time as an argument: the clock and the timers that everything above `protocol/` is given, and the real ones.
 *
 * Rules: seconds everywhere, monotonic. `callLater` never calls back at once, also not for a time that has passed.
 * Cancelling twice, or after the call, does no harm. `seconds` is a number, of any size; NaN is refused where it comes in.
 *
 * Browsers run the timers of a hidden page once a second, and some once a minute after five minutes. A hidden page is to
 * be as quick as a visible one, so it has a second clock there: `Atomics.waitAsync`, which Chromium does not slow down. It
 * needs no worker, so no content security policy stands in its way. Where it is slow (Firefox 153) or missing, `catchUp`
 * makes the network the clock: whatever arrives calls back what is overdue. And a pause that is only there to collect what
 * comes together ends at once, by a message to ourselves.
 *
 * A callback that is very late means that the page was frozen or the machine asleep. What arrived meanwhile is not read
 * yet, so a time-out would blame a peer that has answered. Such a callback waits once more, for a moment.
 */

/**
 * @typedef {object} Timers
 * @property {() => number} time Monotonic seconds since an arbitrary moment.
 * @property {(seconds: number, callback: () => void) => () => void} callLater Call back once, after so many seconds;
 *   returns what cancels it.
 */

/**
 * What the timers take from the platform; tests bring another.
 *
 * @typedef {Pick<typeof globalThis, 'performance' | 'setTimeout' | 'clearTimeout' | 'MessageChannel'> & {
 *   document?: Pick<Document, 'hidden' | 'addEventListener'>,
 *   Atomics?: {
 *     notify: (cell: Int32Array<SharedArrayBuffer>, index: number) => number,
 *     waitAsync?: (cell: Int32Array<SharedArrayBuffer>, index: number, value: number, timeout: number) => { value: any },
 *   },
 * }} Platform
 */

// All in milliseconds.
// What setTimeout can wait at most: beyond 31 bits it would call back at once.
const LONGEST = 2 ** 31 - 1;
// More than the second by which browsers delay the timers of a hidden page.
const LATE = 2000;
// How long a late callback waits for what has arrived to be read.
const GRACE = 1000;
// So short a pause is there to collect what comes together. Without a good second clock it is cut short instead of
// becoming a second long.
const SHORT = 50;
// The second clock is good when it has ended so many short pauses in a row in time. One that rings once a second is in
// time now and then.
const PROOFS = 3;

/**
 * @param {Platform} platform
 * @returns {Timers & { catchUp: () => void }}
 */
export function timersOf({ performance, setTimeout, clearTimeout, MessageChannel, document, Atomics }) {
  /** @typedef {{ due: number, run: () => void }} Waiting */
  /** @type {Set<Waiting>} */
  const waiting = new Set();
  /** What the second clock waits on; null where there is none. @type {Int32Array<SharedArrayBuffer> | null | undefined} */
  let cell;
  /** When it rings. */
  let alarm = Infinity;
  /** Whether what it waits for is a short pause. */
  let short = false;
  let proofs = 0;
  let frozen = false;

  /** Set the second clock, if it is needed and would ring too late. @param {number} due */
  function setAlarm(due) {
    if (!document?.hidden || frozen || due >= alarm) return;
    if (cell === undefined) cell = makeCell();
    if (!cell) return;
    Atomics?.notify(cell, 0); // the wait before ends with 'ok'
    alarm = due;
    const delay = Math.max(due - performance.now(), 1);
    short = delay <= SHORT;
    void Atomics?.waitAsync?.(cell, 0, 0, delay).value.then(ring);
  }

  /** @param {'ok' | 'timed-out'} how */
  function ring(how) {
    if (how === 'ok') return;
    if (short) proofs = performance.now() - alarm < SHORT ? proofs + 1 : 0;
    alarm = Infinity;
    if (frozen) return; // nothing that arrives is read either
    callDue();
    setNext();
  }

  const setNext = () => setAlarm(Math.min(...Array.from(waiting, ({ due }) => due)));

  function callDue() {
    const now = performance.now();
    for (const each of [...waiting].sort((one, other) => one.due - other.due)) {
      if (each.due <= now && waiting.has(each)) each.run();
    }
  }

  /** Shared memory without SharedArrayBuffer, which pages get only from servers that isolate them. */
  function makeCell() {
    try {
      const { buffer } = new WebAssembly.Memory({ shared: true, initial: 1, maximum: 1 });
      return Atomics?.waitAsync
        ? new Int32Array(/** @type {SharedArrayBuffer} */ (/** @type {unknown} */ (buffer)))
        : null;
    } catch {
      return null;
    }
  }

  /** @param {boolean} now */
  const freeze = (now) => () => {
    frozen = now;
    setNext();
  };
  document?.addEventListener('visibilitychange', setNext);
  document?.addEventListener('freeze', freeze(true));
  document?.addEventListener('resume', freeze(false));

  return {
    time: () => performance.now() / 1000,

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
        setAlarm(each.due);
        if (document?.hidden && proofs < PROOFS && milliseconds <= SHORT) {
          const { port1, port2 } = new MessageChannel();
          port1.onmessage = () => {
            port1.close();
            if (waiting.has(each)) each.run();
          };
          port2.postMessage(0);
        }
      };
      const delay = Math.max(seconds * 1000, 0);
      wait(delay);
      return cancel;
    },

    catchUp() {
      if (document?.hidden && proofs < PROOFS) callDue();
    },
  };
}

export const timers = timersOf(globalThis);
/** The network has brought something, and it is dealt with: call back what browsers are late with. */
export const { catchUp } = timers;
