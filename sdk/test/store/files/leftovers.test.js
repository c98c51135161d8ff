/** What is kept of transfers that failed has limits: in transfers, and in bytes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK, Digest } from '../../../src/store/files/digest.js';
import { Leftovers } from '../../../src/store/files/leftovers.js';

/** What has arrived of a file. @param {number} blocks */
function arrived(blocks) {
  const bytes = new Uint8Array(blocks * BLOCK).fill(7);
  const digest = new Digest();
  digest.update(bytes);
  return { blob: new Blob([bytes]), digest };
}

test('the oldest goes when there are too many transfers, or too many bytes', () => {
  const leftovers = new Leftovers(3, 4 * BLOCK);
  for (const key of 'abcd') leftovers.set(key, arrived(1));
  assert.deepEqual(
    [...'abcd'].filter((key) => leftovers.get(key)),
    ['b', 'c', 'd'],
  );
  leftovers.set('e', arrived(3));
  assert.deepEqual(
    [...'bcde'].filter((key) => leftovers.get(key)),
    ['d', 'e'],
  );
  assert.equal(leftovers.size, 4 * BLOCK);
  leftovers.delete('e');
  assert.equal(leftovers.size, BLOCK);
});

test('of one that is too large alone its beginning is kept, with the checksum of that', async () => {
  const leftovers = new Leftovers(3, 2 * BLOCK + 5);
  leftovers.set('a', arrived(5));
  const kept = leftovers.get('a');
  assert.equal(kept?.blob.size, 2 * BLOCK);
  assert.equal(await kept?.digest.result(), await arrived(2).digest.result());
});

test('what is kept again counts once', () => {
  const leftovers = new Leftovers(3, 4 * BLOCK);
  for (let times = 0; times < 3; times++) leftovers.set('a', arrived(3));
  assert.equal(leftovers.size, 3 * BLOCK);
});
