/** Who is let in. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConnectionLost, InvalidAddress, TooManyPeers } from '../../../src/errors.js';
import { toBase64 } from '../../../src/protocol/codec.js';
import { Admission, MAX_REFUSALS, MAX_WAITING, REFUSALS_PER_SECOND } from '../../../src/store/peers/admission.js';
import { FakeTimers, settle } from '../../support/fake_timers.js';

const KEY = new Uint8Array(32).fill(1);
const SLIP = 'accept has to answer true or false at once';
const OTHER = new Uint8Array(32).fill(2);

const offer = (key = KEY) => ({
  type: 'offerReceived',
  sender: 'bob/phone',
  connection: 'c',
  proof: key && { publicKey: toBase64(key), nonce: '', signature: '' },
});
const peerOf = (userId, fields = {}) => ({ userId, wanted: false, admitted: null, ...fields });

function made(accept = null, peer = peerOf) {
  const byes = [];
  const client = {
    userId: 'alice',
    async sendBye(to, { connection, reason, code, retryAfter }) {
      byes.push([to, connection, reason, code, retryAfter]);
      throw new ConnectionLost('gone'); // which is nobody's business
    },
  };
  const timers = new FakeTimers();
  return { byes, timers, admission: new Admission(client, accept, peer, timers) };
}

test('everybody is let in when nobody has said otherwise', () => {
  const { byes, admission } = made(null, (userId, stranger) => peerOf(userId, { stranger }));
  const peer = admission.admit(offer(), 'bob', undefined);
  assert.deepEqual([peer.admitted, peer.stranger], [KEY, true]);
  assert.deepEqual(byes, []);
});

test('the application is asked once for each key, and not about those whom it wants', () => {
  const questions = [];
  const peer = peerOf('bob');
  const accept = (userId, key) => {
    questions.push([userId, key]);
    return true;
  };
  const { admission } = made(accept, () => peer);
  admission.admit(offer(), 'bob', peer);
  admission.admit(offer(), 'bob', peer);
  assert.deepEqual(questions, [['bob', KEY]]);
  admission.admit(offer(OTHER), 'bob', peer);
  assert.deepEqual(questions, [
    ['bob', KEY],
    ['bob', OTHER],
  ]);
  admission.admit(offer(), 'bob', peerOf('bob', { wanted: true }));
  assert.equal(questions.length, 2);
});

test('who is not let in is told so; only true lets in, and a callback that throws nobody; a promise is a slip that is logged', async (t) => {
  const log = t.mock.method(console, 'error', () => {});
  const fails = () => {
    throw new Error('oops');
  };
  for (const accept of [() => false, () => undefined, async () => false, async () => true, fails]) {
    const { byes, admission } = made(accept, () => assert.fail());
    assert.equal(admission.admit(offer(), 'bob', undefined), undefined);
    assert.deepEqual(byes, [['bob/phone', 'c', 'not accepted', 'not-accepted', undefined]]);
  }
  assert.deepEqual(
    log.mock.calls.map(({ arguments: [error] }) => error.message),
    [SLIP, SLIP, 'oops'],
  );
  await settle();
});

test('who is too much is told so, and whose name breaks the rules', async () => {
  for (const [error, told] of [
    [new TooManyPeers(1), [['bob/phone', 'c', 'too many peers', 'too-many-peers', 30]]],
    [new InvalidAddress('bob', 'it is'), [['bob/phone', 'c', 'the name breaks the rules', 'not-accepted', undefined]]],
  ]) {
    const { byes, admission } = made(null, () => {
      throw error;
    });
    assert.equal(admission.admit(offer(), 'bob', undefined), undefined);
    assert.deepEqual(byes, told);
  }
  await settle();
});

test('an offer without a key, or in our own name, is left to the check of proofs', () => {
  const { byes, admission } = made(() => assert.fail());
  const peer = peerOf('bob');
  assert.equal(admission.admit(offer(null), 'bob', peer), peer);
  assert.equal(admission.admit(offer(null), 'bob', undefined), undefined);
  assert.equal(admission.admit(offer(), 'alice', undefined), undefined);
  assert.deepEqual(
    byes.map(([, , , code]) => code),
    ['bad-proof', 'bad-proof'],
  ); // nobody else would answer
});

test('a flood of offers does not become a flood of refusals', async () => {
  const { byes, admission, timers } = made(
    () => false,
    () => assert.fail(),
  );
  for (let n = 0; n < 1000; n++) admission.admit(offer(), 'bob', undefined);
  assert.equal(byes.length, MAX_REFUSALS);
  await settle();
  timers.advance(1);
  await settle();
  assert.equal(byes.length, MAX_REFUSALS + 1); // the newest
});

test('callers who come all at once are all told, a few at a time, as far as there is room', async () => {
  const { byes, admission, timers } = made(
    () => false,
    () => assert.fail(),
  );
  const most = MAX_REFUSALS + MAX_WAITING;
  for (let n = 0; n <= most; n++) admission.admit({ ...offer(), sender: `user${n}` }, `user${n}`, undefined);
  assert.equal(byes.length, MAX_REFUSALS);
  for (let rounds = 0; byes.length < most && rounds < 100; rounds++) {
    await settle();
    timers.advance(1);
  }
  assert.deepEqual(new Set(byes.map(([to]) => to)).size, most);
  assert.deepEqual(byes.at(-1), [`user${most - 1}`, 'c', 'not accepted', 'not-accepted', undefined]);
});

test('refusals leave a user most of what it may send, and end with the login', async () => {
  const { byes, admission, timers } = made(
    () => false,
    () => assert.fail(),
  );
  for (let second = 1; second < 5; second++) {
    for (let n = 0; n < 1000; n++) admission.admit({ ...offer(), sender: `user${n}` }, `user${n}`, undefined);
    for (let part = 0; part < 50; part++) {
      await settle();
      timers.advance(0.02);
    }
    assert.ok(byes.length <= MAX_REFUSALS + second * REFUSALS_PER_SECOND);
    assert.ok(byes.length >= MAX_REFUSALS + second * REFUSALS_PER_SECOND - 2);
  }
  admission.close();
  await settle();
  assert.equal(timers.waiting, 0);
});
