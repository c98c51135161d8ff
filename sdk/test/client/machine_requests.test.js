import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ConnectionLost, MessageTooLarge, RequestFailed, RequestTimeout, UsageError } from '../../src/errors.js';
import { toBase64 } from '../../src/protocol/codec.js';
import { BOB, Bench, joined } from '../support/bench.js';

const KEY = BOB.publicKey;
const PROOF = { publicKey: 'a', nonce: 'b', signature: 'c' };
const ALL = { trickle: true, restart: true };
const DISCOVER = { type: 'discover', userId: 'bob' };
const found = (re, more = {}) => ({ type: 'discover-response', userId: 'bob', online: false, re, ...more });

// --- replies ---

test('of more devices than a user may have the newest are told', () => {
  const bench = joined();
  bench.ask({ type: 'watch', userIds: ['bob'] });
  const devices = Array.from({ length: 1000 }, (_, number) => ({ device: `d${number}` }));
  bench.say({ type: 'presence', userId: 'bob', online: true, devices });
  assert.equal(bench.closed, null);
  assert.deepEqual(
    bench.takeEvents().at(-1).devices,
    devices.slice(0, 16).map(({ device }) => device),
  );
});

test('a discovery brings key and devices', () => {
  const bench = joined();
  const number = bench.ask(DISCOVER);
  assert.deepEqual(bench.takeOne(), { ...DISCOVER, id: number });
  const devices = [{ device: 'phone' }, { device: 'main' }];
  bench.say(found(number, { online: true, publicKey: toBase64(KEY), devices }));
  const result = { userId: 'bob', online: true, publicKey: KEY, devices: ['phone', 'main'], sealKeys: new Map() };
  assert.deepEqual(bench.results.get(number), result);
});

test('what a classic client calls its key is no key', () => {
  for (const publicKey of ['any string', '', 'AAAA', toBase64(KEY).slice(0, -1), undefined]) {
    const bench = joined();
    const number = bench.ask(DISCOVER);
    bench.say(found(number, { publicKey }));
    assert.deepEqual(bench.results.get(number), {
      userId: 'bob',
      online: false,
      publicKey: null,
      devices: [],
      sealKeys: new Map(),
    });
  }
});

test('replies find their requests in any order', () => {
  const bench = joined();
  const numbers = ['a', 'b', 'c'].map((userId) => bench.ask({ type: 'discover', userId }));
  for (const index of [2, 0, 1]) bench.say(found(numbers[index], { userId: 'abc'[index] }));
  assert.deepEqual(
    numbers.map((number) => bench.results.get(number).userId),
    ['a', 'b', 'c'],
  );
});

test('few lookups go out at a time, and the others in their order', () => {
  // A server keeps 256 requests while it looks a name up, and sends away for good who sends more.
  const bench = joined();
  const names = Array.from({ length: 100 }, (_, number) => `user${number}`);
  const numbers = names.map((userId) => bench.ask({ type: 'discover', userId }));
  bench.ask({ type: 'watch', userIds: ['bob'] });
  const asked = () => bench.sent.filter(({ type }) => type === 'discover').map(({ userId }) => userId);
  assert.deepEqual(asked(), names.slice(0, 32));
  assert.equal(bench.sent.at(-1).type, 'watch');
  bench.say(found(numbers[0], { userId: names[0] }));
  assert.deepEqual(asked(), names.slice(0, 33));
  bench.say({ type: 'error', message: 'no', code: 'internal', re: numbers[1] });
  assert.deepEqual(asked(), names.slice(0, 34));
  numbers.forEach((number, index) => index > 1 && bench.say(found(number, { userId: names[index] })));
  assert.deepEqual(asked(), names);
});

test('ICE servers come with their time to live', () => {
  const bench = joined();
  const number = bench.ask({ type: 'ice-servers' });
  assert.deepEqual(bench.takeOne(), { type: 'ice-servers', id: number });
  const iceServers = [{ urls: ['turn:turn.example'], username: 'u', credential: 'c' }];
  bench.say({ type: 'ice-servers', iceServers, ttl: 600, re: number });
  assert.deepEqual(bench.results.get(number), { iceServers, ttl: 600 });
});

