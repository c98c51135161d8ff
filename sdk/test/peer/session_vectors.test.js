/** The session against tests/vectors/session.json, which was made by the Python one: the two cannot drift apart. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { PeerSession } from '../../src/peer/session.js';
import { decode } from '../../src/protocol/channel.js';

const { vectors } = JSON.parse(await readFile(new URL('../../../tests/vectors/session.json', import.meta.url), 'utf8'));
const OUTPUTS = ['result', 'sent', 'events', 'deadline', 'greeted', 'lost'];

const bytes = (hex) => Uint8Array.from(Buffer.from(hex, 'hex'));

/** A frame or an event as the vectors show it. */
const shown = ({ type, stream, sequence, token, reason, orderly }) => [
  type,
  ...[stream, sequence, token === undefined ? token : Number(token), reason, orderly].filter(
    (each) => each !== undefined,
  ),
];

/** A path that keeps what is sent on it. */
class Recorder {
  room = 1_000_000;
  closed = false;
  sent = [];

  send(frame) {
    this.sent.push(shown(decode(frame)));
    return true;
  }
}

function run(session, { call, at, hello, text, zeros, data, frame, reason, size }) {
  if (call === 'open') return session.open(hello, at);
  if (call === 'received') return session.received(text ?? (zeros ? new Uint8Array(zeros) : bytes(data)).buffer, at);
  if (call === 'send') return session.send(bytes(frame));
  if (call === 'expect') return session.expect(size, at);
  if (call === 'goodbye') return session.goodbye(reason);
  if (call === 'probe') return session.probe(reason, at);
  return session[call](at);
}

for (const { name, now, steps, ...timing } of vectors) {
  test(`as in Python: ${name}`, () => {
    const path = new Recorder();
    const session = new PeerSession(path, now, timing);
    for (const [number, step] of steps.entries()) {
      Object.assign(path, { sent: [], room: step.room ?? path.room, closed: step.closed ?? path.closed });
      const result = run(session, step);
      const told = {
        result: Array.isArray(result) ? undefined : (result ?? null),
        sent: path.sent,
        events: (Array.isArray(result) ? result : []).map(shown),
        deadline: session.deadline === Infinity ? null : session.deadline, // as JSON says it
        greeted: session.greeted,
        lost: session.lost,
      };
      const expected = OUTPUTS.filter((key) => key in step);
      assert.deepEqual(
        expected.map((key) => told[key]),
        expected.map((key) => step[key]),
        `step ${number}`,
      );
    }
  });
}
