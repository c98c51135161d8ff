/** Two PeerConnections over a link in memory, with real proofs, from the first offer to the end, when all is well. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { statsOf } from '../../src/peer/stats.js';
import { BUFFER_HIGH } from '../../src/peer/transport.js';
import { encodeAck, encodeMessage, MAX_FRAME } from '../../src/protocol/channel.js';
import * as Content from '../../src/protocol/kinds.js';
import { connected, end, Link, pair, quiet, Side, until } from '../support/peers.js';

const ack = (sequence) => ({ type: 'ack', sequence });

// --- how it goes when all is well -----------------------------------------------------------------------------------

test('two peers connect and exchange frames', async () => {
  const world = await pair();
  const { alice, bob } = world;
  assert.equal(alice.peer.state, 'new');
  alice.peer.connect();
  assert.deepEqual(alice.states, [], 'never told within a call');
  await alice.until('connected');
  await bob.until('connected');
  for (const side of [alice, bob]) assert.deepEqual(side.states, ['connecting', 'connected']);
  assert.equal(alice.hellos[0].stream, 'bob-stream');
  assert.equal(bob.hellos[0].stream, 'alice-stream');
  assert(alice.peer.sendFrame(encodeMessage(Content.TEXT, 1, new Uint8Array([104, 105]))[0]));
  assert(bob.peer.sendFrame(encodeAck(1)));
  await until(() => alice.frames.length && bob.frames.length);
  assert.deepEqual(alice.frames, [ack(1)]);
  assert.equal(bob.frames[0].type, 'chunk');
  await end(world);
});

for (const [first, second] of [
  ['alice', 'bob'],
  ['bob', 'alice'],
]) {
  test(`both connecting at once end with one connection, ${first} first`, async () => {
    const world = await pair();
    world[first].peer.connect();
    world[second].peer.connect();
    await world.alice.until('connected');
    await world.bob.until('connected');
    assert.equal(world.link.of('answerReceived').length, 1);
    assert.equal(world.link.of('answerReceived')[0].sender, 'alice'); // the polite one
    for (const side of [world.alice, world.bob]) assert.deepEqual([side.hellos.length, side.closings], [1, 0]);
    await quiet();
    assert.equal(world.network.open.length, 2);
    await end(world);
  });
}

test('connecting again while connected does nothing', async () => {
  const world = await connected();
  world.alice.peer.connect();
  world.bob.peer.connect();
  await quiet();
  assert.equal(world.link.of('offerReceived').length, 1);
  await end(world);
});

test('the round-trip time is measured by the heartbeat', async () => {
  const world = await connected();
  await until(() => world.alice.peer.roundTripTime === 0);
  const peer = world.alice.peer;
  await end(world);
  assert.equal(peer.roundTripTime, null);
});

test('an offer goes to the device that is called, and to whichever is there when none is named', async () => {
  for (const device of [null, 'phone']) {
    const link = new Link();
    const alice = await Side.make(link, 'alice', 'bob', { device });
    const bob = await Side.make(link, 'bob', 'alice');
    alice.peer.connect();
    await alice.until('connected');
    const [offer] = link.passed;
    assert.deepEqual([offer.event.type, offer.to], ['offerReceived', device ? 'bob/phone' : 'bob']);
    await end({ link, alice, bob });
  }
});

test('stats belong to the current connection', async () => {
  const world = await pair();
  world.link.middle = (message) => [
    message.from === 'bob' ? { ...message, event: { ...message.event, sender: 'bob/phone' } } : message,
  ];
  const { alice, bob } = world;
  assert.equal(await alice.peer.stats(statsOf), null);
  alice.peer.connect();
  await alice.until('connected');
  await bob.until('connected');
  assert.equal(await alice.peer.stats(statsOf), null); // the engine knows of no path
  const [local, remote] = [
    { candidateType: 'host', protocol: 'udp' },
    { candidateType: 'srflx', protocol: 'udp' },
  ];
  const chosen = {
    type: 'candidate-pair',
    localCandidateId: 'L',
    remoteCandidateId: 'R',
  };
  world.network.open[0].stats = Object.entries({
    T: { type: 'transport', selectedCandidatePairId: 'P', bytesSent: 5, bytesReceived: 6 },
    P: chosen,
    L: local,
    R: remote,
  });
  assert.deepEqual(await alice.peer.stats(statsOf), {
    path: 'direct',
    protocol: 'udp',
    local: 'host',
    remote: 'srflx',
    bytesSent: 5,
    bytesReceived: 6,
  });
  await end(world);
  assert.equal(await alice.peer.stats(statsOf), null);
  // What follows the answer goes to the device that gave it.
  assert.deepEqual(
    world.link.passed.filter((each) => each.event.type === 'byeReceived' && each.from === 'alice').map(({ to }) => to),
    ['bob/phone'],
  );
});

test('a sender is held back, and told when there is room', async () => {
  const world = await connected();
  const { alice, bob, network } = world;
  const [frame] = encodeMessage(Content.BYTES, 1, new Uint8Array(MAX_FRAME - 14), MAX_FRAME - 14);
  assert.equal(frame.length, MAX_FRAME);
  await quiet(); // the first PINGs are answered
  network.stalled = true;
  let sent = 0;
  while (alice.peer.sendFrame(frame)) sent++;
  assert.equal(sent, BUFFER_HIGH / MAX_FRAME);
  await quiet();
  assert.equal(alice.writable, 0);
  network.resume();
  await until(() => alice.writable === 1 && bob.frames.length === sent);
  await end(world);
});

test('a listener that fills the buffer as soon as there is room is told again', async () => {
  const world = await connected();
  const { alice, bob, network } = world;
  const [frame] = encodeMessage(Content.BYTES, 1, new Uint8Array(MAX_FRAME - 14), MAX_FRAME - 14);
  let sent = 0;
  const pump = () => {
    for (; sent < 100 && alice.peer.sendFrame(frame); sent++);
  };
  alice.told = pump;
  network.stalled = true;
  pump();
  network.resume();
  await until(() => bob.frames.length === 100);
  assert(alice.writable > 1);
  await end(world);
});

test('frames are refused while there is no channel', async () => {
  const world = await pair();
  assert(!world.alice.peer.sendFrame(encodeAck(1)));
  world.alice.peer.connect();
  assert(!world.alice.peer.sendFrame(encodeAck(1)));
  await world.alice.until('connected');
  await end(world);
  assert(!world.alice.peer.sendFrame(encodeAck(1)));
});

// --- the end --------------------------------------------------------------------------------------------------------

test('closing says goodbye with its reason, on the channel', async () => {
  const world = await connected();
  world.link.middle = () => []; // no bye comes through
  await world.alice.peer.close('going home');
  await world.bob.until('closed');
  assert.deepEqual(world.bob.errors, []);
  assert.deepEqual([world.alice.closings, world.bob.closings], [1, 1]);
  await end(world);
});

test('after the other side has left both may connect again', async () => {
  const world = await connected();
  await world.alice.peer.close();
  await world.bob.until('closed');
  const alice = new Side(world.link, 'alice', 'bob', { identity: world.alice.identity });
  world.bob.peer.connect();
  await alice.until('connected');
  await world.bob.until('connected');
  assert.deepEqual([world.bob.closings, world.bob.hellos.length], [1, 2]);
  await end({ ...world, alice });
});

test('after close nothing happens any more', async () => {
  const world = await connected();
  const { alice, link } = world;
  const first = alice.peer.close();
  assert.equal(alice.peer.close(), first);
  await first;
  const told = alice.states.length;
  for (const { event } of link.passed.filter(({ to }) => to === 'alice')) alice.peer.receive(event);
  alice.peer.connect();
  await quiet();
  assert.equal(alice.states.length, told);
  await end(world);
});

test('what was waiting to be checked when it closed leads to nothing', async () => {
  const world = await pair();
  const { alice, bob, link } = world;
  link.middle = () => [];
  bob.peer.connect();
  await until(() => link.of('offerReceived').length === 1);
  const [offer] = link.of('offerReceived');
  alice.peer.receive(offer);
  alice.peer.receive({ ...offer, proof: null });
  await null; // the check has begun
  await end(world);
  assert.deepEqual(alice.states, ['closed']);
  assert.deepEqual(alice.refusals, []);
});

test('closing in the middle of an attempt tells the other side', async () => {
  const world = await pair();
  const { alice, bob, link } = world;
  link.middle = (message) => (message.event.type === 'answerReceived' ? [] : [message]);
  alice.peer.connect();
  await until(() => link.of('answerReceived').length);
  await alice.peer.close('changed my mind');
  await bob.until('failed');
  assert.match(bob.errors[0].message, /changed my mind/);
  await end(world);
});

test('closing waits for no engine that hangs', async () => {
  const world = await pair();
  world.network.frozen = true;
  world.alice.peer.connect();
  await quiet();
  await world.alice.peer.close();
  assert.deepEqual(world.alice.states, ['connecting', 'closed']);
  await end(world);
});

test('closing does not wait for ever for a server that hangs', async () => {
  const world = await pair();
  const { alice, link, timers } = world;
  link.send = () => new Promise(() => {});
  alice.peer.connect();
  await quiet();
  let closed = false;
  const closing = alice.peer.close().then(() => (closed = true));
  await quiet();
  assert(!closed);
  timers.advance(1);
  await closing;
});
