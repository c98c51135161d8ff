/** A server that means harm, or is only broken: the client may leave it, and must not crash, hang or believe it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ConnectionClosed, ConnectionLost } from '../../src/errors.js';
import { toBase64 } from '../../src/protocol/codec.js';
import { Bench, BOB, joined, NONCE } from '../support/bench.js';

const DISCOVER = { type: 'discover', userId: 'bob' };
const REQUESTS = [
  DISCOVER,
  { type: 'ice-servers' },
  { type: 'watch', userIds: ['bob'] },
  { type: 'unwatch', userIds: ['bob'] },
  { type: 'bye', to: 'bob' },
];
const CHALLENGE = { type: 'challenge', nonce: toBase64(NONCE) };

/** The machine has closed the connection as broken, and comes back as after a lost one. */
function left(bench) {
  assert.equal(bench.closed?.[0], 4000);
  assert.equal(bench.phase, 'closing');
  bench.lose(4000); // the server answers the CLOSE frame with the same code, which is no verdict of its own
  const gone = bench.events.at(-1);
  assert.notEqual(gone.retryIn, null);
  assert.match(gone.reason, /broke the protocol/);
  bench.redial();
  bench.admit();
  assert.equal(bench.phase, 'registered');
}

for (const text of [
  '',
  'null',
  '[]',
  '7',
  '"presence"',
  '{',
  '{}',
  '{"type":7}',
  '{"type":null}',
  '{"type":"presence"}',
  '{"type":"presence","userId":7,"online":true}',
  '{"type":"presence","userId":"bob","online":"yes"}',
  '{"type":"ack"}',
  '{"type":"ack","re":true}',
  '{"type":"ack","re":1.5}',
  '{"type":"ack","re":1e400}',
  '{"type":"ack","re":99999999999999999999}',
  '{"type":"error"}',
  '{"type":"error","message":{}}',
  '{"type":"error","message":"no","retryAfter":1e400}',
  '{"type":"challenge"}',
  '{"type":"challenge","nonce":7}',
  '{"type":"registered"}',
  '{"type":"going-away"}',
  '{"type":"going-away","reconnectIn":"soon"}',
  '{"type":"going-away","reconnectIn":null}',
  '{"type":"ice-servers","iceServers":{},"ttl":1}',
  '{"type":"offer","to":"alice","offer":{}}',
  '{"type":"offer","to":"alice","from":"","offer":{}}',
  '{"type":"offer","to":"alice","from":"a b","offer":{}}',
  '{"type":"offer","to":"alice","from":"a/b/c","offer":{}}',
  '{"type":"bye","to":"alice","from":7}',
  '{"type":"relay","to":"alice","sealed":"x"}',
  '{"type":"\\ud800"}',
  '['.repeat(100_000),
  '\0',
  '\ufeff{}',
]) {
  test(`a frame that may not be ends the connection cleanly: ${JSON.stringify(text.slice(0, 70))}`, () => {
    const bench = joined();
    const number = bench.ask(DISCOVER);
    bench.sayText(text);
    left(bench);
    assert.ok(bench.failures.get(number) instanceof ConnectionLost);
  });
}

for (const message of [
  { type: 'a message of tomorrow', x: [1, 2, 3] },
  { type: 'constructor' },
  { type: '__proto__' },
  { type: 'ack', re: "nobody's" },
  { type: 'ack', re: 999 },
  { type: 'pong' },
  { type: 'pong', re: -1 },
  { type: 'discover-response', userId: 'bob', online: true },
  { type: 'discover-response', userId: 'bob', online: true, re: 999 },
  { type: 'unregistered' },
  { type: 'rotated', publicKey: 'x' },
  { type: 'error', message: 'something happened' },
  { type: 'error', message: 'no', code: 'internal', re: 'x'.repeat(64) },
  CHALLENGE,
  { type: 'registered', success: true, userId: 'alice' },
  { type: 'registered', success: false, userId: 'alice' },
  { type: 'registered', success: true, userId: 'mallory', resumed: true },
  { type: 'presence', userId: 'nobody we watch', online: true },
]) {
  test(`what was not asked for is passed over: ${JSON.stringify(message).slice(0, 90)}`, () => {
    const bench = joined();
    bench.say(message);
    assert.equal(bench.phase, 'registered');
    assert.equal(bench.closed, null);
    assert.deepEqual([...bench.takeEvents(), ...bench.take(), ...bench.signing], []);
  });
}

