/**
 * What an application gets from the SDK, held in the state of frameworks: wrapped, copied, frozen, and given back.
 *
 * Vue, Solid, Svelte, MobX and Valtio are the real ones. `a deep proxy` stands for those that are not here: it wraps whatever a
 * property gives.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { observable } from 'mobx';
import { proxy, snapshot } from 'valtio/vanilla';
import { build } from 'esbuild';
import * as vue from 'vue';

import { Backoff, Identity, IndexedDBPins, MemoryPins, NetworkStore, SignalingClient } from '../src/index.js';
import { camera } from './support/fake_media.js';
import { startServer } from './support/server.js';
import { QUICK, untilPeer, World } from './support/stores.js';

// Node gets the halves of Solid and Svelte that render on servers; these are the ones for browsers.
const { outputFiles } = await build({
  stdin: {
    contents: "export * from 'solid-js/store'; export { proxy as state } from 'svelte/internal/client';",
    resolveDir: import.meta.dirname,
  },
  conditions: ['browser'],
  bundle: true,
  format: 'esm',
  write: false,
});
const { createMutable, createStore, reconcile, state } = await import(
  `data:text/javascript,${encodeURIComponent(outputFiles[0].text)}`
);

let server;
before(async () => (server = await startServer()));
after(() => server.stop());

/**
 * A proxy that hands out proxies. What a proxy has to give as it is, it does: parts of frozen objects, and objects of the
 * platform, whose methods take no proxy.
 */
const deep = (value) =>
  typeof value !== 'object' ||
  value === null ||
  ArrayBuffer.isView(value) ||
  [Promise, Blob].includes(value.constructor)
    ? value
    : new Proxy(value, {
        get(target, key, receiver) {
          const own = Reflect.getOwnPropertyDescriptor(target, key);
          const found = Reflect.get(target, key, receiver);
          return own && !own.configurable && !own.writable && !own.get ? found : deep(found);
        },
      });

const WAYS = {
  'Vue, reactive': (value) => vue.reactive({ value }).value,
  'Vue, ref': (value) => vue.ref(value).value,
  'Vue, readonly': (value) => vue.readonly({ value: [value] }).value[0],
  'Solid, createStore': (value) => createStore({ value })[0].value,
  'Solid, createMutable': (value) => createMutable({ value }).value,
  'Svelte, $state': (value) => state({ value }).value,
  'MobX, observable': (value) => observable({ value }).value,
  'Valtio, proxy': (value) => proxy({ value }).value,
  'a deep proxy': deep,
  'Object.freeze': Object.freeze,
  'an object made of its properties': (value) =>
    Array.isArray(value) ? value : Object.create(Object.getPrototypeOf(value), Object.getOwnPropertyDescriptors(value)),
};

let users = 0;

