/**
 * Folders that are chosen or dropped, with all the files that are in them. Empty folders in them are left out, since no
 * browser tells of them when a folder is chosen.
 */

/** @import { FolderFile } from '../sdk/index.js' */

/** @typedef {{ name: string, read: () => Promise<FolderFile[]> }} Folder */

/** One more than a transfer may have, so that it says so itself. The same for how deep a folder may be. */
const MOST_FILES = 65_537;
const MOST_DEEP = 33;

/**
 * What was dropped. To be called while it is dropped: after that, the browser forgets it.
 *
 * @param {DataTransfer} dropped
 * @returns {{ files: File[], folders: Folder[] }}
 */
export function dropped(dropped) {
  const entries = [...dropped.items].map((item) => (item.kind === 'file' ? item.webkitGetAsEntry?.() : null));
  const folders = entries.flatMap((entry) => (entry?.isDirectory ? [folderOf(entry)] : []));
  // A folder is among the files too, as one that cannot be read.
  const files = [...dropped.items].flatMap((item, at) => (entries[at]?.isDirectory ? [] : (item.getAsFile() ?? [])));
  return { files, folders };
}

/**
 * What an `<input webkitdirectory>` has.
 *
 * @param {Iterable<File>} files
 * @returns {Folder}
 */
export function chosen(files) {
  const all = [...files].map((file) => ({ path: file.webkitRelativePath.replace(/^[^/]*\//, ''), blob: file }));
  const name = all[0]?.blob.webkitRelativePath.replace(/\/.*/, '') ?? '';
  return { name, read: async () => all };
}

/** @param {FileSystemEntry} entry @returns {Folder} */
function folderOf(entry) {
  return {
    name: entry.name,
    async read() {
      /** @type {FolderFile[]} */
      const files = [];
      await walk(/** @type {FileSystemDirectoryEntry} */ (entry), '', files, 0);
      return files;
    },
  };
}

/**
 * @param {FileSystemDirectoryEntry} folder
 * @param {string} path
 * @param {FolderFile[]} files
 * @param {number} deep
 */
async function walk(folder, path, files, deep) {
  const reader = folder.createReader();
  for (;;) {
    const entries = await new Promise((/** @type {(found: FileSystemEntry[]) => void} */ resolve, reject) =>
      reader.readEntries(resolve, reject),
    );
    if (!entries.length) return; // some at a time, until there are none
    for (const entry of entries) {
      if (files.length >= MOST_FILES) return;
      const here = path + entry.name;
      if (!entry.isDirectory) {
        const blob = await new Promise((/** @type {(file: File) => void} */ resolve, reject) =>
          /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject),
        );
        files.push({ path: here, blob });
      } else if (deep < MOST_DEEP) {
        await walk(/** @type {FileSystemDirectoryEntry} */ (entry), `${here}/`, files, deep + 1);
      }
    }
  }
}
