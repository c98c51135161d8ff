/**
 * What two stores say to each other beyond the messages of their applications: the bytes of control messages.
 *
 * A control message is `7B ...`, a JSON object with a `type` (at most 16 KiB), or `01 id:8 offset:u64 data`, a piece of
 * a file with 1 byte to 64 KiB of data. What begins otherwise, or has another type, is of a later version and is
 * ignored; what is of a known kind and cannot be read breaks the protocol. An id is 8 random bytes in base64url.
 *
 * Names and types of files come from a stranger: `files/names.js` makes them safe. (For reasons see `clean` in
 * `protocol/codec.js`.)
 */
import { view } from '../../protocol/message_frames.js';
import { fromBase64url, fromUtf8, toBase64url, toUtf8 } from '../../protocol/codec.js';
import { check, flag, integer, shape, text, typed } from '../../protocol/shapes.js';

/** @typedef {import('../../protocol/codec.js').Bytes} Bytes */

/**
 * @typedef {{ type: 'file-offer', id: string, name: string, size: number, mime: string, version?: string,
 *   manifest?: number, stream?: boolean, resumes?: string }} FileOffer `version`, unless it is empty: the transfer is checked.
 *   `manifest`: the bytes of the list of files of a folder, which `size` includes. `stream`: nobody knows the size yet.
 *   `resumes`: the id with which the same transfer was offered first.
 * @typedef {{ type: 'file-accept', id: string, from?: number, sha256?: string }} FileAccept `sha256`: of what is before
 *   `from`.
 * @typedef {{ type: 'file-end', id: string, bytes: number, sha256: string }} FileEnd All is sent; its checksum.
 * @typedef {{ type: 'file-decline', id: string, reason: string }} FileDecline
 * @typedef {{ type: 'file-received', id: string, bytes: number }} FileReceived `bytes`: from the beginning on, written.
 * @typedef {{ type: 'file-cancel', id: string, reason: string }} FileCancel
 * @typedef {{ type: 'call-offer', id: string, audio: boolean, video: boolean }} CallOffer
 * @typedef {{ type: 'call-accept', id: string, audio: boolean, video: boolean }} CallAccept
 * @typedef {{ type: 'call-decline', id: string, reason: string }} CallDecline
 * @typedef {{ type: 'call-end', id: string, reason: string }} CallEnd
 * @typedef {FileOffer | FileAccept | FileDecline | FileReceived | FileEnd | FileCancel} FileMessage
 * @typedef {CallOffer | CallAccept | CallDecline | CallEnd} CallMessage
 * @typedef {{ type: 'piece', id: string, offset: number, data: Bytes }} Piece
 * @typedef {FileMessage | CallMessage | Piece} ControlMessage
 */

/** The most data that a piece of a file has, in bytes. */
export const MAX_PIECE = 64 * 1024;
export const ID_BYTES = 8;
const MAX_JSON = 16 * 1024;

const HEAD = 1 + ID_BYTES + 8;

const reason = text();
const size = integer(0);
/** @param {unknown} value */
const id = (value) => toBase64url(fromBase64url(reason(value), ID_BYTES));
const refusal = shape({ id, reason });
const media = shape({ id, audio: flag, video: flag });
const read = typed({
  'file-offer': shape({
    id,
    name: reason,
    size,
    mime: reason,
    'manifest?': size,
    'version?': reason,
    'stream?': flag,
    'resumes?': id,
  }),
  'file-accept': shape({ id, 'from?': size, 'sha256?': reason }),
  'file-decline': refusal,
  'file-received': shape({ id, bytes: size }),
  'file-end': shape({ id, bytes: size, sha256: reason }),
  'file-cancel': refusal,
  'call-offer': media,
  'call-accept': media,
  'call-decline': refusal,
  'call-end': refusal,
});

/**
 * The bytes of a control message.
 *
 * @param {FileMessage | CallMessage} message
 */
export const encodeControl = (message) => toUtf8(JSON.stringify(message));

/**
 * Read a control message. null for one that this version does not know; throws `ProtocolViolation` for a broken one.
 *
 * @param {Bytes} bytes
 * @returns {ControlMessage | null}
 */
export function decodeControl(bytes) {
  const { length } = bytes;
  if (bytes[0] === 1) {
    check(length > HEAD && length <= HEAD + MAX_PIECE, 'wrong size');
    return {
      type: 'piece',
      id: toBase64url(bytes.subarray(1, 1 + ID_BYTES)),
      // Beyond 2^53 it is not exact, and wrong in any case.
      offset: Number(view(bytes).getBigUint64(1 + ID_BYTES)),
      data: bytes.subarray(HEAD),
    };
  }
  if (length && bytes[0] !== 0x7b) {
    return null;
  }
  return /** @type {FileMessage | CallMessage | null} */ (read(length > MAX_JSON ? '' : fromUtf8(bytes)));
}
