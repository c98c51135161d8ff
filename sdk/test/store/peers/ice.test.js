/** Which ICE servers are used, and what has to wait until they are known. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConnectionLost, RequestFailed, StateError } from '../../../src/errors.js';
import { IceServerCache } from '../../../src/store/peers/ice.js';
import { FakeTimers, settle } from '../../support/fake_timers.js';

const TURN = { urls: ['turn:turn.example'], username: 'u', credential: 'c' };
const LATER = { ...TURN, urls: ['turn:later.example'] };
const BYE = { type: 'byeReceived', sender: 'bob', connection: 'c', reason: null };

/** A signaling client that is asked for ICE servers. */
const asked = (...answers) => ({
  answers,
  async iceServers() {
    const answer = answers.shift();
    if (answer instanceof Error) {
      throw answer;
    }
    return answer;
  },
});

test('ICE servers that were given are used, and nobody is asked', async () => {
  const keeper = new IceServerCache(asked(), [TURN], new FakeTimers());
  assert.ok(keeper.holdBack(BYE, assert.fail));
  assert.deepEqual(await keeper.keep(), [BYE]);
  assert.ok(!keeper.holdBack(BYE, assert.fail));
  assert.deepEqual(keeper.config, { iceServers: [TURN] });
});

test('ICE servers are asked for again before they expire, and again after a failure', async () => {
  const timers = new FakeTimers();
  const client = asked({ iceServers: [TURN], ttl: 100 }, new ConnectionLost('gone'), { iceServers: [LATER], ttl: 0 });
  const keeper = new IceServerCache(client, null, timers);
  assert.deepEqual(await keeper.keep(), []);
  assert.deepEqual(keeper.config.iceServers, [TURN]);
  timers.advance(74);
  await settle();
  assert.equal(client.answers.length, 2);
  timers.advance(1);
  await settle();
  assert.equal(client.answers.length, 1);
  assert.deepEqual(keeper.config.iceServers, [TURN]);
  timers.advance(30);
  await settle();
  assert.deepEqual(keeper.config.iceServers, [LATER]);
  timers.advance(9);
  assert.equal(timers.waiting, 1);
  keeper.close();
  assert.equal(timers.waiting, 0);
});

test('a server that limits is asked for ICE servers when it has said', async () => {
  const timers = new FakeTimers();
  const limited = new RequestFailed('rate-limited', 'slow down', { temporary: true, retryAfter: 90 });
  const client = asked({ iceServers: [TURN], ttl: 100 }, limited, { iceServers: [LATER], ttl: 1000 });
  const keeper = new IceServerCache(client, null, timers);
  await keeper.keep();
  timers.advance(75);
  await settle();
  timers.advance(89);
  await settle();
  assert.equal(client.answers.length, 1);
  timers.advance(1);
  await settle();
  assert.deepEqual(keeper.config.iceServers, [LATER]);
  keeper.close();
});

test('ICE servers are asked for again when the server is back, and then again in time, once', async () => {
  const timers = new FakeTimers();
  const client = asked(
    { iceServers: [TURN], ttl: 100 },
    { iceServers: [LATER], ttl: 1000 },
    { iceServers: [], ttl: 1 },
  );
  const keeper = new IceServerCache(client, null, timers);
  keeper.renew(); // that is the first time that it is there
  assert.equal(client.answers.length, 3);
  await keeper.keep();
  keeper.renew();
  await settle();
  assert.deepEqual(keeper.config.iceServers, [LATER]);
  assert.equal(timers.waiting, 1);
  timers.advance(749);
  await settle();
  assert.equal(client.answers.length, 1);
  keeper.close();
  const given = new IceServerCache(client, [TURN], timers);
  await given.keep();
  given.renew();
  assert.equal(client.answers.length, 1);
});

test('a keeper that is closed while it asks does not ask again', async () => {
  const timers = new FakeTimers();
  const keeper = new IceServerCache(asked(new StateError('closed')), null, timers);
  const keeping = keeper.keep();
  keeper.close();
  assert.deepEqual(await keeping, []);
  assert.equal(timers.waiting, 0);
});

test('a fault of the program is logged, and the keeper goes on', async (t) => {
  const log = t.mock.method(console, 'error', () => {});
  const timers = new FakeTimers();
  await new IceServerCache(asked(new RangeError('oops')), null, timers).keep();
  assert.deepEqual([log.mock.callCount(), timers.waiting], [1, 1]);
});

test('what comes too early is held back in bounds', async () => {
  const keeper = new IceServerCache(asked(), [], new FakeTimers());
  for (let n = 0; n < 1000; n++) {
    assert.ok(keeper.holdBack(BYE, assert.fail));
  }
  const refused = [];
  assert.ok(keeper.holdBack({ type: 'offerReceived' }, (offer) => refused.push(offer.type)));
  assert.deepEqual(refused, ['offerReceived']); // somebody waits for an answer to it
  assert.equal((await keeper.keep()).length, 256);
});
