/** What a login says to the server for sessions of the sealed relay. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PeerSession } from '../../../src/peer/session.js';
import { RelayLogin } from '../../../src/store/peers/relay_login.js';
import { FakeTimers } from '../../support/fake_timers.js';

/** A login whose server takes a message when `taken` says so, and how often it was asked whether it is there. */
function login(taken) {
  const timers = new FakeTimers();
  const client = { userId: 'alice', device: 'main', asked: 0, relay: () => taken, suspect: () => client.asked++ };
  return { timers, client, login: new RelayLogin(client, null, null, null, { timers }, PeerSession) };
}

test('a server that does not take a message is asked whether it is there', () => {
  const { timers, client, login: waiting } = login(new Promise(() => {}));
  void waiting.send('bob/main', new Uint8Array());
  timers.advance(1.9);
  assert.equal(client.asked, 0);
  timers.advance(0.2);
  assert.equal(client.asked, 1);
});

test('a server that takes messages is not asked', async () => {
  const { timers, client, login: served } = login(Promise.resolve());
  await served.send('bob/main', new Uint8Array());
  timers.advance(60);
  assert.equal(client.asked, 0);
});
