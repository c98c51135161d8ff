import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BETWEEN_CALLS, Backoff, Retries } from '../../src/client/backoff.js';
import { ConfigError } from '../../src/errors.js';

test('the ceiling doubles from half a second to ten, and to thirty between calls', () => {
  const ceilings = (/** @type {Backoff} */ backoff) =>
    [1, 2, 3, 4, 5, 6, 7, 8].map((attempt) => backoff.delay(attempt, 1));
  assert.deepEqual(ceilings(new Backoff()), [0.5, 1, 2, 4, 8, 10, 10, 10]);
  assert.deepEqual(ceilings(new Backoff({}, BETWEEN_CALLS)), [0.5, 1, 2, 4, 8, 16, 30, 30]);
});

test('the whole of the wait is jitter', () => {
  const backoff = new Backoff({ first: 1, factor: 3, most: 100 });
  assert.deepEqual(
    [0, 0.5, 1].map((random) => backoff.delay(3, random)),
    [0, 4.5, 9],
  );
});

test('a number of attempts that is beyond all floats is at the bound', () => {
  assert.equal(new Backoff({ factor: 1e300 }).delay(1e6, 1), 10);
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

test('a client that asks far too much stays away longer each time', () => {
  const retries = new Retries(new Backoff({ first: 0, most: 0 }));
  const wait = (random) => {
    retries.offended(1000, random);
    return retries.schedule(1000, 0, Infinity);
  };
  const waits = [0, 0, 0, 0, 0, 0].map((random) => {
    const seconds = wait(random);
    retries.stood(599);
    return seconds;
  });
  assert.deepEqual(waits, [60, 120, 240, 480, 600, 600]);
  retries.stood(600);
  assert.equal(wait(1), 90);
});

test('a device that has a network again does not come back sooner than the server wants', () => {
  const retries = new Retries(new Backoff({ first: 8 }));
  retries.offended(0, 0);
  assert.equal(retries.schedule(0, 1, Infinity), 68);
  retries.hasten();
  assert.equal(retries.due, 60);
});
