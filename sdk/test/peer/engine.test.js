/** What is asked of a browser's connection, and what is made of its answers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EngineMissing } from '../../src/errors.js';
import { apply, configure, makeConnection, MAX_SDP } from '../../src/peer/engine.js';
import { messageOf } from '../../src/peer/platform.js';
import { putTracks } from '../../src/peer/media.js';
import { statsOf } from '../../src/peer/stats.js';
import { FakeNetwork, FakeStream } from '../support/fake_rtc.js';

const made = (config = {}) => makeConnection(config, new FakeNetwork().RTCPeerConnection);

test('nothing is configured that was not asked for, but that all shares one path', () => {
  assert.deepEqual(made().configuration, { bundlePolicy: 'max-bundle', iceServers: [] });
  const servers = [{ urls: ['turn:a.example'], username: 'u', credential: 'c' }, { urls: 'stun:b.example' }];
  const { configuration } = made({ iceServers: servers, iceTransportPolicy: 'relay' });
  assert.deepEqual(configuration.iceServers, servers);
  assert.equal(configuration.iceTransportPolicy, 'relay');
});

test('a configuration that the browser refuses, and a browser without WebRTC, are told', () => {
  assert.throws(() => made({ iceTransportPolicy: 'x' }), { name: 'TypeError' });
  assert.throws(() => makeConnection({}), EngineMissing); // as Node is
});

test('a URL that this browser does not take is left out, and the others are used', (t) => {
  const { mock } = t.mock.method(console, 'warn', () => {});
  const turn = { urls: ['turn:a.example', 'http:x'], username: 'u', credential: 'c' };
  const config = { iceServers: [{ urls: 'http:y' }, turn, { urls: 'stun:b.example' }] };
  const taken = [{ ...turn, urls: 'turn:a.example' }, { urls: 'stun:b.example' }];
  const native = made(config);
  assert.deepEqual(native.configuration, { bundlePolicy: 'max-bundle', iceServers: taken });
  assert.deepEqual(
    mock.calls.map((call) => call.arguments),
    [['bad URL http:y'], ['bad URL http:x']],
  );
  // An ICE restart configures the connection once more.
  configure({ iceServers: [...config.iceServers, { urls: 'stun:c.example' }] }, native.constructor, (all) =>
    native.setConfiguration(all),
  );
  assert.deepEqual(native.configuration.iceServers, [...taken, { urls: 'stun:c.example' }]);
});

test('a description that no browser should be asked to parse is refused', async () => {
  const native = made();
  const good = 'm=application 9 X\r\na=fingerprint:sha-256 AA\r\n';
  for (const sdp of ['', 'm=application 9\r\n', 'a=fingerprint:x\r\n', good + 'x'.repeat(MAX_SDP)]) {
    for (const type of ['offer', 'answer']) {
      await assert.rejects(apply(native, type, sdp), { name: 'ProtocolViolation' });
    }
  }
});

test('a closed connection refuses everything', async () => {
  const native = made();
  native.close();
  await assert.rejects(statsOf(native), { name: 'InvalidStateError' });
  await assert.rejects(putTracks(native, new FakeStream('audio')), { name: 'InvalidStateError' });
});

const host = { candidateType: 'host', protocol: 'udp' };
const pairOf = (more) => ({
  type: 'candidate-pair',
  localCandidateId: 'L',
  remoteCandidateId: 'R',
  bytesSent: 0,
  bytesReceived: 0,
  ...more,
});
const transport = { type: 'transport', selectedCandidatePairId: 'P', bytesSent: 1, bytesReceived: 2 };

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
    { path: 'turn', protocol: 'tls', local: 'relay', remote: 'host' },
  ],
  ...[
    ['turns:t.example:5349?transport=tcp', 'tls'],
    ['turn:t.example:3478?transport=tcp', 'tcp'],
    ['turn:t.example:3478?transport=udp', 'udp'],
  ].map(([url, protocol]) => [
    `our TURN server in a browser that tells its URL alone: ${url}`,
    { T: transport, P: pairOf(), L: { candidateType: 'relay', protocol: 'udp', url }, R: host },
    { path: 'turn', protocol, local: 'relay', remote: 'host' },
  ]),
  [
    'a peer-reflexive address that was found over our TURN server',
    { T: transport, P: pairOf(), L: { candidateType: 'prflx', protocol: 'udp', relayProtocol: 'udp' }, R: host },
    { path: 'turn', protocol: 'udp', local: 'prflx', remote: 'host' },
  ],
  [
    'an address that a STUN server has shown',
    { T: transport, P: pairOf(), L: { candidateType: 'srflx', protocol: 'udp', url: 'stun:s.example' }, R: host },
    { path: 'direct', protocol: 'udp', local: 'srflx', remote: 'host' },
  ],
  [
    'their TURN server',
    { T: transport, P: pairOf(), L: host, R: { ...host, candidateType: 'relay' } },
    { path: 'turn', protocol: 'udp', local: 'host', remote: 'relay' },
  ],
  [
    'a browser that names no transport',
    {
      X: pairOf(),
      P: pairOf({ nominated: true, state: 'succeeded' }),
      C: { type: 'data-channel', bytesSent: 1, bytesReceived: 2 },
      L: host,
      R: host,
    },
    { path: 'direct', protocol: 'udp', local: 'host', remote: 'host' },
  ],
]) {
  test(`the stats of ${what}`, async () => {
    const native = made();
    native.stats = Object.entries(report);
    const stats = await statsOf(native);
    assert.deepEqual(stats, expected && { ...expected, bytesSent: 1, bytesReceived: 2 });
  });
}

for (const [what, counted, bytesSent, bytesReceived] of [
  ['of the transport', { bytesSent: 70, bytesReceived: 80 }, 70, 80],
  ['of channels and tracks, in a browser without a transport', {}, 45, 106],
]) {
  test(`the bytes are those of all paths, ${what}`, async () => {
    const native = made();
    native.stats = Object.entries({
      T: { type: 'transport', selectedCandidatePairId: 'P', ...counted },
      P: pairOf(), // ICE has just taken this pair
      C: { type: 'data-channel', bytesSent: 5, bytesReceived: 6 },
      O: { type: 'outbound-rtp', bytesSent: 40 },
      I: { type: 'inbound-rtp', bytesReceived: 100 },
      S: { type: 'remote-outbound-rtp', bytesSent: 1000 }, // what the other side says that it has sent
      L: host,
      R: host,
    });
    const stats = await statsOf(native);
    assert.deepEqual([stats?.bytesSent, stats?.bytesReceived], [bytesSent, bytesReceived]);
  });
}

test('a stopped section is not used again', async () => {
  const native = made();
  await putTracks(native, new FakeStream('audio'));
  native.getTransceivers()[0].direction = 'stopped';
  native.getTransceivers()[0].sender.track = null;
  await putTracks(native, new FakeStream('audio'));
  assert.equal(native.getTransceivers().filter(({ kind }) => kind === 'audio').length, 2);
});

test('whatever is thrown has words', () => {
  assert.equal(messageOf(new Error('words')), 'words');
  assert.equal(messageOf(new TypeError('')), 'TypeError');
  assert.equal(messageOf('text'), 'text');
});
