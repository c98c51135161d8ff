/** Stores that talk to each other through a real server: what an application sees when all goes well. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { fingerprint, Identity } from '../../src/identity/keys.js';
import { MemoryPins } from '../../src/identity/pins.js';
import {
  ConfigError,
  DeliveryFailed,
  EngineMissing,
  InvalidAddress,
  MessageTooLarge,
  PeerOffline,
  PeerUnknown,
  QueueFull,
  RequestFailed,
  ServerUnreachable,
  StateError,
  TooManyPeers,
  UsageError,
} from '../../src/errors.js';
import { NetworkStore } from '../../src/store/store.js';
import { camera } from '../support/fake_media.js';
import { startServer } from '../support/server.js';
import { contents, take, until, untilIt, untilPeer, World } from '../support/stores.js';

let server;
const unhandled = [];
process.on('unhandledRejection', (reason) => unhandled.push(reason));
before(async () => (server = await startServer()));
after(async () => {
  await server.stop();
  assert.deepEqual(unhandled, []);
});

let users = 0;
/** Two registered stores, with names that no other test has. */
async function pair(t, options = {}, others = options) {
  const world = new World(t, server.url);
  const [a, b] = [`alice-${++users}`, `bob-${users}`];
  const [alice, bob] = await Promise.all([world.join(a, options), world.join(b, others)]);
  return { world, a, b, alice, bob };
}

// --- the server --------------------------------------------------------------------------------------------------------

test('the state tells who we are, and that we are there', async (t) => {
  const identity = await Identity.generate();
  const store = new World(t, server.url).make({ identity });
  assert.deepEqual(
    { ...store.state },
    {
      signaling: 'disconnected',
      signalingError: null,
      journalError: null,
      userId: null,
      server: null,
      fingerprint: null,
      privacy: { presence: 'public', offers: 'public', contacts: [], blocked: [] },
      peers: store.state.peers,
    },
  );
  await store.connectToSignaling(server.url, 'carol');
  assert.equal(store.state.signaling, 'connected');
  assert.equal(store.state.userId, 'carol');
  assert.equal(store.state.server, new URL(server.url).host);
  assert.equal(store.state.fingerprint, identity.fingerprint);
  assert.equal(store.identity, identity);
  await assert.rejects(store.connectToSignaling(server.url, 'carol'), StateError);
  await store.disconnect();
  assert.equal(store.state.signaling, 'disconnected');
  await assert.rejects(store.connectToSignaling(server.url, 'carol'), StateError);
});

test('what keeps a store from being connected is told, and it can be tried again', async (t) => {
  const world = new World(t, server.url);
  const there = await world.join('dora');
  const store = world.make();
  await assert.rejects(store.connectToSignaling('ws://127.0.0.1:1', 'dora'), ServerUnreachable);
  await assert.rejects(store.connectToSignaling('ftp://x', 'dora'), ConfigError);
  await assert.rejects(store.connectToSignaling(server.url, 'd ora'), InvalidAddress);
  await assert.rejects(store.connectToSignaling(server.url, 'dora'), (error) => {
    assert.ok(error instanceof RequestFailed);
    return error.code === 'key-mismatch';
  });
  assert.deepEqual([store.state.signaling, store.state.userId], ['disconnected', null]);
  await assert.rejects(store.call('x'), StateError);
  await store.connectToSignaling(server.url, 'emil');
  assert.equal(store.state.signaling, 'connected');
  assert.equal(there.state.signaling, 'connected');
});

test('what is sent before the first login arrives after it, whatever comes between', async (t) => {
  const world = new World(t, server.url);
  const store = world.make();
  const first = store.send('hanna', 'one');
  assert.throws(() => store.send('no name', ''), InvalidAddress);
  await Promise.resolve();
  assert.deepEqual([store.state.signaling, store.state.peers.hanna?.queued], ['disconnected', 1]);
  await assert.rejects(store.connectToSignaling('ws://127.0.0.1:1', 'georg'), ServerUnreachable);
  assert.deepEqual([store.state.userId, store.state.peers.hanna?.queued, first.done], [null, 1, false]);
  const second = store.send('hanna', 'two');
  const hanna = await world.join('hanna');
  const connecting = store.connectToSignaling(server.url, 'georg');
  const third = store.send('hanna', 'three');
  await connecting;
  assert.deepEqual(await contents(hanna, 3), ['one', 'two', 'three']);
  await Promise.all([first, second, third]);
  assert.equal(store.state.peers.hanna.queued, 0);
});

