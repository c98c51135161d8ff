/** What direct connections are made of is loaded when a store is made. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Part, PARTS } from '../../src/store/parts.js';
import { served } from '../support/server.js';
import { contents, untilPeer, World } from '../support/stores.js';

/** For the next store, loading direct connections is what `load` does; `part` is the real one. */
function loading(t, load) {
  const { direct } = PARTS;
  t.after(() => (PARTS.direct = direct));
  PARTS.direct = new Part('direct', (again) => load(again, direct));
}

test('it is asked for when a store is made, before the server is', async (t) => {
  const asked = [];
  loading(t, async (again, direct) => {
    asked.push(again);
    return direct.load();
  });
  const { url } = await served(t);
  const world = new World(t, url);
  const { WebSocket } = globalThis;
  t.after(() => (globalThis.WebSocket = WebSocket));
  const dialled = [];
  globalThis.WebSocket = class extends WebSocket {
    constructor(...options) {
      super(...options);
      dialled.push(asked.length);
    }
  };
  await world.join('alice');
  assert.deepEqual([dialled, asked], [[1], ['']]);
});

test('without it a store does not connect, says so, and may try again', async (t) => {
  const { url } = await served(t);
  const world = new World(t, url);
  const alice = await world.join('alice');
  const asked = [];
  let isAway = true;
  loading(t, async (again, direct) => {
    asked.push(again);
    if (isAway) throw new TypeError('Failed to fetch dynamically imported module');
    return direct.load();
  });
  const bob = world.make();
  await assert.rejects(bob.connectToSignaling(url, 'bob'), { name: 'LoadFailed', part: 'direct', temporary: true });
  alice.send('bob', 'there?');
  isAway = false;
  await bob.connectToSignaling(url, 'bob');
  assert.deepEqual(await contents(bob, 1), ['there?']);
  assert.deepEqual(asked.at(-1), `?${asked.length - 1}`);
});

test('calls that come before it is there wait for it', async (t) => {
  let arrive = () => {};
  const arrived = new Promise((resolve) => (arrive = resolve));
  const { url } = await served(t);
  const world = new World(t, url);
  const bob = await world.join('bob');
  bob.send('alice', 'early');
  loading(t, async (_, direct) => {
    await arrived;
    return direct.load();
  });
  const joining = world.join('alice');
  await untilPeer(bob, 'alice', ({ state }) => state === 'connecting');
  arrive();
  assert.deepEqual(await contents(await joining, 1), ['early']);
});

test('what is asked before it is there waits for it', async (t) => {
  let arrive = () => {};
  const arrived = new Promise((resolve) => (arrive = resolve));
  const { url } = await served(t);
  const world = new World(t, url);
  await world.join('bob');
  loading(t, async (_, direct) => {
    await arrived;
    return direct.load();
  });
  const alice = world.make();
  const login = alice.connectToSignaling(url, 'alice');
  const asked = [alice.connectToPeer('bob'), alice.send('bob', 'early')];
  arrive();
  await Promise.all([login, ...asked]);
  assert.equal(alice.state.peers.bob.state, 'connected');
});

test('what is asked before it is there fails when it does not come; what is queued stays', async (t) => {
  const { url } = await served(t);
  const world = new World(t, url);
  await world.join('bob');
  let isAway = true;
  loading(t, async (_, direct) => {
    if (isAway) throw new TypeError('Failed to fetch dynamically imported module');
    return direct.load();
  });
  const alice = world.make();
  const login = alice.connectToSignaling(url, 'alice');
  const message = alice.send('bob', 'early');
  const asked = [alice.connectToPeer('bob'), alice.sendFile('bob', new Blob(['x']))];
  await Promise.all([login, ...asked].map((each) => assert.rejects(each, { name: 'LoadFailed', part: 'direct' })));
  isAway = false;
  await alice.connectToSignaling(url, 'alice');
  await message;
});
