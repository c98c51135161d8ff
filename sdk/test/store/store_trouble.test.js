/** What a store does when things die: the server, the peer, the path; and when others misbehave. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { SignalingClient } from '../../src/client/client.js';
import {
  ConnectionClosed,
  ConnectionLost,
  DeliveryFailed,
  FingerprintMismatch,
  PeerConnectionFailed,
  PeerKeyChanged,
  PeerOffline,
  ProofInvalid,
  TooManyPeers,
} from '../../src/errors.js';
import { Identity } from '../../src/identity/keys.js';
import { MemoryPins } from '../../src/identity/pins.js';
import { PeerConnection } from '../../src/peer/connection.js';
import { Trust } from '../../src/peer/trust.js';
import { encodeAck, encodeMessage, MAX_MESSAGE } from '../../src/protocol/channel.js';
import * as Content from '../../src/protocol/kinds.js';
import { toBase64 } from '../../src/protocol/codec.js';
import { camera } from '../support/fake_media.js';
import { served, startServer } from '../support/server.js';
import { until as untilTrue } from '../support/peers.js';
import { contents, QUICK, take, until, untilIt, untilPeer, World } from '../support/stores.js';

const unhandled = [];
process.on('unhandledRejection', (reason) => unhandled.push(reason));
after(() => assert.deepEqual(unhandled, []));

/** A server of the test's own, and stores of these names. */
async function scene(t, ...names) {
  return patientScene(t, QUICK.heal, ...names);
}

/** The same; a lost path has so many seconds to be mended in, before another connection is made. */
async function patientScene(t, heal, ...names) {
  const server = await startServer();
  const world = new World(t, server.url);
  t.after(() => server.kill());
  const timing = { ...QUICK, heal };
  return { server, world, stores: await Promise.all(names.map((name) => world.join(name, { timing }))) };
}

const again = (t, { port }) => served(t, { port });

/** One side notices that the path is lost. It may mend it before the other side has noticed. */
const pathIsLost = (alice, bob) =>
  Promise.race([
    untilPeer(alice, 'bob', ({ state }) => state === 'disconnected'),
    untilPeer(bob, 'alice', ({ state }) => state === 'disconnected'),
  ]);

const numbers = (count) => Array.from({ length: count }, (_, n) => n);

// --- the server ----------------------------------------------------------------------------------------------------------

test('the chat goes on without the server, and signaling comes back by itself', async (t) => {
  const {
    server,
    world,
    stores: [alice, bob],
  } = await scene(t, 'alice', 'bob');
  await alice.connectToPeer('bob');
  alice.send('bob', 'before');
  await server.kill();
  const lost = await until(alice, ({ signaling }) => signaling === 'connecting');
  assert.ok(lost.signalingError instanceof ConnectionLost);
  alice.send('bob', 'without a server');
  bob.send('alice', { and: 'back' });
  assert.deepEqual(await contents(bob, 2), ['before', 'without a server']);
  assert.deepEqual(await contents(alice, 1), [{ and: 'back' }]);
  await alice.drain();
  const forCarol = alice.send('carol', 'when you are there');
  await again(t, server);
  for (const store of [alice, bob]) {
    const { signalingError } = await until(store, ({ signaling }) => signaling === 'connected');
    assert.equal(signalingError, null);
  }
  assert.deepEqual([alice.state.peers.bob.state, alice.state.peers.bob.connections], ['connected', 1]);
  const carol = await world.join('carol');
  assert.deepEqual(await contents(carol, 1), ['when you are there']);
  await forCarol;
});

test('connecting waits for the server to come back, as long as it may', async (t) => {
  const {
    server,
    stores: [alice],
  } = await scene(t, 'alice', 'bob');
  await server.kill();
  await until(alice, ({ signaling }) => signaling === 'connecting');
  await assert.rejects(alice.connectToPeer('bob', { timeout: 0.1 }), /server cannot be reached/);
  const connecting = alice.connectToPeer('bob');
  await again(t, server);
  await connecting.catch(async (error) => {
    assert.ok(error instanceof PeerOffline || error.name === 'PeerUnknown', String(error)); // bob comes a moment later
    await untilPeer(alice, 'bob', ({ online }) => online);
    await alice.connectToPeer('bob');
  });
});