for (const [way, wrap] of Object.entries(WAYS)) {
  /** Two stores in the hands of the framework, with names that no other test has. */
  const pair = async (t) => {
    const world = new World(t, server.url);
    const [a, b] = [`alice-${++users}`, `bob-${users}`];
    const identity = wrap(await Identity.generate());
    const pins = wrap(new MemoryPins());
    const alice = wrap(world.make({ identity, pins, backoff: wrap(new Backoff({ first: 0.01 })) }));
    const bob = wrap(world.make(wrap({ timing: { ...QUICK }, limits: { peers: 9 } })));
    await Promise.all([alice.connectToSignaling(server.url, a), bob.connectToSignaling(server.url, b)]);
    return { alice, bob, a, b, identity, pins };
  };

  test(`a store works in the hands of ${way}`, async (t) => {
    const { alice, bob, a, b, identity, pins } = await pair(t);
    assert.equal(alice.identity?.fingerprint, identity.fingerprint);
    assert.equal(alice.state.signaling, 'connected');
    const told = [];
    const stop = alice.subscribe((state) => told.push(state));
    assert.equal(told[0].userId, a);
    await alice.connectToPeer(b);
    stop();
    assert.ok(told.length > 1);
    assert.equal(alice.state.peers[b].state, 'connected');
    assert.equal(await alice.stats('nobody'), null);
    await alice.watch(b);
    await alice.unwatch(b);
    await alice.acceptKey(b, alice.state.peers[b].publicKey);
    assert.deepEqual(await pins.find(alice.state.server, b), alice.state.peers[b].publicKey);
    const { send, messages } = alice; // a method by itself is bound, too
    const delivery = wrap(send(b, wrap({ text: ['hello', { n: 1 }] })));
    assert.equal(await delivery, undefined);
    await alice.drain(b, { timeout: 30 });
    for await (const { content } of wrap(bob.messages())) {
      assert.deepEqual(content, { text: ['hello', { n: 1 }] });
      break;
    }
    const heard = new Promise((resolve) => bob.onMessage(resolve));
    await alice.send(b, 'for the callback');
    assert.equal((await heard).content, 'for the callback');
    const reading = messages()[Symbol.asyncIterator]().next();
    await bob.send(a, wrap(['back']));
    assert.deepEqual((await reading).value.content, ['back']);
    await alice.disconnectFromPeer(b);
    await alice.disconnect();
    assert.equal(alice.state.signaling, 'disconnected');
  });

  test(`a delivery works in the hands of ${way}`, async (t) => {
    const { alice, b } = await pair(t);
    const delivery = wrap(alice.send(b, 'hello'));
    assert.deepEqual([delivery.done, delivery.delivered, delivery.userId, delivery.sequence], [false, false, b, 1]);
    assert.equal(await delivery.then(() => 'arrived').finally(() => {}), 'arrived');
    assert.deepEqual([delivery.done, delivery.delivered], [true, true]);
    await delivery.finally(null);
    const lost = wrap(alice.send('nobody', 'hello'));
    await alice.disconnect();
    assert.match(await lost.catch((error) => error.message), /nobody/);
    assert.deepEqual([lost.done, lost.delivered], [true, false]);
  });

  test(`a transfer works in the hands of ${way}`, async (t) => {
    const { alice, bob, b } = await pair(t);
    const incoming = [];
    const some = () =>
      new Promise((resolve) => {
        const stop = bob.onFile((transfer) => {
          stop();
          resolve(wrap(transfer));
        });
      });
    let offered = some();
    const sent = wrap(await alice.sendFile(b, new Blob(['three words long']), { name: 'words.txt' }));
    sent.subscribe(({ state, transferred }) => incoming.push(`${state} ${transferred}`));
    const got = await offered;
    assert.equal(got.name, 'words.txt');
    got.accept();
    await got.finished;
    await sent.finished;
    assert.deepEqual([sent.state, sent.transferred, sent.error], ['done', 16, null]);
    assert.deepEqual(incoming, ['offered 0', 'running 0', 'done 16']);
    assert.equal(await got.blob?.size, 16);
    offered = some();
    const declined = wrap(await alice.sendFile(b, new Blob(['x'])));
    (await offered).decline('no');
    await assert.rejects(declined.finished, /declined: no/);
    assert.equal(declined.state, 'declined');
    const cancelled = wrap(await alice.sendFile(b, new Blob(['x'])));
    cancelled.cancel('no more');
    assert.match(cancelled.error.message, /no more/);
  });

  test(`a call works in the hands of ${way}`, async (t) => {
    const { alice, bob, b } = await pair(t);
    const ringing = new Promise((resolve) => bob.onCall((call) => resolve(wrap(call))));
    const states = [];
    const call = wrap(await alice.call(b, camera('audio')));
    const stop = call.subscribe(({ state }) => states.push(state));
    const theirs = await ringing;
    assert.deepEqual([theirs.audio, theirs.video, theirs.id], [true, false, call.id]);
    theirs.accept(camera('video'));
    const ended = new Promise((resolve) => call.subscribe(({ state }) => state === 'ended' && resolve()));
    call.replaceStream(null);
    assert.equal(call.localStream, null);
    theirs.end('enough');
    await ended;
    stop();
    assert.deepEqual([call.state, call.reason, call.error], ['ended', 'enough', null]);
    assert.equal(states[0], 'ringing');
    assert.equal(theirs.state, 'ended');
    const other = wrap(await alice.call(b));
    other.decline('changed my mind');
    assert.equal(other.reason, 'changed my mind');
  });

  test(`an identity and a signaling client work in the hands of ${way}`, async () => {
    const identity = wrap(await Identity.generate({ extractable: true }));
    assert.equal(identity.publicKey.length, 32);
    assert.equal((await identity.sign(new Uint8Array(3))).length, 64);
    const again = await Identity.import(await identity.export());
    assert.equal(again.fingerprint, identity.fingerprint);
    const client = wrap(new SignalingClient(server.url, `carol-${++users}`));
    const events = [];
    const stop = client.subscribe(({ type }) => events.push(type));
    assert.equal(client.state, 'disconnected');
    await client.connect();
    await client.register(identity);
    assert.equal(client.state, 'connected');
    assert.equal((await client.discover(client.userId)).online, true);
    await client.watch('nobody');
    await client.unwatch('nobody');
    await client.iceServers().catch((error) => assert.equal(error.code, 'unknown-type'));
    await client.close();
    stop();
    assert.ok(events.includes('registered'), events.join());
  });
}