test('pins are asked for the server that the store is with, and a login that fails leaves none of them', async (t) => {
  const asked = new Set();
  const find = async (server) => {
    asked.add(server);
    return new Uint8Array(32);
  };
  const pins = { find, pin: find, accept: async () => {} };
  const store = new World(t, server.url).make({ pins, identity: Identity.generate() });
  store.send('karl', 'before');
  const connecting = store.connectToSignaling('ws://127.0.0.1:1', 'lars');
  store.send('mia', 'while the identity is waited for');
  await assert.rejects(connecting, ServerUnreachable);
  assert.deepEqual([...asked], ['127.0.0.1:1']);
  const { karl, mia } = store.state.peers;
  assert.deepEqual([karl.fingerprint, mia.publicKey], [null, null]);
});

test('what was sent to our own name before it was ours fails', async (t) => {
  const store = new World(t, server.url).make();
  const delivery = store.send('jonas', 'to myself');
  await store.connectToSignaling(server.url, 'jonas');
  await assert.rejects(async () => delivery, { name: 'DeliveryFailed', reason: 'that is our own name' });
  assert.deepEqual(Object.keys(store.state.peers), []);
  assert.throws(() => store.send('jonas', ''), UsageError);
});

test('what was sent to a name that we tried to get and did not is still for its owner', async (t) => {
  const world = new World(t, server.url);
  const owner = await world.join('owner');
  const store = world.make();
  const delivery = store.send('owner', 'it is you');
  await assert.rejects(() => store.connectToSignaling(server.url, 'owner'), { code: 'key-mismatch' });
  await store.connectToSignaling(server.url, 'another');
  await delivery;
  for await (const { content } of owner.messages()) {
    assert.equal(content, 'it is you');
    break;
  }
});

test('what waits for a login that never comes fails when the store is closed', async (t) => {
  const store = new World(t, server.url).make();
  const delivery = store.send('nobody-at-all', 'x');
  const drained = assert.rejects(store.drain('nobody-at-all'), { name: 'DeliveryFailed' });
  await store.disconnect();
  await assert.rejects(async () => delivery, { reason: 'the store was closed' });
  await drained;
});

test('a store that is closed while it connects says so', async (t) => {
  const store = new World(t, server.url).make();
  const connecting = assert.rejects(store.connectToSignaling(server.url, 'frida'), StateError);
  const closing = [store.disconnect(), store.disconnect()];
  await connecting;
  await Promise.all(closing);
  assert.equal(store.state.signaling, 'disconnected');
});

test('a store that is not connected says so', async () => {
  const store = new NetworkStore();
  for (const call of [
    () => store.connectToPeer('x'),
    () => store.acceptKey('x', new Uint8Array(32)),
    () => store.watch('x'),
    () => store.unwatch('x'),
    () => store.sendFile('x', new Blob()),
    () => store.call('x'),
  ]) {
    await assert.rejects(call(), StateError);
  }
  assert.throws(() => store.send('x', ''), EngineMissing); // which no server can help
  assert.equal(await store.stats('x'), null);
  await store.disconnectFromPeer('x');
  await store.drain();
  await store.disconnect();
  assert.throws(() => store.send('x', ''), StateError);
  for (const [setting, options] of [
    ['backoff.first', { backoff: { first: -1 } }],
    ['backoff.last', { backoff: { last: 1 } }],
    ['limits.peers', { limits: { peers: 0 } }],
    ['timing.heal', { timing: { heal: 0 } }],
    ['timing.attempt', { timing: { attempt: '30' } }],
    ['timing.silence', { timing: { silence: Infinity } }],
    ['iceServers', { iceServers: 'stun:stun.example' }],
  ]) {
    assert.throws(() => new NetworkStore(options), { name: 'ConfigError', setting });
  }
});

// --- messages ------------------------------------------------------------------------------------------------------------

