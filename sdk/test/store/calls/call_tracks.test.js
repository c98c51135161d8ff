/** What is sent and shown in a call: tracks that come and go, and connections that do. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PeerConnectionFailed, QueueFull } from '../../../src/errors.js';
import { End, ID, pair, talking } from '../../support/calls.js';
import { camera, FakeStream } from '../../support/fake_media.js';

// --- tracks ---------------------------------------------------------------------------------------------------------

test('tracks that arrive before the message that accepts are kept', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call(alice.peer, camera('audio'));
  deliver();
  bob.incoming[0].accept(camera('audio'));
  const track = alice.track('audio', new FakeStream());
  assert.equal(call.state, 'ringing');
  assert.deepEqual(call.remoteStream.getTracks(), []);
  deliver();
  assert.equal(call.state, 'connected');
  assert.deepEqual(call.remoteStream.getTracks(), [track]);
});

test('nothing of a caller is shown before the call is accepted here', () => {
  const bob = new End('alice.');
  bob.track('video');
  bob.hear({ type: 'call-offer', id: ID, audio: true, video: true });
  bob.track('audio');
  assert.deepEqual(bob.incoming[0].remoteStream.getTracks(), []);
});

test('the remote stream is one object, whose tracks come and go', () => {
  const { alice, call } = talking();
  const { remoteStream } = call;
  let changes = 0;
  call.subscribe(() => changes++);
  const stream = new FakeStream();
  const [sound, pictures] = [alice.track('audio', stream), alice.track('video', stream)];
  assert.deepEqual(remoteStream.getTracks(), [sound, pictures]);
  stream.lose(pictures);
  assert.deepEqual(remoteStream.getTracks(), [sound]);
  alice.calls.trackReceived(alice.peer, pictures, /** @type {any} */ ([new FakeStream()]));
  assert.deepEqual(remoteStream.getTracks(), [sound, pictures]);
  stream.lose(pictures); // the association of before
  assert.deepEqual(remoteStream.getTracks(), [sound, pictures]);
  sound.finish();
  assert.deepEqual(remoteStream.getTracks(), [pictures]);
  assert.equal(call.remoteStream, remoteStream);
  assert.equal(call.state, 'connected');
  assert(changes >= 5);
});

test('a track that joins later is of another stream, and takes the place of none of another kind', () => {
  const { alice, call } = talking();
  const sound = alice.track('audio', new FakeStream());
  const pictures = alice.track('video', new FakeStream());
  assert.deepEqual(call.remoteStream.getTracks(), [sound, pictures]);
});

test('two pictures of one stream stand beside each other', () => {
  const { alice, call } = talking();
  const stream = new FakeStream();
  const [face, screen] = [alice.track('video', stream), alice.track('video', stream)];
  assert.deepEqual(call.remoteStream.getTracks(), [face, screen]);
});

test('after the end nothing is sent, and nothing shown', () => {
  const { alice, bob, deliver, call, answered } = talking();
  alice.track('audio');
  const local = call.localStream;
  call.end();
  deliver();
  for (const each of [call, answered]) {
    assert.deepEqual([each.state, each.reason, each.remoteStream.getTracks()], ['ended', 'ended', []]);
  }
  assert.deepEqual([alice.sending, bob.sending], [null, null]);
  assert(local?.getTracks().every((track) => track.readyState === 'live')); // they are the application's
  alice.track('video');
  assert.deepEqual(call.remoteStream.getTracks(), []);
});

test('a call shows of the call before only what the other side says that it sends, until it comes anew', () => {
  const { alice, bob, deliver, call } = talking();
  const stream = new FakeStream();
  const [sound, pictures] = [alice.track('audio', stream), alice.track('video', stream)];
  call.end();
  const next = alice.calls.call(alice.peer, camera('audio'));
  deliver();
  const [, answered] = bob.incoming;
  answered.accept(camera('audio'));
  deliver();
  assert.deepEqual([next.state, next.remoteStream.getTracks()], ['connected', [sound]]);
  answered.replaceStream(camera('audio', 'video'));
  deliver();
  assert.deepEqual(next.remoteStream.getTracks(), [sound, pictures]);
  answered.replaceStream(camera('audio'));
  deliver();
  assert.deepEqual(next.remoteStream.getTracks(), [sound]);
  alice.calls.trackReceived(alice.peer, pictures, /** @type {any} */ ([stream]));
  assert.deepEqual(next.remoteStream.getTracks(), [sound, pictures]);
});

test('the other side is told what is sent when that has changed while it rang, and later', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call(alice.peer, camera('audio', 'video'));
  deliver();
  call.replaceStream(camera('audio'));
  assert.deepEqual(alice.messages(), []);
  bob.incoming[0].accept(camera('audio'));
  bob.messages().forEach((message) => alice.hear(message));
  const says = (audio, video) => [{ type: 'call-accept', id: call.id, audio, video }];
  assert.deepEqual(alice.messages(), says(true, false));
  call.replaceStream(camera('audio'));
  assert.deepEqual(alice.messages(), []);
  call.replaceStream(camera('video'));
  assert.deepEqual(alice.messages(), says(false, true));
  call.replaceStream(null);
  assert.deepEqual(alice.messages(), says(false, false));
  call.end();
  assert.deepEqual(
    alice.messages().map(({ type }) => type),
    ['call-end'],
  );
});

