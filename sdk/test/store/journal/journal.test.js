/** Stores with a journal: what they had queued and received outlives them. As tests/integration/test_store_journal.py. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { JournalDiskFull } from '../../../src/errors.js';
import { Identity } from '../../../src/identity/keys.js';
import { MemoryPins } from '../../../src/identity/pins.js';
import { Journal } from '../../../src/store/journal/journal.js';
import { MemoryBackend } from '../../../src/store/journal/memory.js';
import { startServer } from '../../support/server.js';
import { contents, take, until, World } from '../../support/stores.js';

let server;
before(async () => (server = await startServer()));
after(() => server.stop());

let count = 0;

/** Somebody whose programs come and go, with one key and one journal. */
class Person {
  backend = new MemoryBackend();
  pins = new MemoryPins();

  constructor(world, identity, name) {
    this.world = world;
    this.identity = identity;
    this.name = name;
  }

  async options(options = {}) {
    const { identity, pins } = this;
    return { identity, pins, journal: await Journal.open(this.backend), ...options };
  }

  async online(options) {
    return this.world.join(this.name, await this.options(options));
  }
}

/** Two people, whose names are new on the server. */
async function people(t) {
  const world = new World(t, server.url);
  const number = ++count;
  const make = async (name) => new Person(world, await Identity.generate(), `${name}${number}`);
  return { world, alice: await make('alice'), bob: await make('bob') };
}

test('what was queued is sent by the next program', async (t) => {
  const { alice, bob } = await people(t);
  let store = await alice.online();
  const first = store.send(bob.name, 'one');
  const second = store.send(bob.name, { two: 2 });
  assert.equal(first.stored, false);
  await second.whenStored();
  assert.deepEqual([first.stored, first.sent, first.done], [true, false, false]);
  await store.disconnect();
  await assert.rejects(first, { name: 'DeliveryFailed', kept: true });
  assert.equal(first.stored, true);
  const { journal, ...options } = await alice.options();
  assert.deepEqual(journal.queued, []); // no store has it yet
  store = await alice.world.join(alice.name, { journal, ...options });
  assert.deepEqual(
    journal.queued.map(({ userId, content, delivery }) => [userId, content, delivery.stored]),
    [
      [bob.name, 'one', true],
      [bob.name, { two: 2 }, true],
    ],
  );
  assert.equal(store.state.peers[bob.name]?.queued, 2);
  const other = await bob.online();
  store.send(bob.name, 'three');
  assert.deepEqual(await contents(other, 3), ['one', { two: 2 }, 'three']);
  await store.drain();
  assert.deepEqual(journal.queued, []);
});

test('what was queued before the first connection is stored', async (t) => {
  const { alice, bob, world } = await people(t);
  for (const text of ['one', 'two']) {
    const store = world.make(await alice.options());
    await store.send(bob.name, text).whenStored();
    await store.disconnect();
  }
  await alice.online();
  assert.deepEqual(await contents(await bob.online(), 2), ['one', 'two']);
});

test('what was acknowledged and not handed over comes to the next program', async (t) => {
  const { alice, bob } = await people(t);
  const store = await alice.online();
  let other = await bob.online();
  for (let number = 0; number < 5; number++) store.send(bob.name, number);
  await store.drain(); // bob's store has them, and nobody has read them
  const earlier = [];
  const reading = other.messages();
  for (let number = 0; number < 3; number++) earlier.push((await reading.next()).value);
  assert.deepEqual(
    earlier.map(({ redelivered }) => redelivered),
    [false, false, false],
  );
  await reading.return?.(); // it does not ask for the next
  await other.disconnect();
  other = await bob.online();
  store.send(bob.name, 5);
  const later = await take(other, 4);
  assert.deepEqual(
    later.map(({ content }) => content),
    [2, 3, 4, 5],
  );
  assert.deepEqual(
    later.map(({ redelivered }) => redelivered),
    [true, false, false, false],
  );
  assert.equal(later[0].id, earlier[2].id);
  assert.equal(new Set([...earlier, ...later].map(({ id }) => id)).size, 6);
});

