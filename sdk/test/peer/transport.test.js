/** One transport on an engine of cardboard: what is hard to bring about with two peers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BUFFER_HIGH, BUFFER_LOW, PeerTransport } from '../../src/peer/transport.js';
import { TIMING } from '../../src/peer/timing.js';
import {
  BUNDLED,
  decode,
  encodeAck,
  encodeGoodbye,
  encodeHello,
  encodeMessage,
  encodePing,
  encodePong,
  LABEL,
  MAX_BUNDLE,
  MAX_FRAME,
  unbundle,
} from '../../src/protocol/channel.js';
import { COMBINED } from '../../src/store/peers/paths.js';
import { FakeNetwork } from '../support/fake_rtc.js';
import { FakeTimers } from '../support/fake_timers.js';
import { generator, mutated } from '../support/generator.js';
import { quiet, until } from '../support/peers.js';

const hello = (stream, features = []) => ({ type: 'hello', version: 1, stream, next: 1, features, received: null });
const HELLO = encodeHello(hello('theirs'));

/** A channel that does as it is told. */
class Cardboard {
  label = LABEL;
  bufferedAmount = 0;
  sent = [];
  closed = 0;
  broken = false;

  send(data) {
    if (this.broken) throw new DOMException('it is closing', 'InvalidStateError');
    this.sent.push(data);
  }

  close() {
    this.closed++;
  }

  /** What it has been given to send, as frames. */
  get frames() {
    return this.sent.flatMap(unbundle).map(decode);
  }

  receive(frame) {
    this.onmessage({ data: typeof frame === 'string' ? frame : Uint8Array.from(frame).buffer });
  }
}

const proof = { publicKey: 'k', nonce: 'n', signature: 's' };

/** A transport, and what it tells: the machine, the listener, and the other side through the server. */
function made(openChannel = false) {
  const told = [];
  const note = (...values) => void told.push(values);
  const timers = new FakeTimers();
  const network = new FakeNetwork();
  const transport = new PeerTransport('name', openChannel, {
    config: () => ({}),
    remote: 'them',
    called: 'them',
    trust: { sign: async (...signed) => ({ ...proof, signed }) },
    signaling: {
      sendOffer: async (...sent) => note('sendOffer', ...sent),
      sendIceCandidate: async (...sent) => note('sendIceCandidate', ...sent),
      sendAnswer: () => Promise.reject(new Error('no server')),
    },
    hello: () => hello('ours'),
    timing: TIMING,
    timers,
    RTCPeerConnection: network.RTCPeerConnection,
    stream: null,
    happened: note,
    tell: note,
    tellNow: () => note('tellNow'),
    keep: () => {},
  });
  return { transport, told, timers, network, native: network.connections[0] };
}

/** The other side has made a channel, or ours has opened. */
function open(native, channel) {
  native.ondatachannel({ channel });
  channel.onopen({});
}

function opened() {
  const all = made();
  const channel = new Cardboard();
  open(all.native, channel);
  channel.receive(HELLO);
  assert.deepEqual(all.told.splice(0), [
    ['channelOpened', 'name'],
    ['tellNow'],
    ['channelOpened', hello('theirs')],
    ['channelReady', 'name'],
  ]);
  assert.deepEqual(
    channel.frames.map(({ type }) => type),
    ['hello', 'ping'],
  );
  channel.sent.length = 0;
  return { ...all, channel };
}

/** The other side reads bundles, and our HELLO has left. */
async function openedForBundles() {
  const all = made();
  const channel = new Cardboard();
  open(all.native, channel);
  channel.receive(encodeHello(hello('theirs', ['bundles'])));
  await quiet();
  assert.deepEqual(
    channel.frames.map(({ type }) => type),
    ['hello', 'ping'],
  );
  channel.sent.length = 0;
  return { ...all, channel };
}

const types = (told) => told.map(([what]) => what);

test('the side that has not made the channel says nothing before the HELLO of the side that has', async () => {
  const { transport, native, timers } = made();
  const channel = new Cardboard();
  open(native, channel);
  native.become('connected'); // is no reason for a PING yet
  timers.advance(20);
  assert.deepEqual(channel.frames, []);
  channel.receive(HELLO);
  assert.deepEqual(
    channel.frames.map(({ type }) => type),
    ['hello', 'ping'],
  );
  await transport.close();
});

