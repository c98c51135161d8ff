/** Two PeerConnections over a link in memory, with real proofs, and a server between them that does as it pleases. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConnectionLost, ProofInvalid, RequestFailed } from '../../src/errors.js';
import { Identity } from '../../src/identity/keys.js';
import { BUFFER_HIGH } from '../../src/peer/wire.js';
import { Content, encodeAck, encodeMessage, MAX_FRAME } from '../../src/protocol/channel.js';
import { generator } from '../support/generator.js';
import { connected, end, Link, pair, quiet, Side, until } from '../support/peers.js';

const NONSENSE = 'm=application nonsense\r\na=fingerprint:nonsense\r\n'; // what the engine itself has to turn down
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

test('stats belong to the current connection', async () => {
  const world = await pair();
  world.link.middle = (message) => [
    message.from === 'bob' ? { ...message, event: { ...message.event, sender: 'bob/phone' } } : message,
  ];
  const { alice, bob } = world;
  assert.equal(await alice.peer.stats(), null);
  alice.peer.connect();
  await alice.until('connected');
  await bob.until('connected');
  assert.equal(await alice.peer.stats(), null); // the engine knows of no path
  const [local, remote] = [
    { candidateType: 'host', protocol: 'udp' },
    { candidateType: 'srflx', protocol: 'udp' },
  ];
  const chosen = {
    type: 'candidate-pair',
    localCandidateId: 'L',
    remoteCandidateId: 'R',
    bytesSent: 5,
    bytesReceived: 6,
  };
  world.network.open[0].stats = Object.entries({
    T: { type: 'transport', selectedCandidatePairId: 'P' },
    P: chosen,
    L: local,
    R: remote,
  });
  assert.deepEqual(await alice.peer.stats(), {
    path: 'direct',
    protocol: 'udp',
    local: 'host',
    remote: 'srflx',
    bytesSent: 5,
    bytesReceived: 6,
    roundTripTime: alice.peer.roundTripTime,
  });
  await end(world);
  assert.equal(await alice.peer.stats(), null);
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

// --- signaling that fails -------------------------------------------------------------------------------------------

test('a peer that is not online is said to be offline, each time', async () => {
  const world = await pair();
  const { alice, bob, link } = world;
  link.down = new RequestFailed('not-online', 'User bob is not online');
  for (const times of [1, 2]) {
    alice.peer.connect();
    await until(() => alice.errors.length === times);
    assert.equal(alice.errors.at(-1).name, 'PeerOffline');
  }
  link.down = null;
  alice.peer.connect();
  await alice.until('connected');
  await bob.until('connected');
  await end(world);
});

test('a lost server fails the attempt but not the connection', async () => {
  const world = await pair();
  const { alice, bob, link } = world;
  link.down = new ConnectionLost('the server is gone');
  alice.peer.connect();
  await alice.until('failed');
  assert.equal(alice.errors[0].message, 'no direct connection to bob: the server is gone');
  link.down = null;
  alice.peer.connect();
  await alice.until('connected');
  await bob.until('connected');
  link.down = new ConnectionLost('the server is gone');
  assert(alice.peer.sendFrame(encodeAck(3)));
  await until(() => bob.frames.length);
  await end(world);
});

test('candidates that overtake their offer or answer are kept', async () => {
  const world = await pair();
  const { alice, bob, link, network } = world;
  const held = [];
  link.middle = (message) => {
    if (message.event.description) {
      held.push(message);
      return [];
    }
    const last = message.event.type === 'candidateReceived' && message.event.candidate === null;
    return last ? [message, ...held.splice(0)] : [message];
  };
  alice.peer.connect();
  await alice.until('connected');
  await bob.until('connected');
  for (const connection of network.open) assert.equal(connection.candidates.length, 2); // one, and the end
  await end(world);
});

for (const seed of [1, 2, 3, 4]) {
  test(`repeated and reordered messages do no harm (${seed})`, async () => {
    const random = generator(seed);
    const world = await pair();
    const { alice, bob, link } = world;
    const late = [];
    link.middle = (message) => {
      late.push(message);
      return late.length > 3 ? [message, ...late.splice(random.below(late.length), 1)] : [message];
    };
    alice.peer.connect();
    bob.peer.connect();
    await alice.until('connected');
    await bob.until('connected');
    for (const message of late) link.deliver(message);
    await quiet();
    assert(alice.peer.sendFrame(encodeAck(1)));
    await until(() => bob.frames.length);
    assert.deepEqual([alice.closings, bob.closings], [0, 0]);
    link.middle = (message) => [message];
    world.timers.advance(31); // what late offers have led to is over
    await quiet();
    await end(world);
  });
}

test('an attempt that nobody answers ends', async () => {
  const world = await pair();
  const { alice, link, timers } = world;
  link.middle = () => [];
  alice.peer.connect();
  await until(() => link.of('offerReceived').length);
  timers.advance(29.9);
  assert.equal(alice.peer.state, 'connecting');
  timers.advance(0.2);
  await alice.until('failed');
  assert.equal(alice.errors[0].message, 'no direct connection to bob: no answer within 30 s');
  await end(world);
});

test('a configuration that cannot be used fails the attempt, and so does a browser without WebRTC', async () => {
  const world = await pair();
  const { alice, bob } = world;
  alice.peer.config = { iceServers: [{ urls: ['http://nonsense'] }] };
  alice.peer.connect();
  await alice.until('failed');
  assert.match(alice.errors[0].message, /no direct connection to bob: .*http:\/\/nonsense/);
  alice.peer.config = { iceServers: [{ urls: ['turn:example.org'], username: 'u', credential: null }] };
  alice.peer.connect();
  await alice.until('connected');
  assert.deepEqual(world.network.open[0].configuration.iceServers, [{ urls: ['turn:example.org'], username: 'u' }]);
  await bob.until('connected');
  await end(world);

  const without = await Side.make(new Link(), 'alice', 'bob', { RTCPeerConnection: undefined });
  without.peer.connect();
  await without.until('failed');
  assert.match(without.errors[0].message, /WebRTC is missing here/);
});

for (const [what, sdp] of [
  ['empty', ''],
  ['huge', 'v=0\r\n'.repeat(30_000)],
  ['nonsense', NONSENSE],
]) {
  test(`a proven offer that is ${what} fails the attempt only`, async () => {
    const world = await pair();
    const { alice, bob } = world;
    const proof = await bob.trust.sign('alice', 'x', sdp);
    const capabilities = { trickle: true, restart: true };
    const description = { type: 'offer', sdp };
    alice.peer.receive({ type: 'offerReceived', sender: 'bob', description, connection: 'x', proof, capabilities });
    await alice.until('failed');
    assert.equal(alice.errors[0].name, 'PeerConnectionFailed');
    alice.peer.connect();
    await alice.until('connected');
    await bob.until('connected');
    await end(world);
  });
}

test('a proven answer that is nonsense fails the attempt only', async () => {
  const world = await pair();
  const { alice, bob, link } = world;
  link.middle = ({ event }) => {
    if (event.type !== 'offerReceived') return [];
    const { connection, description, proof } = event;
    void bob.trust.sign('alice', connection, NONSENSE, { sdp: description.sdp, proof }).then((answer) =>
      alice.peer.receive({
        ...event,
        type: 'answerReceived',
        sender: 'bob',
        description: { type: 'answer', sdp: NONSENSE },
        proof: answer,
      }),
    );
    return [];
  };
  alice.peer.connect();
  await alice.until('failed');
  assert.match(alice.errors[0].message, /bad SDP/);
  await end(world);
});

test('an engine that makes no offer or answer fails the attempt', async () => {
  const world = await pair();
  world.network.refuses.set('setLocalDescription', 'not today');
  world.alice.peer.connect();
  await world.alice.until('failed');
  assert.match(world.alice.errors[0].message, /not today/);
  await end(world);
});

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

test('pins that cannot be read refuse what they cannot judge', async () => {
  const pins = {
    pin: async () => {
      throw new DOMException('no storage');
    },
  };
  const world = await pair({ pins });
  world.alice.peer.connect();
  await until(() => world.bob.refusals.length);
  assert.match(world.bob.refusals[0].message, /in the name of alice was refused: no storage/);
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

// --- lost paths -----------------------------------------------------------------------------------------------------

for (const both of [false, true]) {
  test(`a lost path is healed by an ICE restart on the same connection${both ? ', also when both notice' : ''}`, async () => {
    const world = await connected();
    const { alice, bob, link, ours, theirs } = world;
    ours.sever();
    for (const connection of both ? [ours, theirs] : [ours]) connection.become('disconnected');
    await until(() => alice.states.includes('disconnected'));
    await until(() => link.of('answerReceived').length === 2);
    await quiet();
    ours.become('connected');
    theirs.become('connected');
    await alice.until('connected');
    await bob.until('connected');
    assert.equal(new Set(link.of('offerReceived').map(({ connection }) => connection)).size, 1);
    assert.equal(new Set(link.of('offerReceived').map(({ proof }) => proof.nonce)).size, both ? 3 : 2);
    assert.deepEqual([alice.closings, bob.closings], [0, 0]);
    await end(world);
  });
}

test('a side that falls silent is noticed by the heartbeat, and given up in the end', async () => {
  const world = await connected();
  const { alice, link, ours, timers } = world;
  await quiet();
  link.middle = () => [];
  ours.sever();
  timers.advance(4.9);
  assert.equal(alice.peer.state, 'connected');
  timers.advance(0.2);
  await alice.until('disconnected');
  assert(alice.open); // it may come back
  timers.advance(15);
  await alice.until('failed');
  assert.match(alice.errors[0].message, /did not come back within 15 s/);
  await end(world);
});

test('a late answer to a former offer is no forgery', async () => {
  const world = await connected();
  const { alice, link, ours, timers } = world;
  const held = [];
  link.middle = (message) => (message.event.type === 'answerReceived' ? (held.push(message), []) : [message]);
  ours.become('disconnected');
  await until(() => held.length === 1);
  timers.advance(0.1);
  ours.become('connected');
  await alice.until('connected');
  timers.advance(14.9); // the restart offer is given up
  ours.become('disconnected');
  await until(() => held.length === 2);
  for (const message of held) link.deliver(message);
  await quiet();
  assert.deepEqual(alice.refusals, []);
  ours.become('connected');
  await alice.until('connected');
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