test('a peer whose connection has too long a name is passed over', () => {
  const bench = joined();
  for (const length of [128, 129]) {
    for (const message of [
      { type: 'ice-candidate', candidate: null },
      { type: 'bye' },
      { type: 'offer', offer: { type: 'offer', sdp: '' } },
      { type: 'answer', answer: { type: 'answer', sdp: '' } },
    ]) {
      bench.say({ ...message, to: 'alice', from: 'bob', connection: 'c'.repeat(length) });
      assert.equal(bench.takeEvents().length, length === 128 ? 1 : 0);
    }
  }
  assert.equal(bench.closed, null);
});

test('presence before the registration is not counted', () => {
  const bench = new Bench();
  bench.connect();
  bench.say({ type: 'presence', userId: 'bob', online: true });
  assert.equal(bench.takeEvents().length, 1);
  bench.register();
  bench.admit();
  bench.forget();
  bench.passTime(5);
  assert.deepEqual(bench.take(), []);
});

// --- the handshake ---

function registering() {
  const bench = new Bench();
  bench.connect();
  return [bench, bench.register()];
}

test('nothing but 32 bytes is signed', () => {
  for (const nonce of ['', 'AAAA', ...[31, 33, 40_000].map((size) => toBase64(new Uint8Array(size))), '!'.repeat(44)]) {
    const [bench, number] = registering();
    bench.say({ type: 'challenge', nonce, re: number });
    assert.deepEqual(bench.signing, []);
    assert.equal(bench.closed[0], 4000);
    bench.lose();
    assert.ok(bench.failures.get(number) instanceof ConnectionLost);
  }
});

test('one registration signs one nonce', () => {
  const [bench, number] = registering();
  for (let time = 0; time < 5; time++) bench.say({ ...CHALLENGE, re: number });
  assert.equal(bench.signing.length, 1);
  bench.sign();
  bench.say({ ...CHALLENGE, re: number });
  assert.deepEqual(bench.signing, []);
});

test('a challenge for another request is not signed', () => {
  const [bench] = registering();
  bench.say({ ...CHALLENGE, re: 'another' });
  assert.deepEqual(bench.signing, []);
});

for (const more of [{ userId: 'mallory' }, { userId: 'alice', device: 'phone' }, { userId: 'alice', resumed: true }]) {
  test(`a registration as something else is not believed: ${JSON.stringify(more)}`, () => {
    const [bench, number] = registering();
    bench.say({ ...CHALLENGE, re: number });
    bench.sign();
    bench.say({ type: 'registered', success: true, re: number, ...more });
    assert.equal(bench.closed[0], 4000);
    assert.ok(!bench.results.has(number));
  });
}

test('a registration without a proof is not believed, nor one before the proof was sent', () => {
  for (const challenged of [false, true]) {
    const [bench, number] = registering();
    if (challenged) bench.say({ ...CHALLENGE, re: number });
    bench.say({ type: 'registered', success: true, userId: 'alice', re: number });
    assert.equal(bench.closed[0], 4000);
    assert.ok(!bench.results.has(number));
    if (challenged) bench.sign();
    assert.equal(bench.takeOne().type, 'register');
  }
});

test('a registration is not completed by any other reply', () => {
  for (const reply of [{ type: 'ack' }, { type: 'pong' }, { type: 'unregistered' }]) {
    const [bench, number] = registering();
    bench.say({ ...reply, re: number });
    assert.equal(bench.closed[0], 4000);
    assert.ok(!bench.results.has(number));
  }
});

test('the same reply counts once', () => {
  const bench = joined();
  const number = bench.ask(DISCOVER);
  for (let time = 0; time < 3; time++)
    bench.say({ type: 'discover-response', userId: 'bob', online: true, re: number });
  assert.ok(bench.results.has(number));
  assert.equal(bench.phase, 'registered');
});

for (const reply of [
  { type: 'pong' },
  { type: 'ack' },
  { type: 'unregistered' },
  { type: 'rotated', publicKey: 'x' },
  { type: 'ice-servers', iceServers: [], ttl: 1 },
  { type: 'discover-response', userId: 'mallory', online: true },
]) {
  test(`a reply to something else ends the connection: ${reply.type}`, () => {
    const bench = joined();
    const number = bench.ask(DISCOVER);
    bench.say({ re: number, ...reply });
    left(bench);
    assert.ok(!bench.results.has(number));
  });
}