test('a server that comes back is asked for its ICE servers before anybody is called', async (t) => {
  const server = await served(t, { stun: 'stun:before.example' });
  const world = new World(t, server.url);
  const alice = await world.join('alice', { iceServers: null });
  await assert.rejects(alice.connectToPeer('bob'));
  await server.kill();
  await until(alice, ({ signaling }) => signaling === 'connecting');
  const delivery = alice.send('bob', 'as soon as you are there');
  await served(t, { port: server.port, stun: 'stun:after.example' });
  await until(alice, ({ signaling }) => signaling === 'connected');
  await world.join('bob');
  await delivery;
  const used = JSON.stringify(world.network.connections.map(({ configuration }) => configuration.iceServers));
  assert.match(used, /after\.example/);
  assert.doesNotMatch(used, /before\.example/);
});

test('when the server shows us the door, what is connected goes on and the rest is told', async (t) => {
  const {
    world,
    stores: [bob],
  } = await scene(t, 'bob');
  const identity = await Identity.generate();
  const first = await world.join('alice', { identity });
  await first.connectToPeer('bob');
  const waiting = first.send('carol', 'never');
  const file = await first.sendFile('carol', new Blob(['never']));
  await untilPeer(first, 'carol', ({ online }) => online === false);
  await world.join('alice', { identity }); // the newest connection of a key wins
  const { signalingError } = await until(first, ({ signaling }) => signaling === 'disconnected');
  assert.ok(signalingError instanceof ConnectionClosed);
  await assert.rejects(Promise.resolve(waiting), /gone for good/);
  await assert.rejects(file.finished);
  assert.throws(() => first.send('carol', 'x'), ConnectionClosed);
  await assert.rejects(first.connectToPeer('carol'), ConnectionClosed);
  await first.connectToPeer('bob');
  await first.send('bob', 'I am still here');
  await bob.disconnectFromPeer('alice');
  await untilPeer(first, 'bob', ({ state }) => state === 'closed');
  assert.throws(() => first.send('bob', 'x'), ConnectionClosed);
});

// --- the peer --------------------------------------------------------------------------------------------------------------

test('a peer that is reloaded gets what was sent meanwhile, and nothing twice', async (t) => {
  const {
    world,
    stores: [alice],
  } = await scene(t, 'alice');
  const identity = await Identity.generate();
  const first = await world.join('bob', { identity });
  await alice.send('bob', 'read by the first run');
  assert.deepEqual(await contents(first, 1), ['read by the first run']);
  await first.disconnect();
  numbers(20).forEach((n) => alice.send('bob', n));
  const second = await world.join('bob', { identity });
  assert.deepEqual(await contents(second, 20), numbers(20));
  await alice.drain();
  second.send('alice', 'I am back');
  const [{ content, sequence }] = await take(alice, 1);
  assert.deepEqual([content, sequence], ['I am back', 1]);
});

test('a peer that dies without a word and comes back is the same peer', async (t) => {
  const {
    world,
    stores: [alice],
  } = await scene(t, 'alice');
  const identity = await Identity.generate();
  const first = await world.join('bob', { identity });
  await alice.connectToPeer('bob');
  world.network.open.forEach((connection) => connection.sever());
  numbers(20).forEach((n) => alice.send('bob', n));
  // It takes the name of the first, which is told that it has lost it, and calls nobody any more.
  const second = await world.join('bob', { identity });
  await second.connectToPeer('alice');
  assert.deepEqual(await contents(second, 20), numbers(20));
  await alice.drain();
  assert.equal(first.state.signaling, 'disconnected');
});

