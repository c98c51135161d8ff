/**
 * Exactly once and in order, over any sequence of losses, restarts and slow readers: two ends do what a seeded generator
 * tells them, and after each step it is checked what has arrived.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CHUNK, decode, encodeAck, encodeHello } from '../../../src/protocol/channel.js';
import * as Content from '../../../src/protocol/kinds.js';
import { Inbox } from '../../../src/store/messages/inbox.js';
import { Outbox } from '../../../src/store/messages/outbox.js';
import { restoreInbox, restoreOutbox, snapshotInbox, snapshotOutbox } from '../../../src/store/messages/snapshots.js';
import { generator } from '../../support/generator.js';

const SIZES = [0, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK];
const ROUNDS = 500;
const STEPS = 150;

/** One program: what it was handed, and one end of the channel. */
class Side {
  inbox = new Inbox();
  wire = []; // what it has sent on the channel, and has not come out yet
  greeted = false; // the other side's HELLO has come
  handed = [];

  constructor(stream) {
    this.outbox = new Outbox(stream);
  }

  restartChannel() {
    this.greeted = false;
    const { stream } = this.outbox;
    const next = this.outbox.helloSent();
    this.wire = [encodeHello({ version: 1, stream, next, features: [], received: this.inbox.position() })];
  }

  loseChannel() {
    this.wire = [];
    this.greeted = false;
    this.outbox.closed();
    this.inbox.closed();
  }

  transmit(frames) {
    for (let frame; frames-- && (frame = this.outbox.nextFrame());) {
      this.wire.push(frame);
      this.outbox.sent();
    }
  }

  handOver(messages) {
    for (let first; messages-- && (first = this.inbox.first);) {
      this.handed.push(Buffer.from(first.data).toString());
      this.inbox.take();
    }
  }

  acknowledge() {
    const { due } = this.inbox;
    if (due === null || !this.greeted) return;
    this.wire.push(encodeAck(due));
    this.inbox.confirmed(due);
  }

  arrive(data) {
    const frame = decode(data);
    if (frame.type === 'hello') {
      this.outbox.opened(frame.received);
      this.inbox.opened(frame);
      this.greeted = true;
    } else if (frame.type === 'chunk') {
      this.inbox.receive(frame);
    } else {
      this.outbox.acknowledge(frame.sequence);
    }
  }
}

/** Two programs that talk to each other, and what has to come of it. */
class World {
  count = 0;
  streams = 0;
  connected = false;
  sides = [this.newSide(), this.newSide()];
  // What each side's present stream has put in, and whether it was given up; and from which message on the present
  // process of the other side has to get all of them: those before were acknowledged by an earlier one.
  put = [[], []];
  since = [0, 0];

  newSide() {
    return new Side(`stream ${++this.streams}`);
  }

  send(who, size) {
    const data = `${this.sides[who].outbox.stream}:${++this.count}:`.padEnd(size, 'x');
    this.put[who].push({ data, givenUp: false });
    this.sides[who].outbox.put(Content.BYTES, Uint8Array.from(Buffer.from(data)));
  }

  connect() {
    for (const side of this.sides) side.restartChannel();
    this.connected = true;
  }

  loseTheChannel() {
    for (const side of this.sides) side.loseChannel();
    this.connected = false;
  }

  deliver(who, frames = Infinity) {
    const { wire } = this.sides[who];
    while (frames-- && wire.length) this.sides[1 - who].arrive(wire.shift());
  }

  /** A stretch without trouble: the HELLOs, and some frames one way. */
  carry(who, frames) {
    this.deliver(0);
    this.deliver(1);
    this.sides[who].transmit(frames);
  }

  restartTheProgram(who) {
    if (this.connected) this.loseTheChannel();
    this.sides[who] = this.newSide();
    // As receiver: everything that its predecessor has not acknowledged must come to it.
    this.since[1 - who] = this.sides[1 - who].outbox.acknowledged;
    // As sender: a new stream; its predecessor's unacknowledged messages died with it.
    this.put[who] = [];
    this.since[who] = 0;
  }

  /** It ends, and another one goes on with all that it has saved. */
  restoreTheProgram(who) {
    if (this.connected) this.loseTheChannel();
    const side = this.sides[who];
    side.outbox = restoreOutbox(snapshotOutbox(side.outbox));
    side.inbox = restoreInbox(snapshotInbox(side.inbox));
  }

  /** The sender is told that its unacknowledged messages will not arrive, and sends others later. */
  giveUp(who) {
    if (this.connected) this.loseTheChannel();
    const { outbox } = this.sides[who];
    for (const message of this.put[who].slice(outbox.acknowledged)) message.givenUp = true;
    outbox.clear();
  }

  check() {
    this.sides.forEach(({ outbox }, who) => {
      const { handed } = this.sides[1 - who];
      assert.equal(new Set(handed).size, handed.length, 'a message came twice');
      const arrived = handed.filter((data) => data.startsWith(`${outbox.stream}:`));
      // One that was given up may have arrived all the same, and its place may have been skipped.
      let at = 0;
      this.put[who].slice(this.since[who]).forEach(({ data, givenUp }, index) => {
        if (data === arrived[at]) {
          at++;
        } else if (!givenUp) {
          assert.equal(at, arrived.length, 'a message is missing before another');
          assert.ok(this.since[who] + index + 1 > outbox.acknowledged, 'a message is missing and acknowledged');
        }
      });
      assert.equal(at, arrived.length, 'a message is out of order');
      assert.equal(outbox.messages, outbox.last - outbox.acknowledged);
    });
  }

  /** Whatever has happened: one channel that holds brings everything over. */
  finish() {
    this.connect();
    for (let turn = 0; turn < 1000; turn++) {
      this.sides.forEach((side, who) => {
        this.deliver(who);
        side.handOver(2);
        if (!side.greeted) return;
        side.acknowledge();
        side.transmit(16);
      });
      if (!this.sides.some((side) => side.wire.length || side.outbox.messages)) break;
    }
    this.check();
    for (const { outbox } of this.sides) assert.equal(outbox.messages, 0, 'a message was never acknowledged');
  }
}

/** What may happen. Losses and restarts are rarer than the rest, so that something gets far enough to be lost. */
const actions = (world, random, who) => [
  () => world.send(who, random.one(SIZES)),
  () => (world.connected && random.below(4)) || world.connect(),
  () => world.connected && !random.below(4) && world.loseTheChannel(),
  () => world.connected && world.sides[who].transmit(1 + random.below(8)),
  () => world.deliver(who, 1 + random.below(8)),
  () => world.connected && world.carry(who, 1 + random.below(16)),
  () => world.sides[who].handOver(1 + random.below(4)),
  () => world.sides[who].acknowledge(),
  () => random.below(8) || world.restartTheProgram(who),
  () => random.below(8) || world.restoreTheProgram(who),
  () => random.below(8) || world.giveUp(who),
];

test('each message arrives once and in order, whatever happens to channels and programs', () => {
  for (let seed = 1; seed <= ROUNDS; seed++) {
    const random = generator(seed);
    const world = new World();
    const done = [];
    try {
      for (let step = 0; step < STEPS; step++) {
        const action = random.one(actions(world, random, random.below(2)));
        done.push(String(action));
        action();
        world.check();
      }
      world.finish();
    } catch (error) {
      error.message = `with seed ${seed}, after ${done.slice(-12).join('; ')}: ${error.message}`;
      throw error;
    }
  }
});
