/** A message stream over a path that a test can stop, break and look into. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PeerConnectionFailed, ProtocolViolation, QueueFull } from '../../../src/errors.js';
import { decode, encodeHello } from '../../../src/protocol/channel.js';
import * as Content from '../../../src/protocol/kinds.js';
import {
  ACK_MESSAGES,
  ACK_SECONDS,
  MessageStream,
  FEATURES,
  MAX_CONTROLS,
} from '../../../src/store/messages/stream.js';
import { Mailbox } from '../../../src/store/messages/mailbox.js';
import { WINDOW_MESSAGES } from '../../../src/store/messages/outbox.js';
import { storeLimits } from '../../../src/store/state.js';
import { FakeTimers } from '../../support/fake_timers.js';

const bytes = (text) => new TextEncoder().encode(text);
const hello = (stream = 'theirs', next = 1, received = null) => ({
  type: 'hello',
  version: 1,
  stream,
  next,
  features: [],
  received,
});
const ack = (sequence) => ({ type: 'ack', sequence });
const chunk = (sequence, content = Content.BYTES, data = bytes('x')) => ({
  type: 'chunk',
  content,
  sequence,
  size: data.length,
  last: true,
  data,
});
const control = (sequence, text = 'c') => chunk(sequence, Content.CONTROL, bytes(text));

class Side {
  room = Infinity; // how many frames the path takes
  frames = [];
  controls = [];
  timers = new FakeTimers();

  constructor(limits = {}) {
    const all = storeLimits(limits);
    this.mailbox = new Mailbox(all, () => this.stream.handOver());
    this.messages = this.mailbox.iterate((message) => message);
    this.stream = new MessageStream({ userId: 'bob', name: 'phone' }, 's', {
      limits: all,
      path: this,
      recipient: this.mailbox,
      control: (data) => this.controls.push(new TextDecoder().decode(data)),
      timers: this.timers,
    });
  }

  sendFrame(frame) {
    if (!this.room) return false;
    this.room--;
    this.frames.push(frame);
    return true;
  }

  combines({ length }) {
    return length < 2048;
  }

  /** What was sent since, in short: "1" is a message, "ack 1" an acknowledgement. */
  take() {
    return this.frames.splice(0).map((frame) => {
      const { type, sequence } = decode(frame);
      return type === 'ack' ? `ack ${sequence}` : `${sequence}`;
    });
  }

  send(...texts) {
    return texts.map((text) => this.stream.send(Content.TEXT, bytes(text)));
  }

  async read() {
    return (await this.messages.next()).value?.sequence;
  }
}

function opened(limits) {
  const side = new Side(limits);
  side.stream.hello();
  side.stream.opened(hello());
  return side;
}

test('our hellos are counted whatever path they take', () => {
  const { stream } = opened();
  assert.deepEqual(
    [stream.greeting(), stream.hello(), stream.hello(true)].map(({ channel }) => channel),
    [2, 3, 4],
  );
});

test('messages wait for a channel and are delivered when they are acknowledged', async () => {
  const side = new Side();
  const [delivery] = side.send('a');
  assert.deepEqual(side.stream.last, [delivery]);
  assert.deepEqual(side.take(), []);
  assert.equal(side.stream.hello().next, 1);
  side.stream.opened(hello());
  assert.deepEqual(side.take(), ['1']);
  assert.deepEqual([side.stream.queued, delivery.done], [1, false]);
  side.stream.received(ack(1));
  await delivery;
  assert.deepEqual([side.stream.queued, side.stream.last], [0, []]);
});

test('an acknowledgement goes along with a small message and not with a large one', () => {
  const side = opened();
  side.stream.received(chunk(1));
  side.stream.send(Content.BYTES, new Uint8Array(4096));
  assert.deepEqual(side.take(), ['1']);
  side.send('a');
  assert.deepEqual(side.take(), ['ack 1', '2']);
  side.stream.received(chunk(2));
  side.stream.send(Content.BYTES, new Uint8Array(4096));
  assert.deepEqual(side.take(), ['3']);
  side.timers.advance(ACK_SECONDS);
  assert.deepEqual(side.take(), ['ack 2']);
});

test('a path without room is asked again when it has some', () => {
  const side = opened();
  side.room = 1;
  side.send('a', 'b', 'c');
  assert.deepEqual(side.take(), ['1']);
  side.room = 9;
  side.stream.pump();
  assert.deepEqual(side.take(), ['2', '3']);
});

