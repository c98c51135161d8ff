/** Attempts of PeerConnections that wait for their slot: few at once, and nothing is lost meanwhile. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AttemptSlots, CALLS, MAX_UNANSWERED, MAX_WAIT, SLOT_SECONDS } from '../../src/peer/slots.js';
import { end, Link, pass, quiet, Side, until } from '../support/peers.js';

/** alice, and bob whose slots are all taken by others until `free`. */
async function busy() {
  const link = new Link();
  const slots = new AttemptSlots(link.timers, 1, 1);
  const others = [slots.calls, slots.answers].map((queue) => queue.ask('others', () => {}));
  const alice = await Side.make(link, 'alice', 'bob', { slots: new AttemptSlots(link.timers) });
  const bob = await Side.make(link, 'bob', 'alice', { slots });
  return { link, alice, bob, slots, timers: link.timers, free: () => others.forEach((slot) => slot.release()) };
}

test('a page that calls a hundred peers at once has few attempts under way', async () => {
  const link = new Link();
  const slots = new AttemptSlots(link.timers);
  link.middle = () => []; // nobody answers
  const names = Array.from({ length: 2 * MAX_UNANSWERED }, (_, number) => `peer-${number}`);
  const sides = await Promise.all(names.map((name) => Side.make(link, 'us', name, { slots })));
  for (const side of sides) side.peer.connect();
  await quiet();
  assert.equal(link.of('offerReceived').length, MAX_UNANSWERED);
  assert(sides.every((side) => side.states.join() === 'connecting'));
  assert.deepEqual([...new Set(sides.map((side) => side.peer.clockFrom))], [1000, null]);
  await pass(link, SLOT_SECONDS);
  assert.equal(link.of('offerReceived').length, 2 * MAX_UNANSWERED);
  await Promise.all(sides.map((side) => side.peer.close()).concat(pass(link, 1)));
  assert.deepEqual([slots.calls.waiting, slots.calls.held], [0, 0]);
});

test('peers that never answer do not hold up those that do', async () => {
  const [link, silent] = [new Link(), new Link()];
  silent.middle = () => [];
  const slots = new AttemptSlots(link.timers);
  const names = Array.from({ length: 3 * CALLS }, (_, number) => `us-${number}`);
  const gone = await Promise.all(names.map((name) => Side.make(silent, name, 'gone', { slots })));
  const alice = await Side.make(link, 'alice', 'bob', { slots });
  const bob = await Side.make(link, 'bob', 'alice');
  for (const side of [...gone, alice]) side.peer.connect();
  await alice.until('connected'); // while no time passes
  assert(gone.every((side) => side.peer.state === 'connecting'));
  for (const side of gone) void side.peer.close();
  await pass(silent, 1);
  await end({ link, alice, bob });
});

test('an offer waits with its candidates, and connects when its slot comes', async () => {
  const world = await busy();
  const { link, alice, bob, slots } = world;
  alice.peer.connect();
  await until(() => link.of('candidateReceived').length > 0);
  await quiet();
  assert.equal(slots.answers.waiting, 1);
  for (const event of link.of('offerReceived')) bob.peer.receive(event); // as an impolite side does, and a server may
  await quiet();
  assert.deepEqual(link.of('answerReceived'), []);
  assert.equal(bob.peer.state, 'new');
  world.free();
  await alice.until('connected');
  await bob.until('connected');
  assert.deepEqual(bob.refusals, []);
  assert.equal(link.of('answerReceived').length, 1);
  await end(world);
});

test('an offer that has waited too long fails at its sender at once', async () => {
  const world = await busy();
  for (let number = 0; number < 40; number++) world.slots.answers.ask(number, () => {});
  world.alice.peer.connect();
  await until(() => world.slots.answers.waiting === 41);
  await pass(world, MAX_WAIT);
  await world.alice.until('failed');
  assert.match(world.alice.errors[0].message, /busy/);
  assert.deepEqual(world.bob.states, []);
  await Promise.all([world.alice.peer.close(), world.bob.peer.close(), pass(world, 1)]);
});

test('closing tells whoever waits for an answer', async () => {
  const world = await busy();
  world.alice.peer.connect();
  await until(() => world.slots.answers.waiting === 1);
  await Promise.all([world.bob.peer.close('the other side has left'), pass(world, 1)]);
  await world.alice.until('failed');
  assert.match(world.alice.errors[0].message, /the other side has left/);
  await world.alice.peer.close();
});
