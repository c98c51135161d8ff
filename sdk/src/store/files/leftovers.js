/**
 * What has arrived of transfers that failed, in memory: the same file goes on behind it when it is offered again.
 *
 * Rule: at most `most` transfers, and `size` bytes of all of them. The oldest goes first, and of one that is too large alone
 * its end. In Python it is on the disk (`sinks`), where it has a limit in time.
 */
import { BLOCK } from './digest.js';

/** @import { Kept } from './disk.js' */

/** Some browsers have blobs in memory, others on the disk, with a limit for all pages together. */
const MOST = 4;
const SIZE = 256 * 1024 * 1024;

export class Leftovers {
  /** @type {Map<string, Kept>} By what was transferred, the oldest first. */
  #kept = new Map();
  #most;
  #size;

  /**
   * @param {number} [most]
   * @param {number} [size] In bytes; whole blocks.
   */
  constructor(most = MOST, size = SIZE) {
    this.#most = most;
    this.#size = size;
  }

  /** Bytes of all. */
  get size() {
    return [...this.#kept.values()].reduce((sum, { blob }) => sum + blob.size, 0);
  }

  /** @param {string} key What is transferred. */
  get(key) {
    return this.#kept.get(key);
  }

  /** @param {string} key */
  delete(key) {
    this.#kept.delete(key);
  }

  /**
   * @param {string} key
   * @param {Kept} kept
   */
  set(key, { blob, digest }) {
    const size = Math.min(blob.size, this.#size - (this.#size % BLOCK));
    this.#kept.delete(key);
    this.#kept.set(key, size < blob.size ? { blob: blob.slice(0, size), digest: digest.cut(size) } : { blob, digest });
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= this.#most && this.size <= this.#size) return;
      this.#kept.delete(oldest);
    }
  }
}
