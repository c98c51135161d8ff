import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ProtocolViolation, UsageError } from '../../src/errors.js';
import { fingerprint, Identity, verify } from '../../src/identity/keys.js';
import * as proofs from '../../src/identity/proofs.js';
import { deviceProblem, join, sortsBefore, split, userIdProblem } from '../../src/protocol/addresses.js';
import * as channel from '../../src/protocol/channel.js';
import { decodeServerMessage, fromBase64, toBase64 } from '../../src/protocol/codec.js';
import { closeReason } from '../../src/protocol/frames.js';
import { checkFingerprint } from '../../src/store/peers/pinning.js';
import { isOlder } from '../../src/store/peers/relay_listener.js';
import { fromHex, toHex, vectors } from '../support/vectors.js';

// RFC 8410 section 7: what stands before the 32 bytes of an Ed25519 private key in PKCS #8.
const PREFIX = '302e020100300506032b657004220420';

/** @param {string} seed */
const identityOf = (seed) =>
  Identity.import(`-----BEGIN PRIVATE KEY-----\n${toBase64(fromHex(PREFIX + seed))}\n-----END PRIVATE KEY-----\n`);

// --- proofs and fingerprints ----------------------------------------------------------------------------------------

/** @type {Record<string, (inputs: Record<string, string>) => Uint8Array | Promise<Uint8Array>>} */
const SIGNED = {
  registration: ({ host, nonce, userId, device }) => proofs.registration(host, fromBase64(nonce, 32), userId, device),
  rotation: ({ userId, newPublicKey }) => proofs.rotation(userId, fromBase64(newPublicKey, 32)),
  seal: ({ userId, device, publicKey }) => proofs.seal(userId, device, fromBase64(publicKey)),
  offer: ({ from, to, connection, nonce, sdp }) => proofs.offer(from, to, connection, fromBase64(nonce, 32), sdp),
  answer: ({ from, to, connection, nonce, sdp, offerSdp }) =>
    proofs.answer(from, to, connection, fromBase64(nonce, 32), sdp, offerSdp),
};

test('every kind of proof has a vector', () => {
  const kinds = new Set(vectors('proofs').vectors.map(({ kind }) => kind));
  assert.deepEqual([...kinds].sort(), Object.keys(SIGNED).sort());
});

for (const vector of vectors('proofs').vectors) {
  test(`the bytes and the signature of a proof are exact: ${vector.name}`, async () => {
    const signed = await SIGNED[vector.kind](vector.inputs);
    assert.equal(toHex(signed), vector.bytes);
    const identity = await identityOf(vector.seed);
    assert.equal(toBase64(identity.publicKey), vector.publicKey);
    assert.equal(toBase64(await identity.sign(signed)), vector.signature);
    assert(await verify(fromBase64(vector.publicKey, 32), fromBase64(vector.signature, 64), signed));
  });
}

for (const vector of vectors('fingerprints').vectors) {
  test(`a key has its fingerprint: ${vector.fingerprint}`, async () => {
    const identity = await identityOf(vector.seed);
    assert.equal(toBase64(identity.publicKey), vector.publicKey);
    assert.equal(identity.fingerprint, vector.fingerprint);
    assert.equal(await fingerprint(fromBase64(vector.publicKey)), vector.fingerprint);
  });
}

const { fingerprint: print, read, refused } = vectors('fingerprints').spellings;

for (const text of read) {
  test(`a fingerprint is read as people write it: ${JSON.stringify(text)}`, () => {
    assert.equal(checkFingerprint(text), print);
  });
}

for (const text of refused) {
  test(`this is no fingerprint: ${JSON.stringify(text)}`, () => {
    assert.throws(() => checkFingerprint(text), UsageError);
  });
}

// --- addresses ------------------------------------------------------------------------------------------------------

const addresses = vectors('addresses');

test('names are valid or not', () => {
  for (const [names, problem] of [
    [addresses.userIds, userIdProblem],
    [addresses.devices, deviceProblem],
  ]) {
    assert.deepEqual(
      names.valid.filter((name) => problem(name) !== null),
      [],
    );
    assert.deepEqual(
      names.invalid.filter((name) => problem(name) === null),
      [],
    );
  }
});

test('addresses are taken apart and put together', () => {
  for (const { address, userId, device } of addresses.split) {
    assert.deepEqual(split(address), [userId, device]);
  }
  for (const { address, userId, device } of addresses.join) {
    assert.equal(join(userId, device), address);
  }
});

