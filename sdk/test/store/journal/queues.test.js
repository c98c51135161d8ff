/** The outbox and the inbox of a stream that a journal keeps, by themselves. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode } from '../../../src/protocol/channel.js';
import * as Content from '../../../src/protocol/kinds.js';
import { JournalError } from '../../../src/errors.js';
import { isControl, JournalInbox, JournalOutbox } from '../../../src/store/journal/queues.js';
import { JournalStream } from '../../../src/store/journal/stream.js';
import { storeLimits } from '../../../src/store/state.js';

const bytes = (text) => new TextEncoder().encode(text);
const message = (text) => ({ content: Content.TEXT, data: bytes(text) });
const chunk = (sequence) => ({ type: 'chunk', content: Content.TEXT, sequence, size: 1, last: true, data: bytes('x') });

function sent(outbox) {
  const numbers = [];
  for (let frame; (frame = outbox.nextFrame());) {
    numbers.push(decode(frame).sequence);
    outbox.sent();
  }
  return numbers;
}

/** A stream to one device, with a journal that says nothing by itself. */
function streamOf() {
  const nothing = () => {};
  const journal = {
    write: nothing,
    accepted: nothing,
    notBeyond: nothing,
    lookAtClock: nothing,
    waiting: [0, 0],
    run: 'r',
  };
  const seams = { limits: storeLimits(), path: { sendFrame: () => true } };
  return new JournalStream({ userId: 'bob', name: null }, seams, journal, []);
}

test('a message is sent when it is stored', () => {
  const outbox = new JournalOutbox('s');
  outbox.helloSent();
  outbox.opened(null);
  outbox.put(Content.TEXT, bytes('a'));
  outbox.put(Content.TEXT, bytes('b'));
  assert.deepEqual(sent(outbox), []);
  outbox.stored = 1;
  assert.deepEqual(sent(outbox), [1]);
  outbox.stored = 2;
  assert.deepEqual(sent(outbox), [2]);
});

test('a restored outbox has voids for the numbers of which nothing is left', () => {
  const messages = new Map([
    [4, message('four')],
    [6, message('six')],
  ]);
  const outbox = JournalOutbox.restored('s', messages, 8);
  assert.deepEqual([outbox.acknowledged, outbox.last, outbox.messages, outbox.stored], [3, 8, 2, 8]);
  assert.deepEqual(
    outbox.rest.map(([number]) => number),
    [4, 6],
  );
  outbox.helloSent();
  outbox.opened(null);
  assert.deepEqual(sent(outbox), [4, 5, 6, 7, 8]);
  assert.equal(JournalOutbox.restored('s', messages, 1).last, 6);
});

test('a peer that has more than was ever sent shows an older journal', () => {
  const outbox = JournalOutbox.restored('s', new Map([[1, message('one')]]), 1);
  assert.equal(outbox.isBehind(null), false);
  assert.equal(outbox.isBehind({ stream: 'other', sequence: 9 }), false);
  assert.equal(outbox.isBehind({ stream: 's', sequence: 1 }), false);
  assert.equal(outbox.isBehind({ stream: 's', sequence: 2 }), true);
});

test('what was not sent can be cut off', () => {
  const outbox = new JournalOutbox('s');
  for (const text of ['a', 'b', 'c']) outbox.put(Content.TEXT, bytes(text));
  assert.deepEqual(
    outbox.cut(1).map(([number]) => number),
    [2, 3],
  );
  assert.deepEqual([outbox.last, outbox.messages, outbox.size], [1, 1, 1]);
});

test('what has arrived counts as handed over when it is stored, and what is being stored stays', () => {
  const inbox = new JournalInbox();
  inbox.opened({ stream: 't', next: 1 });
  for (const number of [1, 2, 3]) inbox.receive(chunk(number));
  const [one, two] = [inbox.take(), inbox.take()];
  assert.deepEqual(inbox.position(), { stream: 't', sequence: 0 });
  assert.deepEqual(inbox.positions(), [{ stream: 't', sequence: 2 }]);
  inbox.settled(one);
  assert.deepEqual([inbox.position()?.sequence, inbox.due], [1, 1]);
  // Another run of the sender: what is held is forgotten, and what is being stored does not come again.
  inbox.opened({ stream: 't', next: 2, run: 'another' });
  assert.equal(inbox.first, undefined);
  assert.equal(inbox.receive(chunk(2)), false);
  assert.equal(inbox.receive(chunk(3)), true);
  // Another stream takes its place meanwhile.
  inbox.opened({ stream: 'u', next: 1 });
  inbox.settled(two);
  assert.deepEqual(inbox.positions(), [
    { stream: 't', sequence: 2 },
    { stream: 'u', sequence: 0 },
  ]);
});

test('what programs say to each other is told apart', () => {
  assert.equal(isControl({ content: Content.CONTROL, data: bytes('c') }), true);
  assert.equal(isControl(message('m')), false);
});

for (const addressed of [false, true]) {
  const which = addressed ? 'the device' : 'the user';
  test(`a newest message to ${which} that has failed does not stand for older ones that wait`, () => {
    const stream = streamOf();
    const older = stream.send(Content.TEXT, bytes('a'), addressed);
    stream.stored(1);
    const newest = stream.send(Content.TEXT, bytes('b'), addressed);
    stream.send(Content.CONTROL, bytes('c'));
    stream.notStored(new JournalError('j', 'is full'));
    assert.ok(newest.done);
    assert.deepEqual(stream.last, [older]);
  });
}
test('what is being sent through the server does not expire before the other side has said HELLO', (t) => {
  const stream = streamOf();
  const delivery = stream.send(Content.TEXT, bytes('a'));
  stream.stored(1);
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 31 * 24 * 3600 * 1000 });
  stream.hello(true);
  stream.expire();
  assert.ok(!delivery.done);
  stream.closed();
  assert.ok(delivery.done);
});
