/**
 * Invitations: a link that carries a name and the fingerprint of its key.
 *
 *     https://host/#NAME~FINGERPRINT
 *
 * Both are in the fragment, which a browser never sends: the server does not learn who invites whom. The name is
 * percent-encoded; a fingerprint has no `~`, so the last one separates the two.
 */

import { nameProblem } from './words.js';

// What people and their programs put between the characters of a fingerprint: white space, and dashes of all kinds.
const BETWEEN = /[ \t\r\n\u00a0\u2010-\u2015\u2212-]+/g;

/** @typedef {{ name: string, fingerprint: string }} Invitation */

/**
 * @param {Invitation} invitation
 * @param {string} page  the address of the page that is to be opened
 */
export function invitationLink({ name, fingerprint }, page) {
  const url = new URL(page);
  url.hash = `${encodeURIComponent(name)}~${fingerprint}`;
  url.search = '';
  return url.href;
}

/**
 * @param {string} fragment  such as `location.hash`
 * @returns {Invitation | 'damaged' | null}  null when there is none
 */
export function readInvitation(fragment) {
  const text = fragment.replace(/^#/, '');
  if (!text) return null;
  const at = text.lastIndexOf('~');
  try {
    const name = decodeURIComponent(text.slice(0, at));
    const fingerprint = readFingerprint(decodeURIComponent(text.slice(at + 1)));
    return at > 0 && !nameProblem(name) && fingerprint ? { name, fingerprint } : 'damaged';
  } catch {
    return 'damaged'; // a percent sign that encodes nothing
  }
}

/**
 * A fingerprint as people write it, in the spelling that programs compare (docs/protocol.md, "Keys"); null for what is none.
 *
 * @param {string} text
 */
export function readFingerprint(text) {
  const plain = text.replace(BETWEEN, '');
  if (!/^[a-zA-Z2-7]{32}$/.test(plain)) return null;
  return plain.toLowerCase().replace(/.{4}(?=.)/g, '$&-');
}

/** Whether a link to this page works on this machine only. @param {string} hostname */
export function isThisMachine(hostname) {
  return /^(localhost|.*\.localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname);
}
