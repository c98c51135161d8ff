/**
 * Timers of a hidden page. Only the page and its throttled timers are made up here: the second clock and the message
 * channels are the real ones. `tests/browser/test_sdk_hidden.py` has a tab that is really hidden.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { timersOf } from '../../src/client/timers.js';

/** A page whose timers only fire when the test says so: no browser throttles harder. */
class Page extends EventTarget {
  hidden = true;
  /** @type {Map<number, () => void>} */
  throttled = new Map();
  /** Milliseconds that the clock is ahead of the real one: the machine slept. */
  slept = 0;
  #ids = 0;

  /** @param {typeof Atomics.waitAsync} [waitAsync] this browser's */
  timers(waitAsync = Atomics.waitAsync) {
    const platform = {
      performance: { now: () => performance.now() + this.slept },
      setTimeout: (callback) => {
        this.throttled.set(++this.#ids, callback);
        return this.#ids;
      },
      clearTimeout: (id) => void this.throttled.delete(id),
      MessageChannel,
      document: this,
      Atomics: { notify: Atomics.notify, waitAsync },
    };
    return timersOf(platform);
  }

  show(hidden) {
    this.hidden = hidden;
    this.dispatchEvent(new Event('visibilitychange'));
  }

  fireThrottled() {
    for (const [id, callback] of [...this.throttled]) {
      this.throttled.delete(id);
      callback();
    }
  }
}

/** Node ends when nothing but `Atomics.waitAsync` is waited for. */
async function awake(promise) {
  const timer = setInterval(() => {}, 1000);
  try {
    return await promise;
  } finally {
    clearInterval(timer);
  }
}

const later = (timers, seconds) => new Promise((resolve) => timers.callLater(seconds, resolve));

test('a hidden page is called back although its timers stand still, each time in order', async () => {
  const page = new Page();
  const timers = page.timers();
  const order = [];
  const dues = [0.36, 0.16, 0.26, 0.06].map((seconds) => {
    const due = timers.time() + seconds; // a busy machine may pause between two of them
    return { due, called: later(timers, seconds).then(() => order.push(due)) };
  });
  await awake(Promise.all(dues.map(({ called }) => called)));
  assert.deepEqual(
    order,
    dues.map(({ due }) => due).sort((one, other) => one - other),
  );
  assert.equal(page.throttled.size, 0, 'nothing is called twice');
});

test('what is overdue together is called in the order of its time', () => {
  const page = new Page();
  const timers = page.timers();
  const order = [];
  const cancels = [0.9, 0.5, 0.7, 0.6].map((seconds) => timers.callLater(seconds, () => order.push(seconds)));
  page.slept = 1000;
  timers.catchUp();
  cancels.forEach((cancel) => cancel());
  assert.deepEqual(order, [0.5, 0.6, 0.7, 0.9]);
});

test('what waits already when the page is hidden is called back as well', async () => {
  const page = new Page();
  page.hidden = false;
  const timers = page.timers();
  const called = later(timers, 0.02);
  page.show(true);
  await awake(called);
});

test('a hidden page does not call what was cancelled', async () => {
  const timers = new Page().timers();
  timers.callLater(0.01, () => assert.fail('called'))();
  let cancelNext = () => {};
  timers.callLater(0.02, () => cancelNext());
  cancelNext = timers.callLater(0.02, () => assert.fail('called'));
  await awake(later(timers, 0.03));
});

test('nothing is called at once in a hidden page', async () => {
  const timers = new Page().timers();
  let calls = 0;
  const again = () => ++calls < 3 && timers.callLater(-5, again);
  timers.callLater(-5, again);
  assert.equal(calls, 0);
  await awake(later(timers, 0.06));
  assert.equal(calls, 3);
});

test('a frozen page is left alone until it is resumed', async () => {
  const page = new Page();
  const timers = page.timers();
  let called = false;
  const done = later(timers, 0.06).then(() => (called = true));
  page.dispatchEvent(new Event('freeze'));
  await awake(later(new Page().timers(), 0.1));
  assert.equal(called, false);
  page.dispatchEvent(new Event('resume'));
  await awake(done);
});

/** The second clock of Firefox: it rings once a second. `rung` counts. */
function slowClock() {
  const slow = (cell, index, value) => {
    const { value: rings } = Atomics.waitAsync(cell, index, value, 1000);
    return { value: rings.then((how) => (slow.rung += Number(how !== 'ok')) && how) };
  };
  slow.rung = 0;
  return slow;
}

test('where the second clock is slow, a short pause is cut short each time', async () => {
  const clock = slowClock();
  const timers = new Page().timers(clock);
  for (let pauses = 0; pauses < 5; pauses++) await later(timers, 0.02); // acknowledgements
  assert.equal(clock.rung, 0);
});

test('where the second clock is good, a short pause is as long as it is meant to be', async () => {
  const page = new Page();
  const timers = page.timers();
  for (let pauses = 0; pauses < 4; pauses++) {
    await awake(later(timers, 0.02));
    await awake(later(timers, 0.06)); // until the clock has rung for the pause
  }
  const before = timers.time();
  await awake(later(timers, 0.02));
  assert.ok(timers.time() - before >= 0.019);
});

test('without a second clock a short pause is cut short, and what is overdue is called by what arrives', async () => {
  const page = new Page();
  const timers = page.timers(null);
  await later(timers, 0.02); // an acknowledgement
  let overdue = false;
  timers.callLater(1, () => (overdue = true));
  timers.catchUp();
  assert.equal(overdue, false);
  page.slept += 1001;
  timers.catchUp();
  assert.equal(overdue, true);
  page.hidden = false;
  timers.callLater(1, () => assert.fail('a visible page has timers for that'));
  page.slept += 1001;
  timers.catchUp();
});

test('what is called back much too late lets what has arrived be read first', () => {
  const page = new Page();
  page.hidden = false;
  const timers = page.timers();
  const order = [];
  const cancel = timers.callLater(30, () => assert.fail('cancelled by what has arrived'));
  timers.callLater(5, () => order.push('time-out'));
  timers.callLater(60, () => order.push('on time'));
  page.slept += 59_500;
  page.fireThrottled(); // after a night: the timers come first
  assert.deepEqual(order, ['on time']);
  cancel(); // then what has arrived
  page.slept += 1000;
  page.fireThrottled();
  assert.deepEqual(order, ['on time', 'time-out'], 'a pardon, and only one');
});
