import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Backoff, Retries } from '../../src/client/backoff.js';
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
    [{ factor: 0.5 }, 'backoff.factor'],
    [{ factor: NaN }, 'backoff.factor'],
    [{ first: 2, most: 1 }, 'backoff.most'],
    [{ most: Infinity }, 'backoff.most'],
    [{ attempts: -1 }, 'backoff.attempts'],
    [{ settled: -1 }, 'backoff.settled'],
  ]) {
    assert.throws(
      () => new Backoff(values),
      (error) => error instanceof ConfigError && error.setting === setting,
    );
  }
});

test('a rule can be made of another one', () => {
  assert.deepEqual(new Backoff(new Backoff({ first: 3, attempts: 2 })), new Backoff({ first: 3, attempts: 2 }));
});

test('attempts are counted and end', () => {
  const retries = new Retries(new Backoff({ attempts: 2 }));
  assert.ok(!retries.exhausted);
  retries.schedule(0, 1, Infinity);
  retries.schedule(0, 1, Infinity);
  assert.ok(retries.exhausted);
  assert.ok(new Retries(new Backoff({ attempts: 0 })).exhausted);
  assert.ok(!new Retries(new Backoff()).exhausted);
});

test('only a connection that stood long enough starts the count anew', () => {
  const retries = new Retries(new Backoff({ first: 1, factor: 2, settled: 10 }));
  retries.schedule(0, 1, Infinity);
  retries.stood(9.9);
  assert.equal(retries.schedule(0, 1, Infinity), 2);
  retries.stood(10);
  assert.equal(retries.schedule(0, 1, Infinity), 1);
});

test('a server that invites is taken at its word once', () => {
  const retries = new Retries(new Backoff({ first: 100, most: 100 }));
  assert.equal(retries.schedule(50, 1, 53), 3);
  assert.equal(retries.due, 53);
  // It was not up yet, or went away again at once: from here on as usual.
  assert.equal(retries.schedule(60, 1, 60), 100);
});

test('an invitation in the past is for now', () => {
  assert.equal(new Retries(new Backoff()).schedule(50, 1, 40), 0);
});

test('a server that wants to be left alone is, in a hurry too', () => {
  const retries = new Retries(new Backoff({ first: 1 }));
  retries.notBefore = 70;
  assert.equal(retries.schedule(50, 0.5, Infinity), 20);
  retries.hurry();
  assert.equal(retries.due, 70);
  retries.notBefore = 0;
  assert.equal(retries.schedule(50, 0.5, Infinity), 1);
  retries.hurry();
  assert.equal(retries.due, 50);
});
