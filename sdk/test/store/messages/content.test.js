/** What may be sent, and what arrives of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import vm from 'node:vm';
import { MessageTooLarge, ProtocolViolation, UsageError } from '../../../src/errors.js';
import { MAX_MESSAGE } from '../../../src/protocol/channel.js';
import * as Content from '../../../src/protocol/kinds.js';
import { MAX_DEPTH, decode, encode } from '../../../src/store/messages/content.js';
import { generator } from '../../support/generator.js';

const bytes = (text) => new TextEncoder().encode(text);
const { TEXT, BYTES, JSON: VALUE } = Content;

function nested(levels) {
  let value = 1;
  for (let level = 0; level < levels; level++) value = level % 2 ? { a: value } : [value];
  return value;
}

/** A JSON value, or part of one. */
function anything(random, depth = 4) {
  const some = (make) => Array.from({ length: random.below(4) }, make);
  const text = () => some(() => random.one(['a', 'ü', '\u{1F600}', '\0', '"', '\\', '\u2028', '\ufeff'])).join('');
  const one = (make) => make();
  return one(
    random.one([
      () => null,
      () => random.one([true, false]),
      () => random.one([0, 1, -1, 1e21, 5e-324, 2 ** 53, Number.MAX_VALUE]),
      () => (random.next() - 0.5) * 10 ** random.below(20),
      text,
      () => (depth ? some(() => anything(random, depth - 1)) : []),
      () => (depth ? Object.fromEntries(some(() => [text(), anything(random, depth - 1)])) : {}),
    ]),
  );
}

test('what arrives is what was sent', () => {
  const random = generator(1);
  for (let round = 0; round < 2000; round++) {
    const message = anything(random);
    assert.deepEqual(decode(...encode(message)), message);
  }
});

test('the kind follows the type', () => {
  assert.equal(encode('1')[0], TEXT);
  for (const data of [Uint8Array.of(1), new ArrayBuffer(1), new DataView(new ArrayBuffer(1)), Buffer.from('1')]) {
    assert.equal(encode(data)[0], BYTES);
  }
  for (const value of [1, null, true, ['1'], {}]) assert.equal(encode(value)[0], VALUE);
});

test('bytes are those of the view, as they are now', () => {
  const whole = Uint8Array.of(1, 2, 3, 4);
  const [, part] = encode(whole.subarray(1, 3));
  const [, words] = encode(Uint16Array.of(1, 2));
  const [, all] = encode(whole.buffer);
  whole.fill(9);
  assert.deepEqual([...part], [2, 3]);
  assert.equal(words.length, 4);
  assert.deepEqual([...all], [1, 2, 3, 4]);
});

class Point {
  x = 1;
}

const itself = {};
itself.a = [itself];

for (const [what, value, why] of [
  ['undefined', undefined, /undefined cannot be sent/],
  ['undefined within', { a: undefined }, /undefined/],
  ['a hole', [1, , 2], /undefined/],
  ['a function', { a: () => {} }, /Function/],
  ['a symbol', Symbol('a'), /Symbol/],
  ['NaN', NaN, /NaN/],
  ['infinity', [Infinity], /Infinity/],
  ['a BigInt', 1n, /BigInt/],
  ['a Date', { at: new Date(0) }, /Date/],
  ['a Map', new Map(), /Map/],
  ['a Set', new Set(), /Set/],
  ['an error', new Error('a'), /Error/],
  ['an instance of a class', [new Point()], /Point/],
  ['a heir of an object', Object.create({ a: 1 }), /cannot be sent/],
  ['bytes within', { a: Uint8Array.of(1) }, /Uint8Array/],
  ['half a surrogate pair', '\ud800', /surrogate/],
  ['half a surrogate pair within', { a: '\udfff' }, /surrogate/],
  ['half a surrogate pair as a key', { '\udfff': 1 }, /surrogate/],
  ['too deep a value', nested(MAX_DEPTH + 1), /100 levels deep/],
  ['a value that contains itself', itself, /contains itself/],
]) {
  test(`what would not arrive as it is cannot be sent: ${what}`, () => {
    assert.throws(() => encode(value), UsageError);
    assert.throws(() => encode(value), why);
  });
}

test('an object without a prototype, or of another window, is an object', () => {
  const bare = Object.assign(Object.create(null), { a: 1 });
  const foreign = vm.runInNewContext('({ a: [1] })');
  assert.deepEqual(decode(...encode(bare)), { a: 1 });
  assert.deepEqual(decode(...encode(foreign)), { a: [1] });
});

test('the deepest value comes through', () => {
  assert.deepEqual(decode(...encode(nested(MAX_DEPTH))), nested(MAX_DEPTH));
});

test('the size is limited in bytes', () => {
  encode(new Uint8Array(MAX_MESSAGE));
  for (const message of [new ArrayBuffer(MAX_MESSAGE + 1), 'é'.repeat(MAX_MESSAGE / 2 + 1)]) {
    assert.throws(() => encode(message), MessageTooLarge);
    assert.throws(() => encode(message), { limit: MAX_MESSAGE });
  }
});

test('integers beyond 2^53, which Python may send, arrive as the nearest number', () => {
  assert.equal(decode(VALUE, bytes('123456789012345678901234567890')), 123456789012345678901234567890);
});

test('a key called __proto__ is a key like any other', () => {
  const value = decode(VALUE, bytes('{"__proto__": {"admin": true}, "constructor": 1}'));
  assert.deepEqual(Object.keys(value), ['__proto__', 'constructor']);
  assert.equal(value.admin, undefined);
  assert.equal({}.admin, undefined);
  assert.equal(new TextDecoder().decode(encode(value)[1]), '{"__proto__":{"admin":true},"constructor":1}');
});

test('a byte order mark arrives', () => {
  assert.equal(decode(...encode('\ufeffa')), '\ufeffa');
});

for (const [what, content, data] of [
  ['text that is no UTF-8', TEXT, Uint8Array.of(0xff)],
  ['half a surrogate pair in UTF-8', TEXT, Uint8Array.of(0xed, 0xa0, 0x80)],
  ['nothing', VALUE, bytes('')],
  ['half an object', VALUE, bytes('{')],
  ['NaN', VALUE, bytes('NaN')],
  ['half a surrogate pair', VALUE, bytes('"\\ud800"')],
  ['half a surrogate pair as a key', VALUE, bytes('{"\\ud800":1}')],
  ['a stack of brackets', VALUE, bytes('['.repeat(100_000))],
  ['a stack of arrays', VALUE, bytes('['.repeat(100_000) + ']'.repeat(100_000))],
  ['a number that is none', VALUE, bytes('[1e999]')],
]) {
  test(`a message that is not what it says breaks the protocol: ${what}`, () => {
    assert.throws(() => decode(content, data), ProtocolViolation);
  });
}
