/** The names in the bundle: those that applications know are as they are in the source, and others are shorter. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as source from '../src/index.js';
import { built } from '../tools/build.js';
import { keptNames } from '../tools/names.js';

const [{ text }] = await built();
const kept = keptNames();
const words = new Set(text.match(/[\w$]+/g));

/** @param {string} code */
const load = (code) => import(`data:text/javascript;base64,${Buffer.from(code).toString('base64')}`);

/** The names of the members of a class, its own and those of its instances; private ones have none. */
const members = (type) => [Object.getOwnPropertyNames(type), Object.getOwnPropertyNames(type.prototype)].flat().sort();

/** What two versions of the same module differ in, as sentences. */
function differences(one, other) {
  const found = [];
  for (const [name, value] of Object.entries(one)) {
    if (!(name in other)) found.push(`${name} is missing`);
    else if (members(value).join() !== members(other[name]).join()) found.push(`${name} has other members`);
  }
  return found;
}

const classes = ({ fingerprint, ...rest }) => rest;

test('the classes of the bundle have the members of those in the source', async () => {
  const bundle = await load(text);
  assert.equal(typeof bundle.fingerprint, 'function');
  assert.deepEqual(differences(classes(source), classes(bundle)), []);
  assert.deepEqual(Object.keys(bundle).sort(), Object.keys(source).sort());
});

test('the comparison can say no', async () => {
  const shorter = text.replaceAll('connectToPeer', 'a1');
  assert.deepEqual(differences(classes(source), classes(await load(shorter))), ['NetworkStore has other members']);
});

test('what can be reached through types is known without a list: states, views, options, events, results', () => {
  const some = {
    StoreState: ['signalingError', 'peers'],
    PeerView: ['roundTripTime', 'connections', 'features'],
    Message: ['sender', 'sequence', 'content'],
    StoreOptions: ['iceServers', 'accept', 'RTCPeerConnection'],
    StoreLimits: ['queueMessages', 'unreadSize', 'arrivingSize'],
    PeerTiming: ['heartbeat', 'linger'],
    BackoffOptions: ['first', 'factor', 'most'],
    PeerStats: ['path', 'bytesReceived'],
    Delivery: ['delivered', 'done', 'then'],
    Transfer: ['transferred', 'finished', 'sink', 'mime'],
    Call: ['remoteStream', 'replaceStream', 'direction'],
    SignalingEvent: ['retryIn', 'reconnectIn', 'resumed', 'description'],
    SignalingClient: ['sendIceCandidate', 'connectTimeout', 'maxMessageBytes'],
    Pins: ['find', 'pin', 'accept'],
    errors: ['retryAfter', 'temporary', 'pinned', 'feature', 'problem'],
  };
  for (const [type, names] of Object.entries(some)) {
    for (const name of names) assert.ok(kept.reachable.has(name), `${name} of ${type}`);
  }
});

test('every name that an application can reach is in the bundle as it is', () => {
  // Types have no name in JavaScript; what Node adds to errors, and the platform to its own, is nobody's to shorten.
  const ours = [...kept.reachable].filter(
    (name) => !/^[A-Z]/.test(name) && !kept.platform.has(name) && !(name in Error),
  );
  assert.ok(ours.length > 60);
  assert.deepEqual(
    ours.filter((name) => !words.has(name)),
    [],
  );
});

test('names that nobody outside can see are shorter', () => {
  for (const name of ['nextDeadline', 'openChannel', 'controlReceived', 'sayGoodbye', 'handedOver']) {
    assert.ok(!words.has(name), name);
  }
});
