/** What a limit of the server means to whoever calls a peer. */
import { PeerRefused } from '../errors.js';

/** @import { RequestFailed } from '../errors.js' */

/**
 * The server takes no more for a user for so many seconds.
 *
 * @param {string} userId
 * @param {RequestFailed} error
 * @param {number | null} retryAfter
 */
export const limitedCalls = (userId, { message }, retryAfter) =>
  new PeerRefused(userId, `the server takes no more calls for now: ${message}`, 'rate-limited', retryAfter);
