import assert from 'node:assert/strict';
import { test } from 'node:test';

import { TABLE } from '../../src/client/phases.js';
import { ConnectionClosed, ConnectionLost, StateError } from '../../src/errors.js';
import { toBase64 } from '../../src/protocol/codec.js';
import { Bench, LIMITS, NONCE, joined } from '../support/bench.js';

// Close codes after which a client comes back (docs/protocol.md, "Close codes"), and those after which it does not.
const COME_BACK = [
  1000, 1001, 1005, 1006, 1008, 1011, 1012, 1013, 3000, 3999, 4000, 4002, 4003, 4004, 4005, 4006, 4499,
];
const STAY_AWAY = [1002, 1003, 1007, 1009, 4001, 4500, 4501, 4502, 4503, 4999];

/** The waits that the client has announced. */
const waits = (bench) =>
  bench
    .takeEvents()
    .filter((event) => event.type === 'disconnected')
    .map((event) => event.retryIn);

/** Wait for the next attempt, and let it fail. */
function failNext(bench, reason) {
  while (bench.phase === 'waiting') bench.passTime(0.5);
  bench.failToConnect(reason);
}

// --- losing and coming back ---

for (const code of COME_BACK) {
  test(`the client comes back after ${code}`, () => {
    const bench = joined({ backoff: { first: 2 } });
    bench.lose(code, 'why');
    assert.deepEqual(bench.takeEvents(), [{ type: 'disconnected', reason: 'why', code, retryIn: 2 }]);
    assert.equal(bench.phase, 'waiting');
    bench.passTime(1.9);
    assert.equal(bench.dials, 0);
    bench.passTime(0.2);
    assert.equal(bench.dials, 1);
    bench.connect();
    bench.admit({ session: 's2' });
    assert.deepEqual(bench.takeEvents(), [
      { type: 'connected', attempt: 1 },
      { type: 'registered', resumed: false, limits: LIMITS },
    ]);
  });
}

for (const code of STAY_AWAY) {
  test(`the client stays away after ${code}`, () => {
    const bench = joined();
    const number = bench.ask({ type: 'discover', userId: 'bob' });
    bench.lose(code, 'why');
    const { error } = bench.machine;
    assert.ok(error instanceof ConnectionClosed);
    assert.deepEqual([error.code, error.reason], [code, 'why']);
    assert.equal(bench.failures.get(number), error);
    assert.deepEqual(bench.takeEvents(), [
      { type: 'disconnected', reason: 'why', code, retryIn: null },
      { type: 'closed', error },
    ]);
    assert.equal(bench.phase, 'ended');
    assert.equal(bench.machine.nextDeadline, Infinity);
    assert.throws(() => bench.register(), ConnectionClosed);
  });
}

test('a loss without words is put into some', () => {
  const bench = joined();
  bench.lose(4002);
  assert.equal(bench.takeEvents()[0].reason, 'closed with code 4002');
});

test('the waits grow and are jittered in full', () => {
  const bench = joined({ backoff: { first: 1, factor: 2, most: 10 } });
  bench.lose();
  for (const lot of [1, 1, 1, 0.5, 0]) {
    bench.lot = lot;
    failNext(bench);
  }
  assert.deepEqual(waits(bench), [1, 2, 4, 8, 5, 0]);
});

test('a connection that stood for a while starts the waits anew', () => {
  const bench = joined({ backoff: { first: 1 } });
  for (const seconds of [5, 5, 11, 5]) {
    bench.reconnect();
    bench.passTime(seconds);
  }
  bench.lose();
  assert.deepEqual(waits(bench), [1, 2, 4, 1, 2]);
});

test('a server that takes us in and throws us out is not hammered', () => {
  const bench = joined({ backoff: { first: 1, most: 8 } });
  for (let round = 0; round < 6; round++) bench.reconnect();
  bench.lose();
  assert.deepEqual(waits(bench), [1, 2, 4, 8, 8, 8, 8]);
});

test('a connection that only dials never counts as good', () => {
  const bench = joined({ backoff: { first: 1 } });
  bench.lose();
  bench.redial();
  bench.passTime(9.9); // connected, and no word about the registration
  bench.lose();
  assert.equal(waits(bench).at(-1), 2);
});

test('losses are counted from one', () => {
  const bench = joined({ backoff: { first: 1 } });
  bench.lose();
  bench.redial();
  bench.lose();
  bench.redial();
  const attempts = bench.takeEvents().filter((event) => event.type === 'connected');
  assert.deepEqual(
    attempts.map((event) => event.attempt),
    [1, 2],
  );
});

