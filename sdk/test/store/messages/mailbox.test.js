/** How messages reach an application, whatever its callbacks and loops do. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as Content from '../../../src/protocol/kinds.js';
import { Mailbox } from '../../../src/store/messages/mailbox.js';

const message = (sequence, size = 1) => ({
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

test('messages wait in order and end after the last', async () => {
  const [mailbox] = box();
  for (const number of [0, 1, 2]) mailbox.put(message(number));
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
    const messages = numbers(mailbox);
    mailbox.put(message(1));
    assert.ok(mailbox.hasRoom);
    mailbox.put(message(2));
    assert.ok(!mailbox.hasRoom);
    assert.equal(told.times, 0);
    await messages.next();
    assert.ok(mailbox.hasRoom);
    assert.equal(told.times, 1);
    await messages.next();
    assert.equal(told.times, 1);
  });
}

test('what fills the room that a reader has made comes after what was there', async () => {
  let next = 3;
  const mailbox = new Mailbox({ unreadMessages: 2, unreadSize: 100 }, () => mailbox.put(message(next++)));
  mailbox.put(message(1));
  mailbox.put(message(2));
  const messages = numbers(mailbox);
  const read = [];
  for (let count = 0; count < 5; count++) read.push((await messages.next()).value);
  assert.deepEqual(read, [1, 2, 3, 4, 5]);
});

test('each message goes to one of those who wait, in the order in which they asked', async () => {
  const [mailbox] = box();
  const [one, other] = [numbers(mailbox), numbers(mailbox)];
  const waiting = [one.next(), one.next(), other.next()];
  for (const number of [1, 2, 3]) mailbox.put(message(number));
  assert.deepEqual(
    (await Promise.all(waiting)).map((each) => each.value),
    [1, 2, 3],
  );
});

test('a message that cannot be read is passed over', async () => {
  const [mailbox] = box();
  const messages = mailbox.iterate(({ sequence }) => (sequence % 2 ? null : sequence));
  const waiting = [messages.next(), messages.next()];
  for (const number of [1, 2, 3, 4]) mailbox.put(message(number));
  assert.deepEqual(
    (await Promise.all(waiting)).map((each) => each.value),
    [2, 4],
  );
});

test('a loop that ends early leaves the rest in the box', async () => {
  const [mailbox] = box();
  for (const number of [1, 2, 3]) mailbox.put(message(number));
  const messages = numbers(mailbox);
  for await (const number of messages) {
    if (number === 2) break;
  }
  assert.deepEqual(await messages.next(), END);
  assert.equal((await numbers(mailbox).next()).value, 3);
});

test('an iterator that is ended while it waits takes no message with it', async () => {
  const [mailbox] = box();
  const [ended, other] = [numbers(mailbox), numbers(mailbox)];
  const [first, second] = [ended.next(), other.next()];
  assert.deepEqual(await ended.return(), END);
  assert.deepEqual(await first, END);
  assert.deepEqual(await ended.next(), END);
  mailbox.put(message(1));
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
  mailbox.put(message(1));
  const seen = [];
  const end = mailbox.onMessage(({ sequence }) => seen.push(sequence));
  assert.deepEqual(seen, [1]);
  assert.ok(told.times);
  for (const number of [2, 3, 4]) {
    assert.ok(mailbox.hasRoom);
    mailbox.put(message(number));
  }
  end();
  mailbox.put(message(5));
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
  const end = mailbox.onMessage(({ sequence }) => seen.push(sequence));
  mailbox.put(message(1));
  await turn();
  assert.deepEqual([seen, waiting], [[1], true]);
  end();
  mailbox.put(message(2));
  assert.equal((await next).value, 2);
});

test('a callback that ends itself leaves the rest in the box', async () => {
  const [mailbox] = box();
  const seen = [];
  const end = mailbox.onMessage(({ sequence }) => {
    seen.push(sequence);
    mailbox.put(message(2)); // comes while the callback is there, and is due after it has gone
    end();
  });
  mailbox.put(message(1));
  mailbox.put(message(3));
  assert.deepEqual(seen, [1]);
  const messages = numbers(mailbox);
  assert.deepEqual([(await messages.next()).value, (await messages.next()).value], [2, 3]);
});

test('messages that come while a callback runs come after it', () => {
  const [mailbox] = box();
  const seen = [];
  mailbox.onMessage(({ sequence }) => {
    if (sequence < 3) mailbox.put(message(sequence + 1));
    seen.push(sequence);
  });
  mailbox.put(message(1));
  assert.deepEqual(seen, [1, 2, 3]);
});

test('a fault of the store itself does not stop the mailbox', async () => {
  const [mailbox] = box();
  const messages = mailbox.iterate(({ sequence }) => {
    if (sequence === 1) throw new Error('a fault of the store');
    return sequence;
  });
  const next = messages.next();
  assert.throws(() => mailbox.put(message(1)), /a fault/);
  mailbox.put(message(2));
  assert.equal((await next).value, 2);
});
