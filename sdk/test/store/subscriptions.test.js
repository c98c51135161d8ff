/** How the state reaches an application, whatever its callbacks do. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Callbacks } from '../../src/client/callbacks.js';
import { storeState } from '../../src/store/state.js';
import { StateFeed } from '../../src/store/subscriptions.js';
import { withGlobal } from '../support/platform.js';

const [START, A, B, C] = [null, 'a', 'b', 'c'].map((userId) => storeState({ userId }));

test('a subscriber is told the state at once and each change until it ends', () => {
  const feed = new StateFeed(START);
  const seen = [];
  feed.publish(A);
  const unsubscribe = feed.subscribe((state) => seen.push(state));
  feed.publish(B);
  feed.publish(B);
  unsubscribe();
  unsubscribe();
  feed.publish(C);
  assert.deepEqual(seen, [A, B]);
  assert.equal(feed.current, C);
});

test('a subscriber that throws is reported as an uncaught error is, and harms nobody', async () => {
  const feed = new StateFeed(START);
  const seen = [];
  const reported = [];
  const fault = new Error('a fault of the application');
  const throws = () => {
    throw fault;
  };
  await withGlobal(
    'reportError',
    (error) => reported.push(error),
    async () => {
      feed.subscribe(throws);
      feed.subscribe((state) => seen.push(state));
      feed.publish(A);
    },
  );
  assert.deepEqual(seen, [START, A]);
  assert.deepEqual(reported, [fault, fault]);
});

test('where nothing reports errors, the console does', async (context) => {
  const { mock } = context.mock.method(console, 'error', () => {});
  await withGlobal('reportError', undefined, async () => {
    new StateFeed(START).subscribe(() => {
      throw new Error('a fault of the application');
    });
  });
  assert.equal(mock.calls[0].arguments[0].message, 'a fault of the application');
});

test('a change that a subscriber sets off is told to all after the one before', () => {
  const feed = new StateFeed(START);
  const [first, second] = [[], []];
  feed.subscribe((state) => {
    first.push(state);
    if (state === A) feed.publish(B);
  });
  feed.subscribe((state) => second.push(state));
  feed.publish(A);
  assert.deepEqual(first, [START, A, B]);
  assert.deepEqual(second, [START, A, B]);
});

test('who subscribes from within a callback hears the newest state first, and nothing older after it', () => {
  const feed = new StateFeed(START);
  const late = [];
  const end = feed.subscribe((state) => {
    if (state !== A) return;
    feed.publish(B);
    feed.publish(C);
    feed.subscribe((each) => late.push(each));
    end();
  });
  feed.publish(A);
  assert.deepEqual(late, [C]);
  feed.publish(A);
  assert.deepEqual(late, [C, A]);
});

test('a subscriber may end another from within its callback', () => {
  const feed = new StateFeed(START);
  const seen = [];
  feed.subscribe((state) => state === A && unsubscribe());
  const unsubscribe = feed.subscribe((state) => seen.push(state));
  feed.publish(A);
  assert.deepEqual(seen, [START]);
});

test('the same callback may be added twice, and each one ends by itself', () => {
  const callbacks = new Callbacks();
  const seen = [];
  const hear = (value) => seen.push(value);
  const ends = [callbacks.add(hear), callbacks.add(hear)];
  callbacks.tell(1);
  ends[0]();
  callbacks.tell(2);
  assert.equal(callbacks.size, 1);
  ends[1]();
  callbacks.tell(3);
  assert.deepEqual(seen, [1, 1, 2]);
});
