/** Round-trip time and silence, by numbers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Quality } from '../../src/peer/quality.js';

const near = (one, other) => assert(Math.abs(one - other) < 2e-6, `${one} is not ${other}`);

test('a slow start is soon forgotten and one late PONG does not show', () => {
  const quality = new Quality(5);
  assert.equal(quality.roundTripTime, null);
  const shown = [0.5, 0.3, 0.1, 0.3, 0.1, 0.1, 0.2, 0.2];
  [0.5, 0.1, 0.1, 0.9, 0.1, 0.2, 0.2, 0.2].forEach((measured, index) => {
    quality.ponged(quality.ping(10 + index), 10 + index + measured);
    near(quality.roundTripTime, shown[index]);
  });
});

test('the token is the clock in microseconds', () => {
  assert.equal(new Quality(5).ping(12.345678), 12_345_678n);
});

test('a PONG counts once and only for a PING of ours', () => {
  const quality = new Quality(5);
  quality.ponged(1n, 1);
  assert.equal(quality.roundTripTime, null);
  const token = quality.ping(1);
  quality.ponged(token, 1.5);
  quality.ponged(token, 9);
  near(quality.roundTripTime, 0.5);
});

test('a clock that stands still measures zero', () => {
  const quality = new Quality(5);
  quality.ponged(quality.ping(3), 2.9);
  assert.equal(quality.roundTripTime, 0);
});

test('PINGs that are never answered are forgotten', () => {
  const quality = new Quality(5);
  const first = quality.ping(1);
  for (let number = 0; number < 100; number++) quality.ping(2 + number);
  quality.ponged(first, 200);
  assert.equal(quality.roundTripTime, null);
});

test('silence begins with the last sign of life', () => {
  const quality = new Quality(5);
  quality.heard(10);
  near(quality.silentIn(14), 1);
  assert.equal(quality.silentIn(15), 0);
  quality.heard(15);
  near(quality.silentIn(19.5), 0.5);
  assert.equal(quality.silentIn(99), 0);
});

test('a PING is due early where PONGs come late, and never too often', () => {
  const quality = new Quality(5);
  assert.equal(quality.pingIn(0), 0);
  quality.ponged(quality.ping(0), 0.1);
  quality.heard(0.1);
  near(quality.pingIn(0.1), 3.375 + 0.4 - 0.1); // at a multiple of 1.125 s, and when the other side has not sent one
  quality.pinged(7n);
  near(quality.pingIn(0.1), 3.375 - 0.1);
  quality.ponged(quality.ping(1), 2);
  quality.heard(2);
  quality.pinged(7n);
  near(quality.pingIn(2), 3.375 - 2);
  quality.ping(9); // nothing comes any more
  near(quality.pingIn(9.5), 1);
});

test('the round-trip time is measured also beside other traffic', () => {
  const quality = new Quality(5);
  quality.ponged(quality.ping(0), 0.1);
  for (let second = 1; second < 30; second++) {
    quality.heard(second);
    assert(quality.pingIn(second) > 0);
  }
  quality.heard(30);
  assert.equal(quality.pingIn(30), 0);
});