test('user ids are ordered by their UTF-8 bytes', () => {
  for (const [first, second] of addresses.order) {
    assert(sortsBefore(first, second), `${first} sorts before ${second}`);
    assert(!sortsBefore(second, first), `${second} does not sort before ${first}`);
    assert(!sortsBefore(first, first));
  }
});

// --- codec ----------------------------------------------------------------------------------------------------------

for (const vector of vectors('codec').server) {
  test(`a frame of a server is a message, or unknown, or a violation: ${vector.text.slice(0, 60)}`, () => {
    if (vector.code) {
      assert.throws(() => decodeServerMessage(vector.text), ProtocolViolation);
    } else {
      assert.deepEqual(decodeServerMessage(vector.text), vector.unknown ? null : JSON.parse(vector.encoded));
    }
  });
}

// --- WebSocket frames -------------------------------------------------------------------------------------------------

for (const [text, kept] of vectors('frames').closeReasons) {
  test(`a close reason of ${text.length} units is cut between two characters`, () => {
    assert.equal(closeReason(text), kept);
  });
}

// --- data channel ---------------------------------------------------------------------------------------------------

const frames = vectors('channel');
/** @type {Record<string, number>} */
const CONTENT = { text: 0, bytes: 1, json: 2, control: 3 };

/** @param {any} frame A vector's description of a frame, as this implementation reads it. */
function expected({ kind, ...rest }) {
  const frame = { type: kind === 'message' ? 'chunk' : kind, ...rest };
  for (const field of ['sequence', 'next']) {
    if (field in frame) {
      frame[field] = Number(frame[field]);
    }
  }
  if (kind === 'message') {
    Object.assign(frame, { content: CONTENT[rest.content], data: fromHex(rest.data) });
  } else if (kind === 'hello' && rest.received) {
    frame.received = { ...rest.received, sequence: Number(rest.received.sequence) };
  } else if ('token' in rest) {
    frame.token = BigInt(rest.token);
  }
  return frame;
}

/** Numbers that no stream reaches: this implementation does not hold them exactly, and refuses them. */
const beyond = ({ frame }) => Number(frame.sequence) > Number.MAX_SAFE_INTEGER;

for (const vector of frames.frames) {
  test(`the bytes of a frame are its frame, and can be written again: ${vector.name}`, () => {
    const bytes = fromHex(vector.bytes);
    if (beyond(vector)) {
      assert.throws(() => channel.decode(bytes), ProtocolViolation);
      return;
    }
    const frame = channel.decode(bytes);
    assert.deepEqual(frame, expected(vector.frame));
    switch (frame?.type) {
      case 'hello':
        assert.deepEqual(channel.decode(channel.encodeHello(frame)), frame);
        break;
      case 'ack':
        assert.deepEqual(channel.encodeAck(frame.sequence), bytes);
        break;
      case 'ping':
        assert.deepEqual(channel.encodePing(frame.token), bytes);
        break;
      case 'pong':
        assert.deepEqual(channel.encodePong(frame.token), bytes);
        break;
      case 'goodbye':
        assert.deepEqual(channel.encodeGoodbye(frame.reason), bytes);
    }
  });
}

for (const { name, hello, before, older } of frames.older) {
  test(`a hello is older than another of its stream with a higher number: ${name}`, () => {
    assert.equal(isOlder(hello, before.stream, before.channel), older);
  });
}

for (const vector of frames.skipped) {
  test(`a frame of an unknown kind is skipped: ${vector.name}`, () => {
    assert.equal(channel.decode(fromHex(vector.bytes)), null);
  });
}

for (const vector of frames.refused) {
  test(`a broken frame is refused: ${vector.name}`, () => {
    assert.throws(() => channel.decode(fromHex(vector.bytes)), ProtocolViolation);
  });
}

for (const vector of frames.bundles) {
  test(`a bundle is these frames: ${vector.name}`, () => {
    const [bytes, inside] = [fromHex(vector.bytes), vector.frames.map(fromHex)];
    assert.deepEqual(channel.unbundle(bytes), inside);
    assert.deepEqual(channel.encodeBundle(inside), bytes);
  });
}

for (const vector of frames.brokenBundles) {
  test(`a broken bundle is refused: ${vector.name}`, () => {
    assert.throws(() => channel.unbundle(fromHex(vector.bytes)), ProtocolViolation);
  });
}

for (const vector of frames.messages) {
  test(`a message becomes these frames: ${vector.content}`, () => {
    const made = channel.encodeMessage(
      CONTENT[vector.content],
      Number(vector.sequence),
      fromHex(vector.data),
      vector.chunk,
    );
    assert.deepEqual(made.map(toHex), vector.frames);
  });
}