test('a sleep of our own does not count as the silence of the other, but is a reason for doubt', async () => {
  const { transport, told, timers } = opened();
  timers.now += 600; // the machine was asleep: no timer has run
  timers.advance(0);
  assert.deepEqual(told, []);
  timers.advance(1.6);
  await quiet();
  assert.deepEqual(told, [['pathLost', 'name', timers.now, false]]);
  await transport.close();
  assert.equal(timers.waiting, 0);
});

/** What the browser says of a path on which something has come so many seconds ago. */
const quietFor = (seconds) => [
  ['P', { type: 'candidate-pair', timestamp: 1e9, lastPacketReceivedTimestamp: 1e9 - seconds * 1000 }],
];

test('a program that is late is not gone while its browser answers', async () => {
  const { transport, told, timers, native, channel } = opened();
  channel.receive(encodeAck(1));
  told.length = 0;
  native.stats = quietFor(0.01);
  timers.advance(4.9);
  assert.equal(channel.frames.at(-1).type, 'ping');
  timers.advance(0.2);
  await quiet();
  assert.deepEqual(told, []);
  timers.advance(1.2);
  channel.receive(encodePong(0n)); // it has only been busy
  timers.advance(3);
  assert.deepEqual(told, []);
  await transport.close();
  assert.equal(timers.waiting, 0);
});

test('a program that hangs behind a browser that answers is lost a little later', async () => {
  const { transport, told, timers, native, channel } = opened();
  channel.receive(encodeAck(1));
  told.length = 0;
  native.stats = quietFor(0.01);
  for (let seconds = 0; seconds < 10; seconds++) {
    timers.advance(1);
    await quiet();
  }
  assert.deepEqual(
    told.map(([what]) => what),
    ['pathLost'],
  );
  await transport.close();
});

test('a browser that says what came before our question, or nothing at all, proves nothing', async () => {
  for (const getStats of [
    async () => new Map(quietFor(4)),
    async () => new Map([['L', { type: 'local-candidate' }]]),
    () => Promise.reject(new Error('no')),
    () => new Promise(() => {}),
  ]) {
    const { transport, told, timers, native } = opened();
    native.getStats = getStats;
    timers.advance(5);
    await quiet();
    timers.advance(1);
    await quiet();
    assert.deepEqual(
      told.map(([what]) => what),
      ['pathLost'],
    );
    await transport.close();
    assert.equal(timers.waiting, 0);
  }
});

test('what the engine says of its state leads to its consequences', async () => {
  const { transport, told, channel, native } = opened();
  for (const state of ['new', 'connecting', 'closed']) native.become(state);
  assert.deepEqual(told, []);
  native.become('disconnected');
  native.become('failed');
  native.become('connected');
  assert.equal(channel.frames.at(-1).type, 'ping'); // its PONG tells whether the path works again
  channel.receive(encodeAck(1));
  assert.deepEqual(told, [
    ['pathLost', 'name', 1000, false],
    ['pathLost', 'name', 1000, true],
    ['pathFound'],
    ['pathRestored', 'name'],
    ['frameReceived', { type: 'ack', sequence: 1 }],
  ]);
  await transport.close();
});

test('PINGs are answered and PONGs measured', async () => {
  const { transport, channel, timers } = opened();
  assert.equal(transport.roundTripTime, null);
  channel.receive(encodePing(77n));
  assert.deepEqual(channel.frames, [{ type: 'pong', token: 77n }]);
  timers.advance(1.5);
  const { token } = channel.frames.at(-1);
  timers.advance(0.25);
  for (const each of [5n, token, token]) channel.receive(encodePong(each));
  assert.equal(transport.roundTripTime, 0.25);
  await transport.close();
});

test('who asks and asks and reads nothing does not fill our memory with answers, and counts as there', async () => {
  const { transport, told, channel, native } = opened();
  const { length } = encodePong(1n);
  channel.send = () => void (channel.bufferedAmount += length);
  for (let n = 0; n < (2 * BUFFER_HIGH) / length; n++) channel.receive(encodePing(1n));
  assert.ok(channel.bufferedAmount <= BUFFER_HIGH + length, `${channel.bufferedAmount} bytes`);
  native.become('disconnected');
  told.length = 0;
  channel.receive(encodePing(1n));
  assert.deepEqual(types(told), ['pathRestored']);
  channel.bufferedAmount = 0;
  channel.receive(encodePing(2n));
  assert.equal(channel.bufferedAmount, length);
  await transport.close();
});

