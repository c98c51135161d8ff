/** Who has a place among the peers: strangers do not take those of others. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PeerConnectionFailed, TooManyPeers } from '../../src/errors.js';
import { contents, scene, untilPeer } from '../support/stores.js';

const peersOf = (store) => Object.keys(store.state.peers).sort();

test('strangers cannot take the places of those whom the application calls or writes to', async (t) => {
  const { alice, others } = await scene(t, { limits: { peers: 4 } }, 'one', 'two', 'three', 'four', 'friend');
  const [one, two, three, four, friend] = others;
  for (const stranger of [one, two, three]) {
    await stranger.connectToPeer('alice');
  }
  await assert.rejects(four.connectToPeer('alice'), PeerConnectionFailed);
  await alice.send('friend', 'there you are');
  assert.deepEqual(await contents(friend, 1), ['there you are']);
  // Now it is full, with people who are there.
  assert.throws(
    () => alice.send('four', 'x'),
    (error) => error instanceof TooManyPeers && error.limit === 4,
  );
});

test('who is written to or called is no stranger any more', async (t) => {
  const { alice, others } = await scene(t, { limits: { peers: 4 } }, 'one', 'two', 'three', 'four', 'five');
  const [one, two, three, four, five] = others;
  for (const stranger of [one, two, three]) {
    await stranger.connectToPeer('alice');
  }
  await alice.send('one', 'hello');
  await four.connectToPeer('alice'); // in the place of one
  assert.deepEqual(peersOf(alice), ['four', 'one', 'three', 'two']);
  await two.disconnectFromPeer('alice');
  await untilPeer(alice, 'two', ({ state }) => state === 'closed');
  await alice.connectToPeer('three');
  await five.connectToPeer('alice');
  assert.deepEqual(peersOf(alice), ['five', 'four', 'one', 'three']);
});

test('strangers are forgotten before those whom the application knows', async (t) => {
  const { alice, others } = await scene(t, { limits: { peers: 4 } }, 'friend', 'stranger', 'other');
  const [friend, stranger, other] = others;
  await alice.send('friend', 'hello');
  await friend.disconnectFromPeer('alice');
  await untilPeer(alice, 'friend', ({ state }) => state === 'closed');
  for (const each of [stranger, other]) {
    await each.connectToPeer('alice');
  }
  await stranger.disconnectFromPeer('alice');
  await untilPeer(alice, 'stranger', ({ state }) => state === 'closed');
  for (const name of ['absent', 'away']) {
    alice.send(name, 'when you come');
  }
  assert.deepEqual(peersOf(alice), ['absent', 'away', 'friend', 'other']);
});
