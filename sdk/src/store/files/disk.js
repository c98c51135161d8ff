/**
 * Where files come from and go to. A browser has no disk: it is a `Blob` at the one end, and a `Blob` or a stream of the
 * application at the other. In Python this module reads and writes files.
 */
import { BLOCK, Digest } from './digest.js';

/**
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { KeptFile } from './kept.js'
 */

// Pieces that wait for the stream; honest senders fill the window with 16.
const MAX_WAITING = 1024;
// What a browser shows without running anything that is in it. All else is bytes, whatever the sender says.
const HARMLESS = /^(audio|video)\/|^image\/(?!svg)|^text\/plain$/;

/** @param {string} mime The type of a file, as its sender says. */
export const safeType = (mime) => (HARMLESS.test(mime) ? mime : '');

/**
 * Read a part of a file that is sent. Rejects when it has changed on the disk, or is gone; a browser does not say more.
 *
 * @param {Blob} file
 * @param {number} start
 * @param {number} size
 */
export const read = async (file, start, size) => new Uint8Array(await file.slice(start, start + size).arrayBuffer());

/** @typedef {{ blob: Blob, digest: Digest }} Kept What is left of a transfer that failed: whole blocks. */

/** What arrives, out of the memory of scripts. A `KeptFile` is one that outlives the page. */
class MemoryParts {
  /** @type {Blob[]} */
  parts = [];

  /** @param {Bytes} data */
  async write(data) {
    this.parts.push(new Blob([data]));
  }

  clear() {
    this.parts = [];
  }
}

/** A file that is received. */
export class Sink {
  #target;
  /** How much of it is from an earlier transfer, in bytes. */
  kept = 0;
  digest = new Digest();
  /** @type {WritableStreamDefaultWriter<Bytes>} */
  #writer;
  #waiting = 0;

  /**
   * @param {WritableStream<Bytes>} [stream] That of the application; without one there is a `Blob` in the end.
   * @param {Kept} [kept] Of the same file; not for a stream.
   * @param {KeptFile | null} [journaled] Where it goes instead of into memory.
   */
  constructor(stream, kept, journaled) {
    /** @type {MemoryParts | KeptFile} */
    const target = (this.#target = journaled ?? new MemoryParts());
    this.#writer = (stream ?? new WritableStream({ write: (part) => target.write(part) })).getWriter();
    this.isBlob = !stream;
    if (!kept) return;
    this.kept = kept.blob.size;
    this.digest = kept.digest;
    if (journaled) journaled.begin(kept.blob);
    else target.parts = [kept.blob];
  }

  /** Drop what was kept. Only before anything is written. */
  restart() {
    this.kept = 0;
    this.digest = new Digest();
    this.#target.clear();
  }

  /** What can be kept of it; null for nothing. @returns {Kept | null} */
  keep() {
    const blob = new Blob(this.#target.parts);
    const size = blob.size - (blob.size % BLOCK);
    return size ? { blob: blob.slice(0, size), digest: this.digest.cut(size) } : null;
  }

  /** Whether `write` may be called. */
  get hasRoom() {
    return this.#waiting < MAX_WAITING;
  }

  /**
   * Returns when the data is written, behind all before it. Rejects with what the stream says.
   *
   * @param {Bytes} data
   */
  async write(data) {
    this.#waiting++;
    this.digest.update(data);
    await this.#writer.write(data);
    this.#waiting--;
  }

  /**
   * Close the stream.
   *
   * @param {string} mime The type of the file, as the sender says.
   * @returns {Promise<Blob | null>} The file, unless a stream has it.
   */
  async finish(mime) {
    await this.#writer.close();
    return this.isBlob ? new Blob(this.#target.parts, { type: safeType(mime) }) : null;
  }

  /**
   * The file does not arrive.
   *
   * @param {unknown} reason
   */
  discard(reason) {
    this.#writer.abort(reason).catch(() => {});
  }
}
