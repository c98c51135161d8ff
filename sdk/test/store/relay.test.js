/** The sealed relay as the second path to a peer: real servers, and peer connections that need no network. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Journal } from '../../src/store/journal/journal.js';
import { MemoryBackend } from '../../src/store/journal/memory.js';
import { served } from '../support/server.js';
import { contents, QUICK, take, untilPeer, World } from '../support/stores.js';

/** alice and bob on a server of their own, with the options of both. */
async function pair(t, options, theirs = options, serverOptions = {}) {
  const server = await served(t, serverOptions);
  const world = new World(t, server.url);
  const [alice, bob] = await Promise.all([world.join('alice', options), world.join('bob', theirs)]);
  return { server, world, alice, bob };
}

// The server may delay what exceeds its limits for a second.
const PATIENT = { ...QUICK, silence: 1 };
const OFF = { path: 'relay', timing: PATIENT };
const AUTO = { path: 'auto', timing: PATIENT };

test('two peers that may use nothing but the relay exchange messages in order', async (t) => {
  const { alice, bob } = await pair(t, OFF);
  const sent = Array.from({ length: 100 }, (_, number) => number);
  for (const number of sent) alice.send('bob', number);
  assert.deepEqual(await contents(bob, 100), sent);
  bob.send('alice', 'back');
  assert.deepEqual(await contents(alice, 1), ['back']);
  await alice.drain();
  assert.equal(alice.state.peers.bob.path, 'relay');
  assert.equal((await alice.stats('bob')).path, 'relay');
});

test('a large message goes through the relay in pieces', async (t) => {
  const { alice, bob } = await pair(t, OFF);
  const large = new Uint8Array(300_000).map((_, index) => index % 251);
  alice.send('bob', large);
  const [message] = await take(bob, 1);
  assert.deepEqual(message.content, large);
});

test('messages move to the direct connection when it opens, and back when it dies', async (t) => {
  const { world, alice, bob } = await pair(t, AUTO);
  alice.send('bob', 0);
  await untilPeer(alice, 'bob', ({ path }) => path === 'direct');
  world.network.refuses.set('setLocalDescription', 'no other one');
  for (let number = 1; number < 50; number++) alice.send('bob', number);
  for (const connection of world.network.connections) connection.close();
  for (let number = 50; number < 100; number++) alice.send('bob', number);
  assert.deepEqual(
    await contents(bob, 100),
    Array.from({ length: 100 }, (_, number) => number),
  );
  await untilPeer(alice, 'bob', ({ path }) => path === 'relay');
});

test('where there is no direct path, connectToPeer returns when the relay works', async (t) => {
  const { alice, bob, world } = await pair(t, AUTO);
  world.network.refuses.set('setLocalDescription', 'no path at all');
  await alice.connectToPeer('bob');
  alice.send('bob', 'hi');
  assert.deepEqual(await contents(bob, 1), ['hi']);
  assert.equal(alice.state.peers.bob.error, null);
});

test('who is one too many learns so at once, not when the relay has been tried for all its time', async (t) => {
  const { world } = await pair(t, AUTO, { ...AUTO, limits: { peers: 1 } });
  const carol = await world.join('carol', AUTO);
  await carol.connectToPeer('bob');
  const refused = await world.join('dave', AUTO);
  await assert.rejects(refused.connectToPeer('bob', { timeout: 600 }), { code: 'too-many-peers', retryAfter: 30 });
  assert.equal(refused.state.peers.bob.state, 'failed');
});

test('a direct connection is found by itself when there is a path again', async (t) => {
  const { alice, bob, world } = await pair(t, AUTO);
  world.network.refuses.set('setLocalDescription', 'no path at all');
  await alice.send('bob', 'the only message');
  world.network.refuses.clear();
  await untilPeer(alice, 'bob', ({ path }) => path === 'direct');
  assert.deepEqual(await contents(bob, 1), ['the only message']);
});

