import assert from 'node:assert/strict';

import { IdentityError } from '../../src/errors.js';
import { fingerprint, Identity, sha256, verify } from '../../src/identity/keys.js';
import { toUtf8 } from '../../src/protocol/codec.js';
import { generator } from '../support/generator.js';
import { withGlobal } from '../support/platform.js';
import { toHex } from '../support/vectors.js';
import { test } from '../support/with_database.js';

// Written by `aldis key`, from the seed 00 01 02 ... 1f.
const PEM = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
`;
const PEM_PUBLIC_KEY = '03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8';
const PEM_FINGERPRINT = 'kzdv-vj2u-mndu-yauf-35o3-6k6k-w462-mujv';
// Its signature of "aldis", made by Python.
const PEM_SIGNATURE =
  '2688446b63db06c8fdb863f9d295ee5e402f3793f0852434511dbe8c16c0aba3' +
  '003c2c447d8f974e7dadbc64a5440a8da0f9e1805b9d842446371387c016a103';
const MESSAGE = toUtf8('message');

// --- keys -----------------------------------------------------------------------------------------------------------

test('two new identities are two', async () => {
  const [first, second] = await Promise.all([Identity.generate(), Identity.generate()]);
  assert.equal(first.publicKey.length, 32);
  assert.notDeepEqual(first.publicKey, second.publicKey);
  assert.notEqual(first.fingerprint, second.fingerprint);
  assert.equal(first.fingerprint, await fingerprint(first.publicKey));
});

test('a signature is verified by its key and message alone', async () => {
  const [identity, other] = await Promise.all([Identity.generate(), Identity.generate()]);
  const signature = await identity.sign(MESSAGE);
  assert.equal(signature.length, 64);
  assert.equal(await verify(identity.publicKey, signature, MESSAGE), true);
  assert.equal(await verify(other.publicKey, signature, MESSAGE), false);
  assert.equal(await verify(identity.publicKey, signature, toUtf8('massage')), false);
});

test('a signature with one bit changed is no signature', async () => {
  const identity = await Identity.generate();
  const signature = await identity.sign(MESSAGE);
  for (let position = 0; position < signature.length; position++) {
    const changed = signature.slice();
    changed[position] ^= 1;
    assert.equal(await verify(identity.publicKey, changed, MESSAGE), false);
  }
});

test('the second form of a signature is refused', async () => {
  // RFC 8032 section 5.1.7: S must be below the group order, or one signature would have several spellings.
  const identity = await Identity.import(PEM);
  const signature = await identity.sign(MESSAGE);
  let carry = 2n ** 252n + 27742317777372353535851937790883648493n;
  for (let position = 32; position < 64; position++) {
    carry += BigInt(signature[position] ?? 0);
    signature[position] = Number(carry & 255n);
    carry >>= 8n;
  }
  assert.equal(await verify(identity.publicKey, signature, MESSAGE), false);
});

test('verification of garbage is no, and never an exception', async () => {
  const random = generator(6);
  for (let round = 0; round < 200; round++) {
    const [key, signature, message] = [80, 80, 80].map((size) => random.bytes(random.below(size)));
    assert.equal(await verify(key, signature, message), false);
  }
});

test('the public key that is given out is a copy', async () => {
  const identity = await Identity.generate();
  identity.publicKey.fill(0);
  assert.equal(await fingerprint(identity.publicKey), identity.fingerprint);
});

test('a fingerprint is eight groups of four', async () => {
  assert.match(await fingerprint(new Uint8Array(32)), /^([a-z2-7]{4}-){7}[a-z2-7]{4}$/);
});

test('a digest is SHA-256', async () => {
  assert.equal(
    toHex(await sha256(new Uint8Array())),
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  );
});

// --- export and import ----------------------------------------------------------------------------------------------

test('a key file of Python is read, signs as it does there, and is written again to the byte', async () => {
  const identity = await Identity.import(PEM, { extractable: true });
  assert.equal(toHex(identity.publicKey), PEM_PUBLIC_KEY);
  assert.equal(identity.fingerprint, PEM_FINGERPRINT);
  assert.equal(toHex(await identity.sign(toUtf8('aldis'))), PEM_SIGNATURE);
  assert.equal(await identity.export(), PEM);
});

test('a key file with the line ends of another system is read', async () => {
  const identity = await Identity.import(`\r\n  ${PEM.replaceAll('\n', '\r\n')}\r\n`);
  assert.equal(identity.fingerprint, PEM_FINGERPRINT);
});

test('an identity is exported only when it was made for that', async () => {
  const locked = { name: 'IdentityError', message: /not to be exported/ };
  const extractable = await Identity.generate({ extractable: true });
  const copy = await Identity.import(await extractable.export());
  assert.equal(copy.fingerprint, extractable.fingerprint);
  await assert.rejects(copy.export(), locked);
  await assert.rejects((await Identity.generate()).export(), locked);
  await assert.rejects((await Identity.loadOrCreate()).export(), locked);
});

test('anything that is no key file is refused in words', async () => {
  const body = PEM.split('\n')[1] ?? '';
  const broken = {
    nothing: '',
    'no text': /** @type {any} */ (undefined),
    'a half': PEM.slice(0, 60),
    'no base64': PEM.replace(body, 'not base64!'),
    'a short key': PEM.replace(body, 'MC4CAQAwBQYDK2VwBCIEIAABAgME'),
    'a public key': PEM.replaceAll('PRIVATE', 'PUBLIC'),
    'an encrypted key': PEM.replaceAll('PRIVATE', 'ENCRYPTED PRIVATE'),
    'an X25519 key': PEM.replace(body, 'MC4CAQAwBQYDK2VuBCIEICDK6HbxXt/dhifOnry8iwILWTLuNssF9PzSE4SmKvBQ'),
    'a P-256 key': PEM.replace(
      body,
      'MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgn1xZANEaZv/5v6QR\n' +
        'mLYfPQ6yueyMhOs2W9dh217aDqihRANCAAQmo3yyz/hBQQ/YA59ux0YUJHAdQsSu\n' +
        'kUPCVIa1PrjgNLLIgxxG5s0GkEFweRKWoP+HaQ4Nvo/ZUU+gRUhDC0bO',
    ),
  };
  for (const [what, pem] of Object.entries(broken)) {
    await assert.rejects(Identity.import(pem), { name: 'IdentityError', message: /not the PEM/ }, what);
  }
});

// --- kept in the browser --------------------------------------------------------------------------------------------

test('the first call makes an identity, and the second reads it', async () => {
  const made = await Identity.loadOrCreate();
  const read = await Identity.loadOrCreate();
  assert.equal(read.fingerprint, made.fingerprint);
  assert.equal(await verify(made.publicKey, await read.sign(MESSAGE), MESSAGE), true);
  assert.notEqual((await Identity.loadOrCreate('other')).fingerprint, made.fingerprint);
});

test('tabs that make the identity at once agree on one', async () => {
  const identities = await Promise.all(Array.from({ length: 8 }, () => Identity.loadOrCreate()));
  assert.equal(new Set(identities.map((identity) => identity.fingerprint)).size, 1);
  for (const identity of identities) {
    assert.equal(await verify(identities[0].publicKey, await identity.sign(MESSAGE), MESSAGE), true);
  }
});

test('a saved identity is read back, never overwritten, and can be removed', async () => {
  const identity = await Identity.import(PEM, { extractable: true });
  assert.equal(await Identity.load('work'), null);
  await identity.save('work');
  const read = await Identity.load('work');
  assert.equal(read?.fingerprint, PEM_FINGERPRINT);
  assert.equal(await read?.export(), PEM);
  const already = { name: 'IdentityError', message: /'work' already/ };
  await assert.rejects((await Identity.generate()).save('work'), already);
  await assert.rejects(identity.save('work'), already);
  assert.equal((await Identity.load('work'))?.fingerprint, PEM_FINGERPRINT);
  await Identity.remove('work');
  assert.equal(await Identity.load('work'), null);
  await Identity.remove('work');
});

// --- a platform that cannot -----------------------------------------------------------------------------------------

test('a page that is not secure is told to use https or localhost', async () => {
  for (const crypto of [undefined, {}]) {
    await withGlobal('crypto', crypto, async () => {
      const told = { name: 'IdentityError', message: /https:\/\/.*localhost/ };
      await assert.rejects(Identity.generate(), told);
      await assert.rejects(Identity.loadOrCreate(), told);
      await assert.rejects(Identity.import(PEM), told);
      await assert.rejects(verify(new Uint8Array(32), new Uint8Array(64), MESSAGE), told);
      await assert.rejects(fingerprint(new Uint8Array(32)), told);
    });
  }
});

test('a browser without Ed25519 is told that it is too old', async () => {
  const subtle = { generateKey: () => Promise.reject(new DOMException('Unrecognized name.', 'NotSupportedError')) };
  await withGlobal('crypto', { subtle }, async () => {
    await assert.rejects(Identity.generate(), { name: 'IdentityError', message: /too old/ });
  });
});

test('a browser that keeps nothing says so, and an identity can be had all the same', async () => {
  const refusing = {
    open: () => {
      throw new DOMException('The user denied permission', 'SecurityError');
    },
  };
  for (const [indexedDB, message] of /** @type {const} */ ([
    [undefined, /no IndexedDB here/],
    [refusing, /private window/],
  ])) {
    await withGlobal('indexedDB', indexedDB, async () => {
      await assert.rejects(Identity.loadOrCreate(), { name: 'IdentityError', message });
      const identity = await Identity.generate();
      await assert.rejects(identity.save('work'), IdentityError);
    });
  }
});