test('an acknowledgement without room goes before the messages later', () => {
  const side = opened();
  side.send('a');
  side.take();
  side.room = 0;
  side.send('b');
  side.stream.received(chunk(1));
  side.timers.advance(ACK_SECONDS);
  side.room = 9;
  side.stream.pump();
  assert.deepEqual(side.take(), ['ack 1', '2']);
});

test('one acknowledgement covers what comes in a short while', () => {
  const side = opened();
  for (const number of [1, 2, 3]) side.stream.received(chunk(number));
  assert.deepEqual(side.take(), []);
  side.timers.advance(ACK_SECONDS);
  assert.deepEqual(side.take(), ['ack 3']);
  side.timers.advance(1);
  assert.deepEqual(side.take(), []);
});

test('many messages are acknowledged without waiting', () => {
  const side = opened();
  for (let number = 1; number <= ACK_MESSAGES; number++) side.stream.received(chunk(number));
  assert.deepEqual(side.take(), [`ack ${ACK_MESSAGES}`]);
});

test('an acknowledgement goes along with a message', () => {
  const side = opened();
  side.stream.received(chunk(1));
  side.send('a');
  assert.deepEqual(side.take(), ['ack 1', '1']);
  side.timers.advance(1);
  assert.deepEqual(side.take(), []);
});

test('a message that comes again is acknowledged again', () => {
  const side = opened();
  side.stream.received(chunk(1));
  side.timers.advance(ACK_SECONDS);
  side.take();
  side.stream.received(chunk(1));
  side.timers.advance(ACK_SECONDS);
  assert.deepEqual(side.take(), ['ack 1']);
});

test('nothing is acknowledged on a channel that is gone', () => {
  const side = opened();
  side.stream.received(chunk(1));
  side.stream.closed();
  side.timers.advance(1);
  assert.deepEqual(side.take(), []);
  assert.deepEqual(side.stream.hello().received, { stream: 'theirs', sequence: 1 });
});

test('what the application has no room for is not acknowledged until it reads', async () => {
  const side = opened({ unreadMessages: 2 });
  for (let number = 1; number <= 5; number++) side.stream.received(chunk(number));
  side.timers.advance(1);
  assert.deepEqual(side.take(), ['ack 2']);
  assert.ok(side.stream.waiting);
  assert.equal(side.stream.arriving, 3);
  for (let number = 1; number <= 5; number++) assert.equal(await side.read(), number);
  side.timers.advance(1);
  assert.equal(side.take().at(-1), 'ack 5');
  assert.ok(!side.stream.waiting);
});

test('the queue is limited in messages and in bytes', () => {
  const side = new Side({ queueMessages: 2 });
  side.send('a', 'b');
  const full = (error) => error instanceof QueueFull && `${error.userId} ${error.messages} ${error.size}` === 'bob 2 2';
  assert.throws(() => side.send('c'), full);
  assert.equal(side.stream.queued, 2);
  const other = new Side({ queueSize: 3 });
  other.send('four'); // alone, any size goes
  assert.throws(() => other.send('x'), QueueFull);
});

test('giving up fails what is not acknowledged and nothing else', async () => {
  const side = opened();
  const [first, second] = side.send('a', 'b');
  side.stream.received(ack(1));
  side.stream.closed();
  side.stream.fail('nobody is there');
  assert.ok(first.delivered);
  await assert.rejects(async () => second, { name: 'DeliveryFailed', sequence: 2, reason: 'nobody is there' });
  assert.equal(side.stream.queued, 0);
  assert.equal(side.stream.hello().next, 3);
});

test('a new channel sends again what the other side does not have', () => {
  const side = opened();
  side.send('a', 'b', 'c');
  side.stream.closed();
  side.take();
  side.stream.hello();
  side.stream.opened(hello('theirs', 1, { stream: 's', sequence: 1 }));
  assert.deepEqual(side.take(), ['2', '3']);
});

test('a greeting promises nothing', () => {
  const side = opened();
  side.send('a');
  side.stream.greeting();
  side.stream.received(ack(1));
  assert.equal(side.stream.queued, 0);
});

test('a hello says what this program can do, and can be sent', () => {
  const greeting = new Side().stream.greeting();
  assert.deepEqual(greeting.features, FEATURES);
  assert.deepEqual(decode(encodeHello(greeting)), { type: 'hello', ...greeting });
});

