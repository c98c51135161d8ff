/** `SignalingClient` and a real server on loopback: registration, requests, losses, restarts, kill -9. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';

import {
  ConnectionClosed,
  MessageTooLarge,
  RequestFailed,
  ServerUnreachable,
  StateError,
  UsageError,
} from '../../src/errors.js';
import { Identity } from '../../src/identity/keys.js';
import { checkedSealKey, SealKeys } from '../../src/identity/seal_keys.js';
import { makeClient, online } from '../support/clients.js';
import { startProxy } from '../support/proxy.js';
import { served } from '../support/server.js';

const PROOF = { publicKey: 'k', nonce: 'n', signature: 's' };
const ALL = { trickle: true, restart: true };

/** Whether an error is a refusal with this code. */
const refused = (code) => (error) => error instanceof RequestFailed && error.code === code;

test('two clients say to each other all there is to say', async (t) => {
  const { url } = await served(t);
  const alice = await online(t, url, 'alice');
  const bob = await online(t, url.replace('ws:', 'http:'), 'bob', { device: 'phone' });
  assert.equal(bob.client.address, 'bob/phone');
  assert.deepEqual(await alice.client.discover('bob'), {
    userId: 'bob',
    online: true,
    publicKey: bob.identity.publicKey,
    devices: ['phone'],
    sealKeys: new Map(),
  });
  const capabilities = { trickle: false, restart: true };
  await alice.client.sendOffer('bob', 'v=0', { connection: 'c1', proof: PROOF, capabilities });
  assert.deepEqual(await bob.events.until('offerReceived'), {
    type: 'offerReceived',
    sender: 'alice',
    description: { type: 'offer', sdp: 'v=0' },
    connection: 'c1',
    proof: PROOF,
    capabilities,
  });
  await bob.client.sendAnswer('alice', 'v=1', { connection: 'c1', proof: PROOF, capabilities: null });
  assert.deepEqual(await alice.events.until('answerReceived'), {
    type: 'answerReceived',
    sender: 'bob/phone',
    description: { type: 'answer', sdp: 'v=1' },
    connection: 'c1',
    proof: PROOF,
    capabilities: ALL,
  });
  const candidate = { candidate: 'candidate:1', sdpMid: '0', sdpMLineIndex: 0 };
  await alice.client.sendIceCandidate('bob/phone', candidate, { connection: 'c1' });
  await alice.client.sendIceCandidate('bob/phone', null);
  const type = 'candidateReceived';
  assert.deepEqual(await bob.events.until(type), { type, sender: 'alice', candidate, connection: 'c1' });
  assert.deepEqual(await bob.events.until(type), { type, sender: 'alice', candidate: null, connection: null });
  await bob.client.sendBye('alice', { connection: 'c1', reason: 'enough' });
  const bye = {
    type: 'byeReceived',
    sender: 'bob/phone',
    connection: 'c1',
    reason: 'enough',
    code: null,
    retryAfter: null,
  };
  assert.deepEqual(await alice.events.until('byeReceived'), bye);
  const { iceServers, ttl } = await alice.client.iceServers();
  assert.deepEqual(iceServers, []);
  assert.ok(ttl > 0);
});

test('the server refuses with its codes', async (t) => {
  const { url } = await served(t);
  const alice = await online(t, url, 'alice');
  await assert.rejects(alice.client.sendOffer('nobody', 'v=0'), refused('not-online'));
  await assert.rejects(alice.client.sendOffer('alice', 'x'.repeat(70_000)), MessageTooLarge);
  await assert.rejects(alice.client.sendBye('not a name'), refused('not-online'));
  await assert.rejects(alice.client.watch('bob', 'not a name'), refused('invalid-field'));
  await assert.rejects(alice.client.discover(undefined), refused('missing-fields'));
  const thief = makeClient(t, url, 'alice');
  await thief.client.connect();
  await assert.rejects(thief.client.register(await Identity.generate()), refused('key-mismatch'));
  await assert.rejects(thief.client.discover('alice'), StateError);
  assert.ok((await alice.client.discover('alice')).online);
});

test('a server of another name can register nobody, though it passes on all that is said', async (t) => {
  const { url, port } = await served(t);
  const evil = await startProxy(port);
  t.after(() => evil.close());
  const { client } = makeClient(t, evil.url, 'victim');
  await assert.rejects(client.connect(), (error) => error instanceof ServerUnreachable && error.url === `${evil.url}/`);
  const watcher = await online(t, url, 'watcher');
  await assert.rejects(client.register(await Identity.generate()), StateError);
  const { online: isOnline, publicKey } = await watcher.client.discover('victim');
  assert.deepEqual([isOnline, publicKey], [false, null]);
});