test('an error reply carries all that the server says', () => {
  const bench = joined();
  const number = bench.ask(DISCOVER);
  bench.say({
    type: 'error',
    message: 'slow down',
    code: 'over-capacity',
    temporary: true,
    retryAfter: 2.5,
    re: number,
  });
  const error = bench.failures.get(number);
  assert.ok(error instanceof RequestFailed);
  assert.deepEqual([error.code, error.temporary, error.retryAfter], ['over-capacity', true, 2.5]);
  assert.match(error.message, /slow down/);
});

for (const [code, temporary] of [
  ['timeout', true],
  ['internal', true],
  ['forbidden', false],
  ['a-code-of-tomorrow', false],
  [undefined, true],
]) {
  test(`a server that does not say whether ${code} is temporary is taken by its code`, () => {
    const bench = joined();
    const number = bench.ask(DISCOVER);
    bench.say({ type: 'error', message: 'no', re: number, code });
    const error = bench.failures.get(number);
    assert.deepEqual([error.temporary, error.retryAfter], [temporary, null]);
  });
}

test('a negative time to try again after is none to wait for', () => {
  const bench = joined();
  const number = bench.ask(DISCOVER);
  bench.say({ type: 'error', message: 'no', code: 'internal', retryAfter: -5, re: number });
  assert.equal(bench.failures.get(number).retryAfter, 0);
});

// --- time-outs ---

test('each request has its own time-out, and a late reply is passed over', () => {
  const bench = joined({ requestTimeout: 10 });
  const first = bench.ask(DISCOVER);
  bench.passTime(6);
  const second = bench.ask({ type: 'ice-servers' });
  bench.passTime(4);
  const error = bench.failures.get(first);
  assert.ok(error instanceof RequestTimeout);
  assert.deepEqual([error.request, error.seconds], ['discover', 10]);
  assert.ok(!bench.failures.has(second));
  bench.say(found(first));
  assert.equal(bench.phase, 'registered');
  bench.passTime(6);
  assert.ok(bench.failures.has(second));
});

test('what the server keeps for somebody who has lost their connection is waited for', () => {
  const bench = new Bench({ requestTimeout: 10 });
  bench.join({ limits: { maxMessageBytes: 1000, maxWatches: 10, resumeWindow: 25 } });
  const kept = bench.ask({ type: 'bye', to: 'bob' });
  const lost = bench.ask({ type: 'bye', to: 'carol' });
  const own = bench.ask(DISCOVER);
  for (const second of Array(29).keys()) {
    bench.passTime(1);
    if (second === 9) assert.equal(bench.failures.get(own).seconds, 10);
    // A server that says so much else is alive.
    bench.say({ type: 'pong' });
  }
  assert.ok(!bench.failures.has(kept));
  bench.say({ type: 'ack', re: kept });
  assert.ok(bench.results.has(kept));
  bench.passTime(11);
  assert.equal(bench.failures.get(lost).seconds, 35);
});

test('a server that keeps things for ever is not waited for as long', () => {
  const bench = new Bench({ requestTimeout: 100 });
  bench.join({ limits: { maxMessageBytes: 1000, maxWatches: 10, resumeWindow: 1e9 } });
  const number = bench.ask({ type: 'bye', to: 'bob' });
  for (let second = 0; second < 301; second++) {
    bench.passTime(1);
    bench.say({ type: 'pong' });
  }
  assert.equal(bench.failures.get(number).seconds, 220);
});

test('a request in flight fails when the connection is lost', () => {
  const bench = joined();
  const number = bench.ask(DISCOVER);
  bench.lose(1006, 'the cable was cut');
  const error = bench.failures.get(number);
  assert.ok(error instanceof ConnectionLost && error.temporary);
  assert.match(error.message, /the cable was cut/);
});

test('a request made while reconnecting waits for the registration', () => {
  const bench = joined();
  bench.lose();
  const number = bench.ask(DISCOVER);
  bench.redial();
  assert.deepEqual(
    bench.sent.map((message) => message.type),
    ['register'],
  );
  bench.admit();
  assert.deepEqual(bench.sent.at(-1), { ...DISCOVER, id: number });
});

