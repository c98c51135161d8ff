/**
 * The vectors that Python and the browser must both agree with: JSON in `tests/vectors/` of the repository.
 */
import { readFileSync } from 'node:fs';

/** @param {string} name */
export const vectors = (name) =>
  JSON.parse(readFileSync(new URL(`../../../tests/vectors/${name}.json`, import.meta.url), 'utf8'));

/** @param {string} text */
export const fromHex = (text) => Uint8Array.from(Buffer.from(text, 'hex'));

/** @param {Uint8Array} bytes */
export const toHex = (bytes) => Buffer.from(bytes).toString('hex');
