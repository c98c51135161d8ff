/** What comes from a peer: put together, taken once, acknowledged when it is handed over. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProtocolViolation } from '../../../src/errors.js';
import { MAX_MESSAGE, decode, encodeMessage } from '../../../src/protocol/channel.js';
import * as Content from '../../../src/protocol/kinds.js';
import { Inbox, MAX_STREAMS } from '../../../src/store/messages/inbox.js';
import { WINDOW_BYTES, WINDOW_MESSAGES } from '../../../src/store/messages/outbox.js';

const bytes = (text) => new TextEncoder().encode(text);
const text = (data) => new TextDecoder().decode(data);
const hello = (stream = 's', next = 1) => ({ type: 'hello', version: 1, stream, next, features: [], received: null });

function opened(stream, next) {
  const inbox = new Inbox();
  inbox.opened(hello(stream, next));
  return inbox;
}

function chunk(sequence, data = 'x', { size, last = true, content = Content.BYTES } = {}) {
  const all = typeof data === 'string' ? bytes(data) : data;
  return { type: 'chunk', content, sequence, size: size ?? all.length, last, data: all };
}

/** Hand over all that is held. */
function handOver(inbox) {
  const data = [];
  for (let first; (first = inbox.first);) {
    data.push(text(first.data));
    inbox.take();
  }
  return data;
}

test('chunks become a message when the last one is here', () => {
  const inbox = opened();
  const data = Uint8Array.from({ length: 40960 }, (_, index) => index);
  const frames = encodeMessage(Content.TEXT, 1, data).map(decode);
  assert.deepEqual(
    frames.map((frame) => inbox.receive(frame)),
    [false, false, true],
  );
  assert.deepEqual(inbox.first, { sequence: 1, content: Content.TEXT, data });
});

test('what is handed over is in a buffer of its own, without the frames that it came in', () => {
  const inbox = opened();
  for (const size of [0, 1, 100_000]) {
    encodeMessage(Content.BYTES, inbox.position().sequence + 1, new Uint8Array(size)).forEach((frame) =>
      inbox.receive(decode(frame)),
    );
    const { data } = inbox.first;
    assert.deepEqual([data.byteOffset, data.buffer.byteLength], [0, size]);
    inbox.take();
  }
});

test('an empty message is a message', () => {
  const inbox = opened();
  assert.ok(inbox.receive(chunk(1, '')));
  assert.deepEqual(handOver(inbox), ['']);
});

test('only what was handed over is acknowledged', () => {
  const inbox = opened();
  inbox.receive(chunk(1, 'a'));
  inbox.receive(chunk(2, 'b'));
  assert.equal(inbox.due, null);
  inbox.take();
  assert.equal(inbox.due, 1);
  inbox.confirmed(1);
  assert.equal(inbox.due, null);
  assert.deepEqual(handOver(inbox), ['b']);
  assert.equal(inbox.due, 2);
  assert.deepEqual(inbox.position(), { stream: 's', sequence: 2 });
});

test('nothing is acknowledged without a channel', () => {
  const inbox = opened();
  inbox.receive(chunk(1));
  inbox.closed();
  handOver(inbox);
  assert.equal(inbox.due, null);
  inbox.opened(hello());
  assert.equal(inbox.due, 1);
});

test('a message that comes again is skipped and acknowledged again', () => {
  const inbox = opened();
  inbox.receive(chunk(1));
  handOver(inbox);
  inbox.confirmed(1);
  assert.ok(!inbox.receive(chunk(1, 'x', { size: 2, last: false })));
  assert.equal(inbox.due, null, 'not before it is whole');
  assert.ok(!inbox.receive(chunk(1)));
  assert.equal(inbox.due, 1);
  assert.equal(inbox.first, undefined);
});

test('a message that comes again while it waits to be handed over is skipped and not acknowledged', () => {
  const inbox = opened();
  inbox.receive(chunk(1, 'a'));
  inbox.opened(hello());
  assert.ok(!inbox.receive(chunk(1, 'a')));
  assert.equal(inbox.due, null);
  assert.deepEqual(handOver(inbox), ['a']);
});

test('half a message is dropped with its channel', () => {
  const inbox = opened();
  inbox.receive(chunk(1, 'a', { size: 2, last: false }));
  assert.equal(inbox.size, 1);
  inbox.closed();
  assert.equal(inbox.size, 0);
  inbox.opened(hello());
  inbox.receive(chunk(1, 'b', { size: 2, last: false }));
  assert.ok(inbox.receive(chunk(1, 'c', { size: 2 })));
  assert.equal(inbox.size, 2);
  assert.deepEqual(handOver(inbox), ['bc']);
  assert.equal(inbox.size, 0);
});

test("a new process begins where the sender's hello says", () => {
  assert.equal(new Inbox().position(), null);
  const inbox = opened('s', 41);
  assert.deepEqual(inbox.position(), { stream: 's', sequence: 40 });
  assert.equal(inbox.due, null);
  assert.ok(inbox.receive(chunk(41)));
});

