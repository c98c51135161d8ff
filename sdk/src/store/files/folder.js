/**
 * A folder as one transfer, at both ends: its list of files and their content, one behind the other. Here that is one
 * `Blob`. In Python this is in `disk` and `sinks`.
 */
import { UsageError } from '../../errors.js';
import { violation } from '../../protocol/shapes.js';
import { MAX_MANIFEST, readManifest } from './manifest.js';

/**
 * @import { Entry } from './manifest.js'
 * @import { FolderFile } from './transfer.js'
 */

/** @typedef {{ file: Blob, name: string, version: string, manifest?: number }} Found What can be offered. */

/**
 * The files of a folder: as an `<input webkitdirectory>` has them, where the path of each is its `webkitRelativePath`, or each
 * with its path in the folder. Throws `UsageError`.
 *
 * @param {Iterable<File | FolderFile>} files
 * @returns {Found}
 */
export function folderOf(files) {
  const given = Symbol.iterator in Object(files) ? [...files] : [];
  const all = given.map((each) => (each instanceof File ? each : each?.blob));
  if (!all.length || all.some((each) => !(each instanceof Blob)))
    throw new UsageError('no File, Blob, or files of a folder');
  const paths = given.map((each) =>
    (each instanceof File ? each.webkitRelativePath || `folder/${each.name}` : `folder/${each.path}`).split('/'),
  );
  /** @type {Entry[]} */
  const entries = all.map(({ size }, at) => [(paths[at] ?? []).slice(1).join('/'), size]);
  const json = JSON.stringify(entries);
  const list = new Blob([json]);
  let last = '';
  try {
    readManifest(
      json,
      entries.reduce((sum, [, size]) => sum + size, 0),
      (path) => (last = path),
    );
  } catch (error) {
    throw new UsageError(`other systems cannot take ${last || 'this folder'}: ${violation(error)}`);
  }
  if (list.size > MAX_MANIFEST) throw new UsageError(`the names of the files have more than ${MAX_MANIFEST} bytes`);
  // Another sum for other times: it need not be more.
  /** @param {number} sum @param {Partial<File>} file */
  const more = (sum, { lastModified = 0 }) => (sum * 31 + lastModified) % 2 ** 47;
  const times = all.reduce(more, 0);
  const file = new Blob([list, ...all], { type: 'inode/directory' });
  return { file, name: paths[0]?.[0] ?? '', version: `${times}-${file.size}`, manifest: list.size };
}

/**
 * The files in what was received.
 *
 * @param {Blob} blob
 * @param {number} manifest The bytes of the list.
 * @returns {Promise<FolderFile[]>}
 * @throws {ProtocolViolation}
 */
export async function openFolder(blob, manifest) {
  let at = manifest;
  return readManifest(await blob.slice(0, manifest).text(), blob.size - manifest)
    .filter(([path]) => !path.endsWith('/'))
    .map(([path, size]) => ({ path, blob: blob.slice(at, (at += size)) }));
}
