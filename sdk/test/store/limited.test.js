/** A server that limits what a store asks: the store goes on by itself, and shows why it waits. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { OverLimits } from '../../src/errors.js';
import { NetworkStore } from '../../src/store/store.js';
import { AT_ONCE } from '../support/clients.js';
import { FakeNetwork } from '../support/fake_rtc.js';
import { startScripted } from '../support/scripted_server.js';
import { until } from '../support/stores.js';

/** A registered store, and the server's end of its connection. */
async function registered(t) {
  const { mock: warned } = t.mock.method(console, 'warn', () => {});
  const server = await startScripted();
  const { RTCPeerConnection } = new FakeNetwork();
  const store = new NetworkStore({ backoff: AT_ONCE, RTCPeerConnection, iceServers: [] });
  t.after(() => server.close());
  t.after(() => store.disconnect());
  const connecting = store.connectToSignaling(server.url, 'alice', { backoff: AT_ONCE });
  const line = await server.accept();
  await line.admit();
  await connecting;
  return { store, line, warned };
}

test('a watch that the server limits is asked for again', async (t) => {
  const { store, line, warned } = await registered(t);
  const watching = store.watch('bob');
  const first = await line.receive();
  line.say({ type: 'error', message: 'slow', code: 'rate-limited', temporary: true, retryAfter: 0.01, re: first.id });
  const again = await line.receive();
  assert.deepEqual(again, first);
  line.say({ type: 'presence', userId: 'bob', online: true });
  line.say({ type: 'ack', re: again.id });
  await watching;
  assert.equal(store.state.peers.bob.online, true);
  assert.deepEqual(warned.calls[0].arguments, [
    'the server limits watch: slow (rate-limited). It is sent again in 0.3 s',
  ]);
});

test('a store that asked far too much says why it is not connected, and until when', async (t) => {
  const { store, line } = await registered(t);
  line.close(4504, 'far too many requests');
  await until(store, ({ signaling }) => signaling === 'connecting');
  const { signalingError } = store.state;
  assert.ok(signalingError instanceof OverLimits);
  assert.equal(signalingError.reason, 'far too many requests');
  assert.ok(signalingError.retryAfter >= 60);
});
