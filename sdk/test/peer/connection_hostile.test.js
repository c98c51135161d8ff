/** Two PeerConnections, and between them a server that does as it pleases; and a peer that does so on the channel. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IdentityError, ProofInvalid } from '../../src/errors.js';
import { Identity } from '../../src/identity/keys.js';
import { putTracks } from '../../src/peer/media.js';
import { camera } from '../support/fake_media.js';
import { connected, end, pair, quiet, Side, until } from '../support/peers.js';

// --- a server that is no friend -------------------------------------------------------------------------------------

const TAMPERINGS = {
  'the fingerprint': (event) => ({
    ...event,
    description: { ...event.description, sdp: event.description.sdp.replace('FA:', 'EE:') },
  }),
  'the proof away': (event) => ({ ...event, proof: null }),
  'the connection': (event) => ({ ...event, connection: 'z'.repeat(22) }),
  'the connection away': (event) => ({ ...event, connection: null }),
  'the nonce': (event) => ({ ...event, proof: { ...event.proof, nonce: btoa('\0'.repeat(32)) } }),
  'the key': (event, mallory) => ({
    ...event,
    proof: { ...event.proof, publicKey: btoa(String.fromCharCode(...mallory.publicKey)) },
  }),
};

for (const type of ['offerReceived', 'answerReceived']) {
  for (const [what, tamper] of Object.entries(TAMPERINGS)) {
    test(`a server that swaps ${what} in what becomes ${type} gets no channel`, async () => {
      const world = await pair();
      const { alice, bob, link, timers } = world;
      const mallory = await Identity.generate();
      link.middle = (message) => [
        message.event.type === type ? { ...message, event: tamper(message.event, mallory) } : message,
      ];
      alice.peer.connect();
      await until(() => link.of(type).length);
      await quiet();
      timers.advance(30);
      await alice.until('failed');
      assert.deepEqual([...alice.hellos, ...bob.hellos], []);
      const victim = type === 'offerReceived' ? bob : alice;
      // An answer for a connection that is not known is of no interest.
      if (type === 'answerReceived' && what === 'the connection') assert.deepEqual(victim.refusals, []);
      else assert(victim.refusals[0] instanceof ProofInvalid);
      if (type === 'offerReceived') assert.deepEqual(bob.states, [], 'nothing at all has happened');
      await end(world);
    });
  }
}

test('a refused answer is told, and leaves the attempt to the true one', async () => {
  const world = await pair();
  const { alice, bob, link, timers } = world;
  link.middle = (message) =>
    message.event.type === 'answerReceived' ? [{ ...message, event: { ...message.event, proof: null } }] : [message];
  alice.peer.connect();
  await until(() => alice.refusals.length);
  timers.advance(30);
  await alice.until('failed');
  assert.match(alice.errors[0].message, /no answer/);
  const [bye] = link.of('byeReceived', 'alice'); // bob is told as well, when the attempt is over
  assert.deepEqual([bye.reason, bye.code, bye.retryAfter], ['the proof is not valid', 'bad-proof', 60]);
  link.middle = (message) =>
    message.event.type === 'answerReceived'
      ? [{ ...message, event: { ...message.event, proof: null } }, message]
      : [message];
  alice.peer.connect();
  await alice.until('connected');
  await bob.until('connected');
  await end(world);
});

test('a replayed offer is refused, and nothing happens to the connection', async () => {
  const world = await connected();
  const { alice, bob, link, timers } = world;
  const [offer] = link.of('offerReceived');
  bob.peer.receive(offer); // while its connection lives it is a mere repetition
  await quiet();
  assert.deepEqual(bob.refusals, []);
  await alice.peer.close();
  await bob.until('closed');
  bob.peer.receive(offer); // and a late one afterwards
  await quiet();
  assert.deepEqual([bob.refusals.length, bob.peer.state], [0, 'closed']);
  bob.peer.receive({ ...offer, connection: 'another' });
  await until(() => bob.refusals.length === 1);
  timers.advance(0);
  assert.equal(bob.peer.state, 'closed');
  await end(world);
});

test('a changed key is refused, told with both keys, and taken after it has been accepted', async () => {
  const world = await connected();
  const { bob, link } = world;
  await world.alice.peer.close();
  await bob.until('closed');
  const alice = await Side.make(link, 'alice', 'bob');
  alice.peer.connect();
  await until(() => bob.refusals.length);
  assert.equal(bob.refusals[0].name, 'PeerKeyChanged');
  assert.deepEqual(bob.refusals[0].offered, alice.identity.publicKey);
  assert.equal(bob.peer.state, 'closed');
  await end({ ...world, alice });
});

for (const fault of [new DOMException('no storage'), new IdentityError('no storage')]) {
  test(`pins that fail with a ${fault.name} refuse what they cannot judge, and nobody is called a forger`, async () => {
    const pins = {
      pin: async () => {
        throw fault;
      },
    };
    const world = await pair({ pins });
    world.alice.peer.connect();
    await until(() => world.bob.refusals.length);
    const [{ name, message }] = world.bob.refusals;
    assert.deepEqual([name, message], ['IdentityError', 'no storage']);
    await end(world);
  });
}

test('pins that cannot be written fail an attempt as soon as it is answered, and leave a connection that stands', async () => {
  const fault = new IdentityError('no storage');
  let broken = true;
  const pins = {
    pin: async (server, userId, publicKey) => {
      if (broken && userId === 'bob') throw fault;
      return publicKey;
    },
  };
  const world = await pair({ pins });
  const { alice, bob } = world;
  alice.peer.connect();
  await alice.until('failed');
  assert.deepEqual(alice.refusals, [fault]);
  assert.equal(world.timers.time(), 1000); // no time-out has been waited for
  broken = false;
  alice.peer.connect();
  await alice.until('connected');
  await bob.until('connected');
  broken = true;
  alice.peer.setTracks(camera('audio'), putTracks);
  await until(() => alice.refusals.length === 2);
  await quiet();
  assert.equal(alice.peer.state, 'connected');
  await end(world);
});

test('messages without a name are left alone', async () => {
  const world = await connected();
  const { bob, link } = world;
  const [offer] = link.of('offerReceived');
  bob.peer.receive({ type: 'byeReceived', sender: 'alice', connection: null, reason: null });
  bob.peer.receive({ type: 'candidateReceived', sender: 'alice', connection: null, candidate: null });
  await quiet();
  assert.deepEqual(bob.refusals, []);
  bob.peer.receive({ ...offer, connection: null });
  await until(() => bob.refusals.length === 1);
  assert.equal(bob.peer.state, 'connected');
  await end(world);
});

test('a flood of offers is cut off while the first are being checked', async () => {
  const world = await connected();
  const { bob, link } = world;
  const [offer] = link.of('offerReceived');
  for (let number = 0; number < 2000; number++) bob.peer.receive({ ...offer, proof: null, connection: `n${number}` });
  await until(() => bob.refusals.length === 512);
  await quiet();
  assert.equal(bob.refusals.length, 512);
  assert.equal(bob.peer.state, 'connected');
  await end(world);
});

test('a bye from the server does not end a connection that works', async () => {
  const world = await connected();
  const { alice, link, timers } = world;
  const { connection } = link.of('offerReceived')[0];
  alice.peer.receive({ type: 'byeReceived', sender: 'bob', connection, reason: 'says the server' });
  await quiet();
  timers.advance(2);
  await quiet();
  assert.equal(alice.peer.state, 'connected');
  world.ours.sever();
  alice.peer.receive({ type: 'byeReceived', sender: 'bob', connection, reason: 'says the server' });
  await quiet();
  timers.advance(1.5);
  await alice.until('closed');
  await end(world);
});

// --- what the other side does on the channel ------------------------------------------------------------------------

test('another version of the channel protocol is refused in words', async () => {
  const world = await pair();
  world.bob = await Side.make(world.link, 'bob', 'alice', { version: 2 });
  world.alice.peer.connect();
  await world.alice.until('failed');
  assert.match(world.alice.errors[0].message, /it speaks version 2 of the channel protocol, we speak 1/);
  await end(world);
});

test('a peer that breaks the protocol loses the connection', async () => {
  const world = await connected();
  const [channel] = world.ours.channels;
  channel.send('text');
  await world.bob.until('failed');
  assert.match(world.bob.errors[0].message, /broke the protocol: a text message/);
  await end(world);
});

test('a listener that throws does not keep the rest from being told', async () => {
  const faults = [];
  const noted = (error) => faults.push(error.message);
  process.prependOnceListener('uncaughtException', noted);
  const listeners = process.listeners('uncaughtException').filter((each) => each !== noted && each.listener !== noted);
  for (const each of listeners) process.off('uncaughtException', each);
  try {
    const world = await pair();
    world.alice.refusals = {
      push: () => {
        throw new Error('a fault of the application');
      },
    };
    const event = { type: 'offerReceived', sender: 'bob', description: { type: 'offer', sdp: '' }, connection: null };
    world.alice.peer.receive(event);
    await until(() => faults.length === 1);
    world.alice.peer.connect();
    await world.alice.until('connected');
    await world.bob.until('connected');
    await end(world);
    assert.deepEqual(faults, ['a fault of the application']);
  } finally {
    for (const each of listeners) process.on('uncaughtException', each);
  }
});
