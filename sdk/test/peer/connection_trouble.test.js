/** Two PeerConnections over a link in memory that loses, repeats and reorders, over paths that break. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConnectionLost, RequestFailed } from '../../src/errors.js';
import { encodeAck } from '../../src/protocol/channel.js';
import { generator } from '../support/generator.js';
import { connected, end, Link, pair, quiet, Side, until } from '../support/peers.js';

const NONSENSE = 'm=application nonsense\r\na=fingerprint:nonsense\r\n'; // what the engine itself has to turn down

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

test('a server that takes no more messages says until when', async () => {
  const world = await pair();
  const { alice, link } = world;
  link.down = new RequestFailed('rate-limited', 'enough from you waits', { temporary: true, retryAfter: 7 });
  alice.peer.connect();
  await alice.until('failed');
  const { name, code, retryAfter, temporary } = alice.errors.at(-1);
  assert.deepEqual([name, code, retryAfter, temporary], ['PeerRefused', 'rate-limited', 7, true]);
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
  /** @type {RTCConfiguration} */
  let config = { iceTransportPolicy: /** @type {any} */ ('nonsense') };
  const world = await pair({ config: () => config });
  const { alice, bob } = world;
  alice.peer.connect();
  await alice.until('failed');
  assert.match(alice.errors[0].message, /no direct connection to bob: .*nonsense/);
  config = { iceServers: [{ urls: ['turn:example.org'], username: 'u', credential: null }] };
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

test('an ICE restart asks the servers of now, with the credentials of now', async () => {
  let credential = 'old';
  const config = () => ({ iceServers: [{ urls: 'turn:example.org', username: 'u', credential }] });
  const world = await connected({ config });
  const { alice, link, ours, theirs } = world;
  credential = 'new';
  ours.sever();
  ours.become('disconnected');
  await until(() => link.of('answerReceived').length === 2);
  ours.become('connected');
  theirs.become('connected');
  await alice.until('connected');
  assert.equal(ours.configuration.iceServers[0].credential, 'new');
  await end(world);
});

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

test('a refusal is told while the connection before may still come back', async () => {
  const world = await pair();
  const { alice, bob, link } = world;
  link.middle = (message) => {
    const { event } = message;
    return [
      { ...message, event: event.capabilities ? { ...event, capabilities: { trickle: true, restart: false } } : event },
    ];
  };
  alice.peer.connect();
  await alice.until('connected');
  await bob.until('connected');
  await quiet();
  link.middle = () => [];
  link.network.connections[0].sever();
  link.timers.advance(5.2);
  await alice.until('disconnected');
  assert.deepEqual(alice.errors, []);
  alice.peer.connect();
  await until(() => link.of('offerReceived', 'alice').length === 2);
  const { connection } = link.of('offerReceived', 'alice')[1];
  alice.peer.receive({
    type: 'byeReceived',
    sender: 'bob',
    connection,
    reason: 'not now',
    code: 'busy',
    retryAfter: 5,
  });
  await until(() => alice.errors.length);
  assert.deepEqual([alice.peer.state, alice.errors[0].code, alice.errors[0].retryAfter], ['disconnected', 'busy', 5]);
  await end(world);
});

for (const [relayed, reason] of [
  [
    false,
    'no path to the other side was found; no relay candidate from turn:a.example, turns:b.example:' +
      ' the server cannot be reached, or refuses the credentials',
  ],
  [true, 'no path to the other side was found; not through turn:a.example, turns:b.example either'],
]) {
  test(`an attempt that failed ${relayed ? 'with' : 'for want of'} a relay says ${relayed ? 'nothing of' : 'so'} it`, async () => {
    const urls = ['turn:a.example', 'turns:b.example'];
    const config = () => ({ iceServers: [{ urls: 'stun:c.example' }, { urls, username: 'u', credential: 'c' }] });
    const world = await pair({ config });
    const { alice, link, network } = world;
    link.middle = () => [];
    alice.peer.connect();
    await until(() => link.of('offerReceived').length === 1);
    const [ours] = network.open;
    const candidate = { candidate: 'candidate:1 1 udp 1 192.0.2.1 9 typ relay raddr 0.0.0.0 rport 0', sdpMid: '0' };
    if (relayed) ours.onicecandidate({ candidate: { ...candidate, toJSON: () => candidate } });
    ours.become('failed');
    await alice.until('failed');
    assert.equal(alice.errors[0].message, `no direct connection to bob: ${reason}`);
    assert.equal(alice.errors[0].turn, relayed ? 'tried' : 'unreachable');
    await until(() => link.of('byeReceived').length === 1);
    assert.equal(link.of('byeReceived')[0].code, 'no-path');
    await end(world);
  });
}

test('an attempt that failed without any TURN server says that none is configured', async () => {
  const world = await pair({ config: () => ({ iceServers: [{ urls: 'stun:c.example' }] }) });
  const { alice, link, network } = world;
  link.middle = () => [];
  alice.peer.connect();
  await until(() => link.of('offerReceived').length === 1);
  network.open[0].become('failed');
  await alice.until('failed');
  assert.match(alice.errors[0].message, /no path to the other side was found; no TURN server is configured$/);
  assert.equal(alice.errors[0].turn, 'none');
  await end(world);
});

test('a TURN server that refuses us is quoted, and one that was not waited for is not blamed', async () => {
  const config = () => ({ iceServers: [{ urls: 'turn:a.example', username: 'u', credential: 'c' }] });
  for (const [errors, state, reason] of [
    [
      [{ url: 'turn:a.example', errorCode: 401, errorText: 'Unauthorized' }],
      'failed',
      /: the server refuses the credentials \(401 Unauthorized\)$/,
    ],
    [
      [{ url: 'turn:a.example', errorCode: 486, errorText: 'Quota\u202e' }],
      'failed',
      /: the server refuses \(486 Quota\)$/,
    ],
    [
      [{ url: 'turn:a.example', errorCode: 701, errorText: '' }],
      'failed',
      /: the server cannot be reached, or refuses the credentials$/,
    ],
    [
      [{ url: 'stun:a.example', errorCode: 400, errorText: '' }, { errorCode: 401 }],
      'failed',
      /: the server cannot be reached/,
    ],
    [[], 'connected', /found$/],
  ]) {
    const world = await pair({ config });
    const { alice, link, network } = world;
    link.middle = () => [];
    alice.peer.connect();
    await until(() => link.of('offerReceived').length === 1);
    const [ours] = network.open;
    for (const error of errors) ours.onicecandidateerror(error);
    ours.iceConnectionState = state;
    ours.become('failed');
    await alice.until('failed');
    assert.match(alice.errors[0].message, reason);
    await end(world);
  }
});

test('a bye with the code for no path, in whatever words, says that there is no relay', async () => {
  const config = () => ({ iceServers: [{ urls: ['turn:a.example'], username: 'u', credential: 'c' }] });
  const world = await pair({ config });
  const { alice, link } = world;
  link.middle = () => [];
  alice.peer.connect();
  await until(() => link.of('offerReceived').length === 1);
  const [{ connection }] = link.of('offerReceived');
  const bye = { reason: 'nothing came through', code: 'no-path', retryAfter: null };
  alice.peer.receive({ type: 'byeReceived', sender: 'bob', connection, ...bye });
  await alice.until('failed');
  assert.match(alice.errors[0].message, /gave up: nothing came through; no relay candidate from turn:a\.example/);
  await end(world);
});
