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
    navigator.locks.request(name, () => (granted(null), new Promise(() => {})));
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
  const handle = await folder?.getFileHandle(crypto.randomUUID(), { create: true }).catch(() => null);
  const file = await handle?.createWritable?.().catch(() => null); // Safari has it since 26
  if (!handle || !file) return undefined;
  return new WritableStream({
    write: (part) => file.write(part).catch(tellPlainly),
    async close() {
      await file.close().catch(tellPlainly);
      whole(await handle.getFile());
    },
    abort: () => file.abort(),
  });
}

/** Both sides are told why. @param {DOMException} error @returns {never} */
function tellPlainly(error) {
  throw new Error(error.name === 'QuotaExceededError' ? 'there is not enough room on the disk' : error.message);
}