test('presence, and its end', async (t) => {
  const { url } = await served(t);
  const alice = await online(t, url, 'alice');
  await alice.client.watch('bob');
  assert.equal((await alice.events.until('presenceChanged')).online, false);
  const bob = await online(t, url, 'bob');
  const came = await alice.events.until('presenceChanged');
  assert.deepEqual([came.online, came.publicKey], [true, bob.identity.publicKey]);
  await bob.client.close();
  assert.equal((await alice.events.until('presenceChanged')).online, false);
  await alice.client.unwatch('bob');
  await online(t, url, 'bob', { identity: bob.identity });
  assert.ok((await alice.client.discover('bob')).online);
  assert.deepEqual(alice.events.list, []);
});

test('thousands of watches and messages at once arrive, in order', async (t) => {
  const { url } = await served(t);
  const alice = await online(t, url, 'alice');
  const bob = await online(t, url, 'bob');
  await alice.client.watch(...Array.from({ length: 3000 }, (_, index) => `user-${index}`));
  const reasons = Array.from({ length: 1000 }, (_, index) => String(index));
  await Promise.all(reasons.map((reason) => alice.client.sendBye('bob', { reason })));
  for (const reason of reasons) assert.equal((await bob.events.until('byeReceived')).reason, reason);
});

// --- losses ---

test('a lost connection is resumed, and nothing is missed', async (t) => {
  const [steady, proxy] = [await startProxy(), await startProxy()];
  t.after(() => [steady, proxy].map((each) => each.close()));
  const server = await served(t, { names: `${steady.host},${proxy.host}` });
  steady.port = proxy.port = server.port;
  const alice = await online(t, steady.url, 'alice');
  const bob = await online(t, proxy.url, 'bob');
  await bob.client.watch('alice');
  for (let round = 0; round < 3; round++) {
    proxy.cut();
    await bob.events.until('disconnected');
    const reasons = Array.from({ length: 20 }, (_, index) => `${round}.${index}`);
    await Promise.all(reasons.map((reason) => alice.client.sendBye('bob', { reason })));
    assert.equal((await bob.events.until('registered')).resumed, true);
    for (const reason of reasons) assert.equal((await bob.events.until('byeReceived')).reason, reason);
  }
});

test('a client with sealing keys is sent sealed messages, and tells of another key', async (t) => {
  const { url } = await served(t);
  const alice = await online(t, url, 'alice', { sealKeys: new SealKeys('alice', 'main') });
  const bob = await online(t, url, 'bob');
  const { publicKey } = alice.identity;
  const { sealKeys } = await bob.client.discover('alice');
  const shown = await checkedSealKey(sealKeys.get('main'), publicKey, 'alice', 'main');
  assert.deepEqual(shown, alice.client.sealKeys.current.publicKey);
  const sealed = new Uint8Array(32 * 1024).fill(7);
  await bob.client.relay('alice', sealed);
  assert.deepEqual(await alice.events.until('relayReceived'), { type: 'relayReceived', sender: 'bob', sealed });
  await bob.client.watch('alice');
  await bob.events.until('presenceChanged');
  await alice.client.renewSealKey();
  const told = await bob.events.until('presenceChanged');
  const other = await checkedSealKey(told.sealKeys.get('main'), publicKey, 'alice', 'main');
  assert.deepEqual(other, alice.client.sealKeys.current.publicKey);
  assert.notDeepEqual(other, shown);
  await assert.rejects(bob.client.renewSealKey(), StateError);
  await assert.rejects(bob.client.relay('alice', new Uint8Array()), UsageError);
  await assert.rejects(bob.client.relay('carol', sealed), refused('not-online'));
});

test('sealing keys are forgotten when their time has come, and when the client is closed', async (t) => {
  const { url } = await served(t);
  const moments = [];
  let noted = () => {};
  class Noting extends SealKeys {
    get nextExpiry() {
      return moments.length ? Infinity : performance.now() / 1000 + 0.05;
    }

    purge(now) {
      super.purge(now);
      moments.push(now);
      noted();
    }
  }
  const isPurged = new Promise((resolve) => (noted = resolve));
  const sealKeys = new Noting('alice', 'main');
  const alice = await online(t, url, 'alice', { sealKeys });
  await isPurged;
  assert.ok(sealKeys.current);
  await alice.client.close();
  assert.equal(moments.at(-1), Infinity);
  assert.equal(sealKeys.current, null);
});

