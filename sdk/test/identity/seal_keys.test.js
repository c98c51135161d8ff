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
  const made = [];
  for (let times = 0; times < 20; times++) made.push(await registered(keys, 0));
  assert.equal(made.filter(({ publicKey }) => keys.find(publicKey, 0)).length, 4);
});

test('a key that could not be published is tried again, and the published one stays', async () => {
  const keys = new SealKeys('alice', 'main');
  const { publicKey } = await registered(keys, 0);
  const tries = [await keys.toPublish(alice)];
  for (let times = 0; times < 10; times++) tries.push(await keys.toPublish(alice));
  assert.equal(new Set(tries.map(({ pair }) => pair)).size, 1);
  assert.deepEqual(keys.current.publicKey, publicKey);
  assert.equal(keys.find(publicKey, 1e9), keys.current);
  const [{ pair }] = tries;
  keys.published(pair, 1e9);
  assert.equal(keys.current, pair);
  assert.notEqual((await keys.toPublish(alice)).pair, pair);
});

test('two that publish at once publish the same key', async () => {
  const keys = new SealKeys('alice', 'main');
  await registered(keys, 0);
  const [one, other] = await Promise.all([keys.toPublish(alice), keys.toPublish(alice)]);
  assert.equal(one.pair, other.pair);
});

test('the published key stays among many earlier ones, while another one waits', async () => {
  const keys = new SealKeys('alice', 'main');
  let published = await registered(keys, 0);
  for (let times = 0; times < 4; times++) published = await registered(keys, 0);
  const { pair } = await keys.toPublish(alice);
  assert.equal(keys.find(published.publicKey, 0), keys.current);
  assert.equal(keys.find(pair.publicKey, 0), pair); // the server may have taken it, and its answer is lost
});

test('a session resumes with the published key, and not with one that waits', async () => {
  const keys = new SealKeys('alice', 'main');
  const { publicKey } = await registered(keys, 0);
  await keys.toPublish(alice);
  assert.deepEqual((await registered(keys, 1, true)).publicKey, publicKey);
  assert.equal(keys.find(publicKey, 1e9), keys.current);
});

test('an expired key is forgotten, though no handshake comes', async () => {
  const keys = new SealKeys('alice', 'main');
  const { publicKey } = await registered(keys, 0);
  assert.equal(keys.nextExpiry, Infinity);
  keys.published((await keys.toPublish(alice)).pair, 1000);
  assert.equal(keys.nextExpiry, 1060);
  keys.purge(1059.999);
  assert.ok(keys.find(publicKey, 0));
  keys.purge(1060);
  assert.equal(keys.find(publicKey, 0), null);
  assert.equal(keys.nextExpiry, Infinity);
  keys.purge(Infinity);
  assert.equal(keys.current, null);
});

test('the signal of a registration without a key changes nothing', () => {
  const keys = new SealKeys('alice', 'main');
  keys.registered(0);
  assert.equal(keys.current, null);
});