test('a loop that ends the store in its body hands over what it has when it asks for the next', async (t) => {
  const { alice, bob } = await people(t);
  const store = await alice.online();
  let other = await bob.online();
  store.send(bob.name, 'one');
  for await (const { content } of other.messages()) {
    assert.equal(content, 'one');
    await other.disconnect();
  }
  await new Promise(setImmediate); // what the loop has handed over is written
  other = await bob.online();
  store.send(bob.name, 'two');
  assert.deepEqual(await contents(other, 1), ['two']);
});

test('a callback hands over when it returns, and one with a promise when that is settled', async (t) => {
  const { alice, bob } = await people(t);
  const store = await alice.online();
  let other = await bob.online();
  const got = [];
  const work = Promise.withResolvers?.() ?? withResolvers();
  other.onMessage(({ content }) => {
    got.push(content);
    return content === 2 ? work.promise : undefined;
  });
  for (let number = 0; number < 4; number++) store.send(bob.name, number);
  await store.drain();
  assert.deepEqual(got, [0, 1, 2, 3]);
  const copy = bob.backend;
  bob.backend = await copied(copy); // as the program would find it, were it killed now
  await other.disconnect();
  work.resolve();
  other = await bob.online();
  store.send(bob.name, 'next');
  const later = await take(other, 2);
  assert.deepEqual(
    later.map(({ content, redelivered }) => [content, redelivered]),
    [
      [2, true],
      ['next', false],
    ],
  );
});

test('a callback that throws has had its message', async (t) => {
  const { alice, bob } = await people(t);
  t.mock.method(console, 'error', () => {});
  const store = await alice.online();
  let other = await bob.online();
  other.onMessage(() => {
    throw new Error('on purpose');
  });
  other.onMessage(async () => {
    throw new Error('on purpose');
  });
  await store.send(bob.name, 'one');
  await new Promise(setImmediate);
  await other.disconnect();
  assert.equal(console.error.mock.callCount(), 2);
  other = await bob.online();
  store.send(bob.name, 'two');
  assert.deepEqual(await contents(other, 1), ['two']);
});

test('a journal that was put back to an earlier state begins a new stream, and loses nothing', async (t) => {
  const { alice, bob } = await people(t);
  const other = await bob.online();
  let store = await alice.online();
  await store.send(bob.name, 'one');
  assert.deepEqual(await contents(other, 1), ['one']);
  await store.disconnect();
  const backup = await copied(alice.backend);
  store = await alice.online();
  await Promise.all([store.send(bob.name, 'two'), store.send(bob.name, 'three')]);
  const got = await take(other, 2);
  await store.disconnect();
  alice.backend = backup;
  store = await alice.online();
  store.send(bob.name, 'other two');
  store.send(bob.name, 'other three');
  const again = await take(other, 2);
  await store.drain();
  assert.deepEqual(
    again.map(({ content }) => content),
    ['other two', 'other three'],
  );
  assert(again.every(({ id }) => got.every((each) => each.id !== id)));
});

test('a deleted journal begins a new stream', async (t) => {
  const { alice, bob } = await people(t);
  const other = await bob.online();
  for (const text of ['one', 'two']) {
    const store = await alice.online();
    await store.send(bob.name, text);
    assert.deepEqual(await contents(other, 1), [text]);
    await store.disconnect();
    const journal = await Journal.open(alice.backend);
    await journal.erase();
  }
});

