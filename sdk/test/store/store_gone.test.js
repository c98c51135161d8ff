/** What becomes of calls and files when somebody is gone, is somebody else, or is not wanted any more. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SignalingClient } from '../../src/client/client.js';
import { timers } from '../../src/client/timers.js';
import { Identity } from '../../src/identity/keys.js';
import { AWAY_SECONDS } from '../../src/store/calls/call.js';
import { camera } from '../support/fake_media.js';
import { QUICK, scene, untilIt, untilPeer } from '../support/stores.js';

/** A call of alice's that bob has taken. */
async function talking(alice, bob) {
  bob.onCall((call) => call.accept(camera('audio')));
  const call = await alice.call('bob', camera('audio'));
  await untilIt(call, ({ state }) => state === 'connected');
  return call;
}

test('a call with somebody who has gone without a word ends', async (t) => {
  const { callLater } = timers;
  // No attempt takes as long, so that is the call's patience alone.
  t.mock.method(timers, 'callLater', (seconds, run) => callLater(seconds === AWAY_SECONDS ? 0.5 : seconds, run));
  const { world, alice } = await scene(t, {
    timing: { heal: 1, heartbeat: 0.05, silence: 0.3, probe: 0.1, attempt: 40 },
  });
  // bob does not notice the loss before alice: else he could mend the path, and she would never hear of it.
  const bob = await world.join('bob', { timing: { ...QUICK, silence: 60 } });
  const call = await talking(alice, bob);
  world.network.open.forEach((connection) => connection.sever());
  await untilPeer(alice, 'bob', ({ state }) => state === 'disconnected');
  assert.equal(call.state, 'connected');
  await bob.disconnect();
  await untilIt(call, ({ state }) => state === 'ended');
  assert.equal(call.reason, 'the connection was lost');
});

test('a person who accepts another key ends the call and the file that were with the one before', async (t) => {
  const {
    server,
    alice,
    others: [bob],
  } = await scene(t, {}, 'bob');
  const call = await talking(alice, bob);
  bob.onFile((transfer) => transfer.accept({ sink: new WritableStream({ write: () => new Promise(() => {}) }) }));
  const file = await alice.sendFile('bob', new File(['never written'], 'a'));
  await untilIt(file, ({ state }) => state === 'running');
  await server.kill(); // nobody helps either of them to find that out
  await alice.acceptKey('bob', (await Identity.generate()).publicKey);
  assert.deepEqual([call.state, call.reason], ['ended', 'another key was accepted']);
  assert.equal(file.state, 'failed');
});

test('nobody goes on being called for a file that was cancelled', async (t) => {
  const { server, alice } = await scene(t, {});
  const silent = new SignalingClient(server.url, 'bob');
  t.after(() => silent.close());
  const called = new Promise((resolve) => silent.subscribe(({ type }) => type === 'offerReceived' && resolve()));
  await silent.connect();
  await silent.register(await Identity.generate());
  const file = await alice.sendFile('bob', new File(['x'], 'a'));
  await called;
  assert.equal(alice.state.peers.bob.state, 'connecting');
  file.cancel();
  assert.equal(alice.state.peers.bob.state, 'closed');
});
