/**
 * A folder as one transfer: the list of its files, a JSON array of `[path, size]`, which goes before their content. A path
 * that ends with `/` is a folder.
 *
 * A list comes from a stranger: `readManifest` says which paths may be made in a fresh folder. No path leads out of it, each
 * name is safe on every system, and no two files have one place. Names that begin with a dot stay as they are.
 */
import { check } from '../../protocol/shapes.js';
import { safeName } from './names.js';

/** @typedef {[path: string, size: number]} Entry */

/**
 * The most files and folders of one transfer: more than a source tree, and few enough to hold. As many folders again may be
 * on the ways to them.
 */
export const MAX_ENTRIES = 65_536;
/** The most names of a path. */
export const MAX_DEPTH = 32;
/** The most bytes of a list; both sides hold it in memory. */
export const MAX_MANIFEST = 8 * 1024 * 1024;

/**
 * The entries of a list, with paths that are safe to make.
 *
 * @param {string} json
 * @param {number} size The bytes that follow it.
 * @param {(path: string) => void} [reading] Called with each path before it is looked at.
 * @returns {Entry[]}
 * @throws {ProtocolViolation}
 */
export function readManifest(json, size, reading) {
  const entries = readEntries(json);
  check(entries.length <= MAX_ENTRIES, `more than ${MAX_ENTRIES} files`);
  check(entries.reduce((sum, [, each]) => sum + each, 0) === size, 'a list of another size');
  // A place is the number of the folder around it and a name: whole paths would take 16 times the bytes of the list.
  /** @type {Map<string, number>} */
  const taken = new Map(); // the number of a folder; 0 for a file
  /** @type {Map<string, string>} */
  const known = new Map();
  let folders = 0;
  return entries.map(([path, each]) => {
    reading?.(path);
    const isFolder = path.endsWith('/');
    const names = path.replace(/\/$/, '').split('/');
    check(
      names.length <= MAX_DEPTH && !(isFolder && each),
      `more than ${MAX_DEPTH} folders deep, or a folder with content`,
    );
    const safe = names.map((name) => {
      const part = known.get(name) ?? safePart(name);
      known.set(name, part);
      return part;
    });
    let at = 0;
    safe.forEach((name, index) => {
      const place = `${at}/${name}`;
      const found = taken.get(place);
      if (isFolder || index < safe.length - 1) {
        check(found !== 0, 'a file in the place of a folder');
        at = found ?? ++folders;
        taken.set(place, at);
      } else {
        check(found === undefined, 'two files with one name');
        taken.set(place, 0);
      }
    });
    check(folders <= MAX_ENTRIES, `more than ${MAX_ENTRIES} folders`);
    return [safe.join('/') + (isFolder ? '/' : ''), each];
  });
}

/**
 * @param {string} json
 * @returns {Entry[]}
 */
function readEntries(json) {
  /** @type {unknown} */
  let entries;
  try {
    entries = JSON.parse(json);
  } catch {} // and is no list
  check(Array.isArray(entries) && entries.every(isEntry), 'a broken list of files');
  return entries;
}

/** @param {unknown} value */
const isEntry = (value) =>
  Array.isArray(value) &&
  value.length === 2 &&
  typeof value[0] === 'string' &&
  value[0].isWellFormed() &&
  Number.isSafeInteger(value[1]) &&
  value[1] >= 0;

/** @param {string} name One name of a path. */
function safePart(name) {
  check(!/^\.{0,2}$|\\/.test(name), 'a path that leads out of the folder');
  return (name.startsWith('.') ? '.' : '') + safeName(name);
}