test('a connection without a name comes back without one', () => {
  const bench = new Bench();
  bench.connect();
  bench.lose(4004, 'not registered in time');
  bench.redial();
  assert.deepEqual(bench.take(), []);
  assert.equal(bench.phase, 'open');
});

// --- the device has a network again ---

test('a network that is back is tried at once', () => {
  const bench = joined({ backoff: { first: 30, most: 30 } });
  bench.lose();
  bench.do((machine, now) => machine.networkChanged(now));
  assert.equal(bench.dials, 1);
  bench.failToConnect();
  assert.deepEqual(waits(bench), [30, 30]);
  bench.passTime(29);
  assert.equal(bench.dials, 1);
});

test('a network that is back is no reason to come earlier than the server has asked for', () => {
  const bench = joined();
  bench.say({ type: 'going-away', reconnectIn: 3 });
  bench.lose(4000);
  bench.do((machine, now) => machine.networkChanged(now));
  assert.equal(bench.dials, 0);
  bench.passTime(3);
  assert.equal(bench.dials, 1);
});

test('with a network that is back, a connection that seems to stand is asked for', () => {
  const bench = joined();
  for (let change = 0; change < 3; change++) bench.do((machine, now) => machine.networkChanged(now));
  assert.deepEqual(bench.take(), [{ type: 'ping' }]);
  bench.say({ type: 'pong' });
  bench.passTime(1.5);
  assert.equal(bench.closed, null);
  bench.do((machine, now) => machine.networkChanged(now));
  bench.passTime(1.5);
  assert.equal(bench.closed[0], 4003);
});

// --- going away ---

test('a server that goes away is visited again when it says', () => {
  const bench = joined();
  bench.say({ type: 'going-away', reconnectIn: 3.25 });
  bench.passTime(0.25);
  bench.lose(4000, 'restart');
  assert.deepEqual(bench.takeEvents(), [
    { type: 'goingAway', reconnectIn: 3.25 },
    { type: 'disconnected', reason: 'restart', code: 4000, retryIn: 3 },
  ]);
  bench.passTime(2.9);
  assert.equal(bench.dials, 0);
  bench.passTime(0.2);
  assert.equal(bench.dials, 1);
});

test('if it is not up again by then, the usual waits follow', () => {
  const bench = joined({ backoff: { first: 1 } });
  bench.say({ type: 'going-away', reconnectIn: 1 });
  bench.lose(4000);
  bench.passTime(1);
  bench.failToConnect();
  assert.deepEqual(waits(bench), [1, 2]);
});

test('a server that asks us to go and does not close is left in time', () => {
  const bench = joined();
  bench.say({ type: 'going-away', reconnectIn: 3 });
  bench.passTime(3);
  assert.deepEqual(bench.closed, [4000, 'the server is going away']);
  bench.lose();
  assert.deepEqual(waits(bench), [0]);
});

test('a server that always goes away at once is not hammered', () => {
  const bench = joined({ backoff: { first: 1, most: 8 } });
  for (let round = 0; round < 5; round++) {
    bench.say({ type: 'going-away', reconnectIn: 0 });
    bench.lose(4000);
    bench.redial();
    bench.admit({ session: 'next' });
  }
  assert.deepEqual(waits(bench), [0, 2, 4, 8, 8]);
});

test('an absurd time to stay away is brought to reason', () => {
  for (const [asked, meant] of [
    [-5, 0],
    [1e300, 300],
    [1e15, 300],
  ]) {
    const bench = joined();
    bench.say({ type: 'going-away', reconnectIn: asked });
    assert.deepEqual(bench.takeEvents(), [{ type: 'goingAway', reconnectIn: meant }]);
  }
});

test('going away is forgotten with the next connection', () => {
  const bench = joined();
  bench.say({ type: 'going-away', reconnectIn: 5 });
  bench.lose(4000);
  bench.redial();
  bench.admit();
  bench.passTime(20);
  assert.equal(bench.closed, null);
});

test('an invitation to come at once, with a long pause otherwise, is taken at its word once', () => {
  const bench = joined({ backoff: { first: 100, most: 100 } });
  bench.say({ type: 'going-away', reconnectIn: 3 });
  bench.passTime(1);
  bench.lose(4000);
  bench.redial();
  bench.say({ type: 'going-away', reconnectIn: 0 });
  bench.lose(4000);
  assert.deepEqual(waits(bench), [2, 100]);
});

