/** Two users with several devices each, on a real server: all stay connected, and each message has its device. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvalidAddress } from '../../src/errors.js';
import { Identity } from '../../src/identity/keys.js';
import { camera } from '../support/fake_media.js';
import { served } from '../support/server.js';
import { contents, take, until, untilIt, untilPeer, World } from '../support/stores.js';

/** A server with a short resume window, and devices: `['alice', 'bob/phone']`. A user's devices have one key. */
const scene = (t, ...addresses) => sceneWith(t, { resumeWindow: 1 }, ...addresses);

async function sceneWith(t, settings, ...addresses) {
  const server = await served(t, settings);
  const world = new World(t, server.url);
  const keys = {};
  const stores = [];
  for (const address of addresses) {
    const [userId, device] = address.split('/');
    keys[userId] ??= await Identity.generate();
    stores.push(await world.join(userId, { device, identity: keys[userId] }));
  }
  return { server, world, stores, keys };
}

/** How often each device of a user was connected. */
const connections = (store, userId) =>
  Object.values(store.state.peers[userId].devices).map(({ device, state, connections }) => [
    device,
    state,
    connections,
  ]);

test('three devices of one user and three of another are all connected, and none replaces another', async (t) => {
  const names = ['phone', 'laptop', 'tablet'];
  const { stores } = await scene(t, ...['alice', 'bob'].flatMap((user) => names.map((name) => `${user}/${name}`)));
  const [alices, bobs] = [stores.slice(0, 3), stores.slice(3)];
  await Promise.all([
    ...alices.flatMap((store) => names.map((name) => store.connectToPeer(`bob/${name}`))),
    ...bobs.map((store) => store.connectToPeer('alice')),
  ]);
  // Many times as long as two devices took to replace each other.
  for (let round = 0; round < 30; round++) {
    await Promise.all(alices.flatMap((store) => names.map((name) => store.send(`bob/${name}`, round))));
    await Promise.all(bobs.map((store) => store.send('alice', round)));
  }
  for (const store of alices) {
    assert.deepEqual(connections(store, 'bob').sort(), names.map((name) => [name, 'connected', 1]).sort());
    assert.equal(store.state.peers.bob.connections, 3);
  }
  for (const store of bobs) {
    const got = await take(store, 90);
    for (const name of names) {
      const of = got.filter(({ sender, device }) => sender === 'alice' && device === name);
      assert.deepEqual(
        of.map(({ content, sequence }) => [content, sequence]),
        Array.from({ length: 30 }, (_, n) => [n, n + 1]),
      );
    }
  }
});

test('an answer goes to the device that has asked', async (t) => {
  const {
    stores: [alice, phone, laptop],
  } = await scene(t, 'alice', 'bob/phone', 'bob/laptop');
  alice.onMessage(({ sender, device, content }) => alice.send(`${sender}/${device}`, `${content} of ${device}`));
  phone.send('alice', 1);
  laptop.send('alice', 2);
  assert.deepEqual(await Promise.all([contents(phone, 1), contents(laptop, 1)]), [['1 of phone'], ['2 of laptop']]);
});

test('what a device has not got when it unregisters goes to another one', async (t) => {
  const {
    stores: [alice, laptop, phone],
  } = await scene(t, 'alice', 'bob/laptop', 'bob/phone');
  await alice.connectToPeer('bob');
  await phone.disconnect();
  const delivery = alice.send('bob', 'whoever is there');
  assert.deepEqual(await contents(laptop, 1), ['whoever is there']);
  await alice.drain();
  assert.deepEqual([delivery.delivered, delivery.device], [true, null]);
});

test('what a device has not got moves when it has lost its resume window, and not before', async (t) => {
  const {
    server,
    world,
    keys,
    stores: [alice, laptop],
  } = await sceneWith(t, { resumeWindow: 3 }, 'alice', 'bob/laptop');
  const { WebSocket } = globalThis;
  /** @type {WebSocket[]} */
  const sockets = [];
  globalThis.WebSocket = class extends WebSocket {
    constructor(...where) {
      super(...where);
      sockets.push(this);
    }
  };
  const phone = world.make({ identity: keys.bob });
  await phone.connectToSignaling(server.url, 'bob', { device: 'phone', backoff: { first: 1e5, most: 1e5 } });
  globalThis.WebSocket = WebSocket;
  await alice.connectToPeer('bob');
  await alice.send('bob', 'first');
  // The phone's page is gone without a word: first its WebSocket, by which the path could be healed, which will not try
  // to come back within this test; then its connections.
  await Promise.all(
    sockets.map((socket) => {
      socket.close(4000);
      return new Promise((resolve) => socket.addEventListener('close', resolve));
    }),
  );
  world.network.open.forEach((connection) => connection.sever());
  const explicit = alice.send('bob/phone', 'for the phone');
  alice.send('bob', 'second');
  await untilPeer(alice, 'bob', ({ devices }) => devices.phone.state !== 'connected');
  // On a machine that has much else to do the window may be over before the loss of the path is noticed.
  const { state, queued } = alice.state.peers.bob.devices.phone;
  assert.deepEqual([state, queued], state === 'disconnected' ? ['disconnected', 2] : ['closed', 1]);
  assert.deepEqual(await contents(laptop, 1), ['second']);
  assert.deepEqual([explicit.done, alice.state.peers.bob.devices.phone.queued], [false, 1]);
});

