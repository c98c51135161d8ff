/** What is asked of a browser's connection, and what is made of its answers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, EngineMissing } from '../../src/errors.js';
import { EngineConnection, MAX_SDP, messageOf } from '../../src/peer/engine.js';
import { FakeNetwork, FakeStream } from '../support/fake_rtc.js';

const deaf = {
  candidateGathered() {},
  stateChanged() {},
  channelOpened() {},
  negotiationNeeded() {},
  trackReceived() {},
};

function made(config = {}) {
  const network = new FakeNetwork();
  const engine = new EngineConnection(config, deaf, network.RTCPeerConnection);
  return { engine, network, native: network.connections[0] };
}

test('nothing is configured that was not asked for, but that all shares one path', () => {
  assert.deepEqual(made().native.configuration, { bundlePolicy: 'max-bundle', iceServers: [] });
  const servers = [{ urls: ['turn:a.example'], username: 'u', credential: 'c' }, { urls: 'stun:b.example' }];
  const { configuration } = made({ iceServers: servers, iceTransportPolicy: 'relay' }).native;
  assert.deepEqual(configuration.iceServers, servers);
  assert.equal(configuration.iceTransportPolicy, 'relay');
});

test('a configuration that the browser refuses, and a browser without WebRTC, are told', () => {
  assert.throws(() => made({ iceServers: [{ urls: 'http://x' }] }), ConfigError);
  assert.throws(() => new EngineConnection({}, deaf), EngineMissing); // as Node is
});

test('a description that no browser should be asked to parse is refused', async () => {
  const { engine } = made();
  const good = 'm=application 9 X\r\na=fingerprint:sha-256 AA\r\n';
  for (const sdp of ['', 'm=application 9\r\n', 'a=fingerprint:x\r\n', good + 'x'.repeat(MAX_SDP)]) {
    await assert.rejects(engine.answer(sdp), { name: 'ProtocolViolation' });
    await assert.rejects(engine.accept(sdp), { name: 'ProtocolViolation' });
  }
});

test('a closed connection refuses everything', async () => {
  const { engine } = made();
  engine.openChannel();
  engine.close();
  engine.close();
  for (const call of [() => engine.offer(true), () => engine.addCandidate(null), () => engine.stats()]) {
    await assert.rejects(call(), { name: 'InvalidStateError' });
  }
  await assert.rejects(engine.setTracks(new FakeStream('audio')), { name: 'InvalidStateError' });
});

const host = { candidateType: 'host', protocol: 'udp' };
const pairOf = (more) => ({
  type: 'candidate-pair',
  localCandidateId: 'L',
  remoteCandidateId: 'R',
  bytesSent: 1,
  bytesReceived: 2,
  ...more,
});
const transport = { type: 'transport', selectedCandidatePairId: 'P' };

for (const [what, report, expected] of [
  ['no path yet', { P: pairOf() }, null],
  ['no candidates', { T: transport, P: pairOf() }, null],
  [
    'a direct path',
    { T: transport, P: pairOf(), L: host, R: { ...host, candidateType: 'prflx' } },
    { path: 'direct', protocol: 'udp', local: 'host', remote: 'prflx' },
  ],
  [
    'a path over TCP',
    { T: transport, P: pairOf(), L: { ...host, protocol: 'tcp' }, R: host },
    { path: 'direct', protocol: 'tcp', local: 'host', remote: 'host' },
  ],
  [
    'our TURN server, reached with TLS',
    { T: transport, P: pairOf(), L: { candidateType: 'relay', protocol: 'udp', relayProtocol: 'tls' }, R: host },
    { path: 'turn', protocol: 'tcp', local: 'relay', remote: 'host' },
  ],
  [
    'their TURN server',
    { T: transport, P: pairOf(), L: host, R: { ...host, candidateType: 'relay' } },
    { path: 'turn', protocol: 'udp', local: 'host', remote: 'relay' },
  ],
  [
    'a browser that names no transport',
    { X: pairOf(), P: pairOf({ nominated: true, state: 'succeeded', bytesSent: 1 }), L: host, R: host },
    { path: 'direct', protocol: 'udp', local: 'host', remote: 'host' },
  ],
]) {
  test(`the stats of ${what}`, async () => {
    const { engine, native } = made();
    native.stats = Object.entries(report);
    assert.deepEqual(await engine.stats(), expected && { ...expected, bytesSent: 1, bytesReceived: 2 });
  });
}

test('a stopped section is not used again', async () => {
  const { engine, native } = made();
  await engine.setTracks(new FakeStream('audio'));
  native.getTransceivers()[0].direction = 'stopped';
  native.getTransceivers()[0].sender.track = null;
  await engine.setTracks(new FakeStream('audio'));
  assert.equal(native.getTransceivers().filter(({ kind }) => kind === 'audio').length, 2);
});

test('whatever is thrown has words', () => {
  assert.equal(messageOf(new Error('words')), 'words');
  assert.equal(messageOf(new TypeError('')), 'TypeError');
  assert.equal(messageOf('text'), 'text');
});
