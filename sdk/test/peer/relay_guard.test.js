/** What one program takes from those who begin sealed sessions with it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  ANSWER_SECONDS,
  MAX_ANSWERS,
  MAX_HANDSHAKES,
  MAX_KEYS,
  MAX_SENDERS,
  MAX_SESSIONS,
  MAX_USER_BYTES,
  MAX_WAITING_BYTES,
  MESSAGE_COST,
  RelayGuard,
  WINDOW_SECONDS,
} from '../../src/peer/relay_guard.js';

test('a sender has so many handshakes in a window', () => {
  const guard = new RelayGuard();
  for (let count = 0; count < MAX_HANDSHAKES; count++) assert.equal(guard.pause('bob', 100), 0);
  assert.equal(guard.pause('bob', 103), WINDOW_SECONDS - 3);
  assert.equal(guard.pause('bob/phone', 103), 0);
  assert.equal(guard.pause('bob', 100 + WINDOW_SECONDS), 0);
});

test('a sender is told once a second that a session could not be opened', () => {
  const guard = new RelayGuard();
  assert.ok(guard.mayAnswer('bob', 'one', 5));
  assert.ok(!guard.mayAnswer('bob', 'one', 5 + ANSWER_SECONDS / 2));
  assert.ok(guard.mayAnswer('carol', 'one', 5));
  assert.ok(guard.mayAnswer('bob', 'one', 5 + ANSWER_SECONDS));
});

test('a sender is told of few sessions a second', () => {
  const guard = new RelayGuard();
  const told = Array.from({ length: 1000 }, (_, number) => guard.mayAnswer('bob', `${number}`, 5));
  assert.equal(told.lastIndexOf(true), MAX_ANSWERS - 1);
  assert.equal(told.filter(Boolean).length, MAX_ANSWERS);
  assert.ok(guard.mayAnswer('bob', 'one more', 5 + ANSWER_SECONDS));
});

test('what waits of one user leaves room for the others', () => {
  const guard = new RelayGuard();
  const half = MAX_USER_BYTES / 2 - MESSAGE_COST;
  assert.deepEqual(
    [1, 2, 3].map(() => guard.hold('bob', half)),
    [true, true, false],
  );
  assert.ok(!guard.hold('bob', 0));
  assert.ok(guard.hold('carol', half));
  guard.release('bob', half);
  assert.ok(guard.hold('bob', half));
});

test('what waits of all users has a limit', () => {
  const guard = new RelayGuard();
  const size = MAX_USER_BYTES - MESSAGE_COST;
  const users = Array.from({ length: MAX_WAITING_BYTES / MAX_USER_BYTES }, (_, number) => `user ${number}`);
  assert.ok(users.every((user) => guard.hold(user, size)));
  assert.ok(!guard.hold('bob', 0));
  guard.release(users[0], size);
  assert.ok(guard.hold('bob', 0));
});

test('a message larger than the room of a user waits alone', () => {
  const guard = new RelayGuard();
  assert.ok(guard.hold('bob', 2 * MAX_USER_BYTES));
  assert.ok(!guard.hold('bob', 0));
  assert.ok(!guard.hold('carol', MAX_WAITING_BYTES));
});

test('a session is taken once for each key', () => {
  const guard = new RelayGuard();
  assert.ok(!guard.seen('key', 'one'));
  guard.take('key', 'one');
  assert.ok(guard.seen('key', 'one'));
  assert.ok(!guard.seen('key', 'two'));
  assert.ok(!guard.seen('other', 'one'));
});

test('the table of a key fills, and no session is forgotten', () => {
  const guard = new RelayGuard();
  for (let number = 0; number < MAX_SESSIONS; number++) {
    assert.ok(!guard.full('key'));
    guard.take('key', `${number}`);
  }
  assert.ok(guard.full('key'));
  assert.ok(!guard.full('other'));
  assert.ok(guard.seen('key', '0'));
});

test('only the tables of the newest keys are kept', () => {
  const guard = new RelayGuard();
  const keys = Array.from({ length: MAX_KEYS + 1 }, (_, number) => `key ${number}`);
  keys.forEach((key) => guard.take(key, 'one'));
  assert.deepEqual(
    keys.filter((key) => !guard.seen(key, 'one')),
    ['key 0'],
  );
});

test('the senders heard from last are remembered', () => {
  const guard = new RelayGuard();
  for (let number = 0; number < MAX_SENDERS; number++) assert.ok(guard.mayAnswer(`user${number}`, 'one', 1));
  assert.ok(!guard.mayAnswer('user0', 'one', 1)); // and it is the one heard from last now
  assert.ok(guard.mayAnswer('one more', 'one', 1));
  assert.ok(!guard.mayAnswer('user0', 'one', 1));
  assert.ok(guard.mayAnswer('user1', 'one', 1)); // forgotten
});
