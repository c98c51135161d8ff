/**
 * Who may see a user, and who may call: the privacy of a name, as the server keeps it.
 *
 * Rules: a `Privacy` never changes; a change makes another one. A name that is blocked is blocked, whatever else stands
 * here. (The rules of a change are the server's: `protocol/privacy.py`.)
 *
 * @import { Visibility } from './messages.js'
 */

/**
 * @typedef {object} Privacy
 * @property {string} presence Who sees that the user is online: a `Visibility`, or a word of a newer server.
 * @property {string} offers Who may call.
 * @property {readonly string[]} contacts
 * @property {readonly string[]} blocked
 */

/** @type {readonly Visibility[]} */
export const VISIBILITIES = ['public', 'contacts', 'hidden'];

/**
 * A privacy as the server has written it.
 *
 * @param {Privacy} settings
 * @returns {Readonly<Privacy>}
 */
export const privacyOf = ({ presence, offers, contacts, blocked }) =>
  Object.freeze({ presence, offers, contacts: Object.freeze([...contacts]), blocked: Object.freeze([...blocked]) });

/** Everybody sees the user and may call. */
export const DEFAULT_PRIVACY = privacyOf({ presence: 'public', offers: 'public', contacts: [], blocked: [] });

/**
 * Whether two say the same.
 *
 * @param {Privacy} one
 * @param {Privacy} other
 */
export const samePrivacy = (one, other) => text(one) === text(other);

// No name has a space in it, nor a slash.
/** @param {Privacy} privacy */
const text = ({ presence, offers, contacts, blocked }) =>
  [presence, offers, [...contacts].sort().join(' '), [...blocked].sort().join(' ')].join('/');
