/**
 * Tells when the network of this device changes, and when the device has slept. Python looks at addresses instead
 * (`client/network.py`), and notices a sleep by the clock of its event loop.
 *
 * A browser tells of a change by the events `online`, and where it has `navigator.connection` (Chromium) by its `change`.
 * Where there are none (Node), no change is told. After a sleep, timers ring late by the clock on the wall, because the
 * monotonic one stands still on some systems.
 */

// Seconds between two looks, after which the page or the device has slept. A busy page is hardly late by so much.
const ASLEEP = 5;

/**
 * @param {{ changed: () => void, woke: () => void }} told
 * @returns {{ look: () => void, end: () => void }} Call `look` about once a second.
 */
export function watchNetwork({ changed, woke }) {
  const connection = /** @type {EventTarget | undefined} */ (/** @type {any} */ (globalThis.navigator)?.connection);
  let looked = Date.now();
  const look = () => {
    const before = looked;
    looked = Date.now();
    if (looked - before > ASLEEP * 1000) woke();
  };
  globalThis.addEventListener?.('online', changed);
  globalThis.document?.addEventListener?.('resume', look); // at once, and not at the next timer
  connection?.addEventListener?.('change', changed);
  return {
    look,
    end() {
      globalThis.removeEventListener?.('online', changed);
      globalThis.document?.removeEventListener?.('resume', look);
      connection?.removeEventListener?.('change', changed);
    },
  };
}
