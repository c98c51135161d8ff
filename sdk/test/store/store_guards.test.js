/** What a store refuses though it was asked to, and what becomes of those who ask while it is being closed. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { IdentityError, PeerConnectionFailed, StateError, UsageError } from '../../src/errors.js';
import { Identity } from '../../src/identity/keys.js';
import { MemoryPins } from '../../src/identity/pins.js';
import { startServer } from '../support/server.js';
import { World } from '../support/stores.js';

let server;
before(async () => (server = await startServer()));
after(() => server.stop());

let users = 0;
/** Some registered stores, with names that no other test has. */
async function scene(t, ...options) {
  const world = new World(t, server.url);
  const names = options.map((_, n) => `user-${++users}-${n}`);
  return { world, names, stores: await Promise.all(options.map((each, n) => world.join(names[n], each))) };
}

/** Pins that are looked at only when the test says so. */
class SlowPins extends MemoryPins {
  asked = new Promise((resolve) => (this.tellAsked = resolve));
  answered = new Promise((resolve) => (this.answer = resolve));

  async find(...where) {
    this.tellAsked();
    await this.answered;
    return super.find(...where);
  }
}

// --- invitations -----------------------------------------------------------------------------------------------------

test('what is no fingerprint lets nobody in, and one in capitals is the same one', async (t) => {
  const {
    names: [, b],
    stores: [alice, bob],
  } = await scene(t, {}, {});
  for (const fingerprint of ['', ' ', 'yes']) {
    await assert.rejects(alice.connectToPeer(b, { fingerprint }), UsageError);
  }
  assert.equal(alice.state.peers[b].connections, 0);
  await alice.connectToPeer(b, { fingerprint: ` ${bob.identity.fingerprint.toUpperCase()}\n` });
});

test('an invitation keeps other keys out, also after strangers have taken all places', async (t) => {
  const {
    world,
    names: [b],
    stores: [bob],
  } = await scene(t, { limits: { peers: 2 } });
  const invited = `${b}-invited`;
  const { fingerprint } = await Identity.generate();
  await assert.rejects(bob.connectToPeer(invited, { fingerprint }));
  for (const n of [1, 2, 3]) {
    const stranger = await world.join(`${b}-stranger-${n}`);
    await stranger.connectToPeer(b);
    await stranger.disconnect();
  }
  assert.equal(bob.state.peers[invited], undefined);
  const forger = await world.join(invited, { timing: { attempt: 0.5 } });
  await assert.rejects(forger.connectToPeer(b, { timeout: 1 }));
  assert.equal(bob.state.peers[invited].fingerprint, null);
});

// --- closing ---------------------------------------------------------------------------------------------------------

for (const [what, close, Fault] of [
  ['the store is closed', (store) => store.disconnect(), StateError],
  ['the peer is hung up on', (store, name) => store.disconnectFromPeer(name), PeerConnectionFailed],
]) {
  test(`who waits for the pins hears that ${what}, and nobody is called`, async (t) => {
    const pins = new SlowPins();
    const {
      names: [, b],
      stores: [alice, bob],
    } = await scene(t, { pins }, {});
    const { fingerprint } = bob.identity;
    const refused = assert.rejects(alice.connectToPeer(b, { fingerprint, timeout: 600 }), Fault);
    await pins.asked;
    const closed = close(alice, b);
    pins.answer();
    await refused;
    await closed;
    assert.deepEqual(bob.state.peers, Object.create(null));
  });
}

// --- faults that are nobody's, and words of strangers ------------------------------------------------------------------

test('a key that cannot be kept is told as that, and not as a forgery', async (t) => {
  const {
    names: [, b],
    stores: [alice],
  } = await scene(t, { pins: new MemoryPins({ limit: 0 }), timing: { attempt: 0.5 } }, {});
  await assert.rejects(alice.connectToPeer(b), IdentityError);
  assert.ok(alice.state.peers[b].error instanceof IdentityError);
});