test('nothing is told after the end', async () => {
  const { transport, told, channel, timers, native } = opened();
  transport.probe({ reason: 'maybe' });
  transport.makeOffer({ serial: 1, restart: false });
  transport.makeOffer({ serial: 2, restart: false });
  await transport.close();
  channel.receive(encodeAck(1));
  channel.onclose({});
  channel.onbufferedamountlow({});
  native.onconnectionstatechange({});
  native.onicecandidate({ candidate: null });
  native.onnegotiationneeded({});
  native.ontrack({ track: {}, streams: [] });
  const late = new Cardboard();
  open(native, late);
  assert.equal(late.closed, 1);
  timers.advance(60);
  await quiet();
  assert.deepEqual(told, []);
  assert.equal(channel.closed, 0);
  assert.equal(timers.waiting, 0);
});

test('a second channel and one with another label are closed', async () => {
  const { transport, told, native } = opened();
  const second = new Cardboard();
  open(native, second);
  const { transport: fresh, told: nothing, native: freshNative } = made();
  const other = Object.assign(new Cardboard(), { label: 'chat' });
  open(freshNative, other);
  assert.deepEqual([second.closed, other.closed, told, nothing], [1, 1, [], []]);
  await Promise.all([transport.close(), fresh.close()]);
});

test('a channel that takes no message any more is no crash', async () => {
  const { transport, told, channel, timers } = opened();
  channel.broken = true;
  assert(!transport.sendFrame(encodeAck(1)));
  channel.receive(encodePing(1n));
  timers.advance(1.5);
  transport.sayGoodbye('x');
  assert.equal(channel.closed, 1);
  assert.deepEqual(told, []);
  await transport.close(); // and does not linger for a goodbye that was never sent
});

test('a full buffer refuses and says once when there is room', async () => {
  const { transport, told, channel } = opened();
  assert.equal(channel.bufferedAmountLowThreshold, BUFFER_LOW);
  channel.onbufferedamountlow({});
  assert.deepEqual(told, []);
  channel.bufferedAmount = BUFFER_HIGH - 8;
  assert(!transport.sendFrame(encodeAck(1)));
  channel.bufferedAmount = 0;
  channel.onbufferedamountlow({});
  channel.onbufferedamountlow({});
  assert.deepEqual(told, [['writable']]);
  assert(transport.sendFrame(encodeAck(1)));
  await transport.close();
});

test('what a peer combines is what a channel puts into a bundle', () => {
  assert.equal(COMBINED, BUNDLED);
});

test('small frames of one task go together, in their order', async () => {
  const { transport, channel } = await openedForBundles();
  const sizes = [10, 20, 4000, 30];
  const frames = sizes.map((size, number) => encodeMessage(1, number + 1, new Uint8Array(size))[0]);
  assert(frames.every((frame) => transport.sendFrame(frame)));
  assert.deepEqual(channel.sent.map(unbundle), [[frames[0], frames[1]], [frames[2]]]);
  await quiet();
  assert.deepEqual(channel.sent.slice(2), [frames[3]]); // one alone is no bundle
  channel.sent.length = 0;
  const many = Array.from({ length: 40 }, (_, number) => encodeMessage(1, number + 5, new Uint8Array(1000))[0]);
  assert(many.every((frame) => transport.sendFrame(frame)));
  await quiet();
  assert.deepEqual(channel.sent.flatMap(unbundle), many);
  assert.equal(channel.sent.length, 3);
  assert(channel.sent.every(({ length }) => length <= MAX_BUNDLE + 64));
  await transport.close();
});

test('the goodbye comes behind what waits to go together', async () => {
  const { transport, channel } = await openedForBundles();
  assert(transport.sendFrame(encodeAck(1)));
  transport.sayGoodbye('x');
  assert.deepEqual(types(channel.frames.map(({ type }) => [type])), ['ack', 'goodbye']);
  assert.equal(channel.closed, 1);
  const closing = transport.close();
  channel.onclose({});
  await closing;
});

