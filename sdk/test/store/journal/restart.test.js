/** A program with a journal that is started again, and again, before its peer has been there. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode, encodeHello } from '../../../src/protocol/channel.js';
import * as Content from '../../../src/protocol/kinds.js';
import { Journal } from '../../../src/store/journal/journal.js';
import { HeldBackend, LIMITS, Line } from '../../support/crash_program.js';

const bytes = (text) => new TextEncoder().encode(text);
const turn = () => new Promise(setImmediate);

/** One run of a program whose journal has these rows. */
class Run {
  sent = [];

  static async start(rows) {
    const run = new Run();
    run.backend = new HeldBackend(rows, () => {});
    run.journal = await Journal.open(run.backend);
    const peers = () => ({ peer: () => ({ device: () => {} }), publish: () => {}, handOver: () => {} });
    const mailbox = run.journal.mailbox(LIMITS, peers);
    run.line = new Line(run.journal, mailbox, 'bob', 'main', (frame) => run.sent.push(decode(frame)));
    return run;
  }

  async send(...texts) {
    for (const text of texts) this.line.stream.send(Content.TEXT, bytes(text));
    await turn();
  }

  /** The peer says what it has of our stream; false when another channel has to begin. */
  hear(sequence) {
    this.line.connect();
    this.line.room = 1000;
    const received = sequence ? { stream: this.sent.at(-1).stream, sequence } : null;
    return this.line.arrive(encodeHello({ version: 1, stream: 'theirs', next: 1, features: [], received }));
  }

  /** The texts that are on the wire, without what only has a number. */
  get texts() {
    const chunks = this.sent.filter(({ type, content }) => type === 'chunk' && content === Content.TEXT);
    return chunks.map(({ data }) => new TextDecoder().decode(data));
  }

  async write() {
    this.backend.run();
    await turn();
  }

  async kill() {
    this.backend.die();
    void this.journal.close();
    return Run.start(new Map(this.backend.rows));
  }
}

async function startedTwice() {
  let run = await Run.start(new Map());
  await run.send('a');
  await run.write();
  run = await run.kill();
  await run.send('b', 'c', 'd');
  await run.write();
  return run.kill();
}

test('the numbers of a peer that has more than was ever sent are not those of our messages', async () => {
  const run = await startedTwice();
  assert.equal(run.line.stream.queued, 4);
  assert.equal(run.hear(68), false); // what was put back had sent so many
  assert.equal(run.line.stream.queued, 3);
  await run.write();
  await run.write();
  assert.equal(run.hear(0), true);
  assert.deepEqual(run.texts, ['b', 'c', 'd']);
  await run.kill();
});

test('what no earlier run has sent waits until the journal knows that it may be sent', async () => {
  let run = await startedTwice();
  assert.equal(run.hear(0), true);
  assert.deepEqual(run.texts, ['a']);
  await run.write();
  await run.write();
  assert.deepEqual(run.texts, ['a', 'b', 'c', 'd']);
  run = await run.kill();
  assert.equal(run.hear(68), true);
  assert.equal(run.line.stream.queued, 0);
  await run.kill();
});
