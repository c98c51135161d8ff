import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Backoff } from '../../src/client/backoff.js';
import { ConfigError } from '../../src/errors.js';

test('the ceiling doubles from half a second to half a minute', () => {
  const backoff = new Backoff();
  const ceilings = [1, 2, 3, 4, 5, 6, 7, 8].map((attempt) => backoff.delay(attempt, 1));
  assert.deepEqual(ceilings, [0.5, 1, 2, 4, 8, 16, 30, 30]);
});

test('the whole of the wait is jitter', () => {
  const backoff = new Backoff({ first: 1, factor: 3, most: 100 });
  assert.deepEqual(
    [0, 0.5, 1].map((random) => backoff.delay(3, random)),
    [0, 4.5, 9],
  );
});

test('a number of attempts that is beyond all floats is at the bound', () => {
  assert.equal(new Backoff({ factor: 1e300 }).delay(1e6, 1), 30);
  assert.equal(new Backoff({ first: 0, factor: 1e300 }).delay(1e6, 1), 0);
});

test('values that make no sense are named', () => {
  for (const [values, setting] of [
    [{ first: -1 }, 'backoff.first'],
    [{ first: NaN }, 'backoff.first'],
    [{ first: Infinity, most: Infinity }, 'backoff.first'],
    [{ factor: NaN }, 'backoff.factor'],
    [{ most: Infinity }, 'backoff.most'],
    [{ most: -1 }, 'backoff.most'],
  ]) {
    assert.throws(
      () => new Backoff(values),
      (error) => error instanceof ConfigError && error.setting === setting,
    );
  }
});

test('a rule can be made of another one', () => {
  assert.deepEqual(new Backoff(new Backoff({ first: 3 })), new Backoff({ first: 3 }));
});
