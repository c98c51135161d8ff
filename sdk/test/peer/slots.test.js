// Slots of attempts: how many at once, in which order, and that nothing waits for ever or without a word.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  AttemptSlots,
  MAX_SLOT_SECONDS,
  MAX_UNANSWERED,
  MAX_WAIT,
  MAX_WAITING,
  PeerSlots,
  SLOT_SECONDS,
  SlotQueue,
} from '../../src/peer/slots.js';
import { FakeTimers, settle } from '../support/fake_timers.js';

/** A queue, and which slots have come. */
class Attempts {
  timers = new FakeTimers();
  came = [];
  slots = {};

  constructor(limit) {
    this.queue = new SlotQueue(limit, this.timers);
  }

  /** Names such as `alice-1`; what is before the hyphen is the owner. */
  ask(...names) {
    for (const name of names) {
      this.slots[name] = this.queue.ask(name.split('-')[0], () => this.came.push(name));
      if (this.slots[name].granted) this.came.push(name);
    }
  }

  async release(...names) {
    for (const name of names) this.slots[name].release();
    await settle();
  }
}

test('no more slots are taken than there are, and the next comes when one ends', async () => {
  const attempts = new Attempts(2);
  attempts.ask('alice-1', 'alice-2', 'alice-3', 'alice-4');
  assert.deepEqual(attempts.came, ['alice-1', 'alice-2']);
  await attempts.release('alice-2');
  assert.deepEqual(attempts.came, ['alice-1', 'alice-2', 'alice-3']);
  await attempts.release('alice-1', 'alice-3');
  assert.deepEqual(attempts.came.slice(3), ['alice-4']);
  assert.deepEqual([attempts.queue.held, attempts.queue.waiting], [1, 0]);
});

test('who wants much does not hold up who wants little', async () => {
  const attempts = new Attempts(1);
  attempts.ask('alice-1', 'alice-2', 'alice-3', 'alice-4', 'bob-1', 'carol-1', 'bob-2');
  while (attempts.queue.waiting) await attempts.release(attempts.came.at(-1));
  assert.deepEqual(attempts.came, ['alice-1', 'alice-2', 'bob-1', 'carol-1', 'alice-3', 'bob-2', 'alice-4']);
});

test('a slot that is not released ends by itself', async () => {
  const attempts = new Attempts(1);
  attempts.ask('alice-1', 'bob-1');
  attempts.timers.advance(SLOT_SECONDS);
  await settle();
  assert.deepEqual(attempts.came, ['alice-1', 'bob-1']);
  await attempts.release('alice-1', 'alice-1'); // that it is released afterwards takes nothing from others
  assert.equal(attempts.queue.held, 1);
});

/** How long a slot lasts that nobody releases, after many attempts that took so long. */
async function lasts(took, opened) {
  const timers = new FakeTimers();
  const queue = new SlotQueue(1, timers);
  for (let number = 0; number < 100; number++) {
    const slot = queue.ask('alice', () => {});
    timers.advance(took);
    slot.release(opened);
    await settle();
  }
  queue.ask('bob', () => {});
  let seconds = 0;
  for (; queue.held; seconds += 0.25) timers.advance(0.25);
  return seconds;
}

test('where attempts take long because the machine is busy, slots last as long, within limits', async () => {
  assert.equal(await lasts(0.1, true), SLOT_SECONDS);
  assert.equal(await lasts(3, true), 6);
  assert.equal(await lasts(60, true), MAX_SLOT_SECONDS);
  assert.equal(await lasts(30, false), SLOT_SECONDS); // those that failed were not busy
});

test('who leaves the queue is not called', async () => {
  const attempts = new Attempts(1);
  attempts.ask('alice-1', 'alice-2', 'bob-1');
  await attempts.release('alice-2', 'alice-1');
  assert.deepEqual(attempts.came, ['alice-1', 'bob-1']);
  await attempts.release('bob-1');
  assert.equal(attempts.timers.waiting, 0);
});

test('attempts that wait for an answer hold up nobody', async () => {
  const attempts = new Attempts(1);
  attempts.ask('alice-1', 'alice-2', 'alice-3');
  attempts.slots['alice-1'].setUnanswered(true);
  attempts.slots['alice-1'].setUnanswered(true);
  await settle();
  assert.deepEqual(attempts.came, ['alice-1', 'alice-2']);
  assert.deepEqual([attempts.queue.held, attempts.queue.unanswered], [1, 1]);
  attempts.slots['alice-1'].setUnanswered(false); // what has begun goes on, even beside another
  await attempts.release('alice-2');
  assert.deepEqual(attempts.came, ['alice-1', 'alice-2']);
  attempts.timers.advance(SLOT_SECONDS); // counted from the answer
  await settle();
  assert.deepEqual(attempts.came, ['alice-1', 'alice-2', 'alice-3']);
  for (const name of ['alice-1', 'alice-3']) attempts.slots[name].setUnanswered(false); // too late, or never unanswered
  assert.deepEqual([attempts.queue.held, attempts.queue.unanswered], [1, 0]);
  await attempts.release('alice-3');
  assert.equal(attempts.timers.waiting, 0);
});

