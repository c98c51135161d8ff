/** A server that comes back with room for fewer watches. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { NetworkStore } from '../../src/store/store.js';
import { AT_ONCE } from '../support/clients.js';
import { FakeNetwork } from '../support/fake_rtc.js';
import { startScripted } from '../support/scripted_server.js';
import { until } from '../support/stores.js';

test('who is not watched any more leaves the state, and who is waited for is asked about', async (t) => {
  const server = await startScripted();
  const { RTCPeerConnection } = new FakeNetwork();
  const store = new NetworkStore({ backoff: AT_ONCE, RTCPeerConnection, iceServers: [] });
  t.after(() => server.close());
  t.after(() => store.disconnect());
  const connecting = store.connectToSignaling(server.url, 'alice', { backoff: AT_ONCE });
  const first = await server.accept();
  await first.admit();
  await connecting;

  const watching = store.watch('bob');
  const { id } = await first.receive();
  first.say({ type: 'presence', userId: 'bob', online: true });
  first.say({ type: 'ack', re: id });
  await watching;
  store.send('dave', 'when you come').catch(() => {});
  const watched = await first.receive();
  assert.deepEqual([watched.type, watched.userIds], ['watch', ['dave']]);
  first.say({ type: 'presence', userId: 'dave', online: false });
  first.say({ type: 'ack', re: watched.id });
  const found = await first.receive();
  first.say({ type: 'discover-response', userId: 'dave', online: false, re: found.id });
  await until(store, ({ peers }) => peers.bob?.online === true && peers.dave?.online === false);

  first.close(4000, 'restart');
  const second = await server.accept();
  await second.admit({ session: 'another' });
  const full = (re) => second.say({ type: 'error', message: 'too many', code: 'too-large', temporary: false, re });
  // Dave is asked about again and again, and comes at last: nothing would tell that.
  for (let asked = 0; asked < 3;) {
    const message = await second.receive();
    if (message.type === 'watch') full(message.id);
    else second.say({ type: 'discover-response', userId: 'dave', online: false, re: message.id });
    if (message.type === 'discover') asked++;
  }
  assert.equal(store.state.peers.bob, undefined);
  const again = store.watch('bob');
  for (let refused = false; !refused;) {
    const message = await second.receive();
    if (message.type === 'watch') full(message.id);
    else second.say({ type: 'discover-response', userId: 'dave', online: false, re: message.id });
    refused = message.userIds?.includes('bob');
  }
  await assert.rejects(again, { code: 'too-large' });
});