test('calls with a peer that is started anew end, and files are offered once more', async (t) => {
  const {
    world,
    stores: [alice],
  } = await scene(t, 'alice');
  const identity = await Identity.generate();
  const first = await world.join('bob', { identity });
  const offered = new Promise((resolve) => first.onFile(resolve));
  const rung = new Promise((resolve) => first.onCall(resolve));
  const file = await alice.sendFile('bob', new Blob(['x']));
  const call = await alice.call('bob', camera('audio'));
  await Promise.all([offered, rung]);
  world.network.open.forEach((connection) => connection.sever());
  const second = await world.join('bob', { identity });
  await second.connectToPeer('alice');
  await assert.rejects(file.finished);
  await untilIt(call, ({ state }) => state === 'ended');
  assert.equal(file.state, 'declined'); // it was offered to the second one, which takes none
});

// --- the path ----------------------------------------------------------------------------------------------------------------

test('a path that is cut is mended, and nothing is lost or doubled', async (t) => {
  const {
    world,
    stores: [alice, bob],
  } = await scene(t, 'alice', 'bob');
  await alice.connectToPeer('bob');
  world.network.open.forEach((connection) => connection.sever());
  numbers(50).forEach((n) => alice.send('bob', n));
  await pathIsLost(alice, bob);
  assert.deepEqual(await contents(bob, 50), numbers(50));
  await untilPeer(alice, 'bob', ({ state }) => state === 'connected');
});

test('the called side does not throw away a path that is being healed', async (t) => {
  const {
    world,
    stores: [alice, bob],
  } = await patientScene(t, 60, 'alice', 'bob');
  await alice.send('bob', 'first'); // and wants no more of bob: when the path is lost, she calls nobody
  await untilPeer(bob, 'alice', ({ state }) => state === 'connected');
  const [ours, theirs] = world.network.open;
  const before = ours.localText;
  // Beside the lost connection another one is made, and either may be the first that works. So none works yet.
  world.network.blocked = true;
  ours.sever();
  await untilPeer(bob, 'alice', ({ state }) => state === 'disconnected');
  bob.send('alice', 'over the same connection'); // bob has never asked the server for alice: he does now
  await untilPeer(bob, 'alice', ({ online }) => online);
  assert.ok([ours, theirs].every((each) => world.network.open.includes(each)));
  await untilTrue(() => ours.localText !== before && ours.localText === theirs.remoteText); // ICE was restarted
  world.network.blocked = false;
  world.network.match(); // the oldest one is found first
  assert.deepEqual(await contents(alice, 1), ['over the same connection']);
  assert.equal(alice.state.peers.bob.connections, 1);
});

test('nothing is lost or doubled while connections break again and again', async (t) => {
  const {
    world,
    stores: [alice, bob],
  } = await scene(t, 'alice', 'bob');
  const bytes = new Uint8Array(20_000);
  const got = [contents(bob, 300), contents(alice, 300)];
  for (const n of numbers(300)) {
    alice.send('bob', n);
    bob.send('alice', { n, bytes: bytes.length });
    if (n % 75 === 40) {
      await untilPeer(alice, 'bob', ({ state }) => state === 'connected');
      world.network.open[n % 2]?.close(); // under their hands, and nobody says goodbye
    }
  }
  assert.deepEqual(await got[0], numbers(300));
  assert.deepEqual(
    (await got[1]).map(({ n }) => n),
    numbers(300),
  );
  await Promise.all([alice.drain(), bob.drain()]);
  assert.ok(alice.state.peers.bob.connections > 1);
});

test('a file gets to its end though the path is cut', async (t) => {
  const {
    world,
    stores: [alice, bob],
  } = await scene(t, 'alice', 'bob');
  const received = new Promise((resolve) => bob.onFile(resolve));
  const file = await alice.sendFile('bob', new Blob([new Uint8Array(5_000_000)]));
  const transfer = await received;
  transfer.accept();
  await untilIt(transfer, ({ transferred }) => transferred > 0);
  world.network.open.forEach((connection) => connection.sever());
  await file.finished;
  assert.equal((await transfer.finished, transfer.blob.size), 5_000_000);
});

test('a sender holds back while the other side does not read, and nothing is lost', async (t) => {
  const {
    world,
    stores: [alice],
  } = await scene(t, 'alice');
  const bob = await world.join('bob', { limits: { unreadMessages: 10 } });
  const deliveries = numbers(3000).map((n) => alice.send('bob', n));
  await untilPeer(alice, 'bob', ({ queued }) => queued === 2990);
  assert.deepEqual([deliveries[9].done, deliveries[10].done], [true, false]);
  assert.deepEqual(await contents(bob, 3000), numbers(3000));
  await deliveries.at(-1);
});