test('where the platform has no X25519, a client registers without a key', async (t) => {
  const { url } = await served(t);
  const identity = await Identity.generate();
  t.mock.method(globalThis.crypto.subtle, 'generateKey', () => Promise.reject(new Error('not supported')));
  const alice = await online(t, url, 'alice', { identity, sealKeys: new SealKeys('alice', 'main') });
  assert.deepEqual((await alice.client.discover('alice')).sealKeys, new Map());
});

test('a newer connection of the same address ends the older for good', async (t) => {
  const { url } = await served(t);
  const old = await online(t, url, 'alice');
  const fresh = await online(t, url, 'alice', { identity: old.identity });
  const { error } = await old.events.until('closed');
  assert.ok(error instanceof ConnectionClosed);
  assert.equal(error.code, 4001);
  await assert.rejects(old.client.discover('bob'), (thrown) => thrown === error);
  await assert.rejects(old.client.connect(), (thrown) => thrown === error);
  assert.equal(old.client.state, 'disconnected');
  assert.ok((await fresh.client.discover('alice')).online);
});

test('a graceful restart is announced and survived', async (t) => {
  const server = await served(t);
  const alice = await online(t, server.url, 'alice');
  await alice.client.watch('bob');
  await alice.events.until('presenceChanged');
  await server.stop();
  const { reconnectIn } = await alice.events.until('goingAway');
  assert.ok(reconnectIn >= 0);
  assert.equal((await alice.events.until('disconnected')).code, 4000);
  await served(t, { port: server.port });
  assert.equal((await alice.events.until('registered')).resumed, false);
  assert.equal((await alice.events.until('presenceChanged')).userId, 'bob');
});

test('after kill -9 and a restart everything is as it was', async (t) => {
  const server = await served(t);
  // On a busy machine a server takes longer to start than anybody waits for a reply.
  const alice = await online(t, server.url, 'alice', { requestTimeout: 600 });
  const bob = await online(t, server.url, 'bob');
  await alice.client.watch('bob');
  assert.ok((await alice.events.until('presenceChanged')).online);
  await server.kill();
  for (const { events } of [alice, bob]) {
    assert.equal((await events.until('disconnected')).code, 1006);
    const again = await events.until('disconnected');
    assert.match(again.reason, /no Aldis server answers/);
    assert.ok(again.retryIn >= 0 && again.retryIn <= 0.05);
  }
  assert.equal(alice.client.state, 'connecting');
  const asking = alice.client.discover('alice'); // while nobody is there to answer
  await served(t, { port: server.port });
  for (const { events } of [alice, bob]) assert.equal((await events.until('registered')).resumed, false);
  assert.ok((await asking).online);
  await alice.events.until('presenceChanged', (event) => event.userId === 'bob' && event.online);
  await alice.client.sendBye('bob', { reason: 'here again' });
  assert.equal((await bob.events.until('byeReceived')).reason, 'here again');
});

test('a server that does not go by the name that was dialled says so', async (t) => {
  const server = await served(t);
  const proxy = await startProxy(server.port);
  t.after(() => proxy.close());
  const { client } = makeClient(t, proxy.url, 'alice');
  await assert.rejects(client.connect(), {
    name: 'ServerUnreachable',
    reason:
      `it does not go by the name ${client.server} (421); if this is the right server, its operator has to start it ` +
      `with --names ${client.server}, and a proxy in front of it to pass Host on`,
  });
});

test('a program ends by itself once its clients are closed, wherever they stood', async (t) => {
  const { url } = await served(t);
  const program = `
    import { SignalingClient } from ${JSON.stringify(new URL('../../src/client/client.js', import.meta.url))};
    import { Identity } from ${JSON.stringify(new URL('../../src/identity/keys.js', import.meta.url))};
    const url = ${JSON.stringify(url)};
    const registered = new SignalingClient(url, 'registered');
    await registered.connect();
    await registered.register(await Identity.generate());
    const named = new SignalingClient(url, 'nameless');
    await named.connect();
    const dialling = new SignalingClient(url, 'dialling', { connectTimeout: 1000 });
    const connecting = dialling.connect().catch((error) => error.message);
    await Promise.all([registered, named, dialling].map((client) => client.close()));
    console.log(await connecting, registered.state);
  `;
  const options = ['--experimental-websocket', '--no-warnings', '--input-type=module', '-e', program];
  const { stdout } = await promisify(execFile)(process.execPath, options);
  assert.equal(stdout, 'the client was closed disconnected\n');
});