test('it waits over several attempts, but not beyond its time-out', () => {
  const bench = joined({ requestTimeout: 10 });
  bench.lose();
  const number = bench.ask(DISCOVER);
  for (let attempt = 0; attempt < 3; attempt++) {
    bench.passTime(3);
    if (bench.phase === 'dialing') bench.failToConnect();
  }
  assert.ok(!bench.failures.has(number));
  bench.passTime(1.5);
  assert.ok(bench.failures.get(number) instanceof RequestTimeout);
});

test('a reply to a request that was not sent yet is passed over', () => {
  const bench = joined();
  bench.lose();
  const number = bench.ask(DISCOVER);
  bench.redial();
  bench.say(found(number));
  bench.say({ type: 'error', message: 'no', code: 'forbidden', re: number });
  assert.ok(!bench.results.has(number) && !bench.failures.has(number));
});

// --- relaying ---

test('a relayed message is completed by its ack', () => {
  const bench = joined();
  const offer = {
    type: 'offer',
    to: 'bob/phone',
    offer: { type: 'offer', sdp: 'v=0' },
    connection: 'c1',
    proof: PROOF,
    capabilities: undefined,
  };
  const number = bench.ask(offer);
  const sent = bench.takeOne();
  assert.deepEqual(sent, { ...JSON.parse(JSON.stringify(offer)), id: number });
  bench.say({ type: 'ack', re: number });
  assert.equal(bench.results.get(number), null);
});

test('the end of candidates is sent as null', () => {
  const bench = joined();
  bench.ask({ type: 'ice-candidate', to: 'bob', candidate: null });
  assert.equal(bench.takeOne().candidate, null);
});

test('a relayed message to somebody who is away fails', () => {
  const bench = joined();
  const number = bench.ask({ type: 'bye', to: 'bob' });
  bench.say({ type: 'error', message: 'User bob is not online', code: 'not-online', temporary: false, re: number });
  assert.equal(bench.failures.get(number).code, 'not-online');
});

test('a message that the server would not take is refused at once', () => {
  const bench = joined();
  const big = { type: 'offer', to: 'bob', offer: { type: 'offer', sdp: 'ü'.repeat(35_000) } };
  assert.throws(
    () => bench.ask(big),
    (error) => error instanceof MessageTooLarge && error.limit === 65536 && error.size > 70_000,
  );
  assert.deepEqual(bench.take(), []);
  assert.equal(bench.machine.nextDeadline, bench.now + 25); // no request was left behind
});

test("the server's own limit counts, until another one says nothing of it", () => {
  const bench = new Bench();
  bench.join({ limits: { maxMessageBytes: 1000, maxWatches: 10, resumeWindow: 30 } });
  const long = { type: 'bye', to: 'bob', reason: 'x'.repeat(1000) };
  assert.throws(() => bench.ask(long), MessageTooLarge);
  bench.reconnect({ limits: undefined });
  bench.ask(long);
});

test('text that is no Unicode is refused at once', () => {
  const bench = joined();
  assert.throws(() => bench.ask({ type: 'bye', to: 'bob', reason: '\ud800' }), UsageError);
  assert.throws(() => bench.ask({ type: 'offer', to: 'bob', offer: { type: 'offer', sdp: '\udc00' } }), UsageError);
});

// --- what comes from others ---

test('an offer arrives with its proof and capabilities', () => {
  const bench = joined();
  const description = { type: 'offer', sdp: 'v=0' };
  bench.say({
    type: 'offer',
    to: 'alice',
    from: 'bob/phone',
    offer: description,
    connection: 'c1',
    proof: PROOF,
    capabilities: { trickle: false },
  });
  const capabilities = { trickle: false, restart: true };
  assert.deepEqual(bench.takeEvents(), [
    { type: 'offerReceived', sender: 'bob/phone', description, connection: 'c1', proof: PROOF, capabilities },
  ]);
});

