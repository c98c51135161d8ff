/** What a row of a journal may say: a damaged one may say anything. All of it throws `TypeError` for what no journal has written. */
import { BYTES, JSON, TEXT } from '../../protocol/kinds.js';

/** @param {boolean} valid */
function ensure(valid) {
  if (!valid) throw new TypeError('no such value was written');
}

/** @param {any} value @returns {number} */
export function whole(value) {
  ensure(Number.isSafeInteger(value) && value >= 0);
  return value;
}

/** @param {any} value @returns {string} */
export function text(value) {
  ensure(value && typeof value === 'string');
  return value;
}

/** A row with what a message says. @param {any} value */
export function content(value) {
  ensure([TEXT, BYTES, JSON].includes(value.content) && value.data instanceof Uint8Array);
  return value;
}
