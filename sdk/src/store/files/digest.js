/**
 * The checksum of a transfer: SHA-256 over the SHA-256 of each MiB; the last block may be shorter, and nothing has no
 * blocks. WebCrypto digests no stream, but blocks. It answers later, so this module is not pure, unlike in Python.
 */
import { toBase64url } from '../../protocol/codec.js';

/** @import { Bytes } from '../../protocol/codec.js' */

export const BLOCK = 1024 * 1024;

/** @param {Bytes} bytes It copies them before it returns. */
const sha256 = (bytes) => crypto.subtle.digest('SHA-256', bytes);

/** The checksum of the bytes so far. */
export class Digest {
  /** @type {Promise<ArrayBuffer>[]} Of the whole blocks. */
  #digests = [];
  /** @type {Bytes | null} What is begun. */
  #block = null;
  #filled = 0;

  /** @param {Bytes} data These bytes come next. */
  update(data) {
    for (let at = 0; at < data.length;) {
      const part = data.subarray(at, at + BLOCK - this.#filled);
      const block = (this.#block ??= new Uint8Array(BLOCK));
      block.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled === BLOCK) {
        this.#digests.push(sha256(block));
        this.#filled = 0;
      }
    }
  }

  /** That of all bytes so far, in base64url; more may follow. */
  async result() {
    const digests = [...this.#digests];
    if (this.#block && this.#filled) digests.push(sha256(this.#block.subarray(0, this.#filled)));
    const all = await new Blob(await Promise.all(digests)).arrayBuffer();
    return toBase64url(new Uint8Array(await sha256(new Uint8Array(all))));
  }

  /**
   * A checksum of the first blocks alone.
   *
   * @param {number} size A multiple of `BLOCK`, and not more than there was.
   */
  cut(size) {
    const digest = new Digest();
    digest.#digests = this.#digests.slice(0, size / BLOCK);
    return digest;
  }
}