test('a time to live below zero is none', () => {
  const bench = joined();
  const number = bench.ask({ type: 'ice-servers' });
  bench.say({ type: 'ice-servers', iceServers: [], ttl: -7, re: number });
  assert.equal(bench.results.get(number).ttl, 0);
});

test('what comes after we have hung up is not listened to', () => {
  const bench = joined();
  bench.sayText('this is no JSON');
  bench.forget();
  bench.say({ type: 'going-away', reconnectIn: 1 });
  bench.sayText('nor is this');
  assert.deepEqual(bench.takeEvents(), []);
});

test('a final code that crosses our own close is the word of the server', () => {
  const bench = joined();
  bench.sayText('this is no JSON');
  bench.lose(4503, 'banned');
  assert.ok(bench.machine.error instanceof ConnectionClosed);
});

test('a server that breaks the protocol each time is visited less and less', () => {
  const bench = joined();
  for (let round = 0; round < 8; round++) {
    bench.sayText('{');
    bench.lose();
    bench.redial();
    bench.admit({ session: 'again' });
  }
  const lost = bench.events.filter((event) => event.type === 'disconnected');
  assert.deepEqual(
    lost.map((event) => event.retryIn),
    [0.5, 1, 2, 4, 8, 10, 10, 10],
  );
});

// --- anything at all ---

/** Numbers from 0 to 1 that are the same for a seed (Mulberry32), so that a failure can be repeated. */
function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const JSON_VALUES = [null, true, 0, -1, 2.5, 1e300, '', 'x', 'alice', [], [[]], {}, { a: { b: 1 } }];
// Fields that fit; each is left out now and then, or has another value.
const FIELDS = {
  nonce: toBase64(NONCE),
  success: true,
  userId: 'alice',
  device: 'main',
  session: 's',
  secret: 't',
  resumed: false,
  online: true,
  publicKey: toBase64(BOB.publicKey),
  devices: [{ device: 'main' }],
  message: 'no',
  code: 'key-mismatch',
  temporary: true,
  retryAfter: 3,
  reconnectIn: 2,
  iceServers: [{ urls: ['stun:x'] }],
  ttl: 60,
  to: 'alice',
  from: 'bob',
  offer: { type: 'offer', sdp: 'v=0' },
  answer: { type: 'answer', sdp: 'v=0' },
  candidate: null,
  sealed: 'x',
  connection: 'c',
};
const TYPES =
  'challenge registered rotated discover-response presence error ack pong unregistered ice-servers going-away offer ' +
  'answer ice-candidate bye relay tomorrow';

test('whatever the server says, the client keeps its promises', () => {
  // The bench checks them: no crash, no request that ends twice, nothing sent into the void, no busy loop.
  for (let seed = 1; seed <= 400; seed++) {
    const random = seeded(seed);
    const pick = (values) => values[Math.floor(random() * values.length)];
    const bench = new Bench();
    const asked = [];
    const frame = () => {
      const message = {
        type: pick(TYPES.split(' ')),
        re: pick([undefined, 1, 2, 3, 4, 5, 6, asked.at(-1), 'x', null]),
      };
      for (const [name, value] of Object.entries(FIELDS)) {
        const lot = random();
        if (lot < 0.9) message[name] = lot < 0.85 ? value : pick(JSON_VALUES);
      }
      return JSON.stringify(message);
    };
    const command = () => {
      if (bench.phase === 'ended') return;
      // Whoever stands in `open` has no name and asks for none; elsewhere a refused request would show a fault here.
      if (bench.phase === 'open') asked.push(bench.register());
      else if (bench.results.has(asked[0])) asked.push(bench.ask(pick(REQUESTS)));
    };
    bench.connect();
    for (let step = 0; step < 40; step++) {
      const attached = !['idle', 'waiting', 'dialing', 'ended'].includes(bench.phase);
      const lot = random();
      if (attached && lot < 0.5) bench.sayText(frame());
      else if (bench.signing.length && lot < 0.7) bench.sign();
      else if (lot < 0.8) command();
      else if (attached && lot < 0.85) bench.lose(pick([1000, 1006, 4000, 4005, 4001]));
      else if (bench.phase === 'dialing' && lot < 0.95) bench.connect();
      else if (bench.phase === 'dialing') bench.failToConnect();
      else bench.passTime(random() * 20);
    }
    // Whatever has happened: every request ends in the end.
    bench.passTime(11);
    for (const number of asked) assert.ok(bench.results.has(number) || bench.failures.has(number), `seed ${seed}`);
  }
});