test('a sender that skips numbers was acknowledged elsewhere or has given up', () => {
  const inbox = opened();
  inbox.receive(chunk(1, 'a'));
  inbox.opened(hello('s', 5));
  assert.ok(inbox.receive(chunk(5, 'e')));
  assert.deepEqual(handOver(inbox), ['a', 'e']);
  assert.equal(inbox.due, 5);
});

test('skipped numbers count as received once all before them is handed over', () => {
  const inbox = opened();
  inbox.receive(chunk(1));
  inbox.opened(hello('s', 5));
  assert.equal(inbox.position().sequence, 0);
  handOver(inbox);
  assert.equal(inbox.position().sequence, 4);
  inbox.opened(hello('s', 9));
  assert.equal(inbox.position().sequence, 8);
});

test('a stream that comes back goes on where it was', () => {
  const inbox = opened('phone');
  inbox.receive(chunk(1));
  handOver(inbox);
  inbox.opened(hello('main'));
  inbox.receive(chunk(1));
  handOver(inbox);
  inbox.opened(hello('phone'));
  assert.deepEqual(inbox.position(), { stream: 'phone', sequence: 1 });
  assert.ok(!inbox.receive(chunk(1)));
});

test('what was not handed over when another stream begins is left to its sender', () => {
  const inbox = opened('phone');
  inbox.receive(chunk(1, 'a'));
  inbox.opened(hello('main'));
  assert.equal(inbox.first, undefined);
  inbox.opened(hello('phone'));
  assert.ok(inbox.receive(chunk(1, 'a')));
});

test('only the last streams are remembered', () => {
  const inbox = opened('first');
  inbox.receive(chunk(1));
  handOver(inbox);
  for (let number = 0; number < MAX_STREAMS; number++) inbox.opened(hello(`stream ${number}`));
  inbox.opened(hello('first'));
  assert.deepEqual(inbox.position(), { stream: 'first', sequence: 0 });
});

test('a stream may have any name', () => {
  const inbox = opened('__proto__');
  inbox.receive(chunk(1));
  handOver(inbox);
  inbox.opened(hello('constructor'));
  inbox.opened(hello('__proto__'));
  assert.deepEqual(inbox.position(), { stream: '__proto__', sequence: 1 });
});

test('a chunk before the hello is refused', () => {
  const inbox = new Inbox();
  const early = { name: 'ProtocolViolation', message: /before the HELLO/ };
  assert.throws(() => inbox.receive(chunk(1)), early);
  inbox.opened(hello());
  inbox.closed();
  assert.throws(() => inbox.receive(chunk(1)), early);
});

const part = { size: 2, last: false };
for (const [what, chunks, why] of [
  ['a gap', [chunk(2)], /where 1 was due/],
  ['a gap within a message', [chunk(1, 'x', part), chunk(2)], /where 1 was due/],
  ['another size', [chunk(1, 'x', part), chunk(1, 'x', { size: 3 })], /contradict/],
  ['another content', [chunk(1, 'x', part), chunk(1, 'x', { size: 2, content: Content.TEXT })], /contradict/],
  ['too much', [chunk(1, 'xx', { size: 1 })], /contradict/],
  ['too little', [chunk(1, 'x', { size: 2 })], /contradict/],
  ['too much in pieces', [chunk(1, 'x', { size: 1, last: false }), chunk(1)], /contradict/],
  ['an empty piece', [chunk(1, '', { size: 1, last: false })], /contradict/],
  ['a size beyond the limit', [chunk(1, 'x', { size: MAX_MESSAGE + 1, last: false })], /too large/],
  ['too many', Array.from({ length: WINDOW_MESSAGES + 1 }, (_, index) => chunk(index + 1)), /window/],
  ['too much at a time', [chunk(1, new Uint8Array(WINDOW_BYTES)), chunk(2)], /window/],
]) {
  test(`a sender that breaks the rules is found out: ${what}`, () => {
    const inbox = opened();
    const last = chunks.pop();
    chunks.forEach((good) => inbox.receive(good));
    assert.throws(() => inbox.receive(last), ProtocolViolation);
    assert.throws(() => inbox.receive(last), why);
  });
}

test('reading makes room in the window', () => {
  const inbox = opened();
  for (let number = 1; number < 3 * WINDOW_MESSAGES; number++) {
    inbox.receive(chunk(number));
    if (number % WINDOW_MESSAGES === 0) handOver(inbox);
  }
  assert.equal(inbox.due, 2 * WINDOW_MESSAGES);
});

test('what is let go of comes again', () => {
  const inbox = opened();
  inbox.receive(chunk(1, 'a'));
  inbox.receive(chunk(2, 'b'));
  inbox.take();
  inbox.closed();
  inbox.letGo();
  assert.deepEqual([inbox.first, inbox.size], [undefined, 0]);
  inbox.opened(hello('s', 2));
  assert.ok(inbox.receive(chunk(2, 'b')));
});

test('the largest message comes through', () => {
  const inbox = opened();
  const data = Uint8Array.from({ length: MAX_MESSAGE }, (_, index) => index >> 10);
  encodeMessage(Content.BYTES, 1, data).forEach((frame) => inbox.receive(decode(frame)));
  assert.ok(Buffer.from(inbox.first.data.buffer).equals(data));
});
