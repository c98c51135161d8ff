/** Seal keys: which is published, how long an earlier one opens handshakes, and whose signature counts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Identity } from '../../src/identity/keys.js';
import * as proofs from '../../src/identity/proofs.js';
import { checkedSealKey, SealKeys } from '../../src/identity/seal_keys.js';

const alice = await Identity.generate();
const mallory = await Identity.generate();

async function registered(keys, now, resuming = false) {
  const published = await keys.toRegister(alice, resuming);
  keys.registered(now);
  return published;
}

test('a key is signed for its user and device', async () => {
  const published = await new SealKeys('alice', 'phone').toRegister(alice, false);
  assert.deepEqual(await checkedSealKey(published, alice.publicKey, 'alice', 'phone'), published.publicKey);
  assert.equal(await checkedSealKey(published, alice.publicKey, 'alice', 'main'), null);
  assert.equal(await checkedSealKey(published, alice.publicKey, 'bob', 'phone'), null);
  assert.equal(await checkedSealKey(published, mallory.publicKey, 'alice', 'phone'), null);
  assert.equal(await checkedSealKey(undefined, alice.publicKey, 'alice', 'phone'), null);
});

test('a key of another kind is no key, though it is signed', async () => {
  const publicKey = new Uint8Array(1216);
  const signature = await alice.sign(proofs.seal('alice', 'main', publicKey));
  assert.equal(await checkedSealKey({ publicKey, signature }, alice.publicKey, 'alice', 'main'), null);
});

test('the private key agrees with whoever has the published one, and no script can read it', async () => {
  const { subtle } = globalThis.crypto;
  const keys = new SealKeys('alice', 'main');
  const { publicKey } = await registered(keys, 0);
  const { privateKey } = keys.find(publicKey, 0);
  const other = await subtle.generateKey({ name: 'X25519' }, false, ['deriveBits']);
  const ours = await subtle.importKey('raw', publicKey, { name: 'X25519' }, false, []);
  assert.deepEqual(
    await subtle.deriveBits({ name: 'X25519', public: other.publicKey }, privateKey, 256),
    await subtle.deriveBits({ name: 'X25519', public: ours }, other.privateKey, 256),
  );
  assert.equal(privateKey.extractable, false);
});

test('each registration has a new key unless it resumes', async () => {
  const keys = new SealKeys('alice', 'main');
  assert.equal(keys.current, null);
  const first = await registered(keys, 0);
  assert.deepEqual((await registered(keys, 1, true)).publicKey, first.publicKey);
  const second = await registered(keys, 2);
  assert.notDeepEqual(second.publicKey, first.publicKey);
  assert.deepEqual(keys.current.publicKey, second.publicKey);
});

test('a registration that failed shows its key again, and fills no room', async () => {
  const keys = new SealKeys('alice', 'main');
  const first = await keys.toRegister(alice, false);
  assert.deepEqual((await keys.toRegister(alice, false)).publicKey, first.publicKey);
});

test('an earlier key opens handshakes for a minute from when another one is shown', async () => {
  const keys = new SealKeys('alice', 'main');
  const first = await registered(keys, 0);
  const { pair, sealKey } = await keys.toPublish(alice);
  assert.ok(keys.find(first.publicKey, 1000)); // the server still shows it
  keys.published(pair, 1000);
  assert.ok(keys.find(first.publicKey, 1059.999));
  assert.equal(keys.find(first.publicKey, 1060), null);
  assert.ok(keys.find(sealKey.publicKey, 1e9));
  assert.equal(keys.find(new Uint8Array(32), 0), null);
});

test('few keys are kept, however often another one is made', async () => {
  const keys = new SealKeys('alice', 'main');
  const made = [await registered(keys, 0)];
  for (let times = 0; times < 20; times++) made.push((await keys.toPublish(alice)).sealKey);
  assert.equal(made.filter(({ publicKey }) => keys.find(publicKey, 0)).length, 4);
});

test('the signal of a registration without a key changes nothing', () => {
  const keys = new SealKeys('alice', 'main');
  keys.registered(0);
  assert.equal(keys.current, null);
});
