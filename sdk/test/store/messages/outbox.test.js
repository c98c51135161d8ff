/** What is on its way to a peer: numbers, windows, acknowledgements, and what a lost channel means for them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProtocolViolation } from '../../../src/errors.js';
import { CHUNK, decode, LARGEST_SENT } from '../../../src/protocol/channel.js';
import * as Content from '../../../src/protocol/kinds.js';
import { Outbox, WINDOW_BYTES, WINDOW_MESSAGES } from '../../../src/store/messages/outbox.js';

const bytes = (size) => new Uint8Array(size);
const text = (value) => new TextEncoder().encode(value);
const many = (count) => Array.from({ length: count }, () => bytes(1));

function opened(...messages) {
  const outbox = new Outbox('s');
  messages.forEach((data) => outbox.put(Content.BYTES, data));
  outbox.helloSent();
  outbox.opened(null);
  return outbox;
}

/** Send up to so many frames; what they are. */
function send(outbox, frames = Infinity) {
  const sent = [];
  for (let frame; sent.length < frames && (frame = outbox.nextFrame());) {
    sent.push(decode(frame));
    outbox.sent();
  }
  return sent;
}

const sequences = (chunks) => chunks.map((chunk) => chunk.sequence);
const violates = (call) => assert.throws(call, ProtocolViolation);

test('messages are numbered from one and sent in order', () => {
  const outbox = opened(text('a'), text('b'));
  assert.deepEqual(
    send(outbox).map((chunk) => [chunk.sequence, String.fromCharCode(...chunk.data)]),
    [
      [1, 'a'],
      [2, 'b'],
    ],
  );
  assert.equal(outbox.put(Content.TEXT, text('c')), 3);
  assert.deepEqual(
    send(outbox).map((chunk) => chunk.content),
    [Content.TEXT],
  );
  assert.equal(outbox.nextFrame(), null);
});

test("nothing is sent before the other side's hello", () => {
  const outbox = new Outbox('s');
  outbox.put(Content.TEXT, text('a'));
  assert.equal(outbox.nextFrame(), null);
  assert.equal(outbox.helloSent(), 1);
  assert.equal(outbox.nextFrame(), null);
  outbox.opened(null);
  assert.ok(outbox.nextFrame());
});

test('a frame that the channel did not take is offered again', () => {
  const outbox = opened(text('a'), text('b'));
  const first = outbox.nextFrame();
  assert.equal(outbox.nextFrame(), first);
  assert.equal(outbox.messages, 2);
});

test('an acknowledgement covers all before it', () => {
  const outbox = opened(bytes(2), bytes(2), bytes(2));
  send(outbox);
  assert.deepEqual(outbox.acknowledge(2), [1, 2]);
  assert.deepEqual([outbox.messages, outbox.size, outbox.acknowledged, outbox.last], [1, 2, 2, 3]);
  assert.deepEqual(outbox.acknowledge(1), []);
  assert.deepEqual(outbox.acknowledge(2), []);
  assert.deepEqual(outbox.acknowledge(3), [3]);
});

test('control messages are numbered with the others and counted apart', () => {
  const outbox = opened(bytes(2));
  assert.equal(outbox.put(Content.CONTROL, bytes(100)), 2);
  assert.deepEqual([outbox.messages, outbox.size, outbox.controls], [1, 2, 1]);
  assert.deepEqual(sequences(send(outbox)), [1, 2]);
  outbox.acknowledge(2);
  assert.deepEqual([outbox.messages, outbox.size, outbox.controls], [0, 0, 0]);
  outbox.put(Content.CONTROL, bytes(1));
  outbox.clear();
  assert.deepEqual([outbox.messages, outbox.controls], [0, 0]);
});

test('control messages fill the window as the others do', () => {
  const outbox = opened();
  for (let count = 0; count <= WINDOW_MESSAGES; count++) outbox.put(Content.CONTROL, bytes(1));
  assert.equal(send(outbox).length, WINDOW_MESSAGES);
});

for (const sequence of [2, 3, Number.MAX_SAFE_INTEGER]) {
  test(`a message that was not sent whole cannot be acknowledged: ${sequence}`, () => {
    const outbox = opened(text('a'), bytes(CHUNK + 1), text('c'));
    send(outbox, 2);
    violates(() => outbox.acknowledge(sequence));
    violates(() => outbox.opened({ stream: 's', sequence }));
  });
}

test('what a lost channel took with it is sent again from the first unacknowledged message on', () => {
  const outbox = opened(text('a'), text('b'), bytes(CHUNK + 1));
  send(outbox, 3);
  outbox.acknowledge(1);
  outbox.closed();
  assert.equal(outbox.nextFrame(), null);
  assert.equal(outbox.helloSent(), 2);
  outbox.opened(null);
  assert.deepEqual(
    send(outbox).map((chunk) => [chunk.sequence, chunk.last]),
    [
      [2, true],
      [3, false],
      [3, true],
    ],
  );
});