// --- keys ------------------------------------------------------------------------------------------------------------------

test('a key that has changed is refused until a person has accepted it', async (t) => {
  const {
    server,
    stores: [alice, bob],
  } = await scene(t, 'alice', 'bob');
  await alice.connectToPeer('bob');
  await bob.disconnect();
  await server.kill();
  const other = await again(t, server); // which remembers nobody's key
  const eve = await new World(t, other.url).join('bob');
  await until(alice, ({ signaling }) => signaling === 'connected');
  const changed = (error) => error instanceof PeerKeyChanged && error.offered.join() === eve.identity.publicKey.join();
  await assert.rejects(alice.connectToPeer('bob'), changed);
  assert.throws(() => alice.send('bob', 'secret'), changed);
  await assert.rejects(alice.sendFile('bob', new Blob()), changed);
  await assert.rejects(alice.call('bob'), changed);
  assert.equal(alice.state.peers.bob.fingerprint, bob.identity.fingerprint);
  assert.ok(changed(alice.state.peers.bob.error));
  await assert.rejects(eve.connectToPeer('alice', { timeout: 0.3 }), PeerConnectionFailed);
  await alice.acceptKey('bob', eve.identity.publicKey);
  assert.equal(alice.state.peers.bob.fingerprint, eve.identity.fingerprint);
  assert.equal(alice.state.peers.bob.error, null);
});

test('accepting another key ends what was connected with the one before', async (t) => {
  const {
    stores: [alice, bob],
  } = await scene(t, 'alice', 'bob');
  await alice.connectToPeer('bob');
  const stranger = await Identity.generate();
  await alice.acceptKey('bob', stranger.publicKey);
  await untilPeer(bob, 'alice', ({ state }) => state === 'closed');
  await assert.rejects(alice.connectToPeer('bob'), PeerKeyChanged);
  await alice.acceptKey('bob', bob.identity.publicKey);
  await alice.connectToPeer('bob');
});

test('an invitation keeps every key out that has not its fingerprint', async (t) => {
  const {
    stores: [alice, bob, carol],
  } = await scene(t, 'alice', 'bob', 'carol');
  const expected = carol.identity.fingerprint;
  const mismatch = (error) => error instanceof FingerprintMismatch && error.expected === expected;
  await assert.rejects(alice.connectToPeer('bob', { fingerprint: expected }), mismatch);
  await assert.rejects(bob.connectToPeer('alice', { timeout: 0.3 }), PeerConnectionFailed);
  await untilPeer(alice, 'bob', ({ error }) => error && mismatch(error));
  await assert.rejects(alice.connectToPeer('bob'), mismatch);
  assert.equal(alice.state.peers.bob.publicKey, null);
  await alice.connectToPeer('bob', { fingerprint: bob.identity.fingerprint });
  assert.equal(alice.state.peers.bob.fingerprint, bob.identity.fingerprint);
  await assert.rejects(alice.connectToPeer('bob', { fingerprint: expected }), mismatch);
  await alice.send('bob', 'an invitation that is wrong does no harm to who is known');
});

/** What is refused ends no attempt: the true answer may still come. Here it ends since bob gives up. */
async function refusedIn(alice, connecting, bob, fault) {
  const failed = assert.rejects(connecting, fault);
  await untilPeer(alice, 'bob', ({ error }) => error);
  await bob.disconnect();
  await failed;
}

test('an invitation is asked of the proof too, when the directory lies', async (t) => {
  const { world } = await scene(t);
  const [invited, impostor] = [await Identity.generate(), await world.join('bob')];
  const lie = (message) =>
    message.userId === 'bob' ? [{ ...message, publicKey: toBase64(invited.publicKey) }] : [message];
  const alice = await world.join('alice', { lie });
  const connecting = alice.connectToPeer('bob', { fingerprint: invited.fingerprint });
  await refusedIn(alice, connecting, impostor, (error) => {
    assert.ok(error instanceof FingerprintMismatch, String(error));
    return error.offered === impostor.identity.fingerprint;
  });
  assert.equal(alice.state.peers.bob.publicKey, null);
});

