/**
 * Bytes and texts: messages of the server to and from JSON, base64, UTF-8.
 *
 * A server is not trusted. A frame is either a message with exactly the fields of the protocol, each of its type; or
 * its type is unknown to this version (null); or it is a `ProtocolViolation`.
 *
 * @import { Candidate, Capabilities, ClientMessage, Description, Proof, ServerMessage } from './messages.js'
 */
import { UsageError } from '../errors.js';
import {
  attempt,
  check,
  flag,
  integer,
  list,
  nullable,
  number,
  one,
  opaque,
  seconds,
  shape,
  text,
  typed,
} from './shapes.js';

/** @typedef {Uint8Array<ArrayBuffer>} Bytes A string of bytes. */

const string = text();
const given = text(1);
/** @param {unknown} value */
const id = (value) => (typeof value === 'number' ? integer() : text(0, 64))(value);
const device = shape({ device: string, 'sealKey?': shape({ publicKey: given, signature: given }) });
const found = { userId: string, online: flag, 'publicKey?': string, 'devices?': list(device) };
const fault = { message: string, 'code?': string, 'temporary?': flag, 'retryAfter?': number };
// A user id and a device with the slash between them. The users of an address check the exact rules.
const relayed = { to: text(1, 193), 'from?': string, 'connection?': string, 'proof?': opaque, 'id?': id };

const privacy = { presence: string, offers: string, contacts: list(string), blocked: list(string) };

const read = typed({
  challenge: shape({ nonce: string, 're?': id }),
  registered: shape({
    success: flag,
    userId: string,
    'device?': string,
    'session?': string,
    'secret?': string,
    'resumed?': flag,
    'serverTime?': number,
    'limits?': shape({
      maxMessageBytes: integer(),
      maxWatches: integer(),
      resumeWindow: number,
      'relay?': flag,
      'maxRelayFileBytes?': integer(),
    }),
    're?': id,
    'privacy?': shape(privacy),
  }),
  rotated: shape({ publicKey: string, 're?': id }),
  'discover-response': shape({ ...found, 're?': id }),
  presence: shape({ ...found, 'ended?': shape(fault) }),
  error: shape({ ...fault, 're?': id }),
  ack: shape({ re: id }),
  pong: shape({ 're?': id }),
  unregistered: shape({ 're?': id }),
  'ice-servers': shape({
    iceServers: list(shape({ urls: list(string), 'username?': nullable(string), 'credential?': nullable(string) })),
    ttl: integer(),
    're?': id,
  }),
  privacy: shape({ ...privacy, 're?': id }),
  'going-away': shape({ reconnectIn: number }),
  offer: shape({ ...relayed, offer: opaque, 'capabilities?': opaque }),
  answer: shape({ ...relayed, answer: opaque, 'capabilities?': opaque }),
  'ice-candidate': shape({ ...relayed, candidate: opaque }),
  bye: shape({ ...relayed, 'reason?': string, 'code?': text(0, 64), 'retryAfter?': seconds }),
  relay: shape({ ...relayed, sealed: given }),
});

/**
 * Read one frame from a server. Null for a `type` that this version does not know; throws `ProtocolViolation`.
 *
 * @param {string} frame
 * @returns {ServerMessage | null}
 */
export const decodeServerMessage = (frame) => /** @type {ServerMessage | null} */ (read(frame));

/**
 * Write a message to the server, without undefined fields. Throws `UsageError` for text that UTF-8 cannot carry.
 *
 * @param {ClientMessage} message
 */
export const encodeClientMessage = (message) =>
  JSON.stringify(message, (_, value) => {
    if (typeof value === 'string' && !value.isWellFormed()) {
      throw new UsageError('half a surrogate pair');
    }
    return value;
  });

// Strangers send these, and they are kept until their connection is known: RFC 8839 section 5.1 leads to some 200.
const field = text(0, 256);
const candidate = nullable(
  shape({
    candidate: text(0, 1024),
    'sdpMid?': nullable(field),
    'sdpMLineIndex?': nullable(integer()),
    'usernameFragment?': nullable(field),
  }),
);
const proof = shape({ publicKey: field, nonce: field, signature: field });
const capabilities = shape({ 'trickle?': flag, 'restart?': flag });

