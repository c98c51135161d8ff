import assert from 'node:assert/strict';
import { test } from 'node:test';

import { timers, timersOf } from '../../src/client/timers.js';

const called = (seconds) => new Promise((resolve) => timers.callLater(seconds, resolve));

test('time is in seconds, and does not go back', async () => {
  const before = timers.time();
  await called(0.02);
  const passed = timers.time() - before;
  assert.ok(passed > 0.01 && passed < 10, `${passed} s`);
});

test('nothing is called at once, and what is cancelled not at all', async () => {
  let calls = 0;
  const cancel = timers.callLater(0, () => calls++);
  timers.callLater(-5, () => (calls += 10));
  assert.equal(calls, 0);
  cancel();
  cancel();
  await called(0.01);
  assert.equal(calls, 10);
});

test('a time beyond what setTimeout can count comes when it is due, and can be cancelled on the way', () => {
  const longest = 2 ** 31 - 1; // milliseconds
  let now = 0;
  let ids = 0;
  /** @type {Map<number, () => void>} */
  const set = new Map();
  const far = timersOf({
    performance: { now: () => now },
    setTimeout: (callback, delay) => {
      assert.ok(delay <= longest, `${delay} ms would be now`);
      set.set(++ids, callback);
      return ids;
    },
    clearTimeout: (id) => void set.delete(id),
  });
  const passTime = () => {
    now += longest;
    for (const [id, callback] of [...set]) {
      set.delete(id);
      callback();
    }
  };
  let calls = 0;
  far.callLater((3 * longest) / 1000, () => calls++);
  const cancel = far.callLater((2 * longest) / 1000, () => (calls += 10));
  far.callLater(Infinity, () => (calls += 100));
  passTime();
  assert.equal(calls, 0);
  cancel();
  passTime();
  assert.equal(calls, 0);
  passTime();
  assert.equal(calls, 1);
});

test('a time that is far away is not now', async () => {
  const cancel = timers.callLater(1e9, () => assert.fail('called'));
  await called(0.01);
  cancel();
});
