/**
 * The content of a message in the data channel: UTF-8 text, bytes, a JSON value, or a control message from store to
 * store.
 *
 * Each is a separate constant, so that a bundle contains only numbers: import this module as `Content`.
 */

export const TEXT = 0;
export const BYTES = 1;
export const JSON = 2;
export const CONTROL = 3;