test('frames go alone to a program that reads no bundles', async () => {
  const { transport, channel } = opened();
  assert(transport.sendFrame(encodeAck(1)) && transport.sendFrame(encodeAck(2)));
  assert.deepEqual(channel.sent, [encodeAck(1), encodeAck(2)]);
  await transport.close();
});

test('closing lingers for the goodbye until the other side has closed, or a second', async () => {
  for (const end of [({ channel }) => channel.onclose({}), ({ timers }) => timers.advance(TIMING.linger)]) {
    const all = opened();
    all.transport.sayGoodbye('x');
    assert.deepEqual(all.channel.frames, [{ type: 'goodbye', reason: 'x' }]);
    let closed = false;
    const closing = all.transport.close().then(() => (closed = true));
    await quiet();
    assert(!closed && all.native.signalingState !== 'closed');
    end(all);
    await closing;
    assert.equal(all.native.signalingState, 'closed');
    assert.equal(all.timers.waiting, 0);
  }
});

test('no goodbye is sent where nothing comes through', async () => {
  const { transport, channel, native } = opened();
  native.become('disconnected');
  transport.sayGoodbye('x');
  assert.deepEqual([channel.sent, channel.closed], [[], 0]);
  await transport.close();
});

test('a goodbye, and a channel that closes, are told', async () => {
  const { transport, told, channel } = opened();
  channel.receive(encodeGoodbye('tired'));
  channel.receive(encodeGoodbye(''));
  channel.onclose({});
  assert.deepEqual(told, [
    ['attemptEnded', 'name', 'tired', true],
    ['attemptEnded', 'name', 'the other side said goodbye', true],
    ['attemptEnded', 'name', 'the other side closed the channel', false],
  ]);
  await transport.close();
});

test('a probe is believed when nothing comes', async () => {
  const { transport, told, channel, timers } = opened();
  transport.probe({ reason: 'says the server' });
  transport.probe({ reason: 'says it again' });
  assert.equal(channel.frames.length, 1);
  channel.receive(encodeAck(1));
  timers.advance(1.5);
  assert.deepEqual(types(told.splice(0)), ['frameReceived']);
  for (const [reason, words] of [
    ['gone', 'gone'],
    ['', 'the other side ended the connection'],
  ]) {
    transport.probe({ reason });
    timers.advance(1.5);
    assert.deepEqual(told.pop(), ['attemptEnded', 'name', words, true]);
    channel.receive(encodeAck(1));
    told.length = 0;
  }
  await transport.close();
});

test('operations run in order and tell what came of them', async () => {
  const { transport, told, native, network } = made(true);
  transport.applyAnswer({ serial: 1, sdp: 'nonsense' }, { address: 'them' });
  transport.addCandidate({ candidate: null }); // of no use, and no loss
  transport.addCandidate({ candidate: { candidate: 'x'.repeat(2000), sdpMid: '0', sdpMLineIndex: 0 } });
  transport.makeAnswer({ serial: 2, sdp: 'v=0\r\n' }, { address: 'them', proof });
  transport.makeOffer({ serial: 3, restart: false });
  await until(() => types(told).includes('offerMade'));
  await quiet();
  const results = told.filter(([what]) => what !== 'candidateGathered' && what !== 'renegotiate');
  assert.deepEqual(
    results.map(([what, , serial]) => [what, serial]),
    [
      ['operationFailed', 1],
      ['operationFailed', 2],
      ['offerMade', 3],
    ],
  );
  const { sdp } = native.localDescription;
  assert.deepEqual(results[2][3], { sdp, proof: { ...proof, signed: ['them', 'name', sdp, undefined] }, serial: 3 });
  const gathered = told.filter(([what]) => what === 'candidateGathered').map(([, , candidate]) => candidate);
  assert.equal(gathered.length, 2); // an empty one, which ends one media section, is not passed on
  assert.deepEqual(Object.keys(gathered[0]), ['candidate', 'sdpMid', 'sdpMLineIndex', 'usernameFragment']);
  assert.equal(gathered[1], null);
  assert.equal(await transport.stats(), null);
  await transport.close();
  assert.equal(await transport.stats(), null);
  assert.deepEqual(network.open, []);
});