test('a journal belongs to one user and one store', async (t) => {
  const { alice, world } = await people(t);
  const store = await alice.online();
  await assert.rejects(alice.options(), { name: 'JournalInUse', temporary: true });
  await store.disconnect();
  const options = await alice.options();
  const other = world.make(options);
  assert.throws(() => world.make(options), { name: 'StateError' });
  await assert.rejects(options.journal.erase(), { name: 'StateError' });
  await assert.rejects(other.connectToSignaling(server.url, 'carol'), { name: 'JournalForeign' });
  await other.connectToSignaling(server.url, alice.name);
  assert.throws(() => world.make({ journal: Promise.resolve() }), { name: 'ConfigError', setting: 'journal' });
});

test('a message that is too old expires', async (t) => {
  const { alice, bob } = await people(t);
  let store = await alice.online();
  await store.send(bob.name, 'old').whenStored();
  await store.disconnect();
  const options = await alice.options({ limits: { queueAge: 3600 } });
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 3_600_001 });
  store = await alice.world.join(alice.name, options);
  t.mock.timers.reset();
  assert.deepEqual(options.journal.queued, []);
  store.send(bob.name, 'new');
  assert.deepEqual(await contents(await bob.online(), 1), ['new']);
});

test('what waits is no older when the clock was set, for the next program neither', async (t) => {
  const { alice, bob } = await people(t);
  const year = 365 * 24 * 3600 * 1000;
  const { journal, ...options } = await alice.options();
  let store = await alice.world.join(alice.name, { journal, ...options });
  await store.send(bob.name, 'waits').whenStored();
  const [{ queuedAt }] = journal.queued;
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() + year });
  journal.lookAtClock();
  const [later] = journal.queued;
  assert.ok(later.queuedAt - queuedAt - year >= -1000 && later.queuedAt <= Date.now());
  await store.disconnect();
  const next = await alice.options();
  store = await alice.world.join(alice.name, next);
  t.mock.timers.reset();
  assert.equal(next.journal.queued.length, 1);
  assert.deepEqual(await contents(await bob.online(), 1), ['waits']);
});

test('a clock that is set just before the page ends, or before a message is sent, makes nothing older either', async (t) => {
  const { alice, bob } = await people(t);
  const year = 365 * 24 * 3600 * 1000;
  const { journal, ...options } = await alice.options();
  let store = await alice.world.join(alice.name, { journal, ...options });
  await store.send(bob.name, 'before').whenStored();
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() - year });
  await store.send(bob.name, 'after').whenStored();
  for (const { queuedAt } of journal.queued) assert.ok(Math.abs(Date.now() - queuedAt) < 60_000);
  t.mock.timers.setTime(Date.now() + 2 * year);
  await store.disconnect();
  const next = await alice.options();
  store = await alice.world.join(alice.name, next);
  assert.deepEqual(
    next.journal.queued.map(({ content }) => content),
    ['before', 'after'],
  );
  t.mock.timers.reset();
  assert.deepEqual(await contents(await bob.online(), 2), ['before', 'after']);
});

test('where there is no room, new messages fail, and what was accepted is delivered', async (t) => {
  const { alice, bob } = await people(t);
  let store = await alice.online();
  const accepted = store.send(bob.name, 'accepted');
  await accepted.whenStored();
  t.mock.method(alice.backend, 'write', async () => {
    throw new JournalDiskFull('j', 'has no room');
  });
  const refused = store.send(bob.name, 'refused');
  await assert.rejects(refused.whenStored(), { name: 'DeliveryFailed', kept: false });
  assert.equal(refused.stored, false);
  await until(store, ({ journalError }) => journalError?.name === 'JournalDiskFull');
  const other = await bob.online();
  await accepted;
  alice.backend.write.mock.restore();
  await store.send(bob.name, 'later');
  assert.equal(store.state.journalError, null);
  assert.deepEqual(await contents(other, 2), ['accepted', 'later']);
  await store.disconnect();
  store = await alice.online();
  store.send(bob.name, 'last');
  assert.deepEqual(await contents(other, 1), ['last']);
});

