/** Audio and video on the connection that carries the messages: renegotiation, glare, reconnects. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConnectionLost } from '../../src/errors.js';
import { putTracks } from '../../src/peer/media.js';
import { encodeAck } from '../../src/protocol/channel.js';
import { FakeStream } from '../support/fake_rtc.js';
import { connected, end, pair, pass, quiet, Side, until } from '../support/peers.js';

const kinds = (side) => side.tracks.map(({ track }) => track.kind);
const directions = (connection) => connection.getTransceivers().map((each) => each.currentDirection);
const sending = (connection) =>
  connection
    .getTransceivers()
    .flatMap(({ sender, currentDirection }) =>
      currentDirection?.startsWith('send') && sender.track ? [sender.track] : [],
    );
const offers = ({ link }) => link.of('offerReceived').length;
const stable = ({ ours, theirs }) => {
  for (const each of [ours, theirs]) assert.equal(each.signalingState, 'stable');
};

test('tracks go onto the open connection, and the other side is told of them', async () => {
  const world = await connected();
  const { alice, bob, link, ours } = world;
  const stream = new FakeStream('audio', 'video');
  alice.peer.setTracks(stream, putTracks);
  await until(() => bob.tracks.length === 2);
  await quiet();
  assert.deepEqual(kinds(bob), ['audio', 'video']);
  assert.deepEqual(
    bob.tracks[0].streams.map(({ id }) => id),
    [stream.id],
  );
  assert.deepEqual(sending(ours), stream.tracks);
  const [first, second] = link.of('offerReceived');
  assert.equal(second.connection, first.connection);
  assert.equal(offers(world), 2, 'one renegotiation for both tracks');
  assert.deepEqual(alice.tracks, []);
  alice.peer.sendFrame(encodeAck(1));
  await until(() => bob.frames.length === 1);
  assert.deepEqual([alice.closings, bob.closings], [0, 0]);
  await end(world);
});

test('tracks that are set before wait for the HELLOs', async () => {
  const world = await pair();
  const { alice, bob } = world;
  alice.peer.setTracks(new FakeStream('video'), putTracks);
  alice.peer.connect();
  await until(() => bob.tracks.length === 1);
  assert.equal(alice.peer.state, 'connected');
  assert(!world.link.of('offerReceived')[0].description.sdp.includes('m=video'));
  await end(world);
});

test('the other side sends on the same media sections', async () => {
  const world = await connected();
  const { alice, bob, ours, theirs } = world;
  alice.peer.setTracks(new FakeStream('audio', 'video'), putTracks);
  await until(() => bob.tracks.length === 2);
  bob.peer.setTracks(new FakeStream('audio', 'video'), putTracks);
  await until(() => alice.tracks.length === 2);
  await quiet();
  for (const each of [ours, theirs]) assert.deepEqual(directions(each), ['sendrecv', 'sendrecv']);
  stable(world);
  await end(world);
});

test('a track of the same kind takes the place of the other without renegotiation', async () => {
  const world = await connected();
  const { alice, bob, ours } = world;
  const stream = new FakeStream('audio', 'video');
  alice.peer.setTracks(stream, putTracks);
  await until(() => bob.tracks.length === 2);
  await quiet();
  const before = offers(world);
  const [audio] = stream.tracks;
  const other = new FakeStream('video');
  other.tracks.push(audio);
  alice.peer.setTracks(other, putTracks);
  await quiet();
  assert.deepEqual(sending(ours), [audio, other.tracks[0]]);
  assert.equal(offers(world), before);
  await end(world);
});

test('the other side knows all tracks of a connection by one stream, and what has come back by the same', async () => {
  const world = await connected();
  const { alice, bob } = world;
  const stream = new FakeStream('audio', 'video');
  const [audio, camera] = stream.tracks;
  const of = (...tracks) => Object.assign(new FakeStream(), { tracks });
  alice.peer.setTracks(stream, putTracks);
  await until(() => bob.tracks.length === 2);
  const [screen] = new FakeStream('video').tracks;
  alice.peer.setTracks(of(audio, camera, screen), putTracks);
  await until(() => bob.tracks.length === 3);
  alice.peer.setTracks(of(audio, screen), putTracks);
  await quiet();
  alice.peer.setTracks(of(audio, screen, camera), putTracks);
  await until(() => bob.tracks.length === 4);
  await quiet();
  assert.deepEqual(new Set(bob.tracks.map(({ streams }) => streams[0].id)), new Set([stream.id]));
  assert.equal(bob.tracks.length, 4);
  await end(world);
});

test('taking tracks away stops sending, and they can come back on the same sections', async () => {
  const world = await connected();
  const { alice, bob, ours } = world;
  alice.peer.setTracks(new FakeStream('audio', 'video'), putTracks);
  await until(() => bob.tracks.length === 2);
  alice.peer.setTracks(new FakeStream('audio'), putTracks);
  await until(() => directions(ours)[1] === 'inactive');
  assert.equal(sending(ours).length, 1);
  alice.peer.setTracks(null, putTracks);
  await until(() => directions(ours)[0] === 'inactive');
  assert.deepEqual(sending(ours), []);
  alice.peer.setTracks(new FakeStream('audio', 'video'), putTracks);
  await until(() => bob.tracks.length === 4);
  await quiet();
  assert.equal(ours.getTransceivers().length, 2);
  assert.deepEqual(directions(ours), ['sendonly', 'sendonly']);
  await end(world);
});

test('nothing is renegotiated when nothing changes', async () => {
  const world = await connected();
  const stream = new FakeStream('audio');
  world.alice.peer.setTracks(stream, putTracks);
  await until(() => world.bob.tracks.length === 1);
  await quiet();
  const before = offers(world);
  world.alice.peer.setTracks(stream, putTracks);
  world.bob.peer.setTracks(null, putTracks);
  await quiet();
  assert.equal(offers(world), before);
  await end(world);
});

for (const [mine, theirs] of [
  [
    ['audio', 'video'],
    ['audio', 'video'],
  ],
  [['audio', 'video'], ['audio']],
  [['audio'], ['audio', 'video']],
  [['video'], ['audio']],
]) {
  test(`both adding tracks at once (${mine}; ${theirs}) get all of them across`, async () => {
    const world = await connected();
    const { alice, bob, ours } = world;
    alice.peer.setTracks(new FakeStream(...mine), putTracks);
    bob.peer.setTracks(new FakeStream(...theirs), putTracks);
    await until(() => bob.tracks.length === mine.length && alice.tracks.length === theirs.length);
    await quiet();
    assert.deepEqual(kinds(bob).sort(), mine);
    assert.deepEqual(kinds(alice).sort(), theirs);
    assert.equal(ours.getTransceivers().length, new Set([...mine, ...theirs]).size);
    stable(world);
    assert.deepEqual([alice.closings, bob.closings], [0, 0]);
    assert.deepEqual([...alice.refusals, ...bob.refusals], []);
    await end(world);
  });
}

test('both hanging up at once, and then calling again, roll back nothing that carries pictures', async () => {
  const world = await connected();
  const { alice, bob } = world;
  for (const call of [1, 2, 3]) {
    for (const side of [alice, bob]) side.peer.setTracks(new FakeStream('audio', 'video'), putTracks);
    await until(() => bob.tracks.length === 2 * call && alice.tracks.length === 2 * call);
    await quiet();
    for (const side of [alice, bob]) side.peer.setTracks(null, putTracks);
    await quiet();
    stable(world);
  }
  assert.deepEqual(alice.states, ['connecting', 'connected']);
  assert.deepEqual([...alice.errors, ...bob.errors, ...alice.refusals, ...bob.refusals], []);
  await end(world);
});

test('a renegotiation that gets lost, or its answer, is made again and ends nothing', async () => {
  const world = await connected();
  const { alice, bob, link } = world;
  for (const type of ['offerReceived', 'answerReceived']) {
    const before = bob.tracks.length;
    link.middle = (message) => (message.event.type === type ? [] : [message]);
    alice.peer.setTracks(new FakeStream('video'), putTracks);
    const sent = link.of(type).length;
    await until(() => link.of(type).length > sent);
    link.middle = (message) => [message];
    await pass(world, 5);
    await until(() => bob.tracks.length > before);
    await quiet();
    stable(world);
    alice.peer.setTracks(null, putTracks);
    await quiet();
  }
  assert.deepEqual(alice.states, ['connecting', 'connected']);
  assert.deepEqual([...alice.refusals, ...bob.refusals], []);
  await end(world);
});

test('a renegotiation whose answer the browser refuses once is made again', async () => {
  const world = await connected();
  const { alice, bob, ours } = world;
  const { setRemoteDescription } = ours;
  ours.setRemoteDescription = async () => {
    ours.setRemoteDescription = setRemoteDescription;
    throw new DOMException('not now', 'OperationError');
  };
  const stream = new FakeStream('audio', 'video');
  alice.peer.setTracks(stream, putTracks);
  await until(() => ours.setRemoteDescription === setRemoteDescription);
  await quiet();
  assert.deepEqual(sending(ours), []);
  await pass(world, 5);
  await until(() => sending(ours).length === 2);
  await quiet();
  stable(world);
  assert.deepEqual(kinds(bob), ['audio', 'video']);
  await end(world);
});

test('while the server is away a renegotiation is tried again and again', async () => {
  const world = await connected();
  const { alice, bob, link } = world;
  link.down = new ConnectionLost('the server is gone');
  alice.peer.setTracks(new FakeStream('video'), putTracks);
  await quiet();
  await pass(world, 5 + 10 + 20);
  link.down = null;
  await pass(world, 40);
  await until(() => bob.tracks.length === 1);
  assert.deepEqual(alice.errors, []);
  await end(world);
});

test('tracks that change while an offer of ours hangs are not forgotten', async () => {
  const world = await connected();
  const { alice, bob, link, ours, timers } = world;
  link.down = new ConnectionLost('the server is gone');
  ours.become('disconnected'); // an ICE restart that does not get out
  await until(() => ours.offersCreated === 1);
  await quiet();
  ours.become('connected');
  await alice.until('connected');
  link.down = null;
  alice.peer.setTracks(new FakeStream('video'), putTracks);
  await quiet();
  timers.advance(0);
  await until(() => bob.tracks.length === 1);
  stable(world);
  await end(world);
});

test('an ICE restart overtakes a renegotiation, and both get there', async () => {
  const world = await connected();
  const { alice, bob, link, ours, theirs, timers } = world;
  link.middle = () => [];
  alice.peer.setTracks(new FakeStream('video'), putTracks);
  await until(() => offers(world) === 2);
  link.middle = (message) => [message];
  ours.sever();
  ours.become('disconnected');
  await until(() => link.of('answerReceived').length === 2);
  await quiet();
  for (const each of [ours, theirs]) each.become('connected');
  await alice.until('connected');
  timers.advance(0);
  await quiet();
  assert.deepEqual(kinds(bob), ['video']);
  assert.deepEqual([alice.closings, bob.closings], [0, 0]);
  stable(world);
  await end(world);
});

test('on the next connection the tracks go out again', async () => {
  const world = await connected();
  const { link } = world;
  world.alice.peer.setTracks(new FakeStream('audio', 'video'), putTracks);
  await until(() => world.bob.tracks.length === 2);
  await world.bob.peer.close();
  await world.alice.until('closed');
  const bob = new Side(link, 'bob', 'alice', { identity: world.bob.identity });
  bob.peer.connect();
  await until(() => bob.tracks.length === 2);
  await end({ ...world, bob });
});

test('tracks that come before the HELLO are told after it', async () => {
  const world = await pair();
  const { alice, bob, link, network } = world;
  bob.peer.setTracks(new FakeStream('video'), putTracks);
  alice.peer.connect();
  await until(() => network.open[1]?.channels[0]);
  // Bob's HELLO is held up in his buffer, while the server is quick.
  const [channel] = network.open[1].channels;
  channel.flush = () => {};
  await until(() => link.of('answerReceived').length === 2);
  assert.deepEqual(alice.hellos, []);
  assert.deepEqual(alice.tracks, []);
  delete channel.flush;
  channel.flush();
  await until(() => alice.tracks.length === 1);
  await end(world);
});

test('an offer of tracks with another certificate, or without a proof, changes nothing', async () => {
  const world = await connected();
  const { alice, bob, link, theirs } = world;
  const { connection, capabilities, description } = link.of('offerReceived')[0];
  const sdp = `${description.sdp.replace(/FA:\d+/, 'EE:EE')}m=video 9 X\r\na=mid:1\r\na=sendrecv\r\n`;
  const proof = await alice.trust.sign('bob', connection, sdp);
  const event = {
    type: 'offerReceived',
    sender: 'alice',
    connection,
    capabilities,
    description: { type: 'offer', sdp },
  };
  bob.peer.receive({ ...event, proof });
  bob.peer.receive({ ...event, proof: null });
  await until(() => bob.refusals.length === 1);
  await quiet();
  assert.deepEqual(theirs.getTransceivers(), []);
  assert.equal(bob.peer.state, 'connected');
  await end(world);
});

test('an answer that turns tracks down, as a program without media gives it, harms nothing', async () => {
  const world = await connected();
  const { alice, bob, ours, theirs } = world;
  const native = theirs.setRemoteDescription.bind(theirs);
  theirs.setRemoteDescription = async (description) => {
    await native(description);
    for (const each of theirs.getTransceivers()) each.direction = 'inactive';
  };
  alice.peer.setTracks(new FakeStream('audio'), putTracks);
  await until(() => directions(ours)[0] === 'inactive');
  await quiet();
  assert.equal(offers(world), 2, 'and is not asked again');
  assert(bob.peer.sendFrame(encodeAck(1)));
  await until(() => alice.frames.length === 1);
  await end(world);
});
