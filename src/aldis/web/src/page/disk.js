/**
 * Received files on the disk, so that a long film needs no memory: in the folder that a browser keeps for this page alone
 * (the "origin private file system"). Where there is none, the SDK keeps files in memory.
 *
 * Files are there for one visit. Each window has a folder, and holds a lock of the same name for as long as it lives; who
 * comes later waits for the lock of every folder that is there already, and removes the folder then.
 */

const PREFIX = 'aldis.received.';

const ours = openFolder().catch(() => null);

async function openFolder() {
  const root = await navigator.storage.getDirectory();
  const name = PREFIX + crypto.randomUUID();
  await new Promise((granted) => {
    void navigator.locks.request(name, () => (granted(null), new Promise(() => {})));
  });
  for await (const other of root.keys()) {
    const remove = () => root.removeEntry(other, { recursive: true });
    if (other.startsWith(PREFIX)) navigator.locks.request(other, remove).catch(() => {}); // another window was first
  }
  return root.getDirectoryHandle(name, { create: true });
}

/**
 * A sink for a file, as `transfer.accept` takes it; undefined when the file has to be kept in memory.
 *
 * @param {(file: File) => void} whole  gets the file when all of it is there
 * @returns {Promise<WritableStream<Uint8Array<ArrayBuffer>> | undefined>}
 */
export async function sinkOnDisk(whole) {
  const folder = await ours;
  const name = crypto.randomUUID();
  const handle = await folder?.getFileHandle(name, { create: true }).catch(() => null);
  if (!folder || !handle) return undefined;
  const remove = () => folder.removeEntry(name).catch(() => {}); // or it goes with the folder
  const file = await handle.createWritable?.().catch(() => null); // Safari has it since 26
  if (!file) return void (await remove());
  // A stream that has failed is not aborted, so what is there of the file goes before both sides are told why.
  const fail = async (/** @type {DOMException} */ error) => {
    await remove();
    throw new Error(error.name === 'QuotaExceededError' ? 'there is not enough room on the disk' : error.message);
  };
  return new WritableStream({
    write: (part) => file.write(part).catch(fail),
    async close() {
      await file.close().catch(fail);
      whole(await handle.getFile());
    },
    async abort() {
      // Not `abort`: Chromium locks the file for a moment after that, and then it cannot be removed.
      await file.close().catch(() => {});
      await remove();
    },
  });
}
