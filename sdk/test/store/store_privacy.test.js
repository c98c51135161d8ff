/** Stores of users who block each other, or hide, on a real server. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeliveryFailed, PeerBlocked, PeerOffline, RequestFailed, StateError, UsageError } from '../../src/errors.js';
import { Identity } from '../../src/identity/keys.js';
import { NetworkStore } from '../../src/store/store.js';
import { served } from '../support/server.js';
import { contents, scene, until, untilPeer } from '../support/stores.js';

test('to block somebody ends all with them on each device, until they are unblocked', async (t) => {
  const identity = await Identity.generate();
  const { world, alice: laptop, others } = await scene(t, { identity }, 'bob', 'carol');
  const [bob, carol] = others;
  const phone = await world.join('alice', { identity, device: 'phone' });
  await bob.connectToPeer('alice/main');
  await bob.connectToPeer('alice/phone');
  await carol.send('alice/main', 'hello');
  await bob.watch('alice');
  await laptop.block('bob');
  assert.deepEqual(laptop.state.privacy, { presence: 'public', offers: 'public', contacts: [], blocked: ['bob'] });
  assert.deepEqual([laptop.state.peers.bob.blocked, laptop.state.peers.bob.state], [true, 'closed']);
  await untilPeer(phone, 'bob', ({ blocked, state }) => blocked && state === 'closed');
  const seen = await untilPeer(bob, 'alice', ({ online, state }) => online === false && state !== 'connected');
  assert.equal(seen.peers.alice.blocked, false, 'nobody is told that they are blocked');
  for (const store of [laptop, phone]) {
    assert.throws(() => store.send('bob', 'no'), PeerBlocked);
    await assert.rejects(store.connectToPeer('bob'), PeerBlocked);
    await assert.rejects(store.sendFile('bob', new Blob(['x']), { name: 'x' }), PeerBlocked);
    await assert.rejects(store.call('bob'), PeerBlocked);
  }
  await assert.rejects(bob.connectToPeer('alice'), PeerOffline);
  const waiting = bob.send('alice/phone', 'you will want this');
  void carol.send('alice/main', 'still here');
  assert.deepEqual(await contents(laptop, 2), ['hello', 'still here']);
  await phone.unblock('bob');
  await waiting;
  assert.deepEqual(await contents(phone, 1), ['you will want this']);
  await untilPeer(laptop, 'bob', ({ blocked }) => !blocked);
  await laptop.connectToPeer('bob');
});

test('what waits for somebody fails when they are blocked', async (t) => {
  const { alice } = await scene(t, {});
  const delivery = alice.send('bob', 'when you come');
  await alice.block('bob', 'mallory');
  await assert.rejects(
    delivery,
    (error) => error instanceof DeliveryFailed && /you have blocked bob/.test(error.message),
  );
  assert.deepEqual(alice.state.privacy.blocked, ['bob', 'mallory']);
  assert.equal(alice.state.peers.mallory, undefined);
  await assert.rejects(alice.block('alice'), UsageError);
  await assert.rejects(new NetworkStore().block('bob'), StateError);
});

test('a block that the server does not keep holds here', async (t) => {
  const { alice, others } = await scene(t, {}, 'bob');
  const [bob] = others;
  await bob.connectToPeer('alice');
  const everybody = ['bob', ...Array.from({ length: 1000 }, (_, number) => `user${number}`)]; // more than may be
  await assert.rejects(alice.block(...everybody), (error) => error instanceof RequestFailed);
  assert.equal(alice.state.peers.bob.blocked, true);
  await untilPeer(bob, 'alice', ({ state }) => state !== 'connected');
  // The server passes on what bob sends. He gets no answer, as from somebody who is away.
  const waiting = bob.send('alice', 'are you there?');
  await untilPeer(bob, 'alice', ({ state }) => state === 'connecting');
  assert.throws(() => alice.send('bob', 'no'), PeerBlocked);
  assert.equal(alice.state.peers.bob.state, 'closed');
  await alice.unblock('bob');
  assert.equal(alice.state.peers.bob.blocked, false);
  await waiting;
  assert.deepEqual(await contents(alice, 1), ['are you there?']);
});

test('a block that the server could not be told of is told when it is back', async (t) => {
  const identity = await Identity.generate();
  const { server, world, alice } = await scene(t, { identity });
  const many = Array.from({ length: 1000 }, (_, number) => `user${number}`);
  await assert.rejects(alice.block('bob', ...many), RequestFailed); // more than one message may have
  await alice.unblock(...many);
  assert.deepEqual(alice.state.privacy.blocked, ['bob']);
  await server.kill();
  await served(t, { port: server.port });
  const phone = await world.join('alice', { identity, device: 'phone' });
  await until(phone, ({ privacy }) => privacy.blocked.join() === 'bob');
});

test('a server that knows no blocks has none to end', async (t) => {
  const lie = (message) => {
    if (message.type !== 'privacy') return [message];
    return [{ type: 'error', code: 'unknown-type', message: 'unknown', temporary: false, re: message.re }];
  };
  const { alice } = await scene(t, { lie });
  await assert.rejects(alice.block('bob'), { code: 'unknown-type' });
  assert.deepEqual(alice.state.privacy.blocked, ['bob']);
  await alice.unblock('bob');
  assert.deepEqual(alice.state.privacy.blocked, []);
  await assert.rejects(alice.addContacts('bob'), { code: 'unknown-type' });
});

test('a hidden user can call and is answered', async (t) => {
  const { alice, others } = await scene(t, {}, 'bob');
  const [bob] = others;
  await alice.setVisibility({ presence: 'hidden', offers: 'hidden' });
  await assert.rejects(bob.connectToPeer('alice'), PeerOffline);
  await alice.connectToPeer('bob');
  await alice.send('bob', 'it is me');
  await bob.send('alice', 'I see');
  assert.deepEqual([await contents(bob, 1), await contents(alice, 1)], [['it is me'], ['I see']]);
  assert.equal(bob.state.peers.alice.online, false);
});

test('only contacts see and call a user that wants it so', async (t) => {
  const { alice, others } = await scene(t, {}, 'bob', 'eve');
  const [bob, eve] = others;
  await alice.addContacts('bob');
  await alice.setVisibility({ presence: 'contacts', offers: 'contacts' });
  const { privacy } = alice.state;
  assert.deepEqual(privacy, { presence: 'contacts', offers: 'contacts', contacts: ['bob'], blocked: [] });
  await Promise.all([bob.watch('alice'), eve.watch('alice')]);
  assert.deepEqual([bob.state.peers.alice.online, eve.state.peers.alice.online], [true, false]);
  await assert.rejects(eve.connectToPeer('alice'), PeerOffline);
  await bob.connectToPeer('alice');
  await alice.removeContacts('bob');
  await untilPeer(bob, 'alice', ({ online }) => online === false);
  assert.equal(bob.state.peers.alice.state, 'connected', 'a connection goes on');
  await assert.rejects(alice.setVisibility({ presence: 'everybody' }), {
    name: 'UsageError',
    message: 'presence is one of public, contacts, hidden, not "everybody"',
  });
  await assert.rejects(alice.setVisibility({ presense: 'public' }), { name: 'ConfigError' });
  await assert.rejects(alice.addContacts('b o b'), { name: 'InvalidAddress' });
  await until(alice, (state) => state.privacy.contacts.length === 0);
});
