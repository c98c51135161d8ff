/**
 * What a message in the data channel is made of: UTF-8 text, bytes, a JSON value, or a word from store to store.
 *
 * Each is a constant of its own, so that a bundle holds nothing but numbers: import this module as `Content`.
 */

export const TEXT = 0;
export const BYTES = 1;
export const JSON = 2;
export const CONTROL = 3;
