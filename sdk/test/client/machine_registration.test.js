import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  ConnectionLost,
  IdentityError,
  InvalidAddress,
  RequestFailed,
  RequestTimeout,
  StateError,
} from '../../src/errors.js';
import * as proofs from '../../src/identity/proofs.js';
import { toBase64 } from '../../src/protocol/codec.js';
import { ALICE, Bench, HOST, NONCE, SIGNATURE, joined } from '../support/bench.js';

const CHALLENGE = { type: 'challenge', nonce: toBase64(NONCE) };

/** A bench whose client has asked for its name; and the number of that request. */
function registering(settings) {
  const bench = new Bench(settings);
  bench.connect();
  return [bench, bench.register()];
}

const refusal = (code, re, more = {}) => ({ type: 'error', message: 'no', code, re, ...more });

test('the proof is made for this host, nonce, name and device', () => {
  const [bench, number] = registering({ device: 'phone' });
  assert.deepEqual(bench.takeOne(), {
    type: 'register',
    userId: 'alice',
    publicKey: toBase64(ALICE.publicKey),
    device: 'phone',
    id: number,
  });
  bench.say({ ...CHALLENGE, re: number });
  const [{ identity, message }] = bench.signing;
  assert.equal(identity, ALICE);
  assert.deepEqual(message, proofs.registration(HOST, NONCE, 'alice', 'phone'));
  assert.deepEqual(bench.take(), []);
  bench.sign();
  assert.deepEqual(bench.takeOne(), { type: 'prove', signature: toBase64(SIGNATURE), id: number });
});

test('the registration tells session and limits', () => {
  const [bench, number] = registering();
  bench.admit({ session: 's7' });
  const limits = { maxMessageBytes: 65536, maxWatches: 10000, resumeWindow: 30 };
  assert.deepEqual(bench.results.get(number), { session: 's7', resumed: false, limits });
  assert.deepEqual(bench.events, [
    { type: 'connected', attempt: 1 },
    { type: 'registered', resumed: false, limits },
  ]);
  assert.equal(bench.phase, 'registered');
});

test('a token is shown when there is one', () => {
  const [bench] = registering({ token: 'let me in' });
  assert.equal(bench.takeOne().token, 'let me in');
});

test('replies without a number are taken during the registration', () => {
  const [bench, number] = registering();
  bench.say(CHALLENGE);
  bench.sign();
  bench.say({ type: 'registered', success: true, userId: 'alice' });
  assert.deepEqual(bench.results.get(number), { session: '', resumed: false, limits: null });
});

for (const code of ['key-mismatch', 'unauthorized', 'bad-signature', 'over-capacity']) {
  test(`a registration that is refused with ${code} fails, and can be tried again`, () => {
    const [bench, number] = registering();
    bench.say({ ...CHALLENGE, re: number });
    bench.sign();
    bench.say(refusal(code, number, { temporary: code === 'over-capacity', retryAfter: 3.5 }));
    const error = bench.failures.get(number);
    assert.ok(error instanceof RequestFailed);
    assert.deepEqual([error.code, error.temporary, error.retryAfter], [code, code === 'over-capacity', 3.5]);
    assert.equal(bench.phase, 'open');
    assert.equal(bench.closed, null);
    const again = bench.register();
    bench.admit();
    assert.ok(bench.results.has(again));
  });
}

test('a refusal before the challenge is a refusal too, and so is one while the challenge is being signed', () => {
  for (const challenged of [false, true]) {
    const [bench, number] = registering();
    if (challenged) bench.say({ ...CHALLENGE, re: number });
    bench.say(refusal('unauthorized', number));
    assert.ok(bench.failures.has(number));
    assert.equal(bench.phase, 'open');
    if (challenged) bench.sign();
    assert.equal(bench.phase, 'open');
    assert.equal(bench.takeOne().type, 'register');
  }
});