test('messages arrive as they were sent, and who waits is told', async (t) => {
  const { a, b, alice, bob } = await pair(t);
  const sent = ['text', Uint8Array.of(0, 1), { json: [1, null, true] }, 3, null];
  const deliveries = sent.map((message) => alice.send(b, message));
  assert.ok(deliveries.every(({ stored }) => stored)); // nothing keeps them but the memory
  const got = await take(bob, 5);
  assert.deepEqual(
    got.map(({ id: _, ...message }) => message),
    sent.map((content, n) => ({ sender: a, device: 'main', content, sequence: n + 1, redelivered: false })),
  );
  assert.equal(new Set(got.map(({ id }) => id)).size, 5);
  await Promise.all(deliveries);
  assert.ok(deliveries.every(({ delivered }) => delivered));
  await bob.send(a, 'back');
  assert.deepEqual(await contents(alice, 1), ['back']);
  assert.equal(alice.state.peers[b].queued, 0);
});

test('a thousand messages each way arrive once and in order', async (t) => {
  const { a, b, alice, bob } = await pair(t);
  const numbers = Array.from({ length: 1000 }, (_, n) => n);
  for (const n of numbers) {
    alice.send(b, n);
    bob.send(a, n);
  }
  assert.deepEqual(await contents(bob, 1000), numbers);
  assert.deepEqual(await contents(alice, 1000), numbers);
  await Promise.all([alice.drain(), bob.drain()]);
  assert.equal(alice.state.peers[b].connections, 1);
});

test('a callback gets messages in place of the iterators, as long as it is there', async (t) => {
  const { a, b, alice, bob } = await pair(t);
  const got = [];
  const stop = bob.onMessage(({ content }) => got.push(content));
  await alice.send(b, 1);
  stop();
  await alice.send(b, 2);
  assert.deepEqual(got, [1]);
  assert.deepEqual(await contents(bob, 1), [2]);
  const rest = bob.messages();
  await alice.send(b, 3);
  await bob.disconnect();
  assert.equal((await rest.next()).value.content, 3);
  assert.equal((await rest.next()).done, true);
  assert.equal(alice.state.userId, a);
});

test('misuse is told at once', async (t) => {
  const { a, b, alice } = await pair(t, { limits: { queueMessages: 1, peers: 2 } });
  assert.throws(() => alice.send(a, 'x'), UsageError);
  assert.throws(() => alice.send('no such name', 'x'), InvalidAddress);
  await assert.rejects(alice.watch(['bob', 'carol']), { name: 'InvalidAddress', problem: /one by one, not as a list/ });
  assert.throws(() => alice.send(b, undefined), UsageError);
  assert.throws(() => alice.send(b, new Uint8Array(16 * 1024 * 1024 + 1)), MessageTooLarge);
  alice.send('nobody-1', 'x');
  assert.throws(() => alice.send('nobody-1', 'x'), QueueFull);
  alice.send('nobody-2', 'x');
  assert.throws(() => alice.send('nobody-3', 'x'), TooManyPeers);
  await assert.rejects(alice.acceptKey(b, new Uint8Array(31)), UsageError);
  await assert.rejects(alice.connectToPeer(a), UsageError);
});

test('draining waits for what was sent, fails with it, and ends in time', async (t) => {
  const { b, alice, bob } = await pair(t, {}, { limits: { unreadMessages: 1 } });
  alice.send(b, 1);
  await alice.drain(b, { timeout: 10 });
  alice.send(b, 2);
  await assert.rejects(alice.drain(b, { timeout: 0.05 }), { name: 'TimeoutError' });
  await alice.drain('somebody-else');
  const draining = assert.rejects(alice.drain(), DeliveryFailed);
  await alice.disconnectFromPeer(b);
  await draining;
  assert.deepEqual(await contents(bob, 1), [1]);
});

// --- peers ---------------------------------------------------------------------------------------------------------------

