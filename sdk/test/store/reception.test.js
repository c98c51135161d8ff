/** Who is let in. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConnectionLost, InvalidAddress, TooManyPeers } from '../../src/errors.js';
import { toBase64 } from '../../src/protocol/codec.js';
import { admit, MAX_REFUSALS, MAX_WAITING } from '../../src/store/reception.js';
import { settle } from '../support/fake_timers.js';

const KEY = new Uint8Array(32).fill(1);
const SLIP = 'accept has to answer true or false at once';
const OTHER = new Uint8Array(32).fill(2);

const offer = (key = KEY) => ({
  type: 'offerReceived',
  sender: 'bob/phone',
  connection: 'c',
  proof: key && { publicKey: toBase64(key), nonce: '', signature: '' },
});
const linkOf = (userId, fields = {}) => ({ userId, wanted: false, admitted: null, ...fields });

function made(accept = null, link = linkOf) {
  const byes = [];
  const client = {
    userId: 'alice',
    async sendBye(to, { connection, reason, code, retryAfter }) {
      byes.push([to, connection, reason, code, retryAfter]);
      throw new ConnectionLost('gone'); // which is nobody's business
    },
  };
  return { byes, house: { client, setup: { accept }, link } };
}

test('everybody is let in when nobody has said otherwise', () => {
  const { byes, house } = made(null, (userId, stranger) => linkOf(userId, { stranger }));
  const link = admit(offer(), 'bob', undefined, house);
  assert.deepEqual([link.admitted, link.stranger], [KEY, true]);
  assert.deepEqual(byes, []);
});

test('the application is asked once for each key, and not about those whom it wants', () => {
  const questions = [];
  const link = linkOf('bob');
  const accept = (userId, key) => {
    questions.push([userId, key]);
    return true;
  };
  const { house } = made(accept, () => link);
  admit(offer(), 'bob', link, house);
  admit(offer(), 'bob', link, house);
  assert.deepEqual(questions, [['bob', KEY]]);
  admit(offer(OTHER), 'bob', link, house);
  assert.deepEqual(questions, [
    ['bob', KEY],
    ['bob', OTHER],
  ]);
  admit(offer(), 'bob', linkOf('bob', { wanted: true }), house);
  assert.equal(questions.length, 2);
});

test('who is not let in is told so; only true lets in, and a callback that throws nobody; a promise is a slip that is logged', async (t) => {
  const log = t.mock.method(console, 'error', () => {});
  const fails = () => {
    throw new Error('oops');
  };
  for (const accept of [() => false, () => undefined, async () => false, async () => true, fails]) {
    const { byes, house } = made(accept, () => assert.fail());
    assert.equal(admit(offer(), 'bob', undefined, house), undefined);
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
    const { byes, house } = made(null, () => {
      throw error;
    });
    assert.equal(admit(offer(), 'bob', undefined, house), undefined);
    assert.deepEqual(byes, told);
  }
  await settle();
});

test('an offer without a key, or in our own name, is left to the check of proofs', () => {
  const { byes, house } = made(() => assert.fail());
  const link = linkOf('bob');
  assert.equal(admit(offer(null), 'bob', link, house), link);
  assert.equal(admit(offer(null), 'bob', undefined, house), undefined);
  assert.equal(admit(offer(), 'alice', undefined, house), undefined);
  assert.deepEqual(
    byes.map(([, , , code]) => code),
    ['bad-proof', 'bad-proof'],
  ); // nobody else would answer
});

test('a flood of offers does not become a flood of refusals', async () => {
  const { byes, house } = made(
    () => false,
    () => assert.fail(),
  );
  for (let n = 0; n < 1000; n++) admit(offer(), 'bob', undefined, house);
  assert.equal(byes.length, MAX_REFUSALS);
  await settle();
  assert.equal(byes.length, MAX_REFUSALS + 1); // the newest
});

test('callers who come all at once are all told, a few at a time, as far as there is room', async () => {
  const { byes, house } = made(
    () => false,
    () => assert.fail(),
  );
  const most = MAX_REFUSALS + MAX_WAITING;
  for (let n = 0; n <= most; n++) admit({ ...offer(), sender: `caller${n}` }, `caller${n}`, undefined, house);
  assert.equal(byes.length, MAX_REFUSALS);
  for (let rounds = 0; byes.length < most && rounds < 100; rounds++) await settle();
  assert.deepEqual(new Set(byes.map(([to]) => to)).size, most);
  assert.deepEqual(byes.at(-1), [`caller${most - 1}`, 'c', 'not accepted', 'not-accepted', undefined]);
});