test('what arrives where there is no room is not acknowledged, and comes when there is', async (t) => {
  const { alice, bob } = await people(t);
  const store = await alice.online();
  const other = await bob.online();
  await store.connectToPeer(bob.name);
  t.mock.method(bob.backend, 'write', async () => {
    throw new JournalDiskFull('j', 'has no room');
  });
  const delivery = store.send(bob.name, 'one');
  await until(other, ({ journalError }) => journalError !== null);
  assert.equal(delivery.delivered, false);
  bob.backend.write.mock.restore();
  void other.send(alice.name, 'something else').catch(() => {}); // does not wait until it is tried again
  assert.deepEqual(await contents(other, 1), ['one']);
  await delivery;
});

test('the queues of a journal have limits', async (t) => {
  const { alice, bob, world } = await people(t);
  const store = world.make(await alice.options({ limits: { journalMessages: 2, journalSize: 10 } }));
  store.send(bob.name, 'a message that is larger than all');
  assert.throws(() => store.send('carol', '2'), { name: 'JournalFull', userId: 'carol', messages: 1, size: 33 });
  const small = world.make({ ...(await bob.options({ limits: { journalMessages: 2 } })) });
  small.send(alice.name, '1');
  small.send('carol', '2');
  assert.throws(() => small.send('carol', '3'), { name: 'JournalFull', messages: 2, size: 2 });
});

test('a journal in which numbers are missing is damaged, and one with all of them delivered is not', async () => {
  const backend = new MemoryBackend();
  await backend.load();
  await backend.write([['s/stream', { userId: 'bob', device: null, last: 2 ** 40 }]], true);
  backend.close();
  await (await Journal.open(backend)).close();
  const row = { content: 0, data: new Uint8Array(1), queuedAt: 1, movable: true };
  await backend.load();
  await backend.write(
    [
      ['s/stream', { userId: 'bob', device: null, last: 2 ** 40 }],
      ['o/stream/0000000000000001', row],
    ],
    true,
  );
  backend.close();
  await assert.rejects(Journal.open(backend), { name: 'JournalCorrupt' });
});

test('damage is found when the journal is opened', async () => {
  const arrived = { sender: 'bob', device: 'main', stream: 's', sequence: 1, content: 0, data: new Uint8Array(1) };
  for (const row of [
    ['g', 'nonsense'],
    ['i/x', { data: new Uint8Array(1), sequence: 1 }],
    ['i/0000000000000001', { data: 'text', sequence: 1 }],
    ['s/stream', { userId: 7, device: null, last: 1 }],
    ['o/stream/0000000000000001', { content: 0, data: new Uint8Array(1), queuedAt: 1, movable: true }],
    ['p/bob/main', { stream: 's' }],
    ['w', 7],
    ['g', -1],
    ['i/0000000000000001', { ...arrived, content: 3 }],
    ['i/0000000000000001', { ...arrived, sender: 7 }],
    ['i/0000000000000001', { ...arrived, stream: '' }],
    ['s/stream', { userId: 'bob', device: 7, last: 1 }],
    ['o/stream/0000000000000001', { content: 9, data: new Uint8Array(1), queuedAt: 1, movable: true }],
    ['o/stream/0000000000000001', { content: 0, data: new Uint8Array(1), queuedAt: NaN, movable: true }],
  ]) {
    const backend = new MemoryBackend();
    await backend.load();
    await backend.write([row], true);
    backend.close();
    await assert.rejects(Journal.open(backend), { name: 'JournalCorrupt' }, JSON.stringify(row));
    await assert.rejects(Journal.open(backend), { name: 'JournalCorrupt' }); // it was let go of
  }
});

/** A backend with what another one has now. */
async function copied(backend) {
  const copy = new MemoryBackend();
  await copy.load();
  await copy.write(backend.rows, true);
  copy.close();
  return copy;
}

function withResolvers() {
  const made = {};
  made.promise = new Promise((resolve) => (made.resolve = resolve));
  return made;
}
