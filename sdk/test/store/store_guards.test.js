/** What a store refuses though it was asked to, and what becomes of those who ask while it is being closed. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import {
  EngineMissing,
  FingerprintMismatch,
  IdentityError,
  PeerConnectionFailed,
  StateError,
  UsageError,
} from '../../src/errors.js';
import { Identity } from '../../src/identity/keys.js';
import { MemoryPins } from '../../src/identity/pins.js';
import { withGlobal } from '../support/platform.js';
import { PeerSignaling } from '../../src/store/peers/signaling.js';
import { startServer } from '../support/server.js';
import { untilPeer, World } from '../support/stores.js';

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

test('an invitation keeps other keys out, also after its place was needed for others', async (t) => {
  const {
    world,
    names: [b],
    stores: [bob],
  } = await scene(t, { limits: { peers: 2 } });
  const invited = `${b}-invited`;
  const { fingerprint } = await Identity.generate();
  await assert.rejects(bob.connectToPeer(invited, { fingerprint }));
  for (const n of [1, 2, 3]) {
    const other = `${b}-other-${n}`;
    const there = await world.join(other);
    await bob.connectToPeer(other);
    await there.disconnect();
    await untilPeer(bob, other, ({ state, online }) => state === 'closed' && !online);
    await bob.disconnectFromPeer(other);
  }
  assert.equal(bob.state.peers[invited], undefined);
  const forger = await world.join(invited);
  const refused = assert.rejects(forger.connectToPeer(b));
  await untilPeer(bob, invited, ({ error }) => error instanceof FingerprintMismatch);
  await forger.disconnect();
  await refused;
  assert.equal(bob.state.peers[invited].fingerprint, null);
});

test('connecting takes no longer than it may, also where the pins do not answer', async (t) => {
  const {
    names: [, b],
    stores: [alice],
  } = await scene(t, { pins: new SlowPins() }, {});
  const { fingerprint } = await Identity.generate();
  await assert.rejects(alice.connectToPeer(b, { fingerprint, timeout: 0.1 }), /pins have not answered after 0.1 s/);
  await assert.rejects(alice.connectToPeer(b, { timeout: 0.1 }), /after 0.1 s/);
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

test('a store that is closed just as its login is done leaves no listener behind', async (t) => {
  const { world, names } = await scene(t, {});
  const listeners = new Set();
  const store = world.make({});
  const { start } = PeerSignaling.prototype;
  t.mock.method(PeerSignaling.prototype, 'start', async function (/** @type {Identity} */ identity) {
    await start.call(this, identity);
    void store.disconnect();
  });
  const add = (_, listener) => listeners.add(listener);
  const remove = (_, listener) => listeners.delete(listener);
  const connect = () => store.connectToSignaling(server.url, `${names[0]}-b`);
  await withGlobal('addEventListener', add, () =>
    withGlobal('removeEventListener', remove, () =>
      assert.rejects(connect(), StateError).finally(() => store.disconnect()),
    ),
  );
  assert.deepEqual([...listeners], []);
});

test('what a callback asks for while the store closes is refused, and closing comes to its end', async (t) => {
  const {
    names: [a],
    stores: [alice],
  } = await scene(t, {});
  const outcomes = [];
  const again = async (what) => {
    try {
      assert.ok(outcomes.length < 10, 'it goes on and on');
      const it = await what();
      outcomes.push('taken');
      it.subscribe(({ state }) => ['failed', 'ended'].includes(state) && again(what));
    } catch (error) {
      outcomes.push(error.name);
    }
  };
  await Promise.all([again(() => alice.sendFile(`${a}-b`, new Blob(['x']))), again(() => alice.call(`${a}-b`))]);
  const seen = new Set();
  (await alice.call(`${a}-c`)).subscribe(({ state }) => state === 'ended' && seen.add(alice.disconnect()));
  const closing = alice.disconnect();
  await closing;
  assert.deepEqual(outcomes, ['taken', 'taken', 'StateError', 'StateError']);
  assert.deepEqual([...seen, closing], [closing, alice.disconnect()]);
});

// --- faults that are nobody's, and words of strangers ------------------------------------------------------------------

test('a key that cannot be kept is told as that, and not as a forgery', async (t) => {
  const {
    names: [, b],
    stores: [alice, bob],
  } = await scene(t, { pins: new MemoryPins({ limit: 0 }) }, {});
  const failed = assert.rejects(alice.connectToPeer(b), IdentityError);
  await untilPeer(alice, b, ({ error }) => error);
  await bob.disconnect();
  await failed;
  assert.ok(alice.state.peers[b].error instanceof IdentityError);
});

// --- what is missing -------------------------------------------------------------------------------------------------

test('without WebRTC everything that would need it is refused for that reason, and presence can be watched', async (t) => {
  const {
    world,
    names: [a, b],
    stores: [alice],
  } = await scene(t, { RTCPeerConnection: undefined }, {});
  for (const call of [
    () => alice.connectToPeer(b),
    async () => alice.send(b, 'x'),
    async () => alice.sendFile(b, new Blob(['x'])),
    async () => alice.call(b),
  ]) {
    await assert.rejects(call(), (error) => error instanceof EngineMissing && error.engine === 'WebRTC');
  }
  assert.deepEqual(alice.state.peers, Object.create(null));
  await alice.watch(b);
  assert.ok(alice.state.peers[b].online);
  const caller = await world.join(`${a}-caller`);
  await assert.rejects(caller.connectToPeer(a), /could not be made/);
});

test('without WebSocket there is no use in trying again', async (t) => {
  const { WebSocket } = globalThis;
  t.after(() => (globalThis.WebSocket = WebSocket));
  delete globalThis.WebSocket;
  const store = new World(t, server.url).make();
  await assert.rejects(store.connectToSignaling(server.url, 'nobody'), (error) => {
    return error instanceof EngineMissing && error.engine === 'WebSocket' && !error.temporary;
  });
});

// --- the promise of an identity --------------------------------------------------------------------------------------

test('an identity may be a promise, which connecting waits for', async (t) => {
  const identity = await Identity.generate();
  const store = new World(t, server.url).make({ identity: Promise.resolve(identity) });
  assert.equal(store.identity, null);
  await store.connectToSignaling(server.url, 'promised');
  assert.equal(store.identity, identity);
  assert.equal(store.state.fingerprint, identity.fingerprint);
});

test('a broken promise of an identity is why nothing connects', async (t) => {
  const store = new World(t, server.url).make({ identity: Promise.reject(new IdentityError('no storage')) });
  await assert.rejects(store.connectToSignaling(server.url, 'broken'), {
    name: 'IdentityError',
    message: 'no storage',
  });
  assert.equal(store.identity, null);
  assert.equal(store.state.signaling, 'disconnected');
});

test('a store without an identity keeps the one that it has made when it is tried again', async (t) => {
  const store = new World(t, server.url).make();
  await assert.rejects(store.connectToSignaling('ws://127.0.0.1:1', 'made'));
  const { identity } = store;
  await store.connectToSignaling(server.url, 'made');
  assert.equal(store.identity, identity);
});