// --- is anybody there ---

test('silence is asked about and then taken for death', () => {
  const bench = joined();
  bench.passTime(24.9);
  assert.deepEqual(bench.take(), []);
  bench.passTime(0.1);
  assert.deepEqual(bench.take(), [{ type: 'ping' }]);
  bench.passTime(9.9);
  assert.equal(bench.closed, null);
  bench.passTime(0.1);
  assert.equal(bench.closed[0], 4003);
  bench.lose();
  assert.match(bench.takeEvents().at(-1).reason, /35 s/);
});

test('any sign of life ends the silence', () => {
  for (const type of ['pong', 'something new']) {
    const bench = joined();
    bench.passTime(30);
    assert.deepEqual(bench.take(), [{ type: 'ping' }]);
    bench.say({ type });
    bench.passTime(24);
    assert.deepEqual(bench.take(), []);
    bench.passTime(1);
    assert.deepEqual(bench.take(), [{ type: 'ping' }]);
    assert.equal(bench.closed, null);
  }
});

test('silence is noticed before the registration too', () => {
  const bench = new Bench();
  bench.connect();
  bench.passTime(40);
  assert.equal(bench.closed[0], 4003);
});

test('a page that slept asks first, since the answer may lie unread', () => {
  const bench = joined();
  bench.sleep(3600);
  assert.deepEqual(bench.take(), [{ type: 'ping' }]);
  assert.equal(bench.closed, null);
  bench.say({ type: 'pong' });
  bench.passTime(20);
  assert.equal(bench.closed, null);
});

test('a page that fell asleep with a question open asks once more, and then goes', () => {
  const bench = joined();
  bench.passTime(25);
  bench.sleep(3600);
  assert.deepEqual(bench.take(), [{ type: 'ping' }, { type: 'ping' }]);
  assert.equal(bench.closed, null);
  bench.sleep(3600);
  assert.equal(bench.closed[0], 4003);
});

// --- resuming ---

function bye(bench, times = 1) {
  for (let time = 0; time < times; time++) bench.say({ type: 'bye', to: 'alice', from: 'bob' });
}

test('the ticket names session, secret and all that was received', () => {
  const bench = joined();
  bye(bench, 3);
  bench.lose();
  bench.forget();
  bench.redial();
  assert.deepEqual(bench.takeOne().resume, { session: 's1', secret: 'secret of s1', received: 3 });
});

test('the count goes on in a resumed session and starts anew in a new one', () => {
  const bench = joined();
  bye(bench, 3);
  bench.reconnect({ resumed: true });
  assert.deepEqual(bench.events.at(-1), { type: 'registered', resumed: true, limits: LIMITS });
  bye(bench, 2);
  bench.lose();
  bench.redial();
  assert.equal(bench.sent.at(-1).resume.received, 5);
  bench.admit({ session: 's2' });
  assert.deepEqual(bench.events.at(-1), { type: 'registered', resumed: false, limits: LIMITS });
  bye(bench);
  bench.lose();
  bench.redial();
  assert.deepEqual(bench.sent.at(-1).resume, { session: 's2', secret: 'secret of s2', received: 1 });
});

test('what is replayed counts', () => {
  const bench = joined();
  bench.reconnect({ resumed: true });
  bye(bench, 4);
  bench.passTime(2);
  assert.deepEqual(bench.sent.at(-1), { type: 'received', count: 4 });
});

test('a session that the server calls lost is not asked for again', () => {
  const bench = joined();
  bench.lose(4005, 'too much was missed');
  bench.redial();
  assert.ok(!('resume' in bench.sent.at(-1)));
});

test('a server that gives no secret is not asked to resume', () => {
  const bench = new Bench();
  bench.join({ session: '', secret: '' });
  bench.lose();
  bench.redial();
  assert.ok(!('resume' in bench.sent.at(-1)));
});

test('a few messages are confirmed two seconds after the first', () => {
  const bench = joined();
  bye(bench);
  bench.passTime(1.5);
  bye(bench, 2);
  assert.deepEqual(bench.take(), []);
  bench.passTime(0.5);
  assert.deepEqual(bench.take(), [{ type: 'received', count: 3 }]);
  bench.passTime(20);
  assert.deepEqual(bench.take(), []);
});

test('many messages are confirmed by their number', () => {
  const bench = joined();
  bye(bench, 100);
  const counts = bench.take().map((message) => message.count);
  assert.deepEqual(counts, [32, 64, 96]);
});

