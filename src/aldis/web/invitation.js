/**
 * Invitations: a link that carries a name and the fingerprint of its key.
 *
 *     https://host/#NAME~FINGERPRINT
 *
 * Both are in the fragment, which a browser never sends: the server does not learn who invites whom. The name is
 * percent-encoded; a fingerprint has no `~`, so the last one separates the two.
 */

import { nameProblem } from './words.js';

const FINGERPRINT = /^[a-z2-7]{4}(-[a-z2-7]{4}){7}$/;

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
  const fingerprint = text.slice(at + 1).toLowerCase();
  try {
    const name = decodeURIComponent(text.slice(0, at));
    return at > 0 && !nameProblem(name) && isFingerprint(fingerprint) ? { name, fingerprint } : 'damaged';
  } catch {
    return 'damaged'; // a percent sign that encodes nothing
  }
}

/** Whether this is written as a fingerprint is. @param {unknown} text @returns {text is string} */
export function isFingerprint(text) {
  return typeof text === 'string' && FINGERPRINT.test(text);
}

/** Whether a link to this page works on this machine only. @param {string} hostname */
export function isThisMachine(hostname) {
  return /^(localhost|.*\.localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname);
}