test('an answer, a candidate, the end of candidates and a bye arrive', () => {
  const bench = joined();
  const description = { type: 'answer', sdp: 'v=0' };
  const candidate = { candidate: 'candidate:1', sdpMid: '0', sdpMLineIndex: 0 };
  const from = { to: 'alice', from: 'bob' };
  bench.say({ ...from, type: 'answer', answer: description });
  bench.say({ ...from, type: 'ice-candidate', candidate, connection: 'c1' });
  bench.say({ ...from, type: 'ice-candidate', candidate: null });
  bench.say({ ...from, type: 'bye', reason: 'enough' });
  bench.say({ ...from, type: 'bye' });
  bench.say({ ...from, type: 'bye', reason: '\u202egnihsihp\n'.repeat(4000) });
  bench.say({ ...from, type: 'bye', code: 'too-many-peers', retryAfter: 30 });
  bench.say({ ...from, type: 'bye', code: '\u202e', retryAfter: 1e300 });
  const none = { code: null, retryAfter: null };
  assert.deepEqual(bench.takeEvents(), [
    { type: 'answerReceived', sender: 'bob', description, connection: null, proof: null, capabilities: ALL },
    { type: 'candidateReceived', sender: 'bob', candidate, connection: 'c1' },
    { type: 'candidateReceived', sender: 'bob', candidate: null, connection: null },
    { type: 'byeReceived', sender: 'bob', connection: null, reason: 'enough', ...none },
    { type: 'byeReceived', sender: 'bob', connection: null, reason: null, ...none },
    { type: 'byeReceived', sender: 'bob', connection: null, reason: 'gnihsihp'.repeat(25), ...none },
    { type: 'byeReceived', sender: 'bob', connection: null, reason: null, code: 'too-many-peers', retryAfter: 30 },
    { type: 'byeReceived', sender: 'bob', connection: null, reason: null, code: null, retryAfter: 300 },
  ]);
});

for (const message of [
  { type: 'offer', offer: { type: 'offer' } },
  { type: 'offer', offer: { type: 'answer', sdp: 'v=0' } },
  { type: 'offer', offer: 'v=0' },
  { type: 'offer', offer: { type: 'offer', sdp: 7 } },
  { type: 'offer', offer: { type: 'offer', sdp: 'v=0' }, proof: null },
  { type: 'offer', offer: { type: 'offer', sdp: 'v=0' }, proof: { publicKey: 'a' } },
  { type: 'answer', answer: { type: 'rollback', sdp: '' } },
  { type: 'ice-candidate', candidate: { candidate: 5 } },
  { type: 'ice-candidate', candidate: [[[]]] },
]) {
  test(`what a peer has garbled is dropped and counted, and the connection stays: ${JSON.stringify(message)}`, () => {
    const bench = joined();
    bench.say({ to: 'alice', from: 'mallory', ...message });
    assert.deepEqual(bench.takeEvents(), []);
    assert.equal(bench.phase, 'registered');
    bench.passTime(5);
    assert.deepEqual(bench.take(), [{ type: 'received', count: 1 }]);
  });
}

test('a sealed message is counted, though this version does not use it', () => {
  const bench = joined();
  bench.say({ type: 'relay', to: 'alice', sealed: 'xyz', from: 'bob' });
  assert.deepEqual(bench.takeEvents(), []);
  bench.passTime(5);
  assert.deepEqual(bench.take(), [{ type: 'received', count: 1 }]);
});

// --- presence ---

const presence = (userId, online, more = {}) => ({ type: 'presence', userId, online, ...more });

