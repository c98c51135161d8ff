/**
 * Options and settings: the defaults with checked changes. A mistake in a program throws where it was made, so that it
 * is neither ignored nor found only by its effects.
 */
import { ConfigError } from '../errors.js';

/**
 * Throws `ConfigError` when a value is not of this type.
 *
 * @param {string} name
 * @param {unknown} value
 * @param {string} type The name that `typeof` gives.
 */
export function checkType(name, value, type) {
  if (typeof value !== type) throw new ConfigError(name, `not of type ${type}`);
}

/**
 * The defaults, with changes; undefined changes nothing. Throws `ConfigError` for a name without a default, for a value
 * of another type than a default that is not null or undefined, and for a number that is not finite or does not fit.
 *
 * @template {object} T
 * @param {T} defaults
 * @param {Partial<T> | undefined} changes
 * @param {string} [what] The thing that has these settings; omitted for the options of a call.
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
