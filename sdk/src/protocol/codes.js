/**
 * The error codes and close codes of the wire protocol (docs/protocol.md), and how a client may react to each.
 *
 * Each close code is a separate constant, so that a bundle contains only the used ones: import this module as `codes`
 * and write `codes.GOING_AWAY`. Error codes are the strings of the protocol.
 */

/**
 * The `code` of an `error` message. A newer server may send others, so a code from the wire is a string.
 *
 * @typedef {'invalid-message' | 'unknown-type' | 'missing-fields' | 'invalid-field' | 'not-registered'
 *   | 'already-registered' | 'bad-signature' | 'key-mismatch' | 'unauthorized' | 'forbidden' | 'token-required'
 *   | 'token-invalid' | 'token-expired' | 'registration-refused' | 'not-online' | 'blocked'
 *   | 'relay-disabled' | 'rate-limited' | 'too-large' | 'over-capacity' | 'timeout' | 'internal'} ErrorCode
 */

/**
 * Whether a client may repeat a request after this error code, if the server does not say.
 *
 * @param {string} code
 */
export const isTemporary = (code) => ['rate-limited', 'over-capacity', 'timeout', 'internal'].includes(code);

/**
 * The `code` of a `bye` that refuses an offer, or a sealed session. A newer peer may send others, so a code from the wire is a string.
 *
 * @typedef {'not-accepted' | 'too-many-peers' | 'rate-limited' | 'key-refused' | 'bad-proof' | 'invalid-offer'
 *   | 'seal-unknown' | 'no-relay' | 'internal'} RefusalCode
 */

/** The `code` of a `bye` that ends an attempt because it found no path; this is no refusal. */
export const NO_PATH = 'no-path';

/** Seconds. A longer `retryAfter` is cut to this, because the other side may make it up. */
export const LONGEST_PAUSE = 300;

// RFC 6455 section 7.4.1 below 4000; Aldis's own from 4000 (section 7.4.2).
export const NORMAL = 1000;
export const LEAVING = 1001;
export const PROTOCOL_ERROR = 1002;
export const UNSUPPORTED_DATA = 1003;
export const NO_STATUS = 1005;
export const ABNORMAL = 1006;
export const INVALID_UTF8 = 1007;
export const TOO_BIG = 1009;
export const INTERNAL_ERROR = 1011;
export const GOING_AWAY = 4000;
export const REPLACED = 4001;
export const SLOW_CONSUMER = 4002;
export const NO_PONG = 4003;
export const REGISTRATION_TIMEOUT = 4004;
export const SESSION_LOST = 4005;
export const TOKEN_EXPIRED = 4006;
export const OUT_OF_MEMORY = 4007;
export const BAD_PROTOCOL = 4500;
export const UNAUTHORIZED = 4501;
export const ORIGIN_NOT_ALLOWED = 4502;
export const BANNED = 4503;
export const OVER_LIMITS = 4504;
export const UNKNOWN_HOST = 4505;

/**
 * Whether a client may reconnect by itself after the connection was closed with `code`.
 *
 * After 4000 to 4499 it may, except after 4001: two programs with one address would replace each other for ever. After
 * 4500 and above, and after the codes for a violation of the protocol, a person has to change something first. After
 * 4504 it may, but not soon (`client/backoff.js`): the client was too fast, and nothing is wrong with it otherwise.
 *
 * @param {number} code
 */
export const mayReconnect = (code) =>
  code >= GOING_AWAY
    ? code === OVER_LIMITS || (code < BAD_PROTOCOL && code !== REPLACED)
    : ![PROTOCOL_ERROR, UNSUPPORTED_DATA, INVALID_UTF8, TOO_BIG].includes(code);
