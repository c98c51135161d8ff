/** What a program gets wrong is told where it was written, in words that say what it should be; no server is needed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SignalingClient } from '../../src/client/client.js';
import { ConfigError, StateError } from '../../src/errors.js';
import { Identity } from '../../src/identity/keys.js';
import { MemoryPins } from '../../src/identity/pins.js';
import { NetworkStore } from '../../src/store/store.js';

const URL = 'ws://signal.example';
const identity = await Identity.generate();
const fault = (setting, problem) => ({ name: 'ConfigError', setting, problem });
const UNKNOWN = 'no such setting';

test('an option that is misspelt is refused by its name: one like accept would let everybody in', async () => {
  for (const name of ['identiy', 'acept', 'constructor', '__proto__']) {
    assert.throws(() => new NetworkStore({ [name]: null }), fault(name, UNKNOWN));
  }
  const store = new NetworkStore();
  await assert.rejects(store.connectToSignaling(URL, 'alice', { devise: 'phone' }), fault('devise', UNKNOWN));
  await assert.rejects(store.connectToPeer('bob', { timout: 5 }), fault('timout', UNKNOWN));
  await assert.rejects(store.drain(null, { timout: 5 }), fault('timout', UNKNOWN));
  assert.throws(() => new SignalingClient(URL, 'alice', { timeout: 5 }), fault('timeout', UNKNOWN));
});

test('what stands where the options should be is refused, and not passed over', async () => {
  const store = new NetworkStore();
  const problem = 'not of type object';
  assert.throws(() => new NetworkStore(5), fault('options', problem));
  await assert.rejects(store.connectToPeer('bob', 5), fault('options', problem));
  await assert.rejects(store.drain('bob', 5), fault('options', problem));
  await assert.rejects(store.drain({ timeout: 5 }), { name: 'InvalidAddress' });
  await assert.rejects(store.connectToSignaling(URL, 'alice', 'phone'), fault('options', problem));
  assert.throws(() => new NetworkStore({ limits: 5 }), fault('limits', problem));
});

test('a time that is no number of seconds is refused at once', async () => {
  const store = new NetworkStore();
  for (const call of [
    (timeout) => store.connectToPeer('bob', { timeout }),
    (timeout) => store.drain(null, { timeout }),
  ]) {
    await assert.rejects(call('5s'), fault('timeout', 'not of type number'));
    for (const timeout of [-1, 0, NaN, Infinity]) await assert.rejects(call(timeout), { setting: 'timeout' });
  }
  for (const name of ['requestTimeout', 'connectTimeout']) {
    for (const value of ['10', -1, 0, NaN]) {
      assert.throws(() => new SignalingClient(URL, 'alice', { [name]: value }), { setting: name });
    }
  }
});

test('an option of the wrong kind is refused when it is given, and one that is null or undefined is none', async () => {
  for (const [options, setting] of [
    [{ identity: 'alice' }, 'identity'],
    [{ identity: {} }, 'identity'],
    [{ pins: {} }, 'pins'],
    [{ pins: MemoryPins }, 'pins'],
    [{ accept: ['bob'] }, 'accept'],
    [{ accept: true }, 'accept'],
    [{ accept: false }, 'accept'],
    [{ accept: 0 }, 'accept'],
    [{ identity: { sign: 5, publicKey: identity.publicKey } }, 'identity'],
    [{ identity: { sign: () => {} } }, 'identity'],
    [{ pins: { find: 1, pin: 1, accept: 1 } }, 'pins'],
    [{ backoff: { factor: 0.5 } }, 'backoff.factor'],
    [{ RTCPeerConnection: {} }, 'RTCPeerConnection'],
    [{ RTCPeerConnection: 'webkit' }, 'RTCPeerConnection'],
  ]) {
    assert.throws(() => new NetworkStore(options), { name: 'ConfigError', setting }, JSON.stringify(options));
  }
  for (const none of [null, undefined]) {
    new NetworkStore({ identity: undefined, pins: none, accept: none, iceServers: none, limits: none, backoff: none });
  }
  new NetworkStore({ identity, pins: new MemoryPins(), accept: () => true });
  new NetworkStore({ identity: Promise.resolve(identity) });
  assert.throws(() => new SignalingClient(URL, 'alice', { device: 7 }), fault('device', 'not of type string'));
});

test('a token that no server would read, and a limit that is none, are refused where they are given', () => {
  for (const token of [5, true, {}, '\ud800', 'é'.repeat(2049)]) {
    assert.throws(() => new SignalingClient(URL, 'alice', { token }), { name: 'ConfigError', setting: 'token' });
  }
  new SignalingClient(URL, 'alice', { token: '🔑' });
  for (const limit of [NaN, -1, 'many', {}]) {
    assert.throws(() => new MemoryPins({ limit }), { name: 'ConfigError', setting: 'limit' });
  }
});

test('what is no key cannot be registered with, and the promise of one has to be awaited', async () => {
  const client = new SignalingClient(URL, 'alice');
  for (const wrong of [undefined, null, 'alice', Promise.resolve(identity)]) {
    await assert.rejects(client.register(wrong), fault('identity', 'not an Identity: await it'));
  }
  await assert.rejects(client.register(identity), StateError); // it is not connected: the key was none of the faults
});

test('a callback that is no function is refused where it is given', () => {
  const store = new NetworkStore();
  const client = new SignalingClient(URL, 'alice');
  for (const wrong of [undefined, 'x', {}]) {
    for (const give of [store.onMessage, store.onFile, store.onCall, store.subscribe]) {
      assert.throws(() => give.call(store, wrong), fault('callback', 'not of type function'));
    }
    assert.throws(() => client.subscribe(wrong), ConfigError);
  }
});

test('what is no stream is not called with', async () => {
  const store = new NetworkStore();
  for (const wrong of [{ audio: true }, Promise.resolve()]) {
    await assert.rejects(store.call('bob', wrong), fault('stream', 'not a MediaStream: await it'));
  }
});