test('at the first contact the directory and the answer have to name one key', async (t) => {
  const {
    world,
    stores: [bob],
  } = await scene(t, 'bob');
  const lie = (message) =>
    message.userId === 'bob' ? [{ ...message, publicKey: toBase64(new Uint8Array(32)) }] : [message];
  const alice = await world.join('alice', { lie });
  await refusedIn(alice, alice.connectToPeer('bob'), bob, PeerKeyChanged);
  assert.equal(alice.state.peers.bob.publicKey, null);
});

test('an answer that was changed on its way connects nobody, and is why', async (t) => {
  const {
    world,
    stores: [bob],
  } = await scene(t, 'bob');
  const lie = (message) => {
    if (message.answer) {
      message.answer.sdp += 'a=x\r\n';
    }
    return [message];
  };
  const alice = await world.join('alice', { lie });
  await refusedIn(alice, alice.connectToPeer('bob'), bob, ProofInvalid);
  assert.notEqual(alice.state.peers.bob.state, 'connected');
});

// --- those who call ----------------------------------------------------------------------------------------------------------

test('who calls is let in by the application only', async (t) => {
  const {
    world,
    stores: [friend, stranger],
  } = await scene(t, 'friend', 'stranger');
  const asked = [];
  const accept = (userId, publicKey) => {
    asked.push([userId, publicKey.join()]);
    return userId === 'friend';
  };
  const alice = await world.join('alice', { accept });
  await friend.connectToPeer('alice');
  await assert.rejects(stranger.connectToPeer('alice'), PeerConnectionFailed);
  assert.deepEqual(asked[0], ['friend', friend.identity.publicKey.join()]);
  assert.deepEqual(Object.keys(alice.state.peers), ['friend']);
  await alice.connectToPeer('stranger'); // whom it calls itself need not be let in
});

test('the number of peers is limited, and those that are done make place', async (t) => {
  const {
    world,
    stores: [b, c, d],
  } = await scene(t, 'b', 'c', 'd');
  const alice = await world.join('alice', { limits: { peers: 2 } });
  await b.connectToPeer('alice');
  await c.connectToPeer('alice');
  await assert.rejects(d.connectToPeer('alice'), PeerConnectionFailed);
  assert.throws(
    () => alice.send('d', 'x'),
    (error) => error instanceof TooManyPeers && error.limit === 2,
  );
  await b.disconnectFromPeer('alice');
  await untilPeer(alice, 'b', ({ state }) => state === 'closed');
  await d.connectToPeer('alice');
  assert.deepEqual(Object.keys(alice.state.peers).sort(), ['c', 'd']);
});

/** A registered user with a true connection, who sends what they like. */
async function rogue(t, world, url, name = 'rogue') {
  const client = new SignalingClient(url, name);
  t.after(() => client.close());
  await client.connect();
  const identity = await Identity.generate();
  await client.register(identity);
  let connected = () => {};
  const opened = new Promise((resolve) => (connected = resolve));
  const peer = new PeerConnection({
    config: () => ({}),
    local: name,
    remote: 'alice',
    trust: new Trust(identity, name, client.server, new MemoryPins()),
    signaling: client,
    hello: () => ({ type: 'hello', version: 1, stream: 'rogue', next: 1, features: [], received: null }),
    timing: QUICK,
    RTCPeerConnection: world.network.RTCPeerConnection,
    listener: {
      stateChanged: () => {},
      channelOpened: () => connected(),
      frameReceived: () => {},
      channelClosed: () => {},
      writable: () => {},
      refused: () => {},
      trackReceived: () => {},
    },
  });
  t.after(() => peer.close());
  client.subscribe((event) => 'sender' in event && peer.receive(event));
  peer.connect();
  await opened;
  return peer;
}

