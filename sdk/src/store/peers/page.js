/**
 * The page goes away, or comes back. Browser only: a Python program has no such thing.
 *
 * With `persisted` a browser may keep the page for the back button, frozen, and only where no RTCPeerConnection is open. So
 * the peers are told goodbye in either case, and called again when the page comes back. Chromium closes the WebSocket of a
 * page that it keeps; the client makes another then.
 */

/**
 * Look out for that.
 *
 * @param {{ frozen: () => void, thawed: () => void, gone: () => void }} told What is said at once still leaves.
 * @returns {() => void} Ends it.
 */
export function watchPage({ frozen, thawed, gone }) {
  const hidden = (/** @type {PageTransitionEvent} */ { persisted }) => (persisted ? frozen() : gone());
  const shown = (/** @type {PageTransitionEvent} */ { persisted }) => persisted && thawed();
  globalThis.addEventListener?.('pagehide', hidden);
  globalThis.addEventListener?.('pageshow', shown);
  return () => {
    globalThis.removeEventListener?.('pagehide', hidden);
    globalThis.removeEventListener?.('pageshow', shown);
  };
}