const OURS = async () => {
  const store = new NetworkStore();
  const client = new SignalingClient('ws://localhost', 'alice');
  return [store, client, await Identity.generate(), new MemoryPins(), store.state];
};

test('frameworks leave our objects as they are: what is put in is what comes out', async (t) => {
  const world = new World(t, server.url);
  const [a, b] = [`alice-${++users}`, `bob-${users}`];
  const [alice] = await Promise.all([world.join(a), world.join(b)]);
  const objects = [
    ...(await OURS()),
    alice.send(b, 'x'),
    await alice.sendFile(b, new Blob(['x'])),
    await alice.call(b),
  ];
  for (const object of objects) {
    for (const way of [
      'Vue, reactive',
      'Vue, ref',
      'Vue, readonly',
      'Solid, createStore',
      'Svelte, $state',
      'MobX, observable',
    ]) {
      if (object !== objects[4] || way.startsWith('Vue')) assert.equal(WAYS[way](object), object, way);
    }
  }
});

test('a deep watch of Vue does not go into a store', async (t) => {
  const world = new World(t, server.url);
  const [a, b] = [`alice-${++users}`, `bob-${users}`];
  const [store] = await Promise.all([world.join(a), world.join(b)]);
  const transfer = await store.sendFile(b, new Blob(['x']));
  const held = vue.reactive({ store, transfers: [transfer], deliveries: [store.send(b, 'hello')] });
  const watched = new Set();
  const stop = vue.watch(held, () => {}, { deep: true, onTrack: ({ target }) => watched.add(target) });
  assert.ok(watched.has(vue.toRaw(held.transfers)));
  for (const object of [store, transfer, vue.toRaw(held.deliveries)[0]]) assert.ok(!watched.has(object));
  stop();
});

test('the state fits into the stores of frameworks', async (t) => {
  const world = new World(t, server.url);
  const [a, b] = [`alice-${++users}`, `bob-${users}`];
  const [alice] = await Promise.all([world.join(a), world.join(b)]);
  const solid = createStore({ network: alice.state });
  const root = createStore(alice.state);
  const mobx = observable({ network: alice.state });
  const valtio = proxy({ network: alice.state });
  const stop = alice.subscribe((state) => {
    solid[1]('network', state);
    root[1](reconcile(state));
    mobx.network = state;
    valtio.network = state;
  });
  await alice.connectToPeer(b);
  await alice.watch('nobody');
  await untilPeer(alice, 'nobody', ({ online }) => online === false);
  for (const state of [solid[0].network, root[0], mobx.network, valtio.network]) {
    assert.equal(state.signaling, 'connected');
    assert.equal(state.peers[b].state, 'connected');
    assert.equal(state.peers[b].publicKey.length, 32);
    assert.equal(state.peers.nobody.online, false);
  }
  stop();
});

test('in a snapshot of Valtio things stand as they stood, and methods work', async (t) => {
  const world = new World(t, server.url);
  const [a, b] = [`alice-${++users}`, `bob-${users}`];
  const [store, other] = await Promise.all([world.join(a), world.join(b)]);
  other.onFile(() => {});
  const held = proxy({ store, transfer: await store.sendFile(b, new Blob(['x'])) });
  const before = snapshot(held);
  await before.store.send(b, 'hello');
  before.transfer.cancel('no more');
  assert.deepEqual([before.transfer.state, held.transfer.state], ['offered', 'cancelled']);
});

test('a class of the application that extends ours has its own methods bound', async () => {
  class Loud extends NetworkStore {
    subscribe = () => () => {};
    send() {
      return `loud ${super.identity}`;
    }
  }
  const { send } = deep(new Loud());
  assert.equal(send(), 'loud null');
  assert.ok(new IndexedDBPins());
});
