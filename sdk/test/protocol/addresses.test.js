import assert from 'node:assert/strict';
import { test } from 'node:test';

import { InvalidAddress } from '../../src/errors.js';
import { checkDevice, checkUserId, parse, sortsBefore, userIdProblem } from '../../src/protocol/addresses.js';
import { generator } from '../support/generator.js';

test('a valid name is given back, any other is refused with what is wrong', () => {
  assert.equal(checkUserId('alice@example.com'), 'alice@example.com');
  assert.equal(checkDevice('phone'), 'phone');
  for (const name of ['a b', 'a/b', 'a\0', ' '.repeat(129)]) {
    assert.throws(() => checkUserId(name), { problem: "a name has no white space, '/' or control characters" });
  }
  assert.throws(() => checkUserId(''), { problem: 'a name has 1 to 128 characters' });
  assert.equal(checkUserId('\u{1f600}'.repeat(128)).length, 256); // characters are code points
  assert.throws(() => checkUserId('a b'), { name: 'InvalidAddress', value: 'a b', problem: /white space/ });
  assert.throws(() => checkUserId('x'.repeat(129)), { problem: /1 to 128/ });
  assert.throws(() => checkDevice('a b'), InvalidAddress);
});

test('the name of a program without types is refused when it is none', () => {
  for (const value of [undefined, null, 7, ['alice']]) {
    assert.throws(() => checkUserId(/** @type {string} */ (value)), { name: 'InvalidAddress', problem: /a string/ });
  }
});

test('an address of an application is a user, or one device of theirs', () => {
  assert.deepEqual(parse('bob'), ['bob', null]);
  assert.deepEqual(parse('bob/phone'), ['bob', 'phone']);
  for (const address of ['', '/phone', 'bob/', 'bob/a b', 'bob/x/y', undefined, 7]) {
    assert.throws(() => parse(/** @type {string} */ (address)), InvalidAddress);
  }
});

test('white space is what Unicode says it is, as on the server', () => {
  assert.equal(userIdProblem('a\ufeffb'), null);
  assert.equal(userIdProblem('a\u200bb'), null);
  for (const space of [' ', '\u00a0', '\u1680', '\u2003', '\u2029', '\u202f', '\u205f', '\u3000']) {
    assert(userIdProblem(`a${space}b`));
  }
});

test('half a surrogate pair is no part of a name', () => {
  assert(userIdProblem('a\ud83d'));
  assert(userIdProblem('\ude00a'));
  assert.equal(userIdProblem('\ud83d\ude00'), null);
});

test('the order of any two names is that of their UTF-8 bytes', () => {
  const random = generator(1);
  const name = () =>
    String.fromCodePoint(
      ...Array.from({ length: 1 + random.below(3) }, () =>
        random.one([0x61, 0x7f, 0xe9, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x10ffff]),
      ),
    );
  for (let round = 0; round < 500; round++) {
    const [first, second] = [name(), name()];
    assert.equal(sortsBefore(first, second), Buffer.compare(Buffer.from(first), Buffer.from(second)) < 0);
  }
});
