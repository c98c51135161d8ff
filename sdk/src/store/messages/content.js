/**
 * What an application may send, as bytes and back.
 *
 * Rules: what arrives equals what was sent. So nothing is converted on the way: what `JSON.stringify` would leave out or
 * turn into something similar (undefined, a function, NaN, a Date, an instance of a class) is refused here. Numbers are
 * those of JavaScript: -0 arrives as 0, and an integer beyond 2^53 from a program that has larger ones as the nearest.
 */
import { MessageTooLarge, ProtocolViolation, UsageError } from '../../errors.js';
import { MAX_MESSAGE } from '../../protocol/message_frames.js';
import { fromUtf8, toUtf8 } from '../../protocol/codec.js';
import * as Content from '../../protocol/kinds.js';
import { parse } from '../../protocol/shapes.js';

/** @import { Bytes } from '../../protocol/codec.js' */

/**
 * @typedef {string | number | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue }} JsonValue What
 *   JSON can say; it is not changed here.
 */

/** @typedef {string | ArrayBuffer | ArrayBufferView | JsonValue} Sendable What may be sent. */

/** @typedef {string | number | boolean | null | ReceivedJson[] | { [key: string]: ReceivedJson }} ReceivedJson */

/** @typedef {Bytes | ReceivedJson} Received What arrives, and is the recipient's: bytes always as Uint8Array. */

// Deeper ones could be written, and then not be read on the other side, whose stack may have less room.
export const MAX_DEPTH = 100;

/**
 * The kind and the bytes of a message: a string is text, an ArrayBuffer or a view of one is bytes, which are copied, all
 * else a JSON value.
 *
 * @param {Sendable} message
 * @returns {[content: number, data: Bytes]}
 * @throws {MessageTooLarge}
 * @throws {UsageError} for what would not arrive as it is.
 */
export function encode(message) {
  if (message instanceof ArrayBuffer || ArrayBuffer.isView(message)) {
    const { buffer = message, byteOffset, byteLength } = /** @type {Partial<Uint8Array<ArrayBuffer>>} */ (message);
    checkSize(message.byteLength);
    return [Content.BYTES, new Uint8Array(/** @type {ArrayBuffer} */ (buffer), byteOffset, byteLength).slice()];
  }
  check(message, MAX_DEPTH, UsageError);
  const isText = typeof message === 'string';
  const data = toUtf8(isText ? message : JSON.stringify(message));
  checkSize(data.length);
  return [isText ? Content.TEXT : Content.JSON, data];
}

/**
 * The message that `encode` was given. In JSON a key like `__proto__` is one like any other, and harmless as long as the
 * object is not merged into another one key by key.
 *
 * @param {number} content One of `Content`.
 * @param {Bytes} data
 * @returns {Received}
 * @throws {ProtocolViolation} when the bytes are not what they should be.
 */
export function decode(content, data) {
  if (content === Content.BYTES) return data;
  const text = fromUtf8(data);
  if (content === Content.TEXT) return text;
  const value = parse(text);
  check(value, MAX_DEPTH, ProtocolViolation);
  return /** @type {ReceivedJson} */ (value);
}

/** @param {number} size */
function checkSize(size) {
  if (size > MAX_MESSAGE) throw new MessageTooLarge(size, MAX_MESSAGE);
}

/**
 * @param {unknown} value
 * @param {number} depth How many levels there may be.
 * @param {new (message: string) => Error} Fault What to throw.
 */
function check(value, depth, Fault) {
  if (typeof value === 'string') {
    if (!value.isWellFormed()) throw new Fault('half a surrogate pair');
  } else if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new Fault(`JSON has no ${value}`);
  } else if (value !== null && typeof value !== 'boolean') {
    const isArray = Array.isArray(value);
    if (!isArray && !isPlain(value)) {
      const name = value?.constructor?.name ?? typeof value;
      throw new Fault(`${name} cannot be sent: it is no text, bytes or JSON value`);
    }
    if (!depth) throw new Fault(`more than ${MAX_DEPTH} levels deep, or contains itself`);
    if (isArray) {
      for (const item of value) check(item, depth - 1, Fault); // also the holes
    } else {
      for (const [key, item] of Object.entries(value)) {
        check(key, 0, Fault);
        check(item, depth - 1, Fault);
      }
    }
  }
}

/**
 * Whether it is an object of no class; in another window or frame it has another `Object.prototype`.
 *
 * @param {unknown} value
 * @returns {value is object}
 */
function isPlain(value) {
  if (typeof value !== 'object' || !value) return false;
  const prototype = Object.getPrototypeOf(value);
  return !prototype || !Object.getPrototypeOf(prototype);
}