test('a watch brings presence now and later, and ends', () => {
  const bench = joined();
  const number = bench.ask({ type: 'watch', userIds: ['bob', 'carol'] });
  assert.deepEqual(bench.takeOne(), { type: 'watch', userIds: ['bob', 'carol'], id: number });
  bench.say(presence('bob', false));
  bench.say(presence('carol', true, { publicKey: toBase64(KEY), devices: [{ device: 'x' }] }));
  bench.say({ type: 'ack', re: number });
  assert.ok(bench.results.has(number));
  bench.say(presence('bob', true));
  assert.deepEqual(bench.takeEvents(), [
    {
      type: 'presenceChanged',
      userId: 'bob',
      online: false,
      publicKey: null,
      devices: [],
      sealKeys: new Map(),
      initial: true,
    },
    {
      type: 'presenceChanged',
      userId: 'carol',
      online: true,
      publicKey: KEY,
      devices: ['x'],
      sealKeys: new Map(),
      initial: true,
    },
    {
      type: 'presenceChanged',
      userId: 'bob',
      online: true,
      publicKey: null,
      devices: [],
      sealKeys: new Map(),
      initial: false,
    },
  ]);
  const unwatched = bench.ask({ type: 'unwatch', userIds: ['bob', 'nobody'] });
  bench.say(presence('bob', false)); // was on its way
  bench.say({ type: 'ack', re: unwatched });
  assert.deepEqual(bench.takeEvents(), []);
});

test('the answer to a watch is told from a change', () => {
  const bench = joined();
  const initial = () => bench.takeEvents().map((event) => event.initial);
  const first = bench.ask({ type: 'watch', userIds: ['bob'] });
  const second = bench.ask({ type: 'watch', userIds: ['bob'] });
  bench.say(presence('bob', true));
  bench.say({ type: 'ack', re: first });
  bench.say(presence('bob', true));
  bench.say({ type: 'ack', re: second });
  bench.say(presence('bob', true));
  assert.deepEqual(initial(), [true, true, false]);
});

test('names go out in lists that fit into one message, each name once', () => {
  const bench = new Bench();
  bench.join({ limits: { maxMessageBytes: 65536, maxWatches: 10000, resumeWindow: 0 } });
  const { machine } = bench;
  const sizes = (names) => machine.chunks(names).map(({ length }) => length);
  const short = Array.from({ length: 2500 }, (_, index) => `user-${index}`);
  assert.deepEqual(sizes([...short, ...short]), [1000, 1000, 500]);
  assert.deepEqual(machine.chunks(short).flat(), short);
  assert.deepEqual(machine.chunks([]), []);
  const long = Array.from({ length: 300 }, (_, index) => '\u{1f600}'.repeat(125) + (100 + index));
  for (const userIds of machine.chunks(long)) {
    bench.ask({ type: 'watch', userIds });
    assert.ok(Buffer.byteLength(JSON.stringify(bench.takeOne())) < 65536);
  }
});

test('a watch that was refused is not restored, but those before it are', () => {
  const bench = joined();
  const first = bench.ask({ type: 'watch', userIds: ['bob'] });
  const second = bench.ask({ type: 'watch', userIds: ['bob', 'carol'] });
  bench.say({ type: 'error', message: 'too many', code: 'too-large', re: second });
  assert.ok(bench.failures.get(second) instanceof RequestFailed);
  bench.say({ type: 'ack', re: first });
  bench.forget();
  bench.reconnect({ session: 's2' });
  assert.deepEqual(bench.take().at(-1).userIds, ['bob']);
});

test('watches are restored when the session is not resumed', () => {
  const bench = joined();
  bench.say({ type: 'ack', re: bench.ask({ type: 'watch', userIds: ['bob', 'carol'] }) });
  bench.say({ type: 'ack', re: bench.ask({ type: 'unwatch', userIds: ['carol'] }) });
  bench.forget();
  bench.reconnect({ session: 's2' });
  const watch = bench.sent.at(-1);
  assert.deepEqual(watch.userIds, ['bob']);
  bench.say(presence('bob', true));
  assert.equal(bench.events.at(-1).type, 'presenceChanged');
  const { size } = bench.results;
  bench.say({ type: 'ack', re: watch.id });
  assert.equal(bench.phase, 'registered');
  assert.equal(bench.results.size, size); // nobody is told of a request that they did not make
});