test('a peer is connected from either side, and from both at once', async (t) => {
  const { a, b, alice, bob } = await pair(t);
  await alice.connectToPeer(b);
  await untilPeer(bob, a, ({ state }) => state === 'connected');
  const view = alice.state.peers[b];
  assert.deepEqual([view.state, view.online, view.connections, view.error], ['connected', true, 1, null]);
  assert.deepEqual(view.features, ['files', 'calls', 'files-2', 'files-3', 'bundles']);
  assert.equal(view.fingerprint, bob.state.fingerprint);
  assert.equal(await fingerprint(view.publicKey), view.fingerprint);
  await untilPeer(alice, b, ({ roundTripTime }) => roundTripTime !== null);
  await alice.disconnectFromPeer(b);
  assert.equal(alice.state.peers[b].state, 'closed');
  await untilPeer(bob, a, ({ state }) => state === 'closed');
  assert.deepEqual(bob.state.peers[a].features, []);
  await Promise.all([alice.connectToPeer(b), bob.connectToPeer(a)]);
  assert.equal(bob.state.peers[a].state, 'connected');
  assert.equal(alice.state.peers[b].connections, 2);
});

test('several who ask share one attempt', async (t) => {
  const { world, b, alice } = await pair(t);
  await Promise.all([alice.connectToPeer(b), alice.connectToPeer(b), alice.send(b, 'x')]);
  assert.equal(world.network.connections.length, 2);
});

test('a peer that is not there is told from one that nobody knows', async (t) => {
  const { b, alice, bob } = await pair(t);
  await bob.disconnect();
  await assert.rejects(alice.connectToPeer(b), PeerOffline);
  await assert.rejects(alice.connectToPeer('nobody-at-all'), PeerUnknown);
  assert.equal(alice.state.peers[b].online, false);
  assert.equal(alice.state.peers[b].error, null);
});

test('messages for a peer that is away wait until it comes', async (t) => {
  const world = new World(t, server.url);
  const alice = await world.join('gina');
  const delivery = alice.send('hugo', 'welcome');
  await untilPeer(alice, 'hugo', ({ online }) => online === false);
  assert.equal(alice.state.peers.hugo.queued, 1);
  const hugo = await world.join('hugo');
  await delivery;
  assert.deepEqual(await contents(hugo, 1), ['welcome']);
});

test('who hangs up is left alone, and may call again', async (t) => {
  const { a, b, alice, bob } = await pair(t);
  await alice.connectToPeer(b);
  const late = bob.send(a, new Uint8Array(100));
  await late;
  await bob.disconnectFromPeer(a);
  await untilPeer(alice, b, ({ state }) => state === 'closed');
  await bob.send(a, 'again');
  assert.deepEqual((await contents(alice, 2))[1], 'again');
});

test('leaving fails what was not acknowledged, and is told to the others', async (t) => {
  const { a, b, alice, bob } = await pair(t);
  await bob.watch(a);
  await alice.connectToPeer(b);
  const waiting = alice.send('nobody-else', 'x');
  const connecting = assert.rejects(alice.connectToPeer('never-there', { timeout: 60 }));
  const before = [];
  alice.subscribe((state) => before.push(state));
  await alice.disconnect();
  await connecting;
  await assert.rejects(Promise.resolve(waiting), DeliveryFailed);
  const { length } = before;
  await untilPeer(bob, a, ({ state, online }) => state === 'closed' && online === false);
  assert.equal(before.length, length);
});

test('presence is watched without a connection, and no longer than wanted', async (t) => {
  const world = new World(t, server.url);
  const alice = await world.join('ida');
  await alice.watch('jan', 'kim');
  await untilPeer(alice, 'kim', ({ online }) => online === false);
  assert.deepEqual(Object.keys(alice.state.peers), ['jan', 'kim']);
  const jan = await world.join('jan');
  await untilPeer(alice, 'jan', ({ online }) => online === true);
  assert.equal(alice.state.peers.jan.state, 'new');
  await alice.connectToPeer('jan');
  await alice.unwatch('jan', 'kim', 'lea');
  assert.deepEqual(Object.keys(alice.state.peers), ['jan']);
  await jan.disconnect();
  await untilPeer(alice, 'jan', ({ online }) => online === false);
  await assert.rejects(alice.watch('ida'), UsageError);
  await assert.rejects(alice.watch('i da'), InvalidAddress);
});