test('both may begin at once', async (t) => {
  const { alice, bob } = await pair(t, OFF);
  for (let number = 0; number < 20; number++) {
    alice.send('bob', number);
    bob.send('alice', number + 100);
  }
  const [there, back] = await Promise.all([contents(bob, 20), contents(alice, 20)]);
  assert.deepEqual(
    there,
    Array.from({ length: 20 }, (_, number) => number),
  );
  assert.deepEqual(
    back,
    there.map((number) => number + 100),
  );
});

test('a program that is started anew is reached by itself, and gets each message once', async (t) => {
  const { world, alice, bob } = await pair(t, OFF);
  alice.send('bob', 'one');
  assert.deepEqual(await contents(bob, 1), ['one']);
  await alice.drain();
  await bob.disconnect();
  alice.send('bob', 'two');
  const again = await world.join('bob', { ...OFF, identity: bob.identity });
  assert.deepEqual(await contents(again, 1), ['two']);
});

// --- which paths may be used ------------------------------------------------------------------------------------------

test('another path can be chosen for a user, and taken back', async (t) => {
  const { alice, bob } = await pair(t, AUTO);
  await alice.connectToPeer('bob');
  assert.equal(alice.state.peers.bob.path, 'direct');
  alice.setPath('bob', 'relay');
  alice.send('bob', 'sealed');
  assert.deepEqual(await contents(bob, 1), ['sealed']);
  await untilPeer(alice, 'bob', ({ path }) => path === 'relay');
  alice.setPath('bob', null);
  alice.send('bob', 'once more');
  assert.deepEqual(await contents(bob, 1), ['once more']);
  await untilPeer(alice, 'bob', ({ path }) => path === 'direct');
  assert.throws(() => alice.setPath('bob', 'pigeon'), { name: 'ConfigError', setting: 'path' });
});

test('a store that may use nothing but the relay offers and answers no connection', async (t) => {
  const { world, alice, bob } = await pair(t, OFF, AUTO);
  bob.send('alice', 'call me');
  assert.deepEqual(await contents(alice, 1), ['call me']);
  alice.send('bob', 'no');
  assert.deepEqual(await contents(bob, 1), ['no']);
  assert.equal(world.network.connections.filter(({ currentRemoteDescription: there }) => there).length, 0);
  await assert.rejects(alice.call('bob'), { name: 'UsageError', message: /needs a direct path/ });
});

test('a program without the relay cannot be reached by one that has nothing else', async (t) => {
  const { alice } = await pair(t, OFF, { path: 'direct' });
  await assert.rejects(alice.connectToPeer('bob', { timeout: 5 }), { name: 'PeerConnectionFailed' });
});

test('a server that relays nothing leaves the direct connection', async (t) => {
  const { alice, bob } = await pair(t, AUTO, AUTO, { relay: false });
  alice.send('bob', 'hi');
  assert.deepEqual(await contents(bob, 1), ['hi']);
  assert.equal(alice.state.peers.bob.path, 'direct');
  alice.setPath('bob', 'relay');
  await assert.rejects(alice.connectToPeer('bob', { timeout: 5 }), { message: /the relay cannot be used/ });
});

test('a server whose messages are too small for our frames relays nothing', async (t) => {
  const { alice } = await pair(t, OFF, OFF, { maxMessageBytes: 43 * 1024 });
  await assert.rejects(alice.connectToPeer('bob', { timeout: 5 }), { message: /the relay cannot be used/ });
});

test('a platform without X25519 registers without a key, and connects directly', async (t) => {
  const make = crypto.subtle.generateKey;
  t.mock.method(crypto.subtle, 'generateKey', function (algorithm, ...rest) {
    if (algorithm.name === 'X25519') return Promise.reject(new DOMException('unknown', 'NotSupportedError'));
    return make.call(this, algorithm, ...rest);
  });
  const { alice, bob } = await pair(t, AUTO);
  alice.send('bob', 'hi');
  assert.deepEqual(await contents(bob, 1), ['hi']);
  assert.equal(alice.state.peers.bob.path, 'direct');
});

