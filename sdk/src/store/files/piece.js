/** Writes pieces of files. In Python this is in `messages/control`. Here it is apart, because it is loaded with the files. */
import { view } from '../../protocol/message_frames.js';
import { fromBase64url } from '../../protocol/codec.js';
import { ID_BYTES } from '../messages/control.js';

const HEAD = 1 + ID_BYTES + 8;

/** @import { Bytes } from '../../protocol/codec.js' */

/**
 * The bytes of a piece of a file.
 *
 * @param {string} id
 * @param {number} offset
 * @param {Uint8Array} data
 * @returns {Bytes}
 */
export function encodePiece(id, offset, data) {
  const bytes = new Uint8Array(HEAD + data.length);
  bytes.set([1, ...fromBase64url(id)]);
  view(bytes).setBigUint64(1 + ID_BYTES, BigInt(offset));
  bytes.set(data, HEAD);
  return bytes;
}
