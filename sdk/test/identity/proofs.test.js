import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';

import * as proofs from '../../src/identity/proofs.js';

const NONCE = new Uint8Array(32).fill(7);

/** @param {string} text */
const digest = (text) => createHash('sha256').update(text).digest();

test('an offer covers both names, connection, nonce and text', async () => {
  const expected = Buffer.concat([Buffer.from('aldis offer v1\0alice\0bob\0c\0'), NONCE, Buffer.of(0), digest('v=0é')]);
  assert.deepEqual(Buffer.from(await proofs.offer('alice', 'bob', 'c', NONCE, 'v=0é')), expected);
});

test('an answer covers the offer that it answers', async () => {
  const start = Buffer.concat([Buffer.from('aldis answer v1\0bob\0alice\0c\0'), NONCE, Buffer.of(0)]);
  const expected = Buffer.concat([start, digest('answer'), digest('offer')]);
  assert.deepEqual(Buffer.from(await proofs.answer('bob', 'alice', 'c', NONCE, 'answer', 'offer')), expected);
});

test('a name cannot reach into its neighbour', () => {
  const first = proofs.registration('h', NONCE, 'alice', 'x');
  const second = proofs.registration('h', NONCE, 'alic', 'ex');
  assert.notDeepEqual(first, second);
});

test('a host is signed in lower case', () => {
  assert.deepEqual(proofs.registration('HOST:1', NONCE, 'a', 'd'), proofs.registration('host:1', NONCE, 'a', 'd'));
});

test('a connection name is base64url, and nothing else can stand in a proof', () => {
  for (const name of ['a', '-_09AZaz', 'x'.repeat(128)]) {
    assert(proofs.validConnectionName(name));
  }
  for (const name of ['', 'a b', 'a\0b', 'a\n', 'é', 'a=', 'x'.repeat(129), null, undefined, 5, ['a']]) {
    assert(!proofs.validConnectionName(name));
  }
});
