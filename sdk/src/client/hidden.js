/**
 * The second clock of a hidden page, whose timers browsers run once a second or less. JavaScript only.
 *
 * It is `Atomics.waitAsync`, which Chromium does not slow down. It needs no worker, so no content security policy stands in
 * its way. Where it is slow (Firefox 153) or missing, a pause that is only there to collect what comes together ends at
 * once, by a message to ourselves.
 */

/** @import { Waiting } from './timers.js' */

/**
 * What the clock takes from the platform; tests bring another.
 *
 * @typedef {Pick<typeof globalThis, 'performance' | 'MessageChannel'> & {
 *   document: Pick<Document, 'hidden' | 'addEventListener'>,
 *   Atomics?: {
 *     notify: (cell: Int32Array<SharedArrayBuffer>, index: number) => number,
 *     waitAsync?: (cell: Int32Array<SharedArrayBuffer>, index: number, value: number, timeout: number) => { value: any },
 *   },
 * }} Page
 */

// Milliseconds. So short a pause is there to collect what comes together. Without a good second clock it is cut short
// instead of becoming a second long.
const SHORT = 50;
// The second clock is good when it has ended so many short pauses in a row in time. One that rings once a second is in
// time now and then.
const PROOFS = 3;

/**
 * @param {Page} page
 * @param {Set<Waiting>} waiting
 * @param {() => void} callDue Call back what is overdue.
 */
export function secondClock({ performance, MessageChannel, document, Atomics }, waiting, callDue) {
  /** What it waits on, made when it is needed; null where there is none. @type {Int32Array<SharedArrayBuffer> | null | undefined} */
  let cell;
  /** When it rings. */
  let alarm = Infinity;
  /** Whether what it waits for is a short pause. */
  let short = false;
  let proofs = 0;
  let frozen = false;

  /** Set it, if it is needed and would ring too late. @param {number} due */
  function setAlarm(due) {
    if (!document.hidden || frozen || due >= alarm) return;
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
  document.addEventListener('visibilitychange', setNext);
  document.addEventListener('freeze', freeze(true));
  document.addEventListener('resume', freeze(false));

  return {
    /** Whether it calls back in time. */
    get isGood() {
      return proofs >= PROOFS;
    },
    /**
     * Something more waits.
     *
     * @param {Waiting} each
     * @param {number} milliseconds
     */
    added(each, milliseconds) {
      setAlarm(each.due);
      if (!document.hidden || proofs >= PROOFS || milliseconds > SHORT) return;
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        if (waiting.has(each)) each.run();
      };
      port2.postMessage(0);
    },
  };
}
