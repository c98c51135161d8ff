/** The part for the relay is loaded while a store connects. It may come late, or fail: no registration waits for long. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { timers } from '../../src/client/timers.js';
import { RELAY_PATIENCE } from '../../src/store/peers/signaling.js';
import { Part, PARTS } from '../../src/store/parts.js';
import { served } from '../support/server.js';
import { contents, QUICK, World } from '../support/stores.js';

// The server may delay what exceeds its limits for a second.
const OFF = { path: 'relay', timing: { ...QUICK, silence: 1 } };

/** For the next store, loading the relay is what `load` does; `part` is the real one. */
function loading(t, load) {
  const { relay } = PARTS;
  t.after(() => (PARTS.relay = relay));
  PARTS.relay = new Part('relay', (again) => load(again, relay));
}

/** For the next store, the relay comes when the returned function is called. */
function delayed(t) {
  let arrive = () => {};
  const arrived = new Promise((resolve) => (arrive = resolve));
  loading(t, async (_, relay) => {
    await arrived;
    return relay.load();
  });
  return () => arrive();
}

/** Nobody waits long for the relay. */
function hastened(t) {
  const { callLater } = timers;
  t.mock.method(timers, 'callLater', (seconds, callback) =>
    callLater(seconds === RELAY_PATIENCE ? 0 : seconds, callback),
  );
}

test('a registration does not wait for a part that does not come; what waits leaves when it comes', async (t) => {
  const { url } = await served(t);
  const world = new World(t, url);
  const bob = await world.join('bob', OFF);
  t.mock.method(console, 'warn', () => {});
  hastened(t);
  const arrive = delayed(t);
  const alice = await world.join('alice', OFF);
  alice.send('bob', 'late');
  assert.equal(alice.state.peers.bob.state, 'new');
  arrive();
  assert.deepEqual(await contents(bob, 1), ['late']);
  bob.send('alice', 'back');
  assert.deepEqual(await contents(alice, 1), ['back']);
});

test('others can begin: the key of a part that has come late is published', async (t) => {
  const { url } = await served(t);
  const world = new World(t, url);
  // It is refused until the key is there, and must not ask the server without a pause.
  const bob = await world.join('bob', { ...OFF, backoff: { first: 0.05, factor: 2, most: 1 } });
  bob.send('alice', 'you first');
  hastened(t);
  const arrive = delayed(t);
  const alice = await world.join('alice', OFF);
  arrive();
  assert.deepEqual(await contents(alice, 1), ['you first']);
});

test('a part that does not load is loaded again by itself', async (t) => {
  const { url } = await served(t);
  const world = new World(t, url);
  const bob = await world.join('bob', OFF);
  const warned = t.mock.method(console, 'warn', () => {});
  hastened(t);
  const asked = [];
  loading(t, async (again, relay) => {
    asked.push(again);
    if (asked.length < 3) throw new TypeError('Failed to fetch dynamically imported module');
    return relay.load();
  });
  const alice = await world.join('alice', OFF);
  alice.send('bob', 'at last');
  assert.deepEqual(await contents(bob, 1), ['at last']);
  assert.deepEqual(asked, ['', '?1', '?2']);
  assert.deepEqual(
    warned.mock.calls.map(({ arguments: [error] }) => error.name),
    ['LoadFailed', 'LoadFailed'],
  );
});

test('a store that is closed meanwhile asks no more', async (t) => {
  const { url } = await served(t);
  const world = new World(t, url);
  const warned = t.mock.method(console, 'warn', () => {});
  hastened(t);
  let fail = () => {};
  const failed = new Promise((_, reject) => (fail = reject));
  const asked = [];
  loading(t, (again) => {
    asked.push(again);
    return failed;
  });
  const alice = await world.join('alice', OFF);
  await alice.disconnect();
  fail(new TypeError('Failed to fetch dynamically imported module'));
  await assert.rejects(failed);
  assert.deepEqual([asked, warned.mock.callCount()], [[''], 0]);
});
