/** How state and messages reach an application, whatever its callbacks and loops do. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as Content from '../../src/protocol/kinds.js';
import { Callbacks } from '../../src/client/callbacks.js';
import { Mailbox, StateFeed } from '../../src/store/feeds.js';
import { storeState } from '../../src/store/state.js';
import { withGlobal } from '../support/platform.js';

const [START, A, B, C] = [null, 'a', 'b', 'c'].map((userId) => storeState({ userId }));
const letter = (sequence, size = 1) => ({
  sender: 'bob',
  content: Content.BYTES,
  data: new Uint8Array(size),
  sequence,
});
const turn = () => new Promise((resolve) => setImmediate(resolve));
const END = { value: undefined, done: true };

/** A mailbox, and how often it has said that there is room again. */
function box(unreadMessages = 3, unreadSize = 100) {
  const told = { times: 0 };
  const mailbox = new Mailbox({ unreadMessages, unreadSize }, () => told.times++);
  return [mailbox, told];
}

const numbers = (mailbox) => mailbox.iterate(({ sequence }) => sequence);

// --- callbacks and state ----------------------------------------------------------------------------------------------

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

// --- messages ---------------------------------------------------------------------------------------------------------

test('messages wait in order and end after the last', async () => {
  const [mailbox] = box();
  for (const number of [0, 1, 2]) mailbox.put(letter(number));
  mailbox.close();
  assert.ok(!mailbox.hasRoom);
  const read = [];
  for await (const number of numbers(mailbox)) read.push(number);
  assert.deepEqual(read, [0, 1, 2]);
  assert.deepEqual(await numbers(mailbox).next(), END);
});

for (const [what, limits] of [
  ['messages', [2, 100]],
  ['bytes', [9, 2]],
]) {
  test(`a box full of ${what} says when there is room again`, async () => {
    const [mailbox, told] = box(...limits);
    const letters = numbers(mailbox);
    mailbox.put(letter(1));
    assert.ok(mailbox.hasRoom);
    mailbox.put(letter(2));
    assert.ok(!mailbox.hasRoom);
    assert.equal(told.times, 0);
    await letters.next();
    assert.ok(mailbox.hasRoom);
    assert.equal(told.times, 1);
    await letters.next();
    assert.equal(told.times, 1);
  });
}

test('what fills the room that a reader has made comes after what was there', async () => {
  let next = 3;
  const mailbox = new Mailbox({ unreadMessages: 2, unreadSize: 100 }, () => mailbox.put(letter(next++)));
  mailbox.put(letter(1));
  mailbox.put(letter(2));
  const letters = numbers(mailbox);
  const read = [];
  for (let count = 0; count < 5; count++) read.push((await letters.next()).value);
  assert.deepEqual(read, [1, 2, 3, 4, 5]);
});

test('each message goes to one of those who wait, in the order in which they asked', async () => {
  const [mailbox] = box();
  const [one, other] = [numbers(mailbox), numbers(mailbox)];
  const waiting = [one.next(), one.next(), other.next()];
  for (const number of [1, 2, 3]) mailbox.put(letter(number));
  assert.deepEqual(
    (await Promise.all(waiting)).map((each) => each.value),
    [1, 2, 3],
  );
});

test('a message that cannot be read is passed over', async () => {
  const [mailbox] = box();
  const letters = mailbox.iterate(({ sequence }) => (sequence % 2 ? null : sequence));
  const waiting = [letters.next(), letters.next()];
  for (const number of [1, 2, 3, 4]) mailbox.put(letter(number));
  assert.deepEqual(
    (await Promise.all(waiting)).map((each) => each.value),
    [2, 4],
  );
});

test('a loop that ends early leaves the rest in the box', async () => {
  const [mailbox] = box();
  for (const number of [1, 2, 3]) mailbox.put(letter(number));
  const letters = numbers(mailbox);
  for await (const number of letters) {
    if (number === 2) break;
  }
  assert.deepEqual(await letters.next(), END);
  assert.equal((await numbers(mailbox).next()).value, 3);
});

test('an iterator that is ended while it waits takes no message with it', async () => {
  const [mailbox] = box();
  const [ended, other] = [numbers(mailbox), numbers(mailbox)];
  const [first, second] = [ended.next(), other.next()];
  assert.deepEqual(await ended.return(), END);
  assert.deepEqual(await first, END);
  assert.deepEqual(await ended.next(), END);
  mailbox.put(letter(1));
  assert.equal((await second).value, 1);
});

test('closing ends all who wait', async () => {
  const [mailbox] = box();
  const waiting = [numbers(mailbox).next(), numbers(mailbox).next()];
  mailbox.close();
  assert.deepEqual(await Promise.all(waiting), [END, END]);
});

test('a callback gets what waits first and then all that comes', async () => {
  const [mailbox, told] = box(1);
  mailbox.put(letter(1));
  const seen = [];
  const end = mailbox.onLetter(({ sequence }) => seen.push(sequence));
  assert.deepEqual(seen, [1]);
  assert.ok(told.times);
  for (const number of [2, 3, 4]) {
    assert.ok(mailbox.hasRoom);
    mailbox.put(letter(number));
  }
  end();
  mailbox.put(letter(5));
  assert.ok(!mailbox.hasRoom);
  assert.deepEqual(seen, [1, 2, 3, 4]);
  assert.equal((await numbers(mailbox).next()).value, 5);
});

test('while there is a callback, a loop gets nothing, and goes on after it', async () => {
  const [mailbox] = box();
  const seen = [];
  let waiting = true;
  const next = numbers(mailbox).next();
  next.then(() => (waiting = false));
  const end = mailbox.onLetter(({ sequence }) => seen.push(sequence));
  mailbox.put(letter(1));
  await turn();
  assert.deepEqual([seen, waiting], [[1], true]);
  end();
  mailbox.put(letter(2));
  assert.equal((await next).value, 2);
});

test('a callback that ends itself leaves the rest in the box', async () => {
  const [mailbox] = box();
  const seen = [];
  const end = mailbox.onLetter(({ sequence }) => {
    seen.push(sequence);
    mailbox.put(letter(2)); // comes while the callback is there, and is due after it has gone
    end();
  });
  mailbox.put(letter(1));
  mailbox.put(letter(3));
  assert.deepEqual(seen, [1]);
  const letters = numbers(mailbox);
  assert.deepEqual([(await letters.next()).value, (await letters.next()).value], [2, 3]);
});

test('messages that come while a callback runs come after it', () => {
  const [mailbox] = box();
  const seen = [];
  mailbox.onLetter(({ sequence }) => {
    if (sequence < 3) mailbox.put(letter(sequence + 1));
    seen.push(sequence);
  });
  mailbox.put(letter(1));
  assert.deepEqual(seen, [1, 2, 3]);
});

test('a fault of the store itself does not stop the mailbox', async () => {
  const [mailbox] = box();
  const letters = mailbox.iterate(({ sequence }) => {
    if (sequence === 1) throw new Error('a fault of the store');
    return sequence;
  });
  const next = letters.next();
  assert.throws(() => mailbox.put(letter(1)), /a fault/);
  mailbox.put(letter(2));
  assert.equal((await next).value, 2);
});