const text = (value) => new TextEncoder().encode(value);
for (const [what, frames] of Object.entries({
  'leaves out a message': encodeMessage(Content.TEXT, 7, text('a gap')),
  'confirms what was never sent': [encodeAck(1)],
  'sends text that is none': encodeMessage(Content.TEXT, 1, Uint8Array.of(0xff)),
  'sends JSON that is none': encodeMessage(Content.JSON, 1, text('[')),
  'says something to the store that makes no sense': encodeMessage(Content.CONTROL, 1, text('{')),
})) {
  test(`a peer that ${what} loses its connection, and harms nobody`, async (t) => {
    const {
      server,
      world,
      stores: [alice, bob],
    } = await scene(t, 'alice', 'bob');
    const reading = take(alice, 1);
    const peer = await rogue(t, world, server.url);
    frames.forEach((frame) => peer.sendFrame(frame));
    const { peers } = await untilPeer(alice, 'rogue', ({ state }) => state === 'failed');
    assert.match(peers.rogue.error.message, /breaks the protocol/);
    await bob.send('alice', 'all is well');
    assert.equal((await reading)[0].content, 'all is well');
  });
}

test('who sends more than there is room for is cut off, and others are not', async (t) => {
  const {
    server,
    world,
    stores: [bob],
  } = await scene(t, 'bob');
  const alice = await world.join('alice', { limits: { arrivingSize: MAX_MESSAGE } });
  // Together more than there is room for, and neither ends its message.
  const frames = encodeMessage(Content.BYTES, 1, new Uint8Array((MAX_MESSAGE * 2) / 3)).slice(0, -1);
  for (const name of ['first', 'second']) {
    const peer = await rogue(t, world, server.url, name);
    for (const frame of frames) {
      await untilTrue(() => peer.sendFrame(frame) || peer.state !== 'connected');
    }
  }
  await untilPeer(alice, 'first', ({ state }) => state === 'failed');
  bob.send('alice', new Uint8Array(500_000));
  assert.equal((await contents(alice, 1))[0].length, 500_000);
});

test('what a server makes up harms nothing', async (t) => {
  const { world } = await scene(t, 'bob');
  let made = false;
  const sdp = { type: 'offer', sdp: 'v=0' };
  const proof = (byte) => ({ publicKey: toBase64(new Uint8Array(32).fill(byte)), nonce: 'x', signature: 'x' });
  const garbage = [
    { type: 'presence', userId: 'nobody', online: true },
    { type: 'offer', from: 'b b', offer: sdp, connection: 'c', proof: proof(1) },
    { type: 'offer', from: 'alice', offer: sdp, connection: 'c', proof: proof(1) },
    { type: 'offer', from: 'eve', offer: sdp, connection: 'c', proof: proof(2) },
    { type: 'offer', from: 'eve', offer: sdp, connection: 'c' },
    { type: 'answer', from: 'bob', answer: { ...sdp, type: 'answer' } },
    { type: 'ice-candidate', from: 'bob', candidate: null, connection: 'c' },
    { type: 'bye', from: 'bob', connection: 'c' },
    { type: 'bye', from: 'carol' },
  ];
  const lie = (message) => {
    if (message.type !== 'bye' || made) {
      return [message];
    }
    made = true;
    return garbage.map((each) => ({ to: 'alice', ...each }));
  };
  const alice = await world.join('alice', { lie });
  await alice.connectToPeer('bob');
  const carol = await world.join('carol');
  const client = new SignalingClient(`ws://${alice.state.server}`, 'dan');
  await client.connect();
  await client.register(await Identity.generate());
  await client.sendBye('alice', { connection: 'x' });
  await client.close();
  await carol.send('alice', 'all is well');
  assert.deepEqual(await contents(alice, 1), ['all is well']);
  assert.ok(made);
  assert.equal(alice.state.peers.bob.state, 'connected');
});

test('a message that will not be delivered fails once, whether somebody waits or not', async (t) => {
  const {
    stores: [alice],
  } = await scene(t, 'alice');
  const deliveries = numbers(3).map((n) => alice.send('nobody', n));
  await alice.disconnect();
  assert.ok(deliveries.every(({ done, delivered }) => done && !delivered));
  await assert.rejects(Promise.resolve(deliveries[1]), DeliveryFailed);
});