test('the hello of the other side acknowledges what was lost on the way back', () => {
  const outbox = opened(text('a'), text('b'));
  send(outbox);
  assert.equal(outbox.helloSent(), 1);
  assert.deepEqual(outbox.opened({ stream: 's', sequence: 2 }), [1, 2]);
  assert.equal(outbox.nextFrame(), null);
});

test('what was sent on the channel before may be acknowledged on this one before it is sent again', () => {
  const outbox = opened(text('a'), text('b'), text('c'));
  send(outbox);
  outbox.helloSent();
  outbox.opened(null);
  assert.deepEqual(sequences(send(outbox, 1)), [1]);
  assert.deepEqual(outbox.acknowledge(2), [1, 2]);
  assert.deepEqual(sequences(send(outbox)), [3]);
});

test('a position in another stream says nothing about this one', () => {
  const outbox = new Outbox('s');
  outbox.put(Content.TEXT, text('a'));
  outbox.helloSent();
  assert.deepEqual(outbox.opened({ stream: 'another', sequence: 99 }), []);
  assert.deepEqual(sequences(send(outbox)), [1]);
});

test('an acknowledgement between the hellos is not counted, because ours has promised the message', () => {
  const outbox = opened(text('a'));
  send(outbox);
  outbox.helloSent();
  assert.deepEqual(outbox.acknowledge(1), []);
  outbox.opened(null);
  assert.deepEqual(sequences(send(outbox)), [1]);
});

test('a message that is acknowledged while it is sent again is not finished', () => {
  const outbox = opened(bytes(3 * CHUNK), text('b'));
  send(outbox, 3);
  outbox.helloSent();
  outbox.opened(null);
  assert.deepEqual(sequences(send(outbox, 2)), [1, 1]);
  assert.deepEqual(outbox.acknowledge(1), [1]);
  assert.deepEqual(sequences(send(outbox)), [2]);
});

test('the window is whole again after a message that was acknowledged while it was sent again', () => {
  const outbox = opened(bytes(WINDOW_BYTES), bytes(WINDOW_BYTES - 1), text('c'), text('d'));
  send(outbox, WINDOW_BYTES / CHUNK);
  outbox.helloSent();
  outbox.opened(null);
  send(outbox, 1);
  outbox.acknowledge(1);
  assert.deepEqual([...new Set(sequences(send(outbox)))], [2, 3]);
});

test('unacknowledged messages are limited in number', () => {
  const outbox = opened(...many(WINDOW_MESSAGES + 5));
  assert.equal(send(outbox).length, WINDOW_MESSAGES);
  outbox.acknowledge(3);
  assert.equal(send(outbox).length, 3);
});

test('no message is begun while the window is full of bytes', () => {
  const outbox = opened(bytes(WINDOW_BYTES / 2), bytes(WINDOW_BYTES / 2), text('c'), text('d'));
  assert.deepEqual([...new Set(sequences(send(outbox)))], [1, 2]);
  outbox.acknowledge(1);
  assert.deepEqual(sequences(send(outbox)), [3, 4]);
});

test('a message larger than the window goes when nothing else is on its way', () => {
  const outbox = opened(bytes(WINDOW_BYTES + 1), text('b'));
  assert.deepEqual([...new Set(sequences(send(outbox)))], [1]);
  outbox.acknowledge(1);
  assert.deepEqual(sequences(send(outbox)), [2]);
});

test('the window is free again on a new channel', () => {
  const outbox = opened(...many(WINDOW_MESSAGES + 5));
  send(outbox);
  outbox.helloSent();
  outbox.opened(null);
  assert.equal(send(outbox).length, WINDOW_MESSAGES);
});

test('the numbers of what is given up are skipped', () => {
  const outbox = opened(text('a'), text('b'), text('c'));
  send(outbox, 2);
  outbox.acknowledge(1);
  outbox.closed();
  outbox.clear();
  assert.deepEqual([outbox.messages, outbox.size], [0, 0]);
  assert.equal(outbox.put(Content.TEXT, text('d')), 4);
  assert.equal(outbox.helloSent(), 4);
  assert.deepEqual(outbox.opened({ stream: 's', sequence: 2 }), []);
  assert.deepEqual(sequences(send(outbox)), [4]);
});

test('a piece of a file makes two frames that the relay can carry', () => {
  const outbox = opened();
  outbox.put(Content.CONTROL, new Uint8Array(64 * 1024 + 17));
  const sizes = [];
  for (let frame; (frame = outbox.nextFrame()); outbox.sent()) sizes.push(frame.length);
  assert.equal(sizes.length, 2);
  assert.ok(Math.max(...sizes) <= LARGEST_SENT);
});
