/**
 * A refusal is told: who calls learns at once that it is refused, why, and whether another attempt makes sense. Each
 * attempt here would otherwise end with its time-out, which says something else.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SignalingClient } from '../../src/client/client.js';
import { PeerRefused } from '../../src/errors.js';
import { Identity } from '../../src/identity/keys.js';
import { contents, scene, untilPeer } from '../support/stores.js';

/** What comes of a call that is refused; the state says the same. */
async function refusal(store, userId) {
  const error = await store.connectToPeer(userId).then(assert.fail, (thrown) => thrown);
  assert.ok(error instanceof PeerRefused, error);
  const peer = store.state.peers[userId];
  assert.deepEqual([peer.state, peer.error], ['failed', error]);
  return error;
}

test('who is not accepted learns so, and keeps what waits', async (t) => {
  const {
    alice,
    others: [bob],
  } = await scene(t, { accept: () => false }, 'bob');
  bob.send('alice', 'let me in');
  await untilPeer(bob, 'alice', ({ state }) => state === 'failed');
  const { code, temporary, reason } = await refusal(bob, 'alice');
  assert.deepEqual([code, temporary, reason], ['not-accepted', false, 'the other side refuses: not accepted']);
  assert.equal(bob.state.peers.alice.queued, 1);
  await alice.connectToPeer('bob'); // whom alice calls herself need not be let in
  assert.deepEqual(await contents(alice, 1), ['let me in']);
});

test('who is one too many learns so, and when to come back', async (t) => {
  const {
    alice,
    others: [bob, carol],
  } = await scene(t, { limits: { peers: 1 } }, 'bob', 'carol');
  await bob.connectToPeer('alice');
  const { code, temporary, retryAfter } = await refusal(carol, 'alice');
  assert.deepEqual([code, temporary, retryAfter], ['too-many-peers', true, 30]);
  bob.send('alice', 'still here');
  assert.deepEqual(await contents(alice, 1), ['still here']);
});

test('whose key is not the expected one learns so', async (t) => {
  const {
    alice,
    others: [bob],
  } = await scene(t, {}, 'bob');
  await alice.acceptKey('bob', (await Identity.generate()).publicKey);
  const { code, temporary, retryAfter } = await refusal(bob, 'alice');
  assert.deepEqual([code, temporary, retryAfter], ['key-refused', true, 30]);
  await alice.acceptKey('bob', bob.identity.publicKey);
  await bob.connectToPeer('alice');
});

test('who answers an offer of a program that was restarted learns that it is over', async (t) => {
  const { alice, server } = await scene(t, {});
  const bob = new SignalingClient(server.url, 'bob');
  t.after(() => bob.close());
  const heard = (type) => new Promise((resolve) => bob.subscribe((event) => event.type === type && resolve(event)));
  await bob.connect();
  await bob.register(await Identity.generate());
  for (const connection of ['of before', 'of before, too']) {
    const bye = heard('byeReceived');
    await bob.sendAnswer('alice', 'v=0\r\n', { connection });
    const { reason, code, ...rest } = await bye;
    assert.deepEqual([rest.connection, reason, code], [connection, 'this connection is over', null]);
    const offer = heard('offerReceived');
    alice.send('bob', 'hello'); // now there is an attempt with another name
    if (connection === 'of before') await offer;
  }
});
