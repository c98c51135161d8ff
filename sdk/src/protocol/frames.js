/**
 * The reason in a CLOSE frame (RFC 6455 section 5.5). The Python module also joins fragments, which the platform does
 * here.
 */

// A control frame has at most 125 bytes, two of them the close code.
const MAX_REASON = 123;

/**
 * A reason for a CLOSE frame, cut between two characters if it is too long.
 *
 * @param {string} text
 */
export const closeReason = (text) => text.slice(0, new TextEncoder().encodeInto(text, new Uint8Array(MAX_REASON)).read);