test('files go through the relay as far as the server allows', async (t) => {
  const { alice, bob } = await pair(t, OFF);
  bob.onFile((transfer) => transfer.accept());
  const large = await alice.sendFile('bob', new Blob([new Uint8Array(1024 * 1024 + 1)]), { name: 'large' });
  const small = await alice.sendFile('bob', new Blob([new Uint8Array(10_000)]), { name: 'small' });
  await small.finished;
  await assert.rejects(Promise.resolve(large.finished), { name: 'TransferFailed', reason: 'it needs a direct path' });
});

test('a large file outlives an attempt that fails, and not several', async (t) => {
  const { alice, bob, world } = await pair(t, { ...AUTO, timing: { ...PATIENT, attempt: 0.5 } });
  const blob = new Blob([new Uint8Array(1024 * 1024 + 1)]);
  bob.onFile((transfer) => transfer.accept());
  world.network.blocked = true;
  const patient = await alice.sendFile('bob', blob);
  await alice.connectToPeer('bob');
  assert.equal(alice.state.peers.bob.path, 'relay', 'the attempt has failed');
  world.network.blocked = false;
  await patient.finished;
  assert.equal(alice.state.peers.bob.path, 'direct');
  world.network.blocked = true;
  for (const connection of world.network.connections) connection.close();
  await untilPeer(alice, 'bob', ({ path }) => path === 'relay');
  const late = await alice.sendFile('bob', blob);
  await assert.rejects(Promise.resolve(late.finished), { name: 'TransferFailed', reason: 'it needs a direct path' });
});

for (const what of ['file', 'call']) {
  test(`a ${what} ends a long pause between two attempts`, async (t) => {
    const timing = { ...PATIENT, attempt: 0.5 };
    const { alice, bob, world } = await pair(t, { ...AUTO, timing, backoff: { first: 1e6, most: 1e6 } });
    bob.onFile((transfer) => transfer.accept());
    bob.onCall((call) => call.accept());
    world.network.blocked = true;
    await alice.connectToPeer('bob');
    await alice.send('bob', 'through the relay');
    world.network.blocked = false;
    if (what === 'file') await (await alice.sendFile('bob', new Blob([new Uint8Array(1024 * 1024 + 1)]))).finished;
    else await alice.call('bob');
    await untilPeer(alice, 'bob', ({ path }) => path === 'direct');
  });
}

for (const isJournaled of [false, true]) {
  test(`messages do not wait for a large file that has lost its direct path${isJournaled ? ', with journals' : ''}`, async (t) => {
    const options = async () => (isJournaled ? { ...AUTO, journal: await Journal.open(new MemoryBackend()) } : AUTO);
    const { alice, bob, world } = await pair(t, await options(), await options());
    const blob = new Blob([crypto.getRandomValues(new Uint8Array(65_536)), new Uint8Array(5 * 1024 * 1024)]);
    /** @type {any[]} */
    const files = [];
    bob.onFile((transfer) => (files.push(transfer), transfer.accept()));
    await alice.connectToPeer('bob');
    const transfer = await alice.sendFile('bob', blob);
    // What is said from now on stays in the buffers, and is lost with the connection.
    await new Promise((resolve) => {
      const stop = transfer.subscribe(({ transferred }) => {
        if (!transferred) return;
        world.network.stalled = true;
        queueMicrotask(() => resolve(stop()));
      });
    });
    world.network.blocked = true;
    for (const connection of world.network.connections) connection.close();
    const { transferred } = files[0];
    for (let number = 0; number < 50; number++) await alice.send('bob', number);
    assert.equal(alice.state.peers.bob.path, 'relay');
    assert.equal(files[0].transferred, transferred, 'pieces of the file came through the relay');
    assert.equal(transfer.state, 'running');
    assert.ok(transfer.needsDirect && files[0].needsDirect);
    world.network.blocked = world.network.stalled = false;
    world.network.match();
    await transfer.finished;
    assert.ok(!transfer.needsDirect);
    assert.deepEqual(Buffer.from(await files[0].blob.arrayBuffer()), Buffer.from(await blob.arrayBuffer()));
  });
}

// --- a server that lies -----------------------------------------------------------------------------------------------