test('what was held for a registration that is refused fails with it', () => {
  const [bench, number] = registering();
  const held = bench.ask({ type: 'discover', userId: 'bob' });
  bench.say(refusal('key-mismatch', number));
  assert.equal(bench.failures.get(held), bench.failures.get(number));
  assert.equal(bench.takeOne().type, 'register');
  assert.throws(() => bench.ask({ type: 'discover', userId: 'bob' }), /register\(\)/);
});

test('a name that is refused in the classic way is a key mismatch', () => {
  const [bench, number] = registering();
  bench.say({ ...CHALLENGE, re: number });
  bench.sign();
  bench.say({ type: 'registered', success: false, userId: 'alice' });
  assert.equal(bench.failures.get(number).code, 'key-mismatch');
  assert.equal(bench.phase, 'open');
});

test('what is asked during the registration is sent after it, in order', () => {
  const [bench] = registering();
  const first = bench.ask({ type: 'discover', userId: 'bob' });
  const second = bench.ask({ type: 'ice-servers' });
  bench.admit();
  assert.deepEqual(
    bench
      .take()
      .slice(2)
      .map((message) => message.id),
    [first, second],
  );
});

test('a registration without an answer times out, and the connection is given up', () => {
  const [bench, number] = registering({ requestTimeout: 4 });
  const held = bench.ask({ type: 'ice-servers' });
  bench.passTime(3.9);
  assert.ok(!bench.failures.has(number));
  bench.passTime(0.2);
  assert.ok(bench.failures.get(number) instanceof RequestTimeout);
  assert.ok(bench.failures.get(held) instanceof RequestTimeout);
  assert.equal(bench.closed[0], 4004);
  bench.lose();
  bench.redial();
  assert.equal(bench.phase, 'open'); // nobody is registered: the application was told, and decides
  assert.equal(bench.takeOne().id, number);
});

test('a connection that is lost during the registration fails it', () => {
  const [bench, number] = registering();
  const held = bench.ask({ type: 'discover', userId: 'bob' });
  bench.lose();
  assert.ok(bench.failures.get(number) instanceof ConnectionLost);
  assert.ok(bench.failures.get(held) instanceof ConnectionLost);
  bench.redial();
  assert.equal(bench.phase, 'open');
  bench.register();
  bench.admit();
  assert.equal(bench.phase, 'registered');
});

test('a registration that is asked for between connections is made on the next', () => {
  const bench = new Bench();
  bench.connect();
  bench.lose();
  const number = bench.register();
  const held = bench.ask({ type: 'discover', userId: 'bob' });
  assert.deepEqual(bench.sent, []);
  bench.redial();
  bench.admit();
  assert.ok(bench.results.has(number));
  assert.equal(bench.sent.at(-1).id, held);
});

test('one registration at a time', () => {
  const [bench] = registering();
  assert.throws(() => bench.register(), StateError);
  bench.admit();
  assert.throws(() => bench.register(), /already registered/);
});

const REQUESTS = [
  { type: 'discover', userId: 'bob' },
  { type: 'watch', userIds: ['bob'] },
  { type: 'unwatch', userIds: ['bob'] },
  { type: 'ice-servers' },
  { type: 'bye', to: 'bob' },
];

test('nothing works before the first connection', () => {
  const bench = new Bench();
  for (const message of REQUESTS) assert.throws(() => bench.ask(message), /connect\(\)/);
  assert.throws(() => bench.register(), /connect\(\)/);
  assert.equal(bench.machine.nextDeadline, Infinity);
});

test('most things do not work before the registration', () => {
  const bench = new Bench();
  bench.connect();
  for (const message of REQUESTS) assert.throws(() => bench.ask(message), /register\(\)/);
});

test('a name that cannot be registered is refused at once', () => {
  for (const userId of ['', 'a b', 'a/b', 'x'.repeat(129), '\0', '\ud800']) {
    assert.throws(() => new Bench({ userId }), InvalidAddress);
  }
  assert.throws(() => new Bench({ device: 'a phone' }), InvalidAddress);
});

// --- signing takes its time ---