test('an offer that cannot be answered is rolled back', async () => {
  const { transport, told, native, network } = made();
  const other = new network.RTCPeerConnection({});
  other.createDataChannel('aldis.v1');
  await other.setLocalDescription();
  const apply = native.setLocalDescription;
  native.setLocalDescription = async () => {
    throw new DOMException('no', 'OperationError');
  };
  transport.makeAnswer({ serial: 1, sdp: other.localDescription.sdp }, { address: 'them', proof });
  await until(() => told.length);
  assert.deepEqual(told, [['operationFailed', 'name', 1, new DOMException('no', 'OperationError')]]);
  assert.equal(native.signalingState, 'stable');
  native.setLocalDescription = apply;
  await transport.close();
  other.close();
});

test('what arrives is told or a violation, and never a crash', async () => {
  const random = generator(11);
  const seeds = [HELLO, encodeAck(1), encodePing(1n), encodePong(2n), encodeGoodbye('x'), new Uint8Array([9, 1])];
  const allowed = ['frameReceived', 'abandon', 'attemptEnded'];
  for (let number = 0; number < 600; number++) {
    const { transport, told, channel } = opened();
    for (let count = random.below(4); count >= 0; count--) {
      channel.receive(random.below(10) ? mutated(random, random.one(seeds)) : 'text');
    }
    for (const what of types(told)) assert(allowed.includes(what), what);
    void transport.close();
  }
});

for (const [what, frames, reason] of [
  ['a text', ['text'], /text message/],
  ['an empty frame', [new Uint8Array()], /empty/],
  ['a frame over the limit', [new Uint8Array(MAX_FRAME + 1).fill(2)], /the limit is/],
  ['a second HELLO', [HELLO, HELLO], /second HELLO/],
  ['a message before the HELLO', [encodeAck(1)], /no HELLO/],
  ['an unknown frame before the HELLO', [new Uint8Array([77])], /no HELLO/],
]) {
  test(`${what} breaks the protocol`, async () => {
    const { transport, told, native, timers } = made();
    const channel = new Cardboard();
    open(native, channel);
    for (const frame of frames) channel.receive(frame);
    const [[, , said]] = told.filter(([name]) => name === 'abandon');
    assert.match(said, reason);
    assert.deepEqual(channel.frames.at(-1), { type: 'goodbye', reason: said });
    const closing = transport.close();
    timers.advance(1);
    await closing;
  });
}

test('what is sent goes where the other side has spoken from; what cannot be sent has failed', async () => {
  const { transport, told } = made();
  const [first, second] = ['first', 'second'].map((sdp) => ({ sdp, proof: { ...proof, nonce: sdp } }));
  const options = ({ proof }) => ({ connection: 'name', proof, capabilities: { trickle: true, restart: true } });
  transport.sendOffer({ type: 'sendOffer', serial: 1, sdp: first });
  transport.sendOffer({ type: 'sendOffer', serial: 1, sdp: first });
  assert.deepEqual(transport.formerNonces, ['', '']);
  transport.applyAnswer({ serial: 1, sdp: 'x' }, { address: 'them/phone' });
  transport.sendCandidate({ candidate: null });
  transport.sendOffer({ type: 'sendOffer', serial: 2, sdp: second });
  assert.deepEqual([transport.ourOffer, transport.formerNonces], [second, ['', 'first']]);
  assert.deepEqual(told, [
    ['sendOffer', 'them', 'first', options(first)],
    ['sendOffer', 'them', 'first', options(first)],
    ['sendIceCandidate', 'them/phone', null, { connection: 'name' }],
    ['sendOffer', 'them/phone', 'second', options(second)],
  ]);
  await quiet();
  told.length = 0;
  transport.sendAnswer({ type: 'sendAnswer', serial: 3, sdp: first });
  await until(() => told.length);
  assert.deepEqual(told, [['operationFailed', 'name', 3, new Error('no server')]]);
  await transport.close();
});

test('a fault of the owner is no fault of the peer', async () => {
  const { transport, told, channel } = opened();
  told.push = () => {
    throw new TypeError('a fault of ours');
  };
  assert.throws(() => channel.receive(encodeAck(1)), TypeError);
  await transport.close();
});

test('a kind of frame from the future is skipped, and a sign of life', async () => {
  const { transport, told, channel, native } = opened();
  native.become('disconnected');
  channel.receive(new Uint8Array([200, 1, 2]));
  assert.deepEqual(types(told), ['pathLost', 'pathRestored']);
  await transport.close();
});
