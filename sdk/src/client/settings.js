/**
 * Settings that are numbers: the defaults, with changes that are looked at.
 */
import { ConfigError } from '../errors.js';

/**
 * The defaults, with changes; undefined is none. Throws `ConfigError` for what is no finite number, does not fit, or has a
 * name that is not among the defaults.
 *
 * @template {object} T
 * @param {string} what Those are settings of.
 * @param {T} defaults
 * @param {Partial<T> | undefined} changes
 * @param {(value: number) => boolean} fits
 * @returns {Readonly<T>}
 */
export function settings(what, defaults, changes, fits) {
  const all = /** @type {Record<string, number>} */ ({ ...defaults });
  for (const [name, value] of Object.entries(/** @type {Record<string, number>} */ (changes ?? {}))) {
    const setting = `${what}.${name}`;
    if (!Object.hasOwn(all, name)) throw new ConfigError(setting, 'no such setting');
    if (value === undefined) continue;
    if (!Number.isFinite(value) || !fits(value)) throw new ConfigError(setting, `${value} is out of range`);
    all[name] = value;
  }
  return Object.freeze(/** @type {T} */ (all));
}