test('a signature for a connection that is gone is passed over', () => {
  const [bench, number] = registering();
  bench.say({ ...CHALLENGE, re: number });
  bench.lose();
  bench.sign();
  assert.equal(bench.phase, 'waiting');
  assert.equal(bench.takeOne().type, 'register');
});

test('a signature for an earlier challenge is not taken for that of a later one', () => {
  const bench = joined();
  bench.lose();
  bench.redial();
  bench.say({ ...CHALLENGE, re: bench.sent.at(-1).id });
  bench.lose();
  bench.redial();
  bench.say({ ...CHALLENGE, re: bench.sent.at(-1).id });
  bench.forget();
  bench.sign();
  assert.deepEqual(bench.take(), []);
  bench.sign();
  assert.equal(bench.takeOne().type, 'prove');
});

test('a signature that comes after the end is passed over, and so is that there will be none', () => {
  const [bench, number] = registering();
  bench.say({ ...CHALLENGE, re: number });
  bench.do((machine, now) => machine.end(now, null));
  bench.sign();
  bench.do((machine, now) => machine.end(now, new IdentityError('no key')));
  assert.equal(bench.machine.error, null);
});

test('a key that cannot sign ends the client', () => {
  const [bench, number] = registering();
  bench.say({ ...CHALLENGE, re: number });
  const error = new IdentityError('no key');
  bench.do((machine, now) => machine.end(now, error));
  assert.equal(bench.failures.get(number), error);
  assert.deepEqual(bench.events.at(-1), { type: 'closed', error });
  assert.deepEqual(bench.closed, [1000, '']);
});

// --- registering again by itself ---

for (const code of ['key-mismatch', 'unauthorized', 'bad-signature', 'forbidden', 'invalid-field']) {
  test(`the refusal ${code} after a reconnection ends the client with the server's error`, () => {
    const bench = joined();
    bench.lose();
    const held = bench.ask({ type: 'discover', userId: 'bob' });
    bench.redial();
    bench.say(refusal(code, bench.sent.at(-1).id));
    assert.equal(bench.phase, 'ended');
    assert.deepEqual(bench.closed, [1000, '']);
    const { error } = bench.machine;
    assert.ok(error instanceof RequestFailed);
    assert.equal(error.code, code);
    assert.equal(bench.failures.get(held), error);
    assert.deepEqual(bench.events.at(-1), { type: 'closed', error });
    assert.throws(
      () => bench.ask({ type: 'ice-servers' }),
      (thrown) => thrown === error,
    );
    bench.lose(1000);
    assert.deepEqual(bench.events.at(-1), { type: 'closed', error });
    assert.equal(bench.machine.nextDeadline, Infinity);
  });
}

test('a temporary refusal after a reconnection is tried again when the server says', () => {
  const bench = joined({ backoff: { first: 1 } });
  bench.lose();
  bench.redial();
  const full = refusal('over-capacity', bench.sent.at(-1).id, { message: 'full', temporary: true, retryAfter: 17 });
  bench.say(full);
  assert.equal(bench.closed[0], 4000);
  bench.lose();
  const gone = bench.events.at(-1);
  assert.equal(gone.retryIn, 17 + 2);
  assert.match(gone.reason, /full/);
  bench.redial();
  bench.admit();
  assert.equal(bench.phase, 'registered');
});

test('a temporary refusal without a time is tried again after the usual wait', () => {
  const bench = joined({ backoff: { first: 1 } });
  bench.lose();
  bench.redial();
  bench.say(refusal('internal', bench.sent.at(-1).id));
  bench.lose();
  assert.equal(bench.events.at(-1).retryIn, 2);
});

test('a registration again that is never answered is tried once more', () => {
  const bench = joined({ requestTimeout: 4 });
  bench.lose();
  bench.redial();
  bench.passTime(4);
  assert.equal(bench.closed[0], 4004);
  bench.lose();
  bench.redial();
  bench.admit();
  assert.equal(bench.phase, 'registered');
});