test('a call is with one device: another one of the same user hears that it is busy', async (t) => {
  const {
    stores: [alice, laptop, phone],
  } = await scene(t, 'alice', 'bob/laptop', 'bob/phone');
  const rung = [];
  alice.onCall((call) => rung.push(call));
  const first = await phone.call('alice', camera('audio'));
  await untilPeer(alice, 'bob', () => rung.length);
  const second = await laptop.call('alice', camera('audio'));
  await untilIt(second, ({ state }) => state === 'ended');
  assert.equal(second.reason, 'busy');
  assert.deepEqual([rung.length, rung[0].userId, rung[0].device], [1, 'bob', 'phone']);
  await assert.rejects(alice.call('bob/laptop'), { name: 'StateError' });
  assert.equal(await alice.call('bob', camera('audio')), rung[0], 'calling back is taking the call');
  await untilIt(first, ({ state }) => state === 'connected');
});

test('a file for the user is offered to the device that is there', async (t) => {
  const {
    stores: [alice, laptop, phone],
  } = await scene(t, 'alice', 'bob/laptop', 'bob/phone');
  for (const store of [laptop, phone]) store.onFile((transfer) => transfer.accept());
  const transfer = await alice.sendFile('bob/laptop', new File(['x'], 'a.txt'));
  await transfer.finished;
  const other = await alice.sendFile('bob', new File(['y'], 'b.txt')); // the laptop was heard from last
  await other.finished;
  assert.deepEqual([transfer.device, other.device], ['laptop', 'laptop']);
});

test('strangers have not many devices each, but together', async (t) => {
  const strangers = ['mallory/a', 'mallory/b', 'mallory/c', 'trudy/a', 'trudy/b', 'trudy/c', 'eve/a'];
  const friends = ['bob/a', 'bob/b', 'bob/c', 'bob/d', 'bob/e'];
  const { stores, world } = await scene(t, ...strangers, ...friends);
  const alice = await world.join('alice', { limits: { peers: 4 } }); // three of them strangers
  const calls = (address) => stores[[...strangers, ...friends].indexOf(address)].connectToPeer('alice');
  for (const address of ['mallory/a', 'mallory/b', 'trudy/a', 'trudy/b', 'trudy/c']) await calls(address);
  const tooMany = { code: 'too-many-peers' };
  await assert.rejects(calls('mallory/c'), tooMany);
  await calls('eve/a'); // the first device of a stranger is another matter
  await alice.connectToPeer('bob');
  for (const address of friends) await calls(address);
  assert.equal(connections(alice, 'bob').length, 5);
  // One that has left makes place.
  await stores[strangers.indexOf('trudy/b')].disconnectFromPeer('alice');
  await untilPeer(alice, 'trudy', ({ devices }) => !devices.b);
  await calls('mallory/c');
  assert.deepEqual(Object.keys(alice.state.peers.mallory.devices).sort(), ['a', 'b', 'c']);
});

test('goodbye to one device leaves the others, and to the user all', async (t) => {
  const {
    stores: [alice, laptop, phone],
  } = await scene(t, 'alice', 'bob/laptop', 'bob/phone');
  await alice.connectToPeer('bob/laptop');
  await alice.connectToPeer('bob/phone');
  await alice.disconnectFromPeer('bob/phone');
  await untilPeer(phone, 'alice', ({ state }) => state === 'closed');
  assert.deepEqual(connections(alice, 'bob'), [
    ['phone', 'closed', 1],
    ['laptop', 'connected', 1],
  ]);
  await alice.disconnectFromPeer('bob');
  await untilPeer(laptop, 'alice', ({ state }) => state === 'closed');
});

test('an address with a device that cannot be is refused', async (t) => {
  const {
    stores: [alice],
  } = await scene(t, 'alice');
  for (const address of ['bob/', 'bob/a b', 'bob/x/y']) {
    assert.throws(() => alice.send(address, 'x'), InvalidAddress);
    for (const work of [
      alice.connectToPeer(address),
      alice.disconnectFromPeer(address),
      alice.stats(address),
      alice.sendFile(address, new Blob()),
      alice.call(address),
    ]) {
      await assert.rejects(work, InvalidAddress);
    }
  }
  await assert.rejects(alice.watch('bob/phone'), InvalidAddress);
  assert.deepEqual(alice.state.peers, Object.create(null));
});

test('devices that are watched show, and come and go', async (t) => {
  const { world, stores, keys } = await scene(t, 'alice', 'bob/laptop');
  const [alice] = stores;
  await alice.watch('bob');
  assert.deepEqual(connections(alice, 'bob'), [['laptop', 'new', 0]]);
  const phone = await world.join('bob', { device: 'phone', identity: keys.bob });
  const { peers } = await until(alice, ({ peers }) => peers.bob.devices.phone?.online);
  assert.deepEqual(Object.keys(peers.bob.devices), ['phone', 'laptop'], 'the newest first');
  await phone.disconnect();
  await until(alice, ({ peers }) => !peers.bob.devices.phone);
});
