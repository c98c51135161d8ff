/** What a store tells: frozen, and the same object where nothing has changed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, PeerOffline } from '../../src/errors.js';
import { peerView, same, storeLimits, storeState } from '../../src/store/state.js';

const KEY = Uint8Array.from({ length: 32 }, (_, index) => index);

const STRANGER = {
  state: 'new',
  online: null,
  roundTripTime: null,
  publicKey: null,
  fingerprint: null,
  queued: 0,
  error: null,
  connections: 0,
  features: [],
  devices: {},
};

/** How a peer stands, of whom nothing else is known. */
const viewOf = (values, before = null) => peerView({ ...STRANGER, features: [], ...values }, before);

/** Whether a value is frozen with all that it holds, but for bytes and errors. */
function frozen(value) {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value) || value instanceof Error) return true;
  return Object.isFrozen(value) && Object.values(value).every(frozen);
}

test('a state says that nothing is known yet', () => {
  assert.deepEqual(storeState({}), {
    signaling: 'disconnected',
    signalingError: null,
    journalError: null,
    userId: null,
    server: null,
    fingerprint: null,
    privacy: { presence: 'public', offers: 'public', contacts: [], blocked: [] },
    peers: Object.create(null),
  });
});

test('a state cannot be changed at any depth', () => {
  const bob = viewOf({ userId: 'bob', features: ['files'], error: new PeerOffline('bob') });
  const state = storeState({ userId: 'alice', peers: [bob] });
  assert.ok(frozen(state));
  assert.throws(() => (state.userId = 'x'), TypeError);
  assert.throws(() => (state.peers.carol = bob), TypeError);
  assert.throws(() => (state.peers.bob.queued = 1), TypeError);
  assert.throws(() => bob.features.push('calls'), TypeError);
});

test('the bytes of a key are a copy', () => {
  const given = KEY.slice();
  const view = viewOf({ userId: 'bob', publicKey: given, fingerprint: 'f' });
  view.publicKey.fill(0);
  assert.deepEqual(given, KEY);
  const later = viewOf({ userId: 'bob', publicKey: given, fingerprint: 'f', queued: 1 }, view);
  assert.equal(later.publicKey, view.publicKey);
  const other = viewOf({ userId: 'bob', publicKey: given, fingerprint: 'g' }, view);
  assert.deepEqual(other.publicKey, KEY);
});

test('a peer that has not changed is the same object in the next state', () => {
  const features = ['files'];
  const values = { userId: 'bob', publicKey: KEY, fingerprint: 'f', features };
  const bob = viewOf(values);
  assert.equal(viewOf({ ...values }, bob), bob);
  const carol = viewOf({ userId: 'carol' });
  const before = storeState({ peers: [bob, carol] });
  const after = storeState({ peers: [bob, viewOf({ userId: 'carol', queued: 1 }, carol)] }, before);
  assert.notEqual(after, before);
  assert.equal(after.peers.bob, bob);
  assert.equal(after.peers.carol.queued, 1);
});

test('a state that has not changed is the same object, and so are its peers when only the rest has', () => {
  const peers = [viewOf({ userId: 'bob' })];
  const before = storeState({ userId: 'alice', peers });
  assert.equal(storeState({ userId: 'alice', peers }, before), before);
  const after = storeState({ userId: 'alice', peers, signaling: 'connected' }, before);
  assert.notEqual(after, before);
  assert.equal(after.peers, before.peers);
  assert.notEqual(storeState({ userId: 'alice' }, before).peers, before.peers);
});

test('a peer may have the name of anything that an object has', () => {
  const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '42'];
  const state = storeState({ peers: names.map((userId) => viewOf({ userId })) });
  assert.equal(Object.getPrototypeOf(state.peers), null);
  assert.deepEqual(Object.keys(state.peers).sort(), [...names].sort());
  for (const name of names) assert.equal(state.peers[name].userId, name);
  const none = storeState({}).peers;
  for (const name of names) assert.equal(none[name], undefined);
  assert.equal({}.userId, undefined);
});

test('objects are the same when all their parts are, in the same order', () => {
  assert.ok(same({ a: 1, b: undefined }, { a: 1, b: undefined }));
  assert.ok(!same({ a: 1, b: 2 }, { b: 2, a: 1 }));
  assert.ok(!same({ a: 1 }, { a: 1, b: 1 }));
});

test('limits are the defaults with changes, and cannot be changed later', () => {
  const limits = storeLimits({ peers: 3, queueSize: 2 ** 40 });
  assert.deepEqual([limits.peers, limits.queueSize, limits.queueMessages], [3, 2 ** 40, 10_000]);
  assert.ok(frozen(limits));
  assert.deepEqual(storeLimits(), storeLimits({ peers: undefined }), 'none is ever without a limit');
});

test('a limit is a whole number from 1 up, and has one of the names that there are', () => {
  for (const value of [0, -1, 0.5, NaN, Infinity, '10', null, {}]) {
    assert.throws(
      () => storeLimits(/** @type {any} */ ({ unreadMessages: value })),
      (error) => error instanceof ConfigError && error.setting === 'limits.unreadMessages',
      `${value}`,
    );
  }
  for (const name of ['peer', 'toString', '__proto__']) {
    assert.throws(() => storeLimits(/** @type {any} */ ({ [name]: 1 })), ConfigError, name);
  }
});
