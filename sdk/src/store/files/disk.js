/**
 * Where files come from and go to. A browser has no disk: it is a `Blob` at the one end, and a `Blob` or a stream of the
 * application at the other. In Python this module reads and writes files.
 */
/** @import { Bytes } from '../../protocol/codec.js' */

// Pieces that wait for the stream; honest senders fill the window with 16.
const MAX_WAITING = 1024;
// What a browser shows without running anything that is in it. All else is bytes, whatever the sender says.
const HARMLESS = /^(audio|video)\/|^image\/(?!svg)|^text\/plain$/;

/**
 * Read a part of a file that is sent. Rejects when it has changed on the disk, or is gone; a browser does not say more.
 *
 * @param {Blob} file
 * @param {number} start
 * @param {number} size
 */
export const read = async (file, start, size) => new Uint8Array(await file.slice(start, start + size).arrayBuffer());

/** A file that is received. */
export class Sink {
  /** @type {Blob[]} */
  #parts = []; // out of the memory of scripts
  /** @type {WritableStreamDefaultWriter<Bytes>} */
  #writer;
  #waiting = 0;

  /** @param {WritableStream<Bytes>} [stream] That of the application; without one there is a `Blob` in the end. */
  constructor(stream) {
    this.#writer = (
      stream ?? new WritableStream({ write: (part) => void this.#parts.push(new Blob([part])) })
    ).getWriter();
    this.isBlob = !stream;
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
    return this.isBlob ? new Blob(this.#parts, { type: HARMLESS.test(mime) ? mime : '' }) : null;
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
