/**
 * The frames inside the data channel, which two directly connected peers exchange.
 *
 * One reliable, ordered channel with the label `aldis.v1` carries binary messages, each of them one frame. All integers
 * are big-endian.
 *
 *     HELLO    01  JSON in UTF-8                                   first frame of each side, once
 *     MESSAGE  02  flags:u8  sequence:u64  size:u32  chunk         a chunk of a message
 *     ACK      03  sequence:u64                                    all messages up to this number have arrived
 *     PING     04  token:u64                                       every 1 to 2 s
 *     PONG     05  token:u64                                       the token of a PING, back
 *     GOODBYE  06  UTF-8 text                                      an orderly end; the reason may be empty
 *     BUNDLE   07  (size:u16  frame)*                              several small frames, in order
 *
 * `flags`: bits 0 and 1 hold the kind of content, bit 2 marks the last chunk of a message. `size` is the size of the
 * whole message, the same in each of its chunks. For streams and their numbers see docs/protocol.md, "Data channel".
 *
 * Sequences are numbers: one beyond 2^53-1, which no stream reaches, is refused. Tokens are BigInts, because a PONG has
 * to return any 64 bits unchanged. A receiver skips frames of an unknown kind. The peer session (HELLO, heartbeat) and
 * the store (messages, acknowledgements) know what frames mean.
 *
 * @import { Bytes } from './codec.js'
 */
import { clean, fromUtf8, toUtf8 } from './codec.js';
import { ACK, CONTENT, frame, HEADER, LAST, MESSAGE, numbered, view } from './message_frames.js';
import { PROTOCOL } from './names.js';
import { check, integer, list, nullable, parse, shape, text } from './shapes.js';

export * from './message_frames.js';

export const LABEL = PROTOCOL;
// Bytes of a reason, which is one line of a log.
export const MAX_REASON = 200;
// Bytes of a frame that is worth bundling, and of a bundle.
export const BUNDLED = 2 * 1024;
export const MAX_BUNDLE = 16 * 1024;

const HELLO = 1;
const PING = 4;
const PONG = 5;
const GOODBYE = 6;
const BUNDLE = 7;

const BROKEN = 'a broken frame';

/**
 * @typedef {{ stream: string, sequence: number }} StreamPosition How far a stream has been received: all messages up to
 *   `sequence` (0: none yet).
 */
/**
 * @typedef {{ type: 'hello', version: number, stream: string, next: number, features: string[],
 *   received: StreamPosition | null, channel?: number | null, run?: string | null }} Hello
 *   `stream` is the name of the sender's stream, and `next` the number of the first message that it will send on this
 *   channel. `received` says how far the other side's stream has arrived here (null: none is known). `channel` counts the
 *   sender's HELLOs in this stream, on all paths: a lower number than one that has come is that of an older one.
 *   `run` names this run of the sender's program, where its stream goes on over several runs (absent: the stream names it).
 */
/**
 * @typedef {{ type: 'chunk', content: number, sequence: number, size: number, last: boolean, data: Bytes }} Chunk A
 *   piece of a message; `data` is a view into the frame.
 */
/** @typedef {Omit<Hello, 'type'>} OurHello Our own HELLO, as it goes into JSON. */
/** @typedef {{ type: 'ack', sequence: number }} Ack */
/** @typedef {{ type: 'ping' | 'pong', token: bigint }} Heartbeat */
/** @typedef {{ type: 'goodbye', reason: string }} Goodbye */
/** @typedef {Hello | Chunk | Ack | Heartbeat | Goodbye} Frame */

const name = text(1, 128);
const hello = shape({
  version: integer(),
  stream: name,
  next: integer(1),
  'features?': list(text()),
  'received?': nullable(shape({ stream: name, sequence: integer(0) })),
  'channel?': nullable(integer(1)),
  'run?': nullable(name),
});

/**
 * The bytes of a HELLO frame.
 *
 * @param {OurHello} hello
 */
export const encodeHello = (hello) => frame(HELLO, toUtf8(JSON.stringify(hello)));

/**
 * The bytes of a PING frame.
 *
 * @param {bigint} token
 */
export const encodePing = (token) => numbered(PING, token);

/**
 * The bytes of a PONG frame.
 *
 * @param {bigint} token
 */
export const encodePong = (token) => numbered(PONG, token);

/**
 * The bytes of a GOODBYE frame. A reason longer than 200 bytes is cut between two characters.
 *
 * @param {string} [reason]
 */
export function encodeGoodbye(reason = '') {
  const bytes = new Uint8Array(MAX_REASON);
  return frame(GOODBYE, bytes.subarray(0, new TextEncoder().encodeInto(reason, bytes).written));
}

/**
 * The bytes of a BUNDLE of frames, each of at most `BUNDLED` bytes.
 *
 * @param {Bytes[]} frames
 */
export function encodeBundle(frames) {
  const bytes = new Uint8Array(frames.reduce((sum, { length }) => sum + 2 + length, 1));
  let position = 1;
  bytes[0] = BUNDLE;
  for (const each of frames) {
    bytes.set([each.length >> 8, each.length], position); // an element keeps the last 8 bits
    bytes.set(each, position + 2);
    position += 2 + each.length;
  }
  return bytes;
}

/**
 * The frames of a BUNDLE, in order; any other frame alone. Throws `ProtocolViolation` for a broken bundle. A bundle
 * within a bundle is a frame of a kind that `decode` does not know.
 *
 * @param {Bytes} bytes
 */
export function unbundle(bytes) {
  if (bytes[0] !== BUNDLE) return [bytes];
  const frames = [];
  let end = 1;
  while (end + 1 < bytes.length) {
    const start = end + 2;
    end = start + view(bytes).getUint16(end);
    frames.push(bytes.subarray(start, end));
  }
  check(end === bytes.length, 'a broken bundle');
  return frames;
}

/**
 * Read one frame. Null for a kind that this version does not know; throws `ProtocolViolation` for a broken one.
 *
 * @param {Bytes} bytes
 * @returns {Frame | null}
 */
export function decode(bytes) {
  const [kind, flags = 0] = bytes;
  const rest = bytes.subarray(1);
  const header = view(bytes);
  const number = () => {
    check(bytes.length === 9, BROKEN);
    return header.getBigUint64(1);
  };
  switch (kind) {
    case HELLO:
      return {
        type: 'hello',
        features: [],
        received: null,
        .../** @type {Pick<Hello, 'version' | 'stream' | 'next'>} */ (hello(parse(fromUtf8(rest)))),
      };
    case MESSAGE:
      check(bytes.length >= HEADER, BROKEN);
      return {
        type: 'chunk',
        content: flags & CONTENT,
        sequence: exact(header.getBigUint64(2)),
        size: header.getUint32(10),
        last: (flags & LAST) > 0,
        data: bytes.subarray(HEADER),
      };
    case ACK:
      return { type: 'ack', sequence: exact(number()) };
    case PING:
      return { type: 'ping', token: number() };
    case PONG:
      return { type: 'pong', token: number() };
    case GOODBYE:
      return { type: 'goodbye', reason: clean(fromUtf8(rest)) };
  }
  check(bytes.length, 'an empty frame');
  return null;
}

/** @param {bigint} value */
const exact = (value) => integer()(Number(value));
