import assert from 'node:assert/strict';
import { test } from 'node:test';

import { timers } from '../../src/client/timers.js';

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

test('a time beyond what setTimeout can count comes when it is due, and can be cancelled on the way', ({ mock }) => {
  mock.timers.enable({ apis: ['setTimeout'] });
  const longest = 2 ** 31 - 1; // milliseconds
  let calls = 0;
  timers.callLater((3 * longest) / 1000, () => calls++);
  const cancel = timers.callLater((2 * longest) / 1000, () => (calls += 10));
  timers.callLater(Infinity, () => (calls += 100));
  mock.timers.tick(longest);
  assert.equal(calls, 0);
  cancel();
  mock.timers.tick(longest);
  assert.equal(calls, 0);
  mock.timers.tick(longest);
  assert.equal(calls, 1);
});

test('a time that is far away is not now', async () => {
  const cancel = timers.callLater(1e9, () => assert.fail('called'));
  await called(0.01);
  cancel();
});
