/** One session of the relay after an hour: its keys are forgotten, and the next frame begins another one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { RENEW_SECONDS } from '../../../src/peer/relay.js';
import { PeerSession } from '../../../src/peer/session.js';
import { TIMING } from '../../../src/peer/timing.js';
import { encodeAck, encodeHello } from '../../../src/protocol/channel.js';
import { QUIET_SECONDS, RelayPath } from '../../../src/store/peers/relay.js';
import { FakeTimers, settle } from '../../support/fake_timers.js';

const HELLO = { version: 1, stream: 'theirs', next: 1, features: [] };
const SESSION = new Uint8Array(16).fill(7);

/** Keys that seal nothing. */
const keys = () => ({ seal: async (_, frames) => frames, open: async ({ frames }) => frames });

/** A path whose session the other side has begun; `knows`: we know their seal key. */
async function begun({ knows = true } = {}) {
  const timers = new FakeTimers();
  const told = [];
  const handshakes = [];
  const sent = [];
  const theirKeys = { sealKey: new Uint8Array(32), identityKey: new Uint8Array(32) };
  const login = {
    room: 60_000,
    maxFileBytes: 0,
    proved: async () => null,
    send: async (_, sealed) => void sent.push(sealed),
    async start(_, session, frames) {
      handshakes.push(frames);
      return [frames, keys()];
    },
  };
  const owner = {
    userId: 'bob',
    name: 'main',
    address: 'bob/main',
    queued: 0,
    wanted: true,
    relayOnly: true,
    mayBegin: true,
    directOpens: false,
    theirKeys: knows ? theirKeys : null,
    hello: () => ({ ...HELLO, stream: 'ours' }),
    isLate: () => false,
    opened: () => told.push('opened'),
    frameReceived: ({ sequence }) => told.push(sequence),
    closed: (reason) => told.push(reason),
    pump() {},
    dropped() {},
    async find() {
      owner.theirKeys = theirKeys;
    },
  };
  const path = new RelayPath(owner, true, { relay: login, timers, setup: { timing: TIMING } }, PeerSession);
  const hears = (frames, counter) => path.received({ session: SESSION, counter, frames });
  const ears = { path, timers, owner, told, handshakes, sent, hears };
  path.began(SESSION, { frames: [encodeHello(HELLO)], keys: keys() });
  await settle();
  return ears;
}

/** The same after an hour, in most of which nothing was said. */
async function asleep(options) {
  const it = await begun(options);
  it.timers.advance(1);
  assert.equal(await it.hears([encodeAck(1)], 0), 'taken');
  it.owner.queued = 0;
  it.timers.advance(QUIET_SECONDS + TIMING.silence);
  await settle();
  it.timers.advance(RENEW_SECONDS);
  await settle();
  return it;
}

test('a session that rests for an hour forgets its keys, and stays open', async () => {
  const { path, told, handshakes, hears, timers } = await asleep();
  assert.equal(await hears([encodeAck(2)], 1), 'unknown');
  assert.deepEqual(told, ['opened', 1]);
  assert.ok(path.resting);
  assert.equal(path.state, 'connected');
  timers.advance(10 * RENEW_SECONDS);
  await settle();
  assert.equal(handshakes.length, 0);
});

test('what is wanted then begins another session', async () => {
  const { path, handshakes } = await asleep();
  assert.ok(path.want());
  await settle();
  assert.equal(handshakes.length, 1);
});

test('so does a frame for which nobody has asked', async () => {
  const { path, handshakes, sent } = await asleep();
  const before = sent.length;
  assert.ok(path.sendFrame(encodeAck(1)));
  await settle();
  assert.equal(handshakes.length, 1);
  assert.equal(sent.length, before + 1);
});

test('and the goodbye, which the other side could not read otherwise', async () => {
  const { path, handshakes, sent } = await asleep();
  const before = sent.length;
  path.goodbye('over');
  await path.finish();
  assert.equal(handshakes.length, 1);
  assert.equal(sent.length, before + 2);
  assert.equal(path.active, false);
});

test('one that does not know the key of the other side asks for it', async () => {
  const { path, handshakes } = await asleep({ knows: false });
  path.sendFrame(encodeAck(1));
  await settle();
  assert.equal(handshakes.length, 1);
});

test('the other side may begin another session as well', async () => {
  const { path, told } = await asleep();
  path.began(new Uint8Array(16), { frames: [encodeHello(HELLO)], keys: keys() });
  await settle();
  assert.deepEqual(told, ['opened', 1, 'opened']);
  assert.ok(path.open);
});

test('a session in use is replaced in time, though nothing new is said', async () => {
  const { path, owner, timers, handshakes, hears } = await begun();
  owner.queued = 1;
  for (let now = 0; now < RENEW_SECONDS; now += 4) {
    assert.equal(handshakes.length, 0);
    await hears([encodeAck(1)], now / 4);
    timers.advance(4);
    await settle();
  }
  assert.equal(handshakes.length, 1);
  assert.ok(path.active);
});