/** alice and bob, between whom the server does to each message what `lie` makes of it: a list. */
async function lied(t, lie, options = OFF) {
  const server = await served(t);
  const world = new World(t, server.url);
  t.mock.method(console, 'warn', () => {});
  const [alice, bob] = await Promise.all([world.join('alice', options), world.join('bob', { ...options, lie })]);
  return { alice, bob };
}

/** Send so many messages, one after the other as they arrive, and look that each comes once and in order. */
async function arrives({ alice, bob }, count = 10) {
  for (let number = 0; number < count; number++) alice.send('bob', number);
  assert.deepEqual(
    await contents(bob, count),
    Array.from({ length: count }, (_, number) => number),
  );
  await alice.drain();
}

/** @param {{ sealed: string }} message */
const isHandshake = ({ sealed }) => Buffer.from(sealed, 'base64')[1] === 1;

/** A sealed message with one bit of its last byte turned. */
function damaged(message) {
  const bytes = Buffer.from(message.sealed, 'base64');
  bytes[bytes.length - 1] ^= 1;
  return { ...message, sealed: bytes.toString('base64') };
}

test('what the server repeats has no effect', async (t) => {
  const all = [];
  const ends = await lied(t, (message) => {
    if (message.type !== 'relay') return [message];
    all.push(message);
    return [message, ...all];
  });
  await arrives(ends);
  ends.alice.send('bob', 'the last');
  assert.deepEqual(await contents(ends.bob, 1), ['the last']);
});

test('a handshake that was held back ends no direct connection', async (t) => {
  let late = [];
  let resolve;
  const held = new Promise((resolves) => (resolve = resolves));
  const hold = (message) => {
    if (message.type !== 'relay') return [...late.splice(0), message];
    resolve(message); // the first one
    return [];
  };
  const steady = { ...QUICK, heartbeat: 1, silence: 10 }; // a busy machine loses no connection
  const { alice, bob } = await lied(t, hold, { path: 'auto', timing: steady });
  alice.send('bob', 'before');
  await alice.connectToPeer('bob');
  assert.deepEqual(await contents(bob, 1), ['before']);
  // It is dealt with when what comes after it is refused: a handshake in another session.
  const refused = new Promise((resolve) => console.warn.mock.mockImplementation(resolve));
  const first = await held;
  const other = Buffer.from(first.sealed, 'base64');
  other[2] ^= 1;
  late = [first, { ...first, sealed: other.toString('base64') }];
  await bob.watch('alice');
  await refused;
  await alice.send('bob', 'after');
  assert.deepEqual(await contents(bob, 1), ['after']);
  const views = [alice.state.peers.bob, bob.state.peers.alice];
  assert.deepEqual(
    views.map(({ path, connections }) => [path, connections]),
    views.map(() => ['direct', 1]),
  );
});

test('no session begins while HELLOs are exchanged on a direct connection', async (t) => {
  const server = await served(t);
  const world = new World(t, server.url);
  const relayed = [];
  const note = (message) => {
    if (message.type === 'relay') relayed.push(message);
    return [message];
  };
  // What bob says on a channel waits until it is released.
  let holds = true;
  class Slow extends world.network.RTCPeerConnection {
    constructor(configuration) {
      super(configuration);
      Object.defineProperty(this, 'severed', { get: () => holds, set() {} });
    }
  }
  const steady = { path: 'auto', timing: { ...QUICK, heartbeat: 1, silence: 10 } }; // a busy machine loses no connection
  const [alice, bob] = await Promise.all([
    world.join('alice', steady),
    world.join('bob', { ...steady, RTCPeerConnection: Slow, lie: note }),
    world.join('carol', steady),
  ]);
  alice.setPath('bob', 'direct'); // on a busy machine a session would begin before
  const connected = alice.connectToPeer('bob');
  await untilPeer(bob, 'alice', ({ path }) => path === 'direct'); // so it has alice's HELLO
  alice.setPath('bob', null);
  alice.send('bob', 'meanwhile');
  alice.setPath('carol', 'relay');
  await alice.send('carol', 'sealed later than that would be');
  await bob.watch('carol'); // and what has reached bob's line is read
  assert.equal(relayed.length, 0);
  holds = false;
  world.network.resume();
  await connected;
  await bob.send('alice', 'back');
  assert.deepEqual([await contents(bob, 1), await contents(alice, 1)], [['meanwhile'], ['back']]);
  const views = [alice.state.peers.bob, bob.state.peers.alice];
  assert.deepEqual(
    views.map(({ path, connections }) => [path, connections]),
    views.map(() => ['direct', 1]),
  );
});

