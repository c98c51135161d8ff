/** Checksums and lists of files against tests/vectors/files.json, which Python's must follow as well. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProtocolViolation } from '../../../src/errors.js';
import { BLOCK, Digest } from '../../../src/store/files/digest.js';
import { MAX_ENTRIES, readManifest } from '../../../src/store/files/manifest.js';
import { vectors } from '../../support/vectors.js';

const { digests, manifests } = vectors('files');

/** @param {number} size */
const pattern = (size) => Uint8Array.from({ length: size }, (_, at) => at * 7 + Math.floor(at / 256));

for (const { size, sha256 } of digests) {
  for (const step of [65_536, 1_000_003]) {
    test(`the checksum of ${size} bytes, ${step} at a time`, async () => {
      const data = pattern(size);
      const digest = new Digest();
      for (let at = 0; at < size; at += step) {
        digest.update(data.subarray(at, at + step));
        if (!at) await digest.result(); // changes nothing
      }
      assert.equal(await digest.result(), sha256);
    });
  }
}

test('the checksum of the first blocks alone', async () => {
  const digest = new Digest();
  digest.update(pattern(3 * BLOCK + 5));
  const first = new Digest();
  first.update(pattern(BLOCK));
  const cut = digest.cut(BLOCK);
  assert.equal(await cut.result(), await first.result());
  cut.update(pattern(3 * BLOCK + 5).subarray(BLOCK));
  assert.equal(await cut.result(), await digest.result());
});

for (const { name, manifest, content, entries } of manifests) {
  test(`the list of files of a folder: ${name}`, () => {
    if (entries) assert.deepEqual(readManifest(manifest, content), entries);
    else assert.throws(() => readManifest(manifest, content), ProtocolViolation);
  });
}

test('a list with more files than it may have is refused', () => {
  const many = JSON.stringify(Array.from({ length: MAX_ENTRIES + 1 }, (_, at) => [`${at}`, 0]));
  assert.throws(() => readManifest(many, 0), ProtocolViolation);
});

test('a list with more folders on the ways than it may have is refused', () => {
  const way = (/** @type {number} */ number) => Array.from({ length: 21 }, (_, level) => `${number}${level}`).join('/');
  const many = Array.from({ length: Math.floor(MAX_ENTRIES / 21) + 1 }, (_, number) => [`${way(number)}/f`, 0]);
  assert.throws(() => readManifest(JSON.stringify(many), 0), ProtocolViolation);
  assert.equal(readManifest(JSON.stringify(many.slice(1)), 0).length, many.length - 1);
});
