/** Which key is believed: pins, what the directory says, what an invitation says. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FingerprintMismatch, IdentityError, UsageError } from '../../../src/errors.js';
import { fingerprint } from '../../../src/identity/keys.js';
import { MemoryPins } from '../../../src/identity/pins.js';
import { toBase64 } from '../../../src/protocol/codec.js';
import { checkFingerprint, claimedKey, DirectoryPins, sameKey } from '../../../src/store/peers/pinning.js';

const ONE = new Uint8Array(32).fill(1);
const OTHER = new Uint8Array(32).fill(2);

function made() {
  const memory = new MemoryPins();
  return { memory, pins: new DirectoryPins(memory, 's') };
}

test('a proof has to be by the key that the directory has named', async () => {
  const { memory, pins } = made();
  assert.deepEqual(await pins.expect('bob', ONE), ONE);
  assert.equal(await memory.find('s', 'bob'), null);
  assert.deepEqual(await pins.pin('s', 'bob', OTHER), ONE);
  assert.equal(await memory.find('s', 'bob'), null);
  assert.equal(pins.known('bob').publicKey, null);
  assert.deepEqual(await pins.pin('s', 'bob', ONE), ONE);
  assert.deepEqual(await memory.find('s', 'bob'), ONE);
  assert.deepEqual(pins.known('bob'), { publicKey: ONE, fingerprint: await fingerprint(ONE) });
});

test('a pin stands above the directory, and a person above the pin', async () => {
  const { pins } = made();
  assert.deepEqual(await pins.pin('s', 'bob', ONE), ONE);
  assert.deepEqual(await pins.expect('bob', OTHER), ONE);
  await pins.accept('bob', OTHER);
  assert.deepEqual(await pins.load('bob'), OTHER);
  assert.deepEqual(await pins.pin('s', 'bob', ONE), OTHER);
  assert.equal(pins.known('bob').fingerprint, await fingerprint(OTHER));
});

test('what was expected can be forgotten', async () => {
  const { memory, pins } = made();
  await pins.expect('bob', ONE);
  pins.forget('bob');
  pins.forget('bob');
  assert.deepEqual(await pins.pin('s', 'bob', OTHER), OTHER);
  assert.deepEqual(await memory.find('s', 'bob'), OTHER);
});

test('what another tab has pinned meanwhile stands', async () => {
  const { memory, pins } = made();
  assert.equal(await pins.load('bob'), null);
  await memory.pin('s', 'bob', ONE);
  assert.deepEqual(await pins.pin('s', 'bob', OTHER), ONE);
  assert.deepEqual(pins.known('bob').publicKey, ONE);
});

test('a fingerprint that was asked for keeps every other key out, whoever names it', async () => {
  const { memory, pins } = made();
  const [expected, offered] = [await fingerprint(ONE), await fingerprint(OTHER)];
  await pins.require('bob', expected);
  const refused = (error) => {
    assert.ok(error instanceof FingerprintMismatch);
    assert.deepEqual([error.userId, error.expected, error.offered], ['bob', expected, offered]);
    return true;
  };
  await assert.rejects(pins.expect('bob', OTHER), refused);
  await assert.rejects(pins.pin('s', 'bob', OTHER), refused);
  assert.equal(await memory.find('s', 'bob'), null);
  await pins.expect('bob', ONE);
  assert.deepEqual(await pins.pin('s', 'bob', ONE), ONE);
  await pins.require('bob', expected);
});

test('a fingerprint that was asked for in the middle of a proof counts', async () => {
  const { memory, pins } = made();
  const expected = await fingerprint(ONE);
  const pinning = pins.pin('s', 'bob', OTHER);
  const requiring = pins.require('bob', expected);
  const [pinned, required] = await Promise.allSettled([pinning, requiring]);
  assert.deepEqual([pinned.status, required.status], ['rejected', 'fulfilled']);
  assert.equal(await memory.find('s', 'bob'), null);
});

test('an invitation with another fingerprint than that of the pinned key is refused, and forgotten', async () => {
  const { pins } = made();
  await pins.pin('s', 'bob', ONE);
  await assert.rejects(pins.require('bob', await fingerprint(OTHER)), FingerprintMismatch);
  assert.deepEqual(await pins.pin('s', 'bob', ONE), ONE);
});

test('what an invitation says outlives what the directory says', async () => {
  const { memory, pins } = made();
  await pins.require('bob', await fingerprint(ONE));
  pins.forget('bob');
  await assert.rejects(pins.pin('s', 'bob', OTHER), FingerprintMismatch);
  await assert.rejects(pins.expect('bob', OTHER), FingerprintMismatch);
  assert.equal(await memory.find('s', 'bob'), null);
  assert.deepEqual(await pins.pin('s', 'bob', ONE), ONE);
});

test('a person who accepts a key has the last word over an invitation', async () => {
  const { pins } = made();
  await pins.require('bob', await fingerprint(ONE));
  await pins.accept('bob', OTHER);
  assert.deepEqual(await pins.pin('s', 'bob', OTHER), OTHER);
});

test('pins that cannot be read are an error, and nothing is believed', async () => {
  const fails = () => Promise.reject(new IdentityError('broken'));
  const pins = new DirectoryPins({ find: fails, pin: fails, accept: fails }, 's');
  await assert.rejects(pins.expect('bob', ONE), IdentityError);
  await assert.rejects(pins.pin('s', 'bob', ONE), IdentityError);
  await assert.rejects(pins.require('bob', 'x'), IdentityError);
});

test('a key that is accepted and cannot be written changes nothing: what an invitation requires stands', async () => {
  const { memory, pins } = made();
  await pins.require('bob', await fingerprint(ONE));
  memory.accept = async () => {
    throw new IdentityError('the disk is full');
  };
  await assert.rejects(pins.accept('bob', OTHER), /the disk is full/);
  await assert.rejects(pins.pin('s', 'bob', OTHER), FingerprintMismatch);
});

test('whatever pins of an application throw is an IdentityError with its cause', async () => {
  const cause = new RangeError('broken');
  const fails = () => Promise.reject(cause);
  const pins = new DirectoryPins({ find: fails, pin: fails, accept: fails }, 's');
  for (const ask of [() => pins.expect('bob', ONE), () => pins.load('bob'), () => pins.accept('bob', ONE)]) {
    await assert.rejects(ask, (error) => error instanceof IdentityError && error.cause === cause);
  }
  const [find, pin] = [async () => null, fails];
  await assert.rejects(new DirectoryPins({ find, pin, accept: fails }, 's').pin('s', 'bob', ONE), { cause });
});

test('what is no text is no fingerprint', () => {
  for (const value of [undefined, null, 5]) {
    assert.throws(() => checkFingerprint(value), UsageError);
  }
});

test('the key that a proof claims is read or not', () => {
  const proof = (publicKey) => ({ publicKey, nonce: '', signature: '' });
  assert.equal(claimedKey(null), null);
  assert.deepEqual(claimedKey(proof(toBase64(ONE))), ONE);
  for (const text of ['', 'x', toBase64(ONE.subarray(1))]) {
    assert.equal(claimedKey(proof(text)), null);
  }
});

test('keys are the same when their bytes are', () => {
  assert.ok(sameKey(ONE, ONE.slice()));
  assert.ok(!sameKey(ONE, OTHER));
  assert.ok(!sameKey(ONE, ONE.subarray(1)));
});