test('a restored watch that the server refuses is told, and not asked for again', () => {
  const bench = joined();
  bench.say({ type: 'ack', re: bench.ask({ type: 'watch', userIds: ['bob', 'carol'] }) });
  bench.reconnect({ session: 's2' });
  bench.forget();
  bench.say({ type: 'error', message: 'too many', code: 'too-large', re: 4 });
  const [{ type, userIds, error }, ...more] = bench.takeEvents();
  assert.deepEqual([type, userIds, error.code, more.length], ['watchEnded', ['bob', 'carol'], 'too-large', 0]);
  assert.equal(bench.failures.size, 0); // nobody is told of a request that they did not make
  bench.say(presence('bob', true));
  assert.deepEqual(bench.takeEvents(), []);
  bench.reconnect({ session: 's3' });
  assert.ok(!bench.sent.some((message) => message.type === 'watch'));
});

const ENDED = { message: 'too many watchers', code: 'over-capacity', temporary: true, retryAfter: 60 };

test('a watch that the server ends is told, and not asked for again', () => {
  const bench = joined();
  bench.say({ type: 'ack', re: bench.ask({ type: 'watch', userIds: ['bob', 'carol'] }) });
  bench.takeEvents();
  bench.say({ ...presence('bob', true), ended: ENDED });
  const [{ type, userIds, error }, ...more] = bench.takeEvents();
  assert.deepEqual([type, userIds, error.code, error.retryAfter], ['watchEnded', ['bob'], 'over-capacity', 60]);
  assert.equal(more.length, 0);
  bench.say(presence('bob', false));
  bench.say({ ...presence('bob', false), ended: ENDED });
  assert.deepEqual(bench.takeEvents(), []);
  bench.reconnect({ session: 's2' });
  assert.deepEqual(bench.sent.at(-1).userIds, ['carol']);
});

for (const answer of ['ack', 'error', 'unwatch']) {
  test(`a watch that the server ends while it is asked for again: ${answer}`, () => {
    const bench = joined();
    const number = bench.ask({ type: 'watch', userIds: ['bob', 'carol'] });
    for (const name of ['bob', 'carol']) bench.say(presence(name, false));
    bench.say({ type: 'ack', re: number });
    const again = bench.ask({ type: 'watch', userIds: ['bob'] });
    if (answer === 'unwatch') bench.ask({ type: 'unwatch', userIds: ['bob'] });
    bench.takeEvents();
    bench.say({ ...presence('bob', true), ended: ENDED });
    assert.deepEqual(bench.takeEvents(), []);
    if (answer === 'error') {
      bench.say({ type: 'error', message: 'too many', code: 'over-capacity', re: again });
    } else {
      bench.say(presence('bob', true));
      bench.say({ type: 'ack', re: again });
    }
    bench.takeEvents();
    bench.say(presence('bob', false));
    assert.equal(bench.takeEvents().length, answer === 'ack' ? 1 : 0);
    bench.reconnect({ session: 's2' });
    assert.deepEqual(bench.sent.at(-1).userIds, answer === 'ack' ? ['carol', 'bob'] : ['carol']);
  });
}

test('a restored watch whose connection is lost is restored with the next', () => {
  const bench = joined();
  bench.say({ type: 'ack', re: bench.ask({ type: 'watch', userIds: ['bob'] }) });
  bench.reconnect({ session: 's2' });
  bench.reconnect({ session: 's3' });
  assert.deepEqual(bench.sent.at(-1).userIds, ['bob']);
  assert.ok(!bench.events.some((event) => event.type === 'watchEnded'));
});

test('watches are not sent again when the session goes on', () => {
  const bench = joined();
  bench.say({ type: 'ack', re: bench.ask({ type: 'watch', userIds: ['bob'] }) });
  bench.forget();
  bench.reconnect({ resumed: true });
  assert.deepEqual(
    bench.take().map((message) => message.type),
    ['register', 'prove'],
  );
  bench.say(presence('bob', true));
  assert.equal(bench.events.at(-1).type, 'presenceChanged');
});

test('a watch made while away is made once', () => {
  const bench = joined();
  bench.lose();
  bench.ask({ type: 'watch', userIds: ['bob'] });
  bench.redial();
  bench.admit({ session: 's2' });
  const watches = bench.take().filter((message) => message.type === 'watch');
  assert.deepEqual(
    watches.map((message) => message.userIds),
    [['bob']],
  );
});
