import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProtocolViolation } from '../../../src/errors.js';
import { MAX_PIECE, decodeControl, encodeControl } from '../../../src/store/messages/control.js';
import { encodePiece } from '../../../src/store/files/piece.js';
import { safeMime, safeName } from '../../../src/store/files/names.js';
import { fromHex, toHex, vectors } from '../../support/vectors.js';

const { words, calls, read_only, pieces, ignored, refused, names, mimes } = vectors('controls');
const id = 'AAECAwQFBgc';

for (const { name, bytes, word } of [...words, ...calls]) {
  test(`a control message is read and written: ${name}`, () => {
    assert.deepEqual(decodeControl(fromHex(bytes)), word);
    assert.equal(toHex(encodeControl(word)), bytes);
  });
}

for (const { name, bytes, word } of read_only) {
  test(`a control message may be written otherwise: ${name}`, () => {
    assert.deepEqual(decodeControl(fromHex(bytes)), word);
  });
}

for (const { name, bytes, id, offset, data } of pieces) {
  test(`a piece of a file is read and written: ${name}`, () => {
    assert.deepEqual(decodeControl(fromHex(bytes)), { type: 'piece', id, offset: Number(offset), data: fromHex(data) });
    assert.equal(toHex(encodePiece(id, Number(offset), fromHex(data))), bytes);
  });
}

for (const { name, bytes } of ignored) {
  test(`what this version does not know is ignored: ${name}`, () => {
    assert.equal(decodeControl(fromHex(bytes)), null);
  });
}

for (const { name, bytes } of refused) {
  test(`a broken control message is refused: ${name}`, () => {
    assert.throws(() => decodeControl(fromHex(bytes)), ProtocolViolation);
  });
}

test('what is too long is refused', () => {
  const long = encodeControl({ type: 'file-decline', id, reason: 'x'.repeat(17_000) });
  assert.throws(() => decodeControl(long), ProtocolViolation);
  assert.ok(decodeControl(encodePiece(id, 0, new Uint8Array(MAX_PIECE))));
  assert.throws(() => decodeControl(encodePiece(id, 0, new Uint8Array(MAX_PIECE + 1))), ProtocolViolation);
});

test('a piece is read where it stands in a larger buffer', () => {
  const bytes = encodePiece(id, 5, Uint8Array.of(1, 2));
  const larger = new Uint8Array(bytes.length + 7);
  larger.set(bytes, 7);
  assert.deepEqual(decodeControl(larger.subarray(7)), decodeControl(bytes));
});

test('any bytes are a control message, or ignored, or refused', () => {
  let seed = 7;
  const random = () => (seed = (seed * 48_271) % 0x7fffffff);
  for (let round = 0; round < 2000; round++) {
    const bytes = Uint8Array.from({ length: random() % 40 }, () => random() % 256);
    if (bytes.length) bytes[0] = [1, 0x7b, 2][random() % 3] ?? 0;
    try {
      decodeControl(bytes);
    } catch (error) {
      assert.ok(error instanceof ProtocolViolation);
    }
  }
});

test('the name of a file is made safe', () => {
  for (const [given, safe] of names) assert.equal(safeName(given), safe);
});

test('a media type is one or unknown', () => {
  for (const [given, safe] of mimes) assert.equal(safeMime(given), safe);
});
