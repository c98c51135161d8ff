/**
 * Host names: the platform's `URL` reads them, and this module refuses names that no resolver accepts. See
 * `protocol/hosts.py`.
 */

// Labels that are neither empty nor too long (RFC 1035 section 2.3.4).
const HOST = /^(\[.+]|(?=.{1,254}$)([\w-]{1,63}\.)*[\w-]{1,63}\.?)$/;

/** Whether a host that `URL` has read can be resolved. @param {string} hostname */
export const isHost = (hostname) => HOST.test(hostname);