test('somebody who is watched keeps what is known of them when others need the place', async (t) => {
  const world = new World(t, server.url);
  const alice = await world.join('lia', { limits: { peers: 1 } });
  await Promise.all([world.join('mia'), world.join('nia')]);
  await alice.watch('mia');
  await alice.connectToPeer('mia');
  await alice.disconnectFromPeer('mia');
  const { fingerprint } = alice.state.peers.mia;
  await alice.connectToPeer('nia');
  const view = alice.state.peers.mia;
  assert.deepEqual([view.state, view.online, view.fingerprint], ['new', true, fingerprint]);
  await alice.unwatch('mia');
  assert.deepEqual(Object.keys(alice.state.peers), ['nia']);
});

test('the place of a peer that is forgotten is taken by another', async (t) => {
  const world = new World(t, server.url);
  const alice = await world.join('olga', { limits: { peers: 1 } });
  await world.join('paul');
  await assert.rejects(alice.connectToPeer('nobody-here'), PeerUnknown);
  await alice.connectToPeer('paul');
  assert.deepEqual(Object.keys(alice.state.peers), ['paul']);
});

test('how the path runs is told', async (t) => {
  const { world, b, alice } = await pair(t);
  await alice.connectToPeer(b);
  const pairOf = {
    type: 'candidate-pair',
    id: 'P',
    localCandidateId: 'L',
    remoteCandidateId: 'R',
  };
  for (const connection of world.network.connections) {
    connection.stats = [
      ['T', { type: 'transport', selectedCandidatePairId: 'P', bytesSent: 7, bytesReceived: 8 }],
      ['P', pairOf],
      ['L', { candidateType: 'relay', protocol: 'udp', relayProtocol: 'tcp' }],
      ['R', { candidateType: 'host', protocol: 'udp' }],
    ];
  }
  const { roundTripTime, ...stats } = await alice.stats(b);
  assert.deepEqual(stats, {
    path: 'turn',
    protocol: 'tcp',
    local: 'relay',
    remote: 'host',
    bytesSent: 7,
    bytesReceived: 8,
  });
  assert.ok(roundTripTime === null || roundTripTime >= 0);
  assert.ok(await alice.stats(`${b}/main`));
  assert.equal(await alice.stats(`${b}/other`), null);
  assert.equal(await alice.stats('nobody'), null);
});

test('how well a connection runs is graded, once and in a stream of readings', async (t) => {
  const { world, b, alice } = await pair(t);
  assert.deepEqual(await alice.quality(b), {
    ...{ grade: 'lost', reason: 'no-path', path: null, protocol: null, local: null, remote: null },
    ...{ roundTripTime: null, jitter: null, lostHeartbeats: 0, heartbeats: 0 },
    ...{ sentPerSecond: null, receivedPerSecond: null },
  });
  await alice.connectToPeer(b);
  let bytes = 0;
  for (const connection of world.network.connections) {
    Object.defineProperty(connection, 'stats', {
      get: () => [
        ['T', { type: 'transport', selectedCandidatePairId: 'P', bytesSent: (bytes += 1000), bytesReceived: bytes }],
        ['P', { type: 'candidate-pair', localCandidateId: 'L', remoteCandidateId: 'R' }],
        ['L', { candidateType: 'srflx', protocol: 'udp' }],
        ['R', { candidateType: 'host', protocol: 'udp' }],
      ],
    });
  }
  const readings = [];
  for await (const reading of alice.readings(b, { every: 0.3 })) {
    readings.push(reading);
    if (readings.length === 2) break;
  }
  const [first, second] = readings;
  assert.deepEqual([first.path, first.protocol, first.local, first.remote], ['direct', 'udp', 'srflx', 'host']);
  assert.ok(first.heartbeats >= 1);
  assert.equal(first.sentPerSecond, null);
  assert.ok(second.sentPerSecond > 0 && second.sentPerSecond === second.receivedPerSecond);
  assert.ok(['good', 'fair', 'poor'].includes(second.grade));
  await assert.rejects(alice.readings(b, { every: 0.1 }).next(), ConfigError);
  await assert.rejects(alice.quality('no one'), InvalidAddress);
  await alice.disconnect();
  assert.equal((await alice.quality(b)).grade, 'lost');
  assert.deepEqual(await alice.readings(b).next(), { value: undefined, done: true });
});