test('a track that comes and goes is told once each time', () => {
  const { alice, call } = talking();
  const stream = new FakeStream();
  const pictures = alice.track('video', stream);
  stream.lose(pictures);
  alice.calls.trackReceived(alice.peer, pictures, /** @type {any} */ ([stream]));
  let changes = 0;
  call.subscribe(() => changes++);
  stream.lose(pictures);
  assert.equal(changes, 2);
});

test('another stream is sent from now on', () => {
  const alice = new End('bobby');
  const call = alice.calls.call(alice.peer, camera('audio'));
  const [second, third] = [camera('audio', 'video'), camera('audio')];
  let told = 0;
  call.subscribe(() => told++);
  call.replaceStream(second);
  assert.deepEqual([call.localStream, alice.sending, told], [second, undefined, 2]);
  alice.hear({ type: 'call-accept', id: call.id, audio: true, video: true });
  assert.equal(alice.sending, second);
  call.replaceStream(third);
  assert.equal(alice.sending, third);
  call.replaceStream(null);
  assert.equal(alice.sending, null);
  call.end();
  assert.throws(() => call.replaceStream(third), { name: 'StateError' });
});

// --- connections that are lost ----------------------------------------------------------------------------------------

test('a call goes on over the next connection, with the new tracks in the place of the old', () => {
  const { alice, call } = talking();
  const before = new FakeStream();
  const [oldSound, oldPictures] = [alice.track('audio', before), alice.track('video', before)];
  alice.features = null;
  alice.sending = undefined;
  const other = camera('audio');
  call.replaceStream(other); // while there is no connection
  alice.connect();
  assert.equal(alice.sending, other);
  const after = new FakeStream();
  const sound = alice.track('audio', after);
  const pictures = alice.track('video', after);
  assert.deepEqual(call.remoteStream.getTracks(), [sound, pictures]);
  oldSound.finish();
  oldPictures.finish();
  assert.deepEqual(call.remoteStream.getTracks(), [sound, pictures]);
  assert.equal(call.state, 'connected');
});

test('a call that ends while there is no connection is not sent on the next one', () => {
  const { alice, call } = talking();
  alice.features = null;
  call.end();
  assert.equal(alice.sending, null);
  alice.connect();
  assert.equal(alice.sending, null);
});

test('a call that is accepted while nothing connects the two is sent when something does', () => {
  const bob = new End('alice.');
  bob.hear({ type: 'call-offer', id: ID, audio: true, video: false });
  bob.features = null;
  bob.attached = false;
  const local = camera('audio');
  bob.incoming[0].accept(local);
  assert.equal(bob.sending, undefined);
  bob.attached = true;
  bob.connect();
  assert.equal(bob.sending, local);
  bob.attached = false;
  bob.incoming[0].end();
  assert.equal(bob.incoming[0].state, 'ended');
});

test('what has ended with the old connection, told by nobody, is not shown on the new one', () => {
  const { alice, call } = talking();
  alice.track('video', new FakeStream()).finish({ told: false });
  alice.connect();
  assert.deepEqual(call.remoteStream.getTracks(), []);
  assert.equal(call.state, 'connected');
});

test('a peer that is lost for good ends the call, with the reason', () => {
  const { alice, bob, call } = talking();
  alice.track('audio');
  const error = new PeerConnectionFailed('bobby', 'it has hung up');
  alice.calls.ended(alice.peer, error);
  assert.deepEqual([call.state, call.reason, call.error], ['ended', 'it has hung up', error]);
  assert.deepEqual(call.remoteStream.getTracks(), []);
  assert.equal(alice.sending, null);
  assert.equal(bob.calls.busy(bob.peer), true);
  alice.messages().forEach((message) => bob.hear(message)); // in case that they still hear us
  assert.equal(bob.calls.busy(bob.peer), false);
});

test('a peer that was started anew has forgotten a call, but can be offered one that waits', () => {
  const restarted = new PeerConnectionFailed('bobby', 'it was started anew');
  const { alice, call } = talking();
  alice.calls.ended(alice.peer, restarted, true);
  assert.deepEqual([call.state, call.reason], ['ended', 'it was started anew']);
  alice.messages();
  alice.features = null;
  const waiting = alice.calls.call(alice.peer, null);
  alice.calls.ended(alice.peer, restarted, true);
  alice.connect();
  assert.deepEqual(alice.messages(), [{ type: 'call-offer', id: waiting.id, audio: false, video: false }]);
  alice.calls.ended(alice.peer, new QueueFull('bobby', 1, 1));
  assert.match(waiting.reason ?? '', /messages are waiting/);
  alice.calls.ended(alice.peer, restarted); // no call: nothing happens
});

test('closing ends all calls and says so', () => {
  const { alice, call } = talking();
  alice.calls.close();
  assert.deepEqual([call.state, call.reason], ['ended', 'the store was closed']);
  assert.deepEqual(alice.messages(), [{ type: 'call-end', id: call.id, reason: 'the store was closed' }]);
  alice.calls.close();
});
