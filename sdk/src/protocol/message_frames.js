/**
 * The frames of messages inside the data channel, as they are made: MESSAGE and ACK. The others, and reading, are in
 * `channel`, as in Python; these are apart, because queues need them before there is a channel.
 *
 * @import { Bytes } from './codec.js'
 */

export const VERSION = 1;
// By RFC 8841 a peer that says nothing accepts 64 KiB; every stack accepts 16 KiB unfragmented.
export const MAX_FRAME = 64 * 1024;
export const CHUNK = 16 * 1024;
/** Of a control message. */
export const CONTROL_CHUNK = 2 * CHUNK + 16;
// The largest message, because both ends hold it in memory whole. Files go in a transfer.
export const MAX_MESSAGE = 16 * 1024 * 1024;
export const MESSAGE = 2;
export const ACK = 3;

export const LAST = 0b100;
export const CONTENT = 0b011;
export const HEADER = 14; // bytes of a MESSAGE before its data
/** What we send is never larger; `MAX_FRAME` is for what we take. */
export const LARGEST_SENT = HEADER + CONTROL_CHUNK;

/**
 * A frame of a few bytes.
 *
 * @param {number} kind
 * @param {Uint8Array} rest
 * @returns {Bytes}
 */
export const frame = (kind, rest) => Uint8Array.of(kind, ...rest);

/**
 * @param {number} kind
 * @param {number | bigint} value
 * @returns {Bytes}
 */
export function numbered(kind, value) {
  const bytes = frame(kind, new Uint8Array(8));
  view(bytes).setBigUint64(1, BigInt(value));
  return bytes;
}

/**
 * For the numbers in a string of bytes.
 *
 * @param {Uint8Array} bytes
 */
export const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/**
 * The bytes of an ACK frame.
 *
 * @param {number} sequence
 */
export const encodeAck = (sequence) => numbered(ACK, sequence);

/**
 * The frames of one message, in order: at least one, each with at most `chunk` bytes of data.
 *
 * @param {number} content One of `Content`.
 * @param {number} sequence
 * @param {Uint8Array} data
 * @param {number} [chunk]
 */
export function encodeMessage(content, sequence, data, chunk = CHUNK) {
  const frames = [];
  let start = 0;
  do {
    const piece = data.subarray(start, (start += chunk));
    const bytes = new Uint8Array(HEADER + piece.length);
    bytes.set([MESSAGE, content | (start < data.length ? 0 : LAST)]);
    bytes.set(piece, HEADER);
    view(bytes).setBigUint64(2, BigInt(sequence));
    view(bytes).setUint32(10, data.length);
    frames.push(bytes);
  } while (start < data.length);
  return frames;
}