test('what is let go of comes again', () => {
  const side = opened({ unreadMessages: 1 });
  side.stream.received(chunk(1));
  side.stream.received(chunk(2));
  side.stream.closed();
  side.stream.letGo();
  assert.deepEqual([side.stream.arriving, side.stream.waiting], [0, false]);
  side.stream.hello();
  side.stream.opened(hello('theirs', 2));
  side.stream.received(chunk(2));
  assert.ok(side.stream.waiting);
});

test('breaking the protocol is told', () => {
  const side = opened();
  assert.throws(() => side.stream.received(ack(1)), ProtocolViolation);
  assert.throws(() => side.stream.received(chunk(5)), ProtocolViolation);
  assert.throws(() => side.stream.opened(hello('theirs', 1, { stream: 's', sequence: 1 })), ProtocolViolation);
});

test('a window that is used up opens with the acknowledgement', () => {
  const side = opened();
  side.send(...Array(WINDOW_MESSAGES + 1).fill('x'));
  assert.equal(side.take().length, WINDOW_MESSAGES);
  side.stream.received(ack(1));
  assert.deepEqual(side.take(), [`${WINDOW_MESSAGES + 1}`]);
});

test('it is told when the other side is another one', () => {
  const side = new Side();
  side.stream.hello();
  assert.equal(side.stream.opened(hello('one')), false);
  assert.equal(side.stream.opened(hello('one')), false);
  assert.equal(side.stream.opened(hello('other')), true);
});

test('a control message goes to the store and not to the application, in its place and acknowledged', async () => {
  const side = opened();
  side.stream.received(chunk(1));
  side.stream.received(control(2, 'ring'));
  side.stream.received(chunk(3));
  assert.deepEqual(side.controls, ['ring']);
  side.timers.advance(ACK_SECONDS);
  assert.deepEqual(side.take(), ['ack 3']);
  assert.deepEqual([await side.read(), await side.read()], [1, 3]);
});

test('a control message is taken though the application has no room, and waits behind a message that does', async () => {
  const side = opened({ unreadMessages: 1 });
  side.stream.received(chunk(1));
  side.stream.received(control(2, 'first'));
  side.stream.received(chunk(3));
  side.stream.received(control(4, 'behind'));
  assert.deepEqual(side.controls, ['first']);
  side.timers.advance(ACK_SECONDS);
  assert.deepEqual(side.take(), ['ack 2']);
  assert.equal(await side.read(), 1);
  assert.deepEqual(side.controls, ['first', 'behind']);
  side.timers.advance(ACK_SECONDS);
  assert.deepEqual(side.take(), ['ack 4']);
});

test('the newest message to the device counts beside the newest to the user', () => {
  const [side, other] = [new Side(), new Side()];
  const send = (addressed) => side.stream.send(Content.TEXT, bytes('x'), addressed);
  const [, ours] = [send(true), send(true)];
  const [, theirs] = [send(false), send(false)];
  const last = ({ stream }) => new Set(stream.last);
  assert.deepEqual(last(side), new Set([ours, theirs]));
  other.stream.takeOver(side.stream.withdraw());
  assert.deepEqual([last(side), last(other)], [new Set([ours]), new Set([theirs])]);
  side.stream.fail('nobody is there', new PeerConnectionFailed('bob', 'nobody is there'));
  assert.deepEqual([side.stream.queued, side.stream.last], [0, []]);
  const later = send(false);
  assert.deepEqual(side.stream.last, [later]);
});

test('an answer to a control message may be given at once', () => {
  const side = opened();
  side.controls.push = (text) => side.stream.send(Content.CONTROL, bytes(`yes, ${text}`));
  side.stream.received(control(1, 'ring'));
  assert.deepEqual(side.take(), ['ack 1', '1']);
});

test('control messages fill no queue of the application, and have a limit of their own', () => {
  const side = new Side({ queueMessages: 1, queueSize: 1 });
  side.send('a');
  const say = () => side.stream.send(Content.CONTROL, bytes('much more than the queue may have'));
  for (let count = 0; count < MAX_CONTROLS; count++) say();
  assert.equal(side.stream.queued, 1);
  assert.throws(say, QueueFull);
  assert.equal(side.stream.last[0].sequence, 1, 'who drains waits for messages only');
});