test('a flood of one sender leaves room for the messages of others', async (t) => {
  const junk = Buffer.concat([Buffer.of(1, 2), Buffer.alloc(100)]).toString('base64');
  const flood = Array(600).fill({ type: 'relay', to: 'bob', from: 'mallory', sealed: junk });
  const handshakes = [];
  const { alice, bob } = await lied(t, (message) => {
    if (message.type !== 'relay') return [message];
    if (isHandshake(message)) handshakes.push(message);
    return [...flood, message];
  });
  await arrives({ alice, bob }, 3);
  assert.equal(handshakes.length, 1);
});

test('a lost session with a peer that uses only the relay is begun anew', async (t) => {
  let dropped = 0;
  let drop = false;
  const lie = (message) => (drop && message.type === 'relay' && !dropped++ ? [] : [message]);
  const { alice, bob } = await lied(t, lie, AUTO);
  bob.setPath('alice', 'relay');
  await alice.send('bob', 'one');
  await untilPeer(alice, 'bob', ({ error }) => error === null);
  drop = true;
  alice.send('bob', 'two');
  assert.deepEqual(await contents(bob, 2), ['one', 'two']);
  assert.equal(dropped > 0, true);
});

test('a lost session is under repair, and nothing fails without a reason', async (t) => {
  let [drop, dropped] = [false, 0];
  const lie = (message) => (drop && message.type === 'relay' && !dropped++ ? [] : [message]);
  const { alice, bob } = await lied(t, lie, OFF);
  await alice.send('bob', 'one');
  const told = new Set();
  alice.subscribe(({ peers: { bob: view } }) => told.add(`${view.state}, ${view.error ? 'and why' : 'no error'}`));
  drop = true;
  await Promise.all(['two', 'three', 'four'].map((text) => alice.send('bob', text)));
  assert.deepEqual(await contents(bob, 4), ['one', 'two', 'three', 'four']);
  assert.equal(dropped > 0, true);
  await untilPeer(alice, 'bob', ({ state }) => state === 'connected');
  assert.equal(told.has('disconnected, no error'), true);
  assert.equal(told.has('failed, no error'), false);
});

for (const [what, spoil] of [
  ['drops', () => []],
  ['damages', (message) => [damaged(message)]],
  ['cuts', (message) => [{ ...message, sealed: message.sealed.slice(0, 40) }]],
  ['calls another suite', (message) => [{ ...message, sealed: `Ag${message.sealed.slice(2)}` }]],
]) {
  // A damaged handshake is a false proof in the peer's name: see below.
  for (const which of what === 'damages' ? [1] : [0, 1]) {
    test(`what the server ${what} comes again: message ${which}`, async (t) => {
      let count = 0;
      const ends = await lied(t, (message) =>
        message.type === 'relay' && count++ === which ? spoil(message) : [message],
      );
      ends.alice.send('bob', 'first');
      assert.deepEqual(await contents(ends.bob, 1), ['first']);
      await arrives(ends);
    });
  }
}

test('a damaged handshake is refused as a false proof, and what waits stays', async (t) => {
  let count = 0;
  const { alice } = await lied(t, (message) => (message.type === 'relay' && !count++ ? [damaged(message)] : [message]));
  alice.send('bob', 'first');
  await assert.rejects(alice.connectToPeer('bob', { timeout: 2 }), {
    name: 'PeerConnectionFailed',
    reason: 'the proof is not valid',
  });
  assert.equal(alice.state.peers.bob.queued, 1);
});
