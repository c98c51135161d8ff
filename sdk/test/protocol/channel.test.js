import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ProtocolViolation } from '../../src/errors.js';
import * as channel from '../../src/protocol/channel.js';
import { toUtf8 } from '../../src/protocol/codec.js';
import * as Content from '../../src/protocol/kinds.js';
import { generator, mutated } from '../support/generator.js';
import { fromHex, vectors } from '../support/vectors.js';

test('the chunks of a message make the message', () => {
  const random = generator(4);
  for (let round = 0; round < 200; round++) {
    const data = random.bytes(random.below(100));
    const content = random.below(4);
    const size = 1 + random.below(40);
    const frames = channel.encodeMessage(content, 7, data, size).map(channel.decode);
    const pieces = frames.map((frame) => (frame?.type === 'chunk' ? frame : assert.fail('not a chunk')));
    assert(pieces.every((piece) => piece.content === content && piece.sequence === 7 && piece.size === data.length));
    assert(pieces.every((piece) => piece.data.length <= size));
    assert.deepEqual(
      pieces.map((piece) => piece.last),
      pieces.map((_, index) => index === pieces.length - 1),
    );
    assert.deepEqual(Uint8Array.from(pieces.flatMap((piece) => [...piece.data])), data);
  }
});

test('an empty message is one frame, and one that fills its chunks has no empty one behind them', () => {
  assert.equal(channel.encodeMessage(Content.TEXT, 1, new Uint8Array(), 16).length, 1);
  assert.equal(channel.encodeMessage(Content.TEXT, 1, new Uint8Array(32), 16).length, 2);
  assert.equal(channel.encodeMessage(Content.TEXT, 1, new Uint8Array(33), 16).length, 3);
});

test('no frame is larger than any stack takes', () => {
  const frames = channel.encodeMessage(Content.BYTES, 1, new Uint8Array(100_000));
  assert(Math.max(...frames.map((frame) => frame.length)) <= channel.MAX_FRAME);
});

test('a frame that is a part of a larger buffer is read where it is', () => {
  const buffer = new Uint8Array(40);
  buffer.set(channel.encodePing(0x0102030405060708n), 5);
  assert.deepEqual(channel.decode(buffer.subarray(5, 14)), { type: 'ping', token: 0x0102030405060708n });
  const [frame] = channel.encodeMessage(Content.TEXT, 3, toUtf8('hi'));
  buffer.set(frame, 9);
  const chunk = channel.decode(buffer.subarray(9, 9 + frame.length));
  assert(chunk?.type === 'chunk');
  assert.deepEqual([chunk.sequence, chunk.size, chunk.data], [3, 2, toUtf8('hi')]);
});

test('a part of a larger buffer is sent as that part', () => {
  const part = toUtf8('hello').subarray(1, 4);
  const [frame] = channel.encodeMessage(Content.TEXT, 1, part);
  const chunk = channel.decode(frame);
  assert(chunk?.type === 'chunk');
  assert.deepEqual(chunk.data, toUtf8('ell'));
});

test('a hello of a newer version is read, without what it adds', () => {
  const frame = channel.decode(
    Uint8Array.of(1, ...toUtf8('{"version":2,"stream":"s","next":3,"colour":"blue","__proto__":{"features":[1]}}')),
  );
  assert.deepEqual(frame, { type: 'hello', version: 2, stream: 's', next: 3, features: [], received: null });
});

test('a broken hello is a violation', () => {
  for (const text of [
    '',
    '[]',
    'null',
    '{"version":"1","stream":"s","next":1}',
    '{"version":1,"stream":5,"next":1}',
    `{"version":1,"stream":"${'s'.repeat(129)}","next":1}`,
    '{"version":1,"stream":"s","next":1.5}',
    '{"version":1,"stream":"s","next":1,"features":null}',
    '{"version":1,"stream":"s","next":1,"features":[1]}',
    '{"version":1,"stream":"s","next":1,"received":{}}',
    '{"version":1,"stream":"s","next":1,"received":{"stream":"t","sequence":-1}}',
    '\ufeff{"version":1,"stream":"s","next":1}',
  ]) {
    assert.throws(() => channel.decode(Uint8Array.of(1, ...toUtf8(text))), ProtocolViolation, text);
  }
});

test('a number that no stream reaches is a violation, as a token it is fine', () => {
  const largest = Number.MAX_SAFE_INTEGER;
  assert.deepEqual(channel.decode(channel.encodeAck(largest)), { type: 'ack', sequence: largest });
  assert.throws(() => channel.decode(fromHex('030020000000000000')), ProtocolViolation);
  assert.throws(() => channel.decode(fromHex('0204002000000000000000000000')), ProtocolViolation);
  assert.deepEqual(channel.decode(fromHex('040020000000000000')), { type: 'ping', token: 2n ** 53n });
});

test('a long reason is cut between two characters', () => {
  for (const [reason, kept] of [
    ['x'.repeat(201), 'x'.repeat(200)],
    [`x${'é'.repeat(100)}`, `x${'é'.repeat(99)}`],
    [`x${'😀'.repeat(60)}`, `x${'😀'.repeat(49)}`],
  ]) {
    const frame = channel.encodeGoodbye(reason);
    assert(frame.length <= 1 + channel.MAX_REASON);
    assert.deepEqual(channel.decode(frame), { type: 'goodbye', reason: kept });
  }
});

test('any bytes are a frame, or skipped, or a violation', () => {
  const random = generator(5);
  const { frames } = vectors('channel');
  const known = frames.map(({ bytes }) => fromHex(bytes));
  for (let round = 0; round < 6000; round++) {
    const bytes = round % 3 ? mutated(random, random.one(known)) : random.bytes(random.below(40));
    try {
      const frame = channel.decode(bytes);
      assert(frame === null || typeof frame.type === 'string');
    } catch (error) {
      assert(error instanceof ProtocolViolation, `${bytes}: ${error}`);
    }
  }
});

test('why somebody leaves is a line, whatever they write', () => {
  const reason = '\u202egnihsihp\n'.repeat(1000);
  assert.deepEqual(channel.decode(Uint8Array.of(6, ...toUtf8(reason))), {
    type: 'goodbye',
    reason: 'gnihsihp'.repeat(25),
  });
});
