/**
 * Addresses: `userId` or `userId/device`.
 *
 * Rules: a user id has 1 to 128 characters (code points; enough for an e-mail address), without control characters,
 * white space and `/`. A device name has 1 to 64 of `A-Z a-z 0-9 . _ -`; the default is `main`. Comparison is by code
 * points: there is no case folding and no normalisation, because two names that look alike are still bound to two keys.
 */
import { InvalidAddress } from '../errors.js';
import { toBinary, toUtf8 } from './codec.js';

export const DEFAULT_DEVICE = 'main';

/**
 * What is wrong with a user id, in words; null when it is valid.
 *
 * @param {string} userId
 */
export function userIdProblem(userId) {
  // White space as in Unicode: \s would add U+FEFF, which servers accept. Cs: lone surrogates, which UTF-8 cannot
  // carry. The check of the type is for untyped programs: as a text, `undefined` would be a valid name.
  if (typeof userId !== 'string') return 'a name is a string: several go one by one, not as a list';
  if (/[\p{White_Space}\p{Cc}\p{Cs}/]/u.test(userId)) return "a name has no white space, '/' or control characters";
  return /^.{1,128}$/u.test(userId) ? null : 'a name has 1 to 128 characters';
}

/**
 * What is wrong with a device name, in words; null when it is valid.
 *
 * @param {string} device
 */
export const deviceProblem = (device) =>
  /^[A-Za-z0-9._-]{1,64}$/.test(device) ? null : 'a device name has 1 to 64 of A-Z a-z 0-9 . _ -';

/**
 * Return `userId`; throws `InvalidAddress` when it is not valid.
 *
 * @param {string} userId
 */
export const checkUserId = (userId) => check(userId, userIdProblem(userId));

/**
 * Return `device`; throws `InvalidAddress` when it is not valid.
 *
 * @param {string} device
 */
export const checkDevice = (device) => check(device, deviceProblem(device));

/**
 * @param {string} value
 * @param {string | null} problem
 */
function check(value, problem) {
  if (problem) {
    throw new InvalidAddress(value, problem);
  }
  return value;
}

/**
 * Split an address into user id and device. The device is null for a bare user id. Does not validate.
 *
 * @param {string} address
 * @returns {[userId: string, device: string | null]}
 */
export function split(address) {
  const slash = address.indexOf('/');
  return slash < 0 ? [address, null] : [address.slice(0, slash), address.slice(slash + 1)];
}

/**
 * Split an address from an application. Throws `InvalidAddress`.
 *
 * @param {string} address
 * @returns {[userId: string, device: string | null]}
 */
export function parse(address) {
  // The type is for programs without types, as above.
  const [userId, device] = typeof address === 'string' ? split(address) : [address, null];
  return [checkUserId(userId), device === null ? null : checkDevice(device)];
}

/**
 * The address of one device as the server writes it into `from`: without the default device.
 *
 * @param {string} userId
 * @param {string} device
 */
export const join = (userId, device) => (device === DEFAULT_DEVICE ? userId : `${userId}/${device}`);

/**
 * Whether one user id sorts before another, by UTF-8 bytes (`<` compares UTF-16, which has another order).
 *
 * @param {string} first
 * @param {string} second
 */
export const sortsBefore = (first, second) => toBinary(toUtf8(first)) < toBinary(toUtf8(second));