test('large messages are confirmed by their size', () => {
  const bench = joined();
  const offer = { type: 'offer', sdp: 'x'.repeat(20_000) };
  for (let time = 0; time < 4; time++) bench.say({ type: 'offer', to: 'alice', from: 'bob', offer });
  assert.deepEqual(
    bench.take().map((message) => message.count),
    [2, 4],
  );
});

test('nothing is confirmed between connections', () => {
  const bench = joined({ backoff: { first: 20 } });
  bye(bench);
  bench.lose();
  bench.passTime(10);
  assert.deepEqual(bench.take(), []);
});

test('replies are not counted', () => {
  const bench = joined();
  bench.say({ type: 'ack', re: bench.ask({ type: 'bye', to: 'bob' }) });
  bench.say({ type: 'error', message: 'no', code: 'internal' });
  bench.forget();
  bench.passTime(5);
  assert.deepEqual(bench.take(), []);
});

// --- closing ---

const LIVE = ['open', 'registering', 'signing', 'proving', 'registered'];
const PHASES = ['idle', ...LIVE, 'closing', 'waiting', 'dialing', 'ended'];

/** A client that stands in this phase. */
function inPhase(phase) {
  const bench = new Bench();
  if (['open', 'registering', 'signing', 'proving'].includes(phase)) bench.connect();
  if (['registering', 'signing', 'proving'].includes(phase)) bench.register();
  if (['signing', 'proving'].includes(phase)) bench.say({ type: 'challenge', nonce: toBase64(NONCE) });
  if (phase === 'proving') bench.sign();
  if (['registered', 'closing', 'waiting', 'dialing', 'ended'].includes(phase)) bench.join();
  if (phase === 'closing') bench.sayText('this is no JSON');
  if (['waiting', 'dialing'].includes(phase)) bench.lose();
  if (phase === 'dialing') bench.passTime(1);
  if (phase === 'ended') bench.lose(4503, 'banned');
  assert.equal(bench.phase, phase);
  return bench;
}

for (const phase of PHASES) {
  test(`a client that is ${phase} can be closed, and again`, () => {
    const bench = inPhase(phase);
    const { closed } = bench;
    bench.do((machine, now) => machine.end(now, null));
    bench.do((machine, now) => machine.end(now, null));
    assert.equal(bench.phase, 'ended');
    const { error } = bench.machine;
    assert.deepEqual(
      bench.events.filter((event) => event.type === 'closed'),
      [{ type: 'closed', error }],
    );
    assert.deepEqual(bench.closed, LIVE.includes(phase) ? [1000, ''] : closed);
    assert.equal(bench.machine.nextDeadline, Infinity);
    bench.say({ type: 'presence', userId: 'bob', online: true });
    bench.lose(4500);
    bench.failToConnect();
    bench.do((machine, now) => machine.networkChanged(now));
    bench.passTime(100);
    assert.equal(bench.events.at(-1).type, 'closed');
    assert.ok(bench.dials <= 1);
  });

  test(`every call of the transport is safe in a client that is ${phase}`, () => {
    for (const call of [
      (bench) => bench.sayText('{}'),
      (bench) => bench.say({ type: 'pong' }),
      (bench) => bench.do((machine, now) => machine.networkChanged(now)),
      (bench) => bench.do((machine, now) => machine.tick(now)),
      (bench) => bench.failToConnect(),
      (bench) => bench.lose(),
    ]) {
      call(inPhase(phase));
    }
  });
}

test('a closed client says so', () => {
  const bench = joined();
  const number = bench.ask({ type: 'discover', userId: 'bob' });
  bench.do((machine, now) => machine.end(now, null));
  assert.ok(bench.failures.get(number) instanceof ConnectionLost);
  assert.throws(() => bench.ask({ type: 'discover', userId: 'bob' }), StateError);
});

test('the table of phases has a way out of each and none out of the end', () => {
  assert.deepEqual(Object.keys(TABLE).sort(), [...PHASES].sort());
  for (const [phase, ways] of Object.entries(TABLE)) assert.equal('ended' in ways, phase !== 'ended');
  const reached = new Set(Object.values(TABLE).flatMap((ways) => Object.values(ways)));
  assert.deepEqual([...reached].sort(), PHASES.filter((phase) => phase !== 'idle').sort());
});

test('a step that the table does not have is a fault of ours, and is not passed over', () => {
  const bench = joined();
  assert.throws(() => bench.do((machine, now) => machine.connected(now)), /connected while registered/);
});
