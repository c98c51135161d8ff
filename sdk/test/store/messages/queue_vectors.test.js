/** The outbox and the inbox against tests/vectors/outbox.json and inbox.json, which Python's follow as well. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { ProtocolViolation } from '../../../src/errors.js';
import { decode } from '../../../src/protocol/channel.js';
import { Inbox } from '../../../src/store/messages/inbox.js';
import { Outbox } from '../../../src/store/messages/outbox.js';
import { restoreInbox, restoreOutbox, snapshotInbox, snapshotOutbox } from '../../../src/store/messages/snapshots.js';

const scripts = async (name) =>
  JSON.parse(await readFile(new URL(`../../../../tests/vectors/${name}.json`, import.meta.url), 'utf8')).scripts;

const read = (data) => (typeof data === 'string' ? new TextEncoder().encode(data) : new Uint8Array(data[1]));
const written = (data) => (data.length < 100 ? new TextDecoder().decode(data) : ['zeros', data.length]);
const position = (given) => given && { stream: given[0], sequence: given[1] };

const OUTBOX = {
  put: (outbox, content, data) => outbox.put(content, read(data)),
  'hello sent': (outbox) => outbox.helloSent(),
  begin: (outbox) => outbox.begin(),
  opened: (outbox, given) => outbox.opened(position(given)),
  closed: (outbox) => outbox.closed(),
  acknowledge: (outbox, sequence) => outbox.acknowledge(sequence),
  clear: (outbox) => outbox.clear(),
  withdraw: (outbox, numbers, skip) =>
    outbox.withdraw(numbers, skip).map(({ content, data }) => [content, written(data)]),
  'take back': (outbox, numbers) => OUTBOX.withdraw(outbox, numbers, false),
  send(outbox, most) {
    const frames = [];
    for (let frame; frames.length < most && (frame = outbox.nextFrame());) {
      const { sequence, last, data } = decode(frame);
      frames.push([sequence, last, written(data)]);
      outbox.sent();
    }
    return frames;
  },
};

const INBOX = {
  opened: (inbox, stream, next, run) => inbox.opened({ stream, next, run }),
  closed: (inbox) => inbox.closed(),
  receive: (inbox, content, sequence, size, last, data) =>
    inbox.receive({ content, sequence, size, last, data: read(data) }),
  take(inbox) {
    const { first } = inbox;
    if (!first) return null;
    inbox.take();
    return [first.content, first.sequence, written(first.data)];
  },
  confirm(inbox) {
    const { due } = inbox;
    if (due !== null) inbox.confirmed(due);
    return due;
  },
  'let go': (inbox) => inbox.letGo(),
};

/** What a call returns, or that the other side has broken the protocol. */
function cameOf(call) {
  try {
    return { result: call() ?? null };
  } catch (error) {
    assert(error instanceof ProtocolViolation, error);
    return { violation: true };
  }
}

for (const { name, steps } of await scripts('outbox')) {
  test(`outbox, as in Python: ${name}`, () => {
    let outbox = new Outbox('ours');
    for (const [[call, ...given], expected] of steps) {
      let came;
      if (call === 'restore') {
        const { stream, acknowledged, sent, messages } = snapshotOutbox(outbox);
        came = { result: [stream, acknowledged, sent, messages.map(([content, data]) => [content, written(data)])] };
        outbox = restoreOutbox({ stream, acknowledged, sent, messages });
      } else {
        came = cameOf(() => OUTBOX[call](outbox, ...given));
      }
      const { acknowledged, last, messages, controls, size } = outbox;
      if (!came.violation) came.stands = [acknowledged, last, messages, controls, size];
      assert.deepEqual(came, expected, call);
    }
  });
}

for (const { name, steps } of await scripts('inbox')) {
  test(`inbox, as in Python: ${name}`, () => {
    let inbox = new Inbox();
    for (const [[call, ...given], expected] of steps) {
      let came;
      if (call === 'restore') {
        const snapshot = snapshotInbox(inbox);
        came = { result: snapshot.streams.map(({ stream, sequence }) => [stream, sequence]) };
        inbox = restoreInbox(snapshot);
      } else {
        came = cameOf(() => INBOX[call](inbox, ...given));
      }
      const at = inbox.position();
      if (!came.violation) came.stands = [at && [at.stream, at.sequence], inbox.size, inbox.unconfirmed];
      assert.deepEqual(came, expected, call);
    }
  });
}

test('what is no snapshot is refused', () => {
  const messages = [[0, read('a')]];
  for (const numbers of [
    { acknowledged: -1, sent: 0 },
    { acknowledged: 3, sent: 2 },
    { acknowledged: 3, sent: 5 },
  ]) {
    assert.throws(() => restoreOutbox({ stream: 's', messages, ...numbers }), { name: 'UsageError' });
  }
  const stream = (name, sequence = 1) => ({ stream: name, sequence });
  const many = Array.from({ length: 17 }, (_, number) => stream(`${number}`));
  for (const streams of [many, [stream('s'), stream('s')], [stream('s', -1)], [stream('')]]) {
    assert.throws(() => restoreInbox({ streams }), { name: 'UsageError' });
  }
});
