/**
 * Host names: what a platform's `URL` makes of them, less what no resolver takes. See `protocol/hosts.py`.
 */

// Labels that are neither empty nor long (RFC 1035 section 2.3.4).
const HOST = /^(\[.+]|(?=.{1,254}$)([\w-]{1,63}\.)*[\w-]{1,63}\.?)$/;

/** Whether a host that `URL` has read can be resolved. @param {string} hostname */
export const isHost = (hostname) => HOST.test(hostname);