/**
 * Read an `offer` or `answer` field, whose `type` must be `kind`; throws `ProtocolViolation`.
 *
 * @param {unknown} value
 * @param {'offer' | 'answer'} kind
 * @returns {Description}
 */
export const readDescription = (value, kind) =>
  /** @type {Description} */ (shape({ type: one((type) => type === kind), sdp: string })(value));

/**
 * Read a `candidate` field: null stands for the end of candidates. Throws `ProtocolViolation`.
 *
 * @param {unknown} value
 * @returns {Candidate | null}
 */
export function readCandidate(value) {
  const read = candidate(value);
  return read && /** @type {Candidate} */ ({ sdpMid: null, sdpMLineIndex: null, ...read });
}

/**
 * Read a `proof` field; throws `ProtocolViolation`.
 *
 * @param {unknown} value
 */
export const readProof = (value) => /** @type {Proof} */ (proof(value));

/**
 * Read a `capabilities` field. An absent or unreadable field means that the peer can do everything.
 *
 * @param {unknown} value
 * @returns {Capabilities}
 */
export function readCapabilities(value) {
  let told = {};
  try {
    told = capabilities(value);
  } catch {}
  return { trickle: true, restart: true, ...told };
}

// --- bytes ----------------------------------------------------------------------------------------------------------

/**
 * One character for each byte, so that texts compare as their bytes would.
 *
 * @param {Uint8Array} bytes
 */
export const toBinary = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');

/**
 * Standard base64 with padding (RFC 4648 section 4), as everywhere on the wire.
 *
 * @param {Uint8Array} bytes
 */
export const toBase64 = (bytes) => btoa(toBinary(bytes));

/**
 * Base64url without padding (RFC 4648 section 5), for random names.
 *
 * @param {Uint8Array} bytes
 */
export const toBase64url = (bytes) => toBase64(bytes).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');

/**
 * Read standard base64; throws `ProtocolViolation` when it is not strict, or not of `size` bytes.
 *
 * @param {string} text
 * @param {number} [size]
 */
export const fromBase64 = (text, size) => decodeBase64(text, size, toBase64);

/**
 * Read base64url without padding; throws `ProtocolViolation` when it is not strict, or not of `size` bytes.
 *
 * @param {string} text
 * @param {number} [size]
 */
export const fromBase64url = (text, size) => decodeBase64(text, size, toBase64url);

/**
 * @param {string} text
 * @param {number | undefined} size
 * @param {(bytes: Bytes) => string} encode Has to return `text` again: `atob` accepts white space and any padding, and
 *   one key would have several spellings.
 * @returns {Bytes}
 */
function decodeBase64(text, size, encode) {
  const problem = `not base64 of ${size ?? 'any'} bytes`;
  const binary = attempt(problem, () => atob(text.replaceAll('-', '+').replaceAll('_', '/')));
  const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
  check(encode(bytes) === text && bytes.length === (size ?? bytes.length), problem);
  return bytes;
}

/**
 * A text in UTF-8. Lone surrogates, which UTF-8 cannot carry, are replaced: refuse them first (`isWellFormed`).
 *
 * @param {string} text
 * @returns {Bytes}
 */
export const toUtf8 = (text) => new TextEncoder().encode(text);

/**
 * Read UTF-8; throws `ProtocolViolation` when it is not valid.
 *
 * @param {Uint8Array} bytes
 */
export const fromUtf8 = (bytes) =>
  // A byte order mark is a character like any other.
  attempt('not UTF-8', () => new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));

/** Limits of a stranger's text: characters of a reason, which is a line for people; bytes of a name. */
export const MAX_TEXT = 200;

/**
 * A text without invisible characters: control characters, and those that change the direction of writing.
 *
 * @param {string} text
 */
export const visible = (text) => text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, '');

/**
 * The same, cut to the length of a line, for any reason that an application gives.
 *
 * @param {unknown} text
 */
export const clean = (text) => [...visible(String(text ?? ''))].slice(0, MAX_TEXT).join('');
