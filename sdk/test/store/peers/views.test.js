/** What was told of each peer: changes at once, counts once for all that happens now. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PeerViews } from '../../../src/store/peers/views.js';
import { storeState } from '../../../src/store/state.js';
import { StateFeed } from '../../../src/store/subscriptions.js';

/** A peer that counts how often its view is made. */
class Viewed {
  made = 0;
  facts = { state: 'connected', queued: 0, features: [], devices: {} };

  constructor(userId) {
    this.userId = userId;
  }

  get view() {
    this.made++;
    return { userId: this.userId, publicKey: null, fingerprint: null, ...this.facts };
  }
}

/** The views of some peers, and the states that were told. */
function scene(...userIds) {
  const feed = new StateFeed(storeState({}));
  const views = new PeerViews(feed, () => ({ signaling: 'connected' }));
  const peers = userIds.map((userId) => new Viewed(userId));
  peers.forEach((peer) => views.add(peer));
  const states = [];
  feed.subscribe((state) => states.push(state));
  states.length = 0;
  peers.forEach((peer) => (peer.made = 0));
  return { feed, views, peers, states };
}

test('a thousand messages make one view and one state', async () => {
  const { views, peers, states } = scene('bob', 'carol');
  for (let queued = 1; queued <= 1000; queued++) {
    peers[0].facts.queued = queued;
    views.counted(peers[0]);
  }
  assert.deepEqual([peers[0].made, states.length], [0, 0]);
  await Promise.resolve();
  assert.deepEqual([peers[0].made, peers[1].made, states.length], [1, 0, 1]);
  assert.equal(states[0].peers.bob.queued, 1000);
});

test('a change is told at once, with all that was counted before it, and nothing is told twice', async () => {
  const { views, peers, states } = scene('bob', 'carol');
  peers[0].facts.queued = 1;
  views.counted(peers[0]);
  peers[1].facts.state = 'failed';
  views.changed(peers[1]);
  assert.deepEqual([states.length, states[0].peers.bob.queued, states[0].peers.carol.state], [1, 1, 'failed']);
  views.changed(peers[1]);
  await Promise.resolve();
  assert.equal(states.length, 1);
});

test('a peer that was forgotten is not shown again by what still happens to it', async () => {
  const { feed, views, peers } = scene('bob', 'carol');
  views.counted(peers[0]);
  views.remove(peers[0]);
  peers[0].facts.state = 'closed';
  views.changed(peers[0]);
  await Promise.resolve();
  assert.deepEqual(Object.keys(feed.current.peers), ['carol']);
});
