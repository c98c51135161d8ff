/** What becomes of a message, asked early, late or never. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeliveryFailed, StateError } from '../../src/errors.js';
import { Delivery } from '../../src/store/delivery.js';

const turn = () => new Promise((resolve) => setImmediate(resolve));

test('everybody who waits is told, and so is who asks later', async () => {
  const delivery = new Delivery('bob', 1);
  const waiting = Promise.all([delivery, delivery.then(() => 'told'), (async () => await delivery)()]);
  await turn();
  assert.deepEqual([delivery.done, delivery.delivered], [false, false]);
  delivery.succeed();
  assert.deepEqual([delivery.done, delivery.delivered], [true, true]);
  assert.deepEqual(await waiting, [undefined, 'told', undefined]);
  assert.equal(await delivery, undefined);
});

test('a failure names the message, the reason, and the fault behind it', async () => {
  const delivery = new Delivery('bob', 7);
  const early = delivery.then(null, (error) => error);
  const fault = new StateError('the store is closed');
  delivery.fail('the store is closed', fault);
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
  new Delivery('bob', 1).fail('x');
  const seen = new Delivery('bob', 2);
  seen.then(null, () => {});
  seen.fail('x');
  await turn();
  process.off('unhandledRejection', hear);
  assert.deepEqual(unhandled, []);
});
