/**
 * Options and settings: the defaults, with changes that are looked at. A slip in a program is told where it was made, and
 * not passed over, nor found out by what comes of it.
 */
import { ConfigError } from '../errors.js';

/**
 * Throws `ConfigError` when a value is not of this type.
 *
 * @param {string} name
 * @param {unknown} value
 * @param {string} type As `typeof` says it.
 */
export function checkType(name, value, type) {
  if (typeof value !== type) throw new ConfigError(name, `not of type ${type}`);
}

/**
 * The defaults, with changes; undefined is none. Throws `ConfigError` for a name that is not among the defaults, for a value
 * of another type than a default that is not null or undefined, and for a number that is not finite or does not fit.
 *
 * @template {object} T
 * @param {T} defaults
 * @param {Partial<T> | undefined} changes
 * @param {string} [what] Those are settings of; none for the options of a call.
 * @param {(value: number, name: string) => boolean} [fits]
 * @returns {Readonly<T>}
 */
export function settings(defaults, changes, what = '', fits = (value) => value > 0) {
  checkType(what || 'options', changes ?? {}, 'object');
  const all = /** @type {Record<string, unknown>} */ ({ ...defaults });
  for (const [name, value] of Object.entries(changes ?? {})) {
    const setting = what ? `${what}.${name}` : name;
    if (!Object.hasOwn(all, name)) throw new ConfigError(setting, 'no such setting');
    if (value === undefined) continue;
    const type = typeof (all[name] ?? value);
    checkType(setting, value, type);
    if (type === 'number' && !(Number.isFinite(value) && fits(value, name))) {
      throw new ConfigError(setting, `${value} is out of range`);
    }
    all[name] = value;
  }
  return Object.freeze(/** @type {T} */ (all));
}
