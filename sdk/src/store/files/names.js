/**
 * Names and types of files, which come from a stranger: what may be shown, and used as the name of a file.
 *
 * In Python this is in `messages/control`. Here it is apart, because it is loaded with the files (`lazy.js`).
 */
import { MAX_TEXT, toUtf8, visible } from '../../protocol/codec.js';

/** @param {string} text */
const trim = (text) => text.replace(/^[\s.]+|[\s.]+$/g, '');

/**
 * The name of a file that may be used in any folder of any system: no path, nothing unseen, not hidden, no device of
 * Windows, at most 200 bytes of UTF-8: file systems take 255, and something may be added. Never empty.
 *
 * @param {string} name
 */
export function safeName(name) {
  // Looking at more than 1000 characters would cost its square.
  const plain = trim(visible(name.replace(/^.*[/\\]/s, '').slice(0, 1000)).replace(/[<>:"|?*]/g, '_'))
    // Devices of Windows, whatever their suffix.
    .replace(/^((con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d¹²³])\s*(\.|$))/i, '_$1');
  const [suffix = ''] = /(?<=.)\.[^.]{1,15}$/su.exec(plain) ?? [];
  const stem = plain.slice(0, plain.length - suffix.length);
  const cut = toUtf8(stem).subarray(0, MAX_TEXT - toUtf8(suffix).length);
  // As a stream: a character that is cut in two is not there yet.
  return trim(new TextDecoder().decode(cut, { stream: true }) + suffix) || 'file';
}

/**
 * A media type without parameters, in lower case; `application/octet-stream` for what is none.
 *
 * @param {string} mime
 */
export function safeMime(mime) {
  const plain = mime.replace(/;.*/s, '').trim().toLowerCase();
  return /^[\w!#$&^.+-]{1,63}\/[\w!#$&^.+-]{1,63}$/.test(plain) ? plain : 'application/octet-stream';
}
