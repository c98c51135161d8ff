/** What becomes of a message, asked early, late or never. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeliveryFailed, StateError } from '../../../src/errors.js';
import { Delivery } from '../../../src/store/messages/delivery.js';

const failure = (userId, sequence, cause) => new DeliveryFailed(userId, sequence, 'the store is closed', { cause });
const turn = () => new Promise((resolve) => setImmediate(resolve));

test('everybody who waits is told, and so is who asks later', async () => {
  const delivery = new Delivery('bob', 1);
  const waiting = Promise.all([delivery, delivery.then(() => 'told'), (async () => delivery)()]);
  await turn();
  assert.deepEqual([delivery.done, delivery.delivered], [false, false]);
  Delivery.end(delivery, null);
  assert.deepEqual([delivery.done, delivery.delivered], [true, true]);
  assert.deepEqual(await waiting, [undefined, 'told', undefined]);
  assert.equal(await delivery, undefined);
});

test('a failure names the message, the reason, and the fault behind it', async () => {
  const delivery = new Delivery('bob', 7);
  const early = delivery.then(null, (error) => error);
  const fault = new StateError('the store is closed');
  Delivery.end(delivery, failure('bob', 7, fault));
  for (const error of [await early, await delivery.then(null, (error) => error)]) {
    assert.ok(error instanceof DeliveryFailed);
    assert.deepEqual([error.userId, error.sequence, error.reason], ['bob', 7, 'the store is closed']);
    assert.equal(error.cause, fault);
  }
  assert.deepEqual([delivery.done, delivery.delivered], [true, false]);
});

test('a failure that nobody asks for is silent, and so is one that was only looked at', async () => {
  const unhandled = [];
  const hear = (error) => unhandled.push(error.sequence);
  process.on('unhandledRejection', hear);
  Delivery.end(new Delivery('bob', 1), failure('bob', 1));
  const seen = new Delivery('bob', 2);
  seen.then(null, () => {});
  Delivery.end(seen, failure('bob', 2));
  await turn();
  process.off('unhandledRejection', hear);
  assert.deepEqual(unhandled, []);
});

test('a delivery is asked as a promise is: with then, catch and finally', async () => {
  const [arrived, lost] = [new Delivery('bob', 1), new Delivery('bob', 2)];
  const told = [];
  const waiting = [
    arrived.catch(() => told.push('never')),
    arrived.finally(() => told.push('arrived, finally')),
    lost.catch(({ name }) => told.push(name)),
    lost.finally(() => told.push('lost, finally')).catch(() => told.push('and lost')),
  ];
  Delivery.end(arrived, null);
  Delivery.end(lost, failure('bob', 2));
  await Promise.all(waiting);
  assert.deepEqual(told.sort(), ['DeliveryFailed', 'and lost', 'arrived, finally', 'lost, finally']);
});

test('nobody but the store can say that a message has arrived', () => {
  const delivery = new Delivery('bob', 1);
  for (const name of ['succeed', 'fail', 'end']) assert.equal(delivery[name], undefined);
  assert.throws(() => (delivery.done = true), TypeError);
  assert.equal(delivery.done, false);
});
