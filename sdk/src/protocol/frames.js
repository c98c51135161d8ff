/**
 * What a CLOSE frame says (RFC 6455 section 5.5). Joining fragments, the other half of this module in Python, is the
 * platform's business here.
 */

// A control frame has at most 125 bytes, two of them the close code.
const MAX_REASON = 123;

/**
 * A reason that fits into a CLOSE frame: it is cut between two characters.
 *
 * @param {string} text
 */
export const closeReason = (text) => text.slice(0, new TextEncoder().encodeInto(text, new Uint8Array(MAX_REASON)).read);