// --- the state as a store of the front-end world ----------------------------------------------------------------------------

test('a subscriber is called at once and at each change, until it ends that', async (t) => {
  const { b, alice } = await pair(t);
  const { subscribe } = alice;
  const states = [];
  const unsubscribe = subscribe((state) => states.push(state));
  assert.deepEqual(states, [alice.state]);
  await alice.connectToPeer(b);
  assert.equal(states.at(-1), alice.state);
  assert.equal(new Set(states).size, states.length);
  unsubscribe();
  unsubscribe();
  const { length } = states;
  await alice.disconnectFromPeer(b);
  assert.equal(states.length, length);
});

test('states are frozen all the way down, and parts that have not changed stay the same', async (t) => {
  const { a, b, alice, bob } = await pair(t);
  await alice.connectToPeer(b);
  const { state } = alice;
  assert.ok([state, state.peers, state.peers[b], state.peers[b].features].every(Object.isFrozen));
  assert.equal(Object.getPrototypeOf(state.peers), null);
  alice.send('somebody-else', 'x');
  assert.notEqual(alice.state, state);
  assert.equal(alice.state.peers[b], state.peers[b]);
  await until(bob, ({ peers }) => peers[a]?.state === 'connected');
});

// --- files and calls -----------------------------------------------------------------------------------------------------------

test('files go both ways', async (t) => {
  const { a, b, alice, bob } = await pair(t);
  const bytes = Uint8Array.from({ length: 3_000_000 }, (_, n) => n % 251);
  const got = [];
  alice.onFile((transfer) => transfer.accept());
  bob.onFile((transfer) => {
    got.push(transfer);
    transfer.accept();
  });
  const sent = await alice.sendFile(b, new Blob([bytes]), { name: 'some/where.bin' });
  const back = await bob.sendFile(a, new Blob(['small']), { name: 'small.txt' });
  await Promise.all([sent.finished, back.finished]);
  await got[0].finished;
  assert.deepEqual([got[0].name, got[0].size, got[0].userId], ['where.bin', bytes.length, a]);
  assert.deepEqual(new Uint8Array(await got[0].blob.arrayBuffer()), bytes);
  assert.equal(sent.transferred, bytes.length);
});

test('a file that nobody takes is declined', async (t) => {
  const { b, alice } = await pair(t);
  const sent = await alice.sendFile(b, new Blob(['x']));
  await assert.rejects(sent.finished);
  assert.equal(sent.state, 'declined');
});

test('a call rings, is accepted, and has sound and pictures until it ends', async (t) => {
  const { a, b, alice, bob } = await pair(t);
  const ringing = new Promise((resolve) => bob.onCall(resolve));
  const ours = await alice.call(b, camera('audio', 'video'));
  const theirs = await ringing;
  assert.deepEqual([theirs.userId, theirs.state, theirs.audio, theirs.video], [a, 'ringing', true, true]);
  theirs.accept(camera('audio'));
  await untilIt(theirs, (call) => call.remoteStream.getTracks().length === 2);
  await untilIt(ours, (call) => call.remoteStream.getTracks().length === 1);
  assert.deepEqual([ours.state, theirs.state], ['connected', 'connected']);
  theirs.end('that was all');
  await untilIt(ours, ({ state }) => state === 'ended');
  assert.equal(ours.reason, 'that was all');
});

test('a call that nobody takes, or that is declined, ends', async (t) => {
  const { b, alice, bob } = await pair(t);
  const unheard = await alice.call(b, camera('audio'));
  await untilIt(unheard, ({ state }) => state === 'ended');
  bob.onCall((call) => call.decline('not now'));
  const declined = await alice.call(b, camera('audio'));
  await untilIt(declined, ({ state }) => state === 'ended');
  assert.equal(declined.reason, 'not now');
});

test('keys are kept by the pins that are given', async (t) => {
  const pins = new MemoryPins();
  const { b, alice, bob } = await pair(t, { pins }, {});
  await alice.connectToPeer(b);
  const { host } = new URL(server.url);
  assert.deepEqual(await pins.find(host, b), bob.identity.publicKey);
});
