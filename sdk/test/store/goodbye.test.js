/** A peer that leaves while the relay carries the messages, and a direct connection is tried for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { served } from '../support/server.js';
import { contents, QUICK, untilPeer, World } from '../support/stores.js';

const AUTO = { path: 'auto', timing: { ...QUICK, silence: 5 } };

for (const [what, isSaid] of [
  ['says goodbye', true],
  ['does not get to its goodbye', false], // as a page that is left: sealing is a promise
]) {
  test(`one that leaves during an attempt and ${what} is closed`, async (t) => {
    const { url } = await served(t);
    const world = new World(t, url);
    world.network.blocked = true;
    let isLost = false;
    const lie = (message) => (isLost && ['relay', 'bye'].includes(message.type) ? [] : [message]);
    const [alice, bob] = await Promise.all([world.join('alice', AUTO), world.join('bob', { ...AUTO, lie })]);
    await bob.watch('alice');
    bob.send('alice', 'through the relay');
    assert.deepEqual(await contents(alice, 1), ['through the relay']);
    await untilPeer(bob, 'alice', ({ path, queued }) => path === 'relay' && !queued);
    const asked = isSaid || assert.rejects(bob.connectToPeer('alice'), { name: 'PeerOffline' });
    const states = [];
    bob.subscribe(({ peers }) => states.push(peers.alice.state));
    isLost = !isSaid;
    await alice.disconnect();
    const { peers } = await untilPeer(bob, 'alice', ({ state, online }) => state !== 'connected' && online === false);
    assert.deepEqual([peers.alice.state, peers.alice.path, peers.alice.error], ['closed', null, null]);
    assert.deepEqual([...new Set(states)], ['connected', 'closed']);
    await asked;
  });
}

test('one that has left is closed when the server says so first, of a message', async (t) => {
  const { url } = await served(t);
  const world = new World(t, url);
  world.network.blocked = true;
  let isLate = false;
  const lie = (message) => (isLate && ['relay', 'presence'].includes(message.type) ? [] : [message]);
  const [alice, bob] = await Promise.all([world.join('alice', AUTO), world.join('bob', { ...AUTO, lie })]);
  bob.send('alice', 'through the relay');
  assert.deepEqual(await contents(alice, 1), ['through the relay']);
  await untilPeer(bob, 'alice', ({ path, queued }) => path === 'relay' && !queued);
  const states = new Set();
  bob.subscribe(({ peers }) => states.add(peers.alice.state));
  isLate = true; // the goodbye, and the news
  await alice.disconnect();
  bob.send('alice', 'too late');
  const { peers } = await untilPeer(bob, 'alice', ({ state }) => state !== 'connected');
  const { state, path, error, queued } = peers.alice;
  assert.deepEqual([state, path, error, queued], ['closed', null, null, 1]);
  assert.deepEqual([...states], ['connected', 'closed']);
});
