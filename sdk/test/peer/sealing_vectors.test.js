/** The vectors of the sealed relay: those of RFC 9180 for its suite, and our own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Identity } from '../../src/identity/keys.js';
import { Direction, setupRecipient, setupSender } from '../../src/peer/hpke.js';
import * as sealing from '../../src/peer/sealing.js';
import { fromBase64, toBase64 } from '../../src/protocol/codec.js';
import { fromHex, toHex, vectors } from '../support/vectors.js';

const RFC = vectors('hpke').vector;
const OURS = vectors('sealing');

// RFC 8410 section 7: what stands before the 32 bytes of a private key in PKCS #8.
const X25519 = '302e020100300506032b656e04220420';
const ED25519 = '302e020100300506032b657004220420';

/** @param {string} seed in hex @param {string} publicKey in hex */
async function pairOf(seed, publicKey) {
  const bytes = fromHex(X25519 + seed);
  const privateKey = await crypto.subtle.importKey('pkcs8', bytes, { name: 'X25519' }, false, ['deriveBits']);
  return { privateKey, publicKey: fromHex(publicKey) };
}

/** @param {string} seed */
const identityOf = (seed) =>
  Identity.import(`-----BEGIN PRIVATE KEY-----\n${toBase64(fromHex(ED25519 + seed))}\n-----END PRIVATE KEY-----\n`);

const partiesOf = ({ from, fromDevice, to, toDevice }) => ({ fromUser: from, fromDevice, toUser: to, toDevice });

// --- RFC 9180 ---------------------------------------------------------------------------------------------------------

test('keys, messages and exports are those of RFC 9180', async () => {
  const info = fromHex(RFC.info);
  const [enc, sender] = await setupSender(fromHex(RFC.pkRm), info, await pairOf(RFC.skEm, RFC.pkEm));
  const receiver = await setupRecipient(enc, await pairOf(RFC.skRm, RFC.pkRm), info);
  assert.equal(toHex(enc), RFC.enc);
  for (const context of [sender, receiver]) {
    assert.equal(toHex(context.key), RFC.key);
    assert.equal(toHex(context.baseNonce), RFC.base_nonce);
    assert.equal(toHex(context.exporterSecret), RFC.exporter_secret);
    for (const { exporter_context: label, L, exported_value: value } of RFC.exports) {
      assert.equal(toHex(await context.export(fromHex(label), L)), value);
    }
  }
  const direction = await Direction.of(sender.key, sender.baseNonce);
  for (const { seq, nonce, pt, aad, ct } of RFC.encryptions) {
    assert.equal(toHex(direction.nonce(seq)), nonce);
    assert.equal(toHex(await direction.seal(seq, fromHex(pt), fromHex(aad))), ct);
    assert.equal(toHex(await direction.open(seq, fromHex(ct), fromHex(aad))), pt);
  }
});

test('a key of small order is refused', async () => {
  await assert.rejects(setupSender(new Uint8Array(32), new Uint8Array()));
});

// --- ours -------------------------------------------------------------------------------------------------------------

/** The messages of a session go from either side to the other. */
async function checkMessages(vector, initiator, responder) {
  for (const message of vector.messages) {
    const [by, to] = message.by === 'initiator' ? [initiator, responder] : [responder, initiator];
    assert.equal(toBase64(await by.seal(message.counter, message.frames.map(fromHex))), message.sealed);
    const sealed = sealing.read(fromBase64(message.sealed));
    assert.deepEqual([sealed.type, toHex(sealed.session), sealed.counter], ['frames', vector.session, message.counter]);
    assert.deepEqual((await to.open(sealed)).map(toHex), message.frames);
  }
}

for (const vector of OURS.handshakes) {
  test(`a handshake is exact: ${vector.name}`, async () => {
    const [session, sealKey, theirSealKey] = ['session', 'fromSealKey', 'toSealKey'].map((name) =>
      fromHex(vector[name]),
    );
    const parties = partiesOf(vector);
    assert.equal(toHex(sealing.handshakeInfo(parties, session, sealKey, theirSealKey)), vector.info);
    const made = sealing.read(fromBase64(vector.sealed));
    const [sealed, keys] = await sealing.start(parties, session, vector.frames.map(fromHex), {
      identity: await identityOf(vector.identity),
      sealKey,
      theirSealKey,
      ephemeral: await pairOf(vector.ephemeral, toHex(made.enc)),
    });
    assert.equal(toBase64(sealed), vector.sealed);
    assert.deepEqual(
      [made.type, toHex(made.session), toHex(made.fromSealKey), toHex(made.toSealKey)],
      ['handshake', vector.session, vector.fromSealKey, vector.toSealKey],
    );
    const opened = await sealing.accept(parties, made, await pairOf(vector.toSealPrivate, vector.toSealKey));
    assert.equal(toHex(opened.publicKey), vector.publicKey);
    assert.deepEqual(opened.frames.map(toHex), vector.frames);
    await checkMessages(vector, keys, opened.keys);
    // The keys are those that the vector names.
    const [ours, theirs] = [fromHex(vector.initiator), fromHex(vector.responder)];
    const { SessionKeys } = sealing;
    await checkMessages(
      vector,
      await SessionKeys.of(session, ours, theirs),
      await SessionKeys.of(session, theirs, ours),
    );
  });
}

/** What becomes of a message of `refused`. */
async function outcome(vector) {
  const base = OURS.handshakes[vector.handshake];
  try {
    const sealed = sealing.read(fromBase64(vector.sealed));
    if (sealed.type === 'unknown') return 'unknown';
    if (sealed.type === 'handshake') {
      if (toHex(sealed.toSealKey) !== base.toSealKey) return 'other-key';
      const pair = await pairOf(base.toSealPrivate, base.toSealKey);
      await sealing.accept(partiesOf({ ...base, ...vector }), sealed, pair);
      return 'opened';
    }
    const both = [fromHex(base.initiator), fromHex(base.responder)];
    const [theirs, ours] = vector.by === 'initiator' ? both : both.reverse();
    await (await sealing.SessionKeys.of(fromHex(base.session), ours, theirs)).open(sealed);
  } catch (error) {
    assert.ok(error instanceof sealing.Unopened, String(error));
    return 'unopened';
  }
  return 'opened';
}

for (const vector of OURS.refused) {
  test(`what was not sealed for this device is not opened: ${vector.name}`, async () => {
    assert.equal(await outcome(vector), vector.error);
  });
}

test('a vector is refused for what was changed, and for nothing else', async () => {
  const [base] = OURS.handshakes;
  assert.equal(await outcome({ handshake: 0, sealed: base.sealed }), 'opened');
  const message = base.messages.find(({ by }) => by === 'initiator');
  assert.equal(await outcome({ handshake: 0, by: 'initiator', sealed: message.sealed }), 'opened');
});