test('only so many attempts wait for an answer, and none for ever', async () => {
  const attempts = new Attempts(1);
  const names = Array.from({ length: MAX_UNANSWERED + 2 }, (_, number) => `peer-${number}`);
  attempts.ask(...names);
  for (const name of names.slice(0, MAX_UNANSWERED)) {
    attempts.slots[name].setUnanswered(true);
    await settle();
  }
  assert.deepEqual(attempts.came, names.slice(0, MAX_UNANSWERED));
  attempts.timers.advance(SLOT_SECONDS);
  await settle();
  assert.deepEqual(attempts.came, names.slice(0, MAX_UNANSWERED + 1));
});

/** Slots of which all are taken by others, until `free`; and the peer that is looked at. */
class World {
  timers = new FakeTimers();
  slots = new AttemptSlots(this.timers, 1, 1);
  log = [];
  #others = ['calls', 'answers'].map((queue) => this.slots[queue].ask('others', () => {}));
  peer = this.another('us', this.log);

  another(owner, log) {
    return new PeerSlots(this.slots, owner, {
      call: () => log.push('call'),
      answer: (name, offer) => log.push(`answer ${name} ${offer}`),
      refuse: (name, offer, reason) => log.push(`refuse ${name}: ${reason}`),
    });
  }

  async free(...lanes) {
    if (lanes.includes('calls')) this.#others[0].release();
    if (lanes.includes('answers')) this.#others[1].release();
    await settle();
  }
}

test('an answer does not wait for calls of ours', async () => {
  const world = new World();
  await world.free('answers');
  world.peer.call();
  world.peer.offered('one', 'sdp');
  assert.deepEqual(world.log, ['answer one sdp']);
  assert.equal(world.peer.calling, true);
});

test('a call whose slot comes while an offer waits answers it', async () => {
  const world = new World();
  world.peer.call();
  world.peer.offered('one', 'sdp');
  assert.equal(world.peer.keeps('one'), true);
  await world.free('calls');
  assert.deepEqual(world.log, ['answer one sdp']);
  assert.equal(world.slots.answers.waiting, 0);
});

test('attempts that wait for an answer count while offers of others wait here', async () => {
  const world = new World();
  const log = [];
  const them = world.another('them', log);
  await world.free('calls');
  world.peer.call();
  them.offered('one', '1');
  world.peer.setUnanswered(true);
  them.call();
  await settle();
  assert.deepEqual(log, []);
  them.withdrawn('one');
  await settle();
  assert.deepEqual(log, ['call']);
});

test('an offer that crosses our call is taken at once', async () => {
  const world = new World();
  await world.free('calls');
  world.peer.call();
  world.peer.call();
  world.peer.offered('one', 'sdp');
  assert.deepEqual(world.log, ['call', 'answer one sdp']);
  world.peer.settled(true);
  assert.equal(world.slots.calls.held, 0);
});

test('the newest offer waits, the one before is refused, and one that was withdrawn is not answered', async () => {
  const world = new World();
  world.peer.offered('one', '1');
  world.peer.offered('two', '2');
  assert.deepEqual(world.log, ['refuse one: replaced by a newer attempt']);
  world.peer.withdrawn('one');
  assert.equal(world.peer.keeps('two'), true);
  world.peer.withdrawn('two');
  await world.free('answers');
  assert.equal(world.log.length, 1);
  assert.equal(world.slots.answers.held, 0);
});

test('an offer that has waited too long is refused as busy', async () => {
  const world = new World();
  for (let number = 0; number < 40; number++) world.slots.answers.ask(number, () => {});
  world.peer.offered('one', '1');
  for (let second = 0; second < MAX_WAIT; second++) {
    world.timers.advance(1);
    await settle();
  }
  assert.deepEqual(world.log, ['refuse one: busy']);
});

test('an offer beyond those that may wait is refused as busy', () => {
  const world = new World();
  const logs = Array.from({ length: MAX_WAITING + 1 }, (_, number) => {
    const log = [];
    world.another(number, log).offered(`${number}`, 'sdp');
    return log;
  });
  assert.deepEqual(logs.flat(), [`refuse ${MAX_WAITING}: busy`]);
});

test('closing refuses what waits, and leaves all queues', async () => {
  const world = new World();
  world.peer.call();
  world.peer.offered('one', '1');
  world.peer.close('the other side has left');
  assert.deepEqual(world.log, ['refuse one: the other side has left']);
  assert.deepEqual([world.slots.calls.waiting, world.slots.answers.waiting], [0, 0]);
  await world.free('calls', 'answers');
  assert.equal(world.log.length, 1);
});
