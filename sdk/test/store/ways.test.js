/** What a page learns of the ways from here, from the candidates that its browser gathers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeConnection } from '../../src/peer/engine.js';
import { readWays, waysOf } from '../../src/store/ways.js';
import { FakeNetwork } from '../support/fake_rtc.js';

const host = 'candidate:1 1 udp 2113937151 0a1b.local 50000 typ host generation 0';
const seen = (port, base = 50000) =>
  `candidate:2 1 udp 1677729535 203.0.113.7 ${port} typ srflx raddr 192.168.7.2 rport ${base} generation 0`;
const relay = 'candidate:3 1 udp 33562367 203.0.113.1 49152 typ relay raddr 0.0.0.0 rport 0';
const [ONE, TWO, TURN] = ['stun:a.example', 'stun:b.example', 'turn:c.example'];

for (const [what, urls, gathered, direct, turn] of [
  ['no server to ask', [], [host], 'unknown', 'none'],
  ['a silent STUN server', [ONE], [host], 'blocked', 'none'],
  ['one STUN server', [ONE], [host, seen(50000)], 'unsure', 'none'],
  ['two that see the same', [ONE, TWO], [host, seen(50000)], 'easy', 'none'],
  ['two that see different ports', [ONE, TWO], [host, seen(50001), seen(50002)], 'symmetric', 'none'],
  ['two of our own ports', [ONE, TWO], [host, seen(50001, 1), seen(50002, 2)], 'easy', 'none'],
  ['a TURN server that relays', [TURN], [host, relay], 'unknown', 'works'],
  ['a TURN server that does not', [ONE, TURN], [host, seen(50000)], 'unsure', 'unreachable'],
]) {
  test(`the ways with ${what}`, () => assert.deepEqual(readWays(urls, gathered), { direct, turn }));
}

test('a connection is made for it, and closed', async () => {
  const network = new FakeNetwork();
  const ways = await waysOf({ config: { iceServers: [] }, relay: true }, (config) =>
    makeConnection(config, network.RTCPeerConnection),
  );
  assert.deepEqual(ways, { direct: 'unknown', turn: 'none', relay: true });
  assert.deepEqual(
    network.connections.map((each) => each.signalingState),
    ['closed'],
  );
});
