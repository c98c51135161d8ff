/**
 * Checks JSON from outside: small readers, which are combined to shapes.
 *
 * A reader takes a parsed value, and returns the part to keep or throws a `ProtocolViolation`. It copies an object
 * field by field, so that unknown fields go no further.
 */
import { ProtocolViolation } from '../errors.js';

/**
 * @template T
 * @typedef {(value: unknown) => T} Reader
 */

/**
 * Throw a `ProtocolViolation` unless something holds.
 *
 * @param {unknown} valid
 * @param {string} problem
 * @returns {asserts valid}
 */
export function check(valid, problem) {
  if (!valid) {
    throw new ProtocolViolation(problem);
  }
}

/**
 * The text of a `ProtocolViolation`; throws any other error again.
 *
 * @param {unknown} error
 */
export function violation(error) {
  if (error instanceof ProtocolViolation) return error.message;
  throw error;
}

/**
 * The result of `work`; any error becomes a `ProtocolViolation`.
 *
 * @template T
 * @param {string} problem
 * @param {() => T} work
 * @returns {T}
 */
export function attempt(problem, work) {
  try {
    return work();
  } catch {
    throw new ProtocolViolation(problem);
  }
}

/**
 * A reader of values that pass a test.
 *
 * @template T
 * @param {(value: unknown) => boolean} valid
 * @returns {Reader<T>}
 */
export const one = (valid) => (value) => {
  check(valid(value), 'a wrong value');
  return /** @type {T} */ (value);
};

/**
 * A text of so many code points, without lone surrogates.
 *
 * @param {number} [least]
 * @param {number} [most]
 * @returns {Reader<string>}
 */
export const text = (least = 0, most = Infinity) =>
  one(
    (value) =>
      typeof value === 'string' &&
      value.length >= least &&
      (value.length <= most || [...value].length <= most) &&
      value.isWellFormed(), // or UTF-8 could not carry it
  );

/**
 * A whole number that is exact.
 *
 * @param {number} [least]
 * @returns {Reader<number>}
 */
export const integer = (least = -Infinity) => one((value) => Number.isSafeInteger(value) && Number(value) >= least);

/** @type {Reader<number>} */
export const number = one(Number.isFinite);

/** @type {Reader<number>} */
export const seconds = one((value) => Number.isFinite(value) && Number(value) >= 0);

/** @type {Reader<boolean>} */
export const flag = one((value) => typeof value === 'boolean');

/**
 * A value that is passed on unread.
 *
 * @type {Reader<unknown>}
 */
export const opaque = (value) => value;

/**
 * The same, or null.
 *
 * @template T
 * @param {Reader<T>} reader
 * @returns {Reader<T | null>}
 */
export const nullable = (reader) => (value) => (value === null ? null : reader(value));

/**
 * @template T
 * @param {Reader<T>} reader
 * @returns {Reader<T[]>}
 */
export const list = (reader) => (value) => one(Array.isArray)(value).map(reader);

/**
 * A JSON object with these fields; one whose name ends with `?` may be absent, and then is absent in the copy too.
 *
 * @param {Record<string, Reader<unknown>>} fields
 * @returns {Reader<Record<string, unknown>>}
 */
export const shape = (fields) => (value) => {
  const object = fieldsOf(value);
  /** @type {Record<string, unknown>} */
  const copy = {};
  for (const [field, reader] of Object.entries(fields)) {
    const name = field.replace('?', '');
    if (Object.hasOwn(object, name)) {
      copy[name] = attempt(`'${name}' is not valid`, () => reader(object[name]));
    } else {
      check(name !== field, `'${name}' is missing`);
    }
  }
  return copy;
};

/**
 * Read a JSON object by the shape of its `type`; null for a type without a shape.
 *
 * @param {Record<string, Reader<Record<string, unknown>>>} shapes
 * @returns {(json: string) => { type: string } | null}
 */
export const typed = (shapes) => (json) => {
  const object = fieldsOf(parse(json));
  const type = text()(object.type);
  return Object.hasOwn(shapes, type) ? { type, ...shapes[type]?.(object) } : null;
};

/**
 * A JSON object: not null, and not a list.
 *
 * @type {Reader<Record<string, unknown>>}
 */
const fieldsOf = one((value) => typeof value === 'object' && value !== null && !Array.isArray(value));

/**
 * Parse JSON. Throws only `ProtocolViolation`, however deep the text is nested.
 *
 * @param {string} json
 * @returns {unknown}
 */
export const parse = (json) => attempt('not valid JSON', () => JSON.parse(json));
