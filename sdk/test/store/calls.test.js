import assert from 'node:assert/strict';
import { test } from 'node:test';

import { PeerConnectionFailed, QueueFull } from '../../src/errors.js';
import { toBase64url } from '../../src/protocol/codec.js';
import { Calls, RING_SECONDS } from '../../src/store/calls.js';
import { decodeControl, encodeControl } from '../../src/store/controls.js';
import { Callbacks } from '../../src/store/feeds.js';
import { camera, FakeStream, FakeTrack } from '../support/fake_media.js';
import { FakeTimers } from '../support/fake_timers.js';
import { generator } from '../support/generator.js';

globalThis.MediaStream ??= /** @type {any} */ (FakeStream); // Node has none

/**
 * One end: its calls, and what they see of the store. What is said waits until it is delivered, so that words can cross;
 * the tracks of the other end come with `flow`, as if that were the renegotiation.
 */
class End {
  /** @type {readonly string[] | null} */
  features = ['files', 'calls'];
  /** Whether something connects the two, or is about to. */
  peer = true;
  /** @type {any} what is sent on the connection: null nothing, undefined not asked for yet */
  sending;
  /** @type {Uint8Array[]} */
  said = [];
  /** @type {string[]} */
  opened = [];
  changes = 0;
  /** @type {Error | null} why nothing can be said */
  refusal = null;
  onCall = new Callbacks();
  /** @type {import('../../src/store/calls.js').Call[]} */
  incoming = [];
  timers = new FakeTimers();
  /** @type {FakeTrack[]} what arrives, as this end knows it */
  arriving = [];

  /** @param {string} other @param {{ answers?: boolean }} [options] */
  constructor(other, { answers = true } = {}) {
    this.other = other;
    const route = {
      sendControl: (userId, control) => {
        assert.equal(userId, other);
        if (this.refusal) {
          throw this.refusal;
        }
        this.said.push(control);
      },
      features: () => this.features,
      open: (userId) => {
        if (this.refusal) {
          throw this.refusal;
        }
        this.opened.push(userId);
      },
      connection: () => (this.peer ? { setTracks: (stream) => (this.sending = stream) } : null),
      changed: () => void this.changes++,
    };
    if (answers) {
      this.onCall.add((call) => this.incoming.push(call));
    }
    let next = 0;
    this.calls = new Calls(route, this.onCall, {
      timers: this.timers,
      random: (size) => new Uint8Array(size).fill(++next, 1).fill(other.length, 0, 1),
    });
  }

  /** What was said, in words; it is said no more. */
  words() {
    return this.said.splice(0).map((control) => decodeControl(control));
  }

  /** @param {any} word */
  hear(word) {
    this.calls.received(this.other, decodeControl(encodeControl(word)));
  }

  /** The connection is there, or there again. */
  connect(features = ['calls']) {
    this.features = features;
    this.calls.connected(this.other, features);
  }

  /** @param {'audio' | 'video'} kind @param {FakeStream} [stream] */
  track(kind, stream) {
    const track = /** @type {any} */ (new FakeTrack(kind));
    this.calls.trackReceived(this.other, track, /** @type {any} */ (stream ? [stream] : []));
    return track;
  }
}

/** Two ends, connected. */
function pair() {
  const alice = new End('bobby');
  const bob = new End('alice.');
  /** What both have said reaches the other, until there is silence. */
  const deliver = () => {
    for (;;) {
      const [ours, theirs] = [alice.words(), bob.words()];
      if (ours.length + theirs.length === 0) {
        return;
      }
      ours.forEach((word) => bob.hear(word));
      theirs.forEach((word) => alice.hear(word));
    }
  };
  return { alice, bob, deliver };
}

/** Two ends that are in a call, each sending sound and pictures, none of which has arrived yet. */
function talking() {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call('bobby', camera('audio', 'video'));
  deliver();
  const [answered] = bob.incoming;
  answered.accept(camera('audio', 'video'));
  deliver();
  return { alice, bob, deliver, call, answered };
}

const ID = toBase64url(new Uint8Array(8).fill(200));

// --- ringing --------------------------------------------------------------------------------------------------------

test('a call rings, is accepted, and is connected when the other side is heard', () => {
  const { alice, bob, deliver } = pair();
  const [mine, theirs] = [camera('audio', 'video'), camera('audio')];
  const call = alice.calls.call('bobby', mine);
  assert.deepEqual(
    [call.userId, call.direction, call.state, call.audio, call.video],
    ['bobby', 'out', 'ringing', true, true],
  );
  deliver();
  const [answered] = bob.incoming;
  assert.deepEqual(
    [answered.id, answered.userId, answered.direction, answered.state, answered.audio, answered.video],
    [call.id, 'alice.', 'in', 'ringing', true, true],
  );
  assert.deepEqual([alice.sending, bob.sending], [undefined, undefined]); // nothing is sent before it is accepted
  answered.accept(theirs);
  assert.deepEqual([answered.state, answered.localStream, bob.sending], ['connecting', theirs, theirs]);
  deliver();
  assert.deepEqual([call.state, alice.sending], ['connecting', mine]);
  const sound = alice.track('audio');
  assert.equal(call.state, 'connected');
  assert.deepEqual(call.remoteStream.getTracks(), [sound]);
  bob.track('audio');
  const pictures = bob.track('video');
  assert.equal(answered.state, 'connected');
  assert.deepEqual(answered.remoteStream.getVideoTracks(), [pictures]);
  assert.deepEqual([call.reason, answered.error], [null, null]);
});

test('who only listens is connected by what the other side sends, and the other side at once', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call('bobby', camera('audio'));
  deliver();
  bob.incoming[0].accept();
  deliver();
  assert.equal(call.state, 'connected');
  assert.equal(bob.incoming[0].state, 'connecting');
  bob.track('audio');
  assert.equal(bob.incoming[0].state, 'connected');
});

test('a call that is declined ends with the reason of the other side', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call('bobby', null);
  deliver();
  bob.incoming[0].decline('in a\nmeeting');
  deliver();
  assert.deepEqual([call.state, call.reason, call.error], ['ended', 'in ameeting', null]);
  assert.deepEqual([bob.incoming[0].state, bob.incoming[0].reason], ['ended', 'in ameeting']);
  assert.deepEqual([alice.sending, bob.sending], [undefined, undefined]);
});

test('who hangs up before it is answered stops the ringing', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call('bobby', null);
  deliver();
  call.end();
  deliver();
  assert.deepEqual([bob.incoming[0].state, bob.incoming[0].reason], ['ended', 'ended']);
  assert.throws(() => bob.incoming[0].accept(camera('audio')), { name: 'StateError' });
  bob.incoming[0].decline();
  assert.deepEqual(bob.words(), []);
});

test('where nobody takes calls, they are declined', () => {
  const bob = new End('alice.', { answers: false });
  bob.hear({ type: 'call-offer', id: ID, audio: true, video: true });
  assert.deepEqual(bob.words(), [{ type: 'call-decline', id: ID, reason: 'no calls here' }]);
  assert.equal(bob.timers.waiting, 0);
});

test('a call that nobody answers ends at both ends', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call('bobby', null);
  deliver();
  alice.timers.advance(RING_SECONDS - 1);
  assert.equal(call.state, 'ringing');
  alice.timers.advance(1);
  assert.deepEqual([call.state, call.reason], ['ended', 'no answer']);
  deliver();
  assert.deepEqual([bob.incoming[0].state, bob.incoming[0].reason], ['ended', 'no answer']);
  assert.deepEqual([alice.timers.waiting, bob.timers.waiting], [0, 0]);
});

test('a call does not ring on where the caller is not heard of any more', () => {
  const bob = new End('alice.');
  bob.hear({ type: 'call-offer', id: ID, audio: true, video: false });
  bob.timers.advance(RING_SECONDS);
  assert.deepEqual([bob.incoming[0].state, bob.incoming[0].reason], ['ended', 'no answer']);
  assert.deepEqual(bob.words(), [{ type: 'call-decline', id: ID, reason: 'no answer' }]);
});

test('a call that was answered may last', () => {
  const { alice, bob, call, answered } = talking();
  alice.timers.advance(3600);
  bob.timers.advance(3600);
  assert.deepEqual([call.state, answered.state], ['connecting', 'connecting']);
});

// --- one call per peer ----------------------------------------------------------------------------------------------

test('a second call of the same peer is declined as busy, ringing or not, and the first goes on', () => {
  const bob = new End('alice.');
  bob.hear({ type: 'call-offer', id: ID, audio: true, video: false });
  const second = toBase64url(new Uint8Array(8).fill(201));
  bob.hear({ type: 'call-offer', id: second, audio: true, video: false });
  bob.incoming[0].accept();
  bob.words();
  bob.hear({ type: 'call-offer', id: second, audio: true, video: false });
  assert.deepEqual(bob.words(), [{ type: 'call-decline', id: second, reason: 'busy' }]);
  bob.hear({ type: 'call-offer', id: ID, audio: true, video: false }); // said twice
  assert.deepEqual(bob.words(), []);
  assert.equal(bob.incoming.length, 1);
  assert.equal(bob.incoming[0].state, 'connecting');
});

test('the same peer cannot be called twice, and can be again after the end', () => {
  const alice = new End('bobby');
  const call = alice.calls.call('bobby', null);
  assert.throws(() => alice.calls.call('bobby', null), { name: 'StateError' });
  call.end();
  assert.notEqual(alice.calls.call('bobby', null).id, call.id);
});

test('to call somebody who is calling is to answer', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call('bobby', null);
  deliver();
  assert.equal(bob.calls.call('alice.', null), bob.incoming[0]);
  deliver();
  assert.equal(call.state, 'connected');
});

test('when both call each other at once, it is one call, and either may end it', () => {
  for (const ender of ['alice', 'bob']) {
    const { alice, bob, deliver } = pair();
    const [mine, theirs] = [camera('audio'), camera('video')];
    const ours = alice.calls.call('bobby', mine);
    const other = bob.calls.call('alice.', theirs);
    deliver();
    assert.deepEqual([ours.state, other.state], ['connecting', 'connecting']);
    assert.deepEqual([alice.sending, bob.sending], [mine, theirs]);
    assert.deepEqual([alice.incoming, bob.incoming], [[], []]);
    (ender === 'alice' ? ours : other).end('bye');
    deliver();
    assert.deepEqual([ours.state, ours.reason, other.state, other.reason], ['ended', 'bye', 'ended', 'bye']);
    assert.deepEqual([alice.sending, bob.sending], [null, null]);
  }
});

test('a call that crosses another one and is given up leaves nobody ringing', () => {
  const { alice, bob, deliver } = pair();
  const ours = alice.calls.call('bobby', null);
  ours.end();
  const other = bob.calls.call('alice.', null);
  deliver(); // to Bob it looks as if both called at once; to Alice as if he called after hers was over
  assert.equal(other.state, 'ended');
  assert.deepEqual(
    alice.incoming.map(({ state }) => state),
    ['ended'],
  );
});

test('a call that crosses two of the other side leaves nobody ringing either', () => {
  const { alice, bob, deliver } = pair();
  alice.calls.call('bobby', null).end();
  const again = alice.calls.call('bobby', null);
  const other = bob.calls.call('alice.', null);
  deliver();
  assert.equal(other.state, 'ended');
  assert.equal(again.state, 'ended');
  assert(bob.incoming.every(({ state }) => state === 'ended'));
  assert.deepEqual([alice.timers.waiting, bob.timers.waiting], [0, 0]);
});

test('who would have called is called: one call, accepted by a word', () => {
  const alice = new End('bobby');
  alice.features = null;
  const call = alice.calls.call('bobby', camera('audio'));
  alice.hear({ type: 'call-offer', id: ID, audio: false, video: false });
  assert.deepEqual(alice.words(), [{ type: 'call-accept', id: ID, audio: true, video: false }]);
  assert.deepEqual([call.id, call.state], [ID, 'connected']);
  alice.connect();
  assert.deepEqual(alice.words(), []);
  assert.equal(alice.sending, call.localStream);
});

test('whatever both do, in whatever order it is heard, in the end they agree', () => {
  for (let seed = 1; seed <= 400; seed++) {
    const random = generator(seed);
    const { alice, bob, deliver } = pair();
    const ends = [alice, bob];
    /** @type {import('../../src/store/calls.js').Call[][]} what each has seen */
    const seen = [alice.incoming, bob.incoming];
    for (let step = 0; step < 30; step++) {
      const here = random.below(2);
      const end = ends[here];
      const call = seen[here].find(({ state }) => state !== 'ended');
      const rings = call?.state === 'ringing' && call.direction === 'in';
      switch (random.below(5)) {
        case 0:
          if (!call || rings) {
            const made = end.calls.call(end.other, null);
            if (made !== call) {
              seen[here].push(made);
            }
          }
          break;
        case 1:
          if (rings) {
            call.accept(random.one([null, camera('audio')]));
          }
          break;
        case 2:
          random.one([() => call?.end(), () => call?.decline(), () => {}, () => {}])();
          break;
        default: {
          const control = end.said.shift();
          if (control) {
            ends[1 - here].calls.received(ends[1 - here].other, decodeControl(control));
          }
        }
      }
      assert(seen[here].filter(({ state }) => state !== 'ended').length <= 1);
    }
    deliver();
    const [ours, theirs] = seen.map((calls) => calls.find(({ state }) => state !== 'ended'));
    assert.equal(!ours, !theirs, `seed ${seed}: ${ours?.state} and ${theirs?.state}`);
    assert.equal(ours?.state === 'ringing', theirs?.state === 'ringing', `seed ${seed}`);
    ours?.end();
    deliver();
    assert(theirs?.state !== 'ringing' && seen.flat().every(({ state }) => state === 'ended'), `seed ${seed}`);
    assert.deepEqual([alice.timers.waiting, bob.timers.waiting], [0, 0]);
  }
});

// --- before there is a connection ------------------------------------------------------------------------------------

test('a call waits for the connection, and is offered then', () => {
  const alice = new End('bobby');
  alice.features = null;
  const call = alice.calls.call('bobby', camera('video'));
  assert.deepEqual([alice.opened, alice.words(), alice.calls.busy('bobby')], [['bobby'], [], true]);
  alice.connect();
  assert.deepEqual(alice.words(), [{ type: 'call-offer', id: call.id, audio: false, video: true }]);
  alice.connect();
  assert.deepEqual(alice.words(), []);
});

test('a call that waits for the connection can be given up, and is never offered', () => {
  const alice = new End('bobby');
  alice.features = null;
  alice.calls.call('bobby', null).end();
  alice.connect();
  assert.deepEqual(alice.words(), []);
  assert.equal(alice.calls.busy('bobby'), false);
});

test('a program without calls fails the call: at once, or when it is connected', () => {
  const alice = new End('bobby');
  alice.features = ['files'];
  assert.throws(() => alice.calls.call('bobby', null), { name: 'FeatureMissing', userId: 'bobby', feature: 'calls' });
  alice.features = null;
  const call = alice.calls.call('bobby', null);
  alice.connect(['files']);
  assert.equal(call.state, 'ended');
  assert.equal(call.error?.name, 'FeatureMissing');
  assert.equal(call.reason, call.error?.message);
  assert.deepEqual(alice.words(), []);
});

test('a call that cannot be made throws, and leaves nothing behind', () => {
  for (const features of [null, ['calls']]) {
    const alice = new End('bobby');
    alice.features = features;
    alice.refusal = new QueueFull('bobby', 1, 1);
    assert.throws(() => alice.calls.call('bobby', null), alice.refusal);
    assert.deepEqual([alice.calls.busy('bobby'), alice.timers.waiting], [false, 0]);
    alice.refusal = null;
    assert.equal(alice.calls.call('bobby', null).state, 'ringing');
  }
});

test('a call that cannot be offered when the connection is there has failed', () => {
  const alice = new End('bobby');
  alice.features = null;
  const call = alice.calls.call('bobby', null);
  alice.refusal = new QueueFull('bobby', 1, 1);
  alice.connect();
  assert.deepEqual([call.state, call.error], ['ended', alice.refusal]);
});

test('a call that cannot be accepted has failed', () => {
  const bob = new End('alice.');
  bob.hear({ type: 'call-offer', id: ID, audio: true, video: false });
  bob.refusal = new QueueFull('alice.', 1, 1);
  assert.throws(() => bob.incoming[0].accept(), bob.refusal);
  assert.deepEqual([bob.incoming[0].state, bob.incoming[0].error], ['ended', bob.refusal]);
});

test('a stranger who rings does not make us keep a connection', () => {
  const bob = new End('alice.');
  bob.hear({ type: 'call-offer', id: ID, audio: true, video: false });
  assert.deepEqual([bob.calls.busy('alice.'), bob.opened], [false, []]);
  bob.incoming[0].accept();
  assert.deepEqual([bob.calls.busy('alice.'), bob.opened], [true, ['alice.']]);
});

// --- tracks ---------------------------------------------------------------------------------------------------------

test('tracks that arrive before the word that accepts are kept', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call('bobby', camera('audio'));
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
  alice.calls.trackReceived('bobby', pictures, /** @type {any} */ ([new FakeStream()]));
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

test('another stream is sent from now on', () => {
  const alice = new End('bobby');
  const call = alice.calls.call('bobby', camera('audio'));
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
  bob.peer = false;
  const local = camera('audio');
  bob.incoming[0].accept(local);
  assert.equal(bob.sending, undefined);
  bob.peer = true;
  bob.connect();
  assert.equal(bob.sending, local);
  bob.peer = false;
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
  alice.calls.ended('bobby', error);
  assert.deepEqual([call.state, call.reason, call.error], ['ended', 'it has hung up', error]);
  assert.deepEqual(call.remoteStream.getTracks(), []);
  assert.equal(alice.sending, null);
  assert.equal(bob.calls.busy('alice.'), true);
  alice.words().forEach((word) => bob.hear(word)); // in case that they still hear us
  assert.equal(bob.calls.busy('alice.'), false);
});

test('a peer that was started anew has forgotten a call, but can be offered one that waits', () => {
  const restarted = new PeerConnectionFailed('bobby', 'it was started anew');
  const { alice, call } = talking();
  alice.calls.ended('bobby', restarted, true);
  assert.deepEqual([call.state, call.reason], ['ended', 'it was started anew']);
  alice.words();
  alice.features = null;
  const waiting = alice.calls.call('bobby', null);
  alice.calls.ended('bobby', restarted, true);
  alice.connect();
  assert.deepEqual(alice.words(), [{ type: 'call-offer', id: waiting.id, audio: false, video: false }]);
  alice.calls.ended('bobby', new QueueFull('bobby', 1, 1));
  assert.match(waiting.reason ?? '', /no more can be queued/);
  alice.calls.ended('bobby', restarted); // no call: nothing happens
});

test('closing ends all calls and says so', () => {
  const { alice, call } = talking();
  alice.calls.close();
  assert.deepEqual([call.state, call.reason], ['ended', 'the store was closed']);
  assert.deepEqual(alice.words(), [{ type: 'call-end', id: call.id, reason: 'the store was closed' }]);
  alice.calls.close();
});

// --- words that change nothing ----------------------------------------------------------------------------------------

test('words about calls that are not known here, or from the wrong side, change nothing', () => {
  const { alice, bob, call, answered } = talking();
  const [before, after] = [call.state, answered.state];
  for (const end of [alice, bob]) {
    end.hear({ type: 'call-accept', id: ID, audio: true, video: true });
    end.hear({ type: 'call-decline', id: ID, reason: 'x' });
    end.hear({ type: 'call-end', id: ID, reason: 'x' });
    end.hear({ type: 'file-accept', id: call.id });
    end.hear({ type: 'call-accept', id: call.id, audio: false, video: false }); // once more
    assert.deepEqual(end.words(), []);
  }
  assert.deepEqual([call.state, answered.state], [before, after]);
  const stranger = new End('x');
  stranger.hear({ type: 'call-end', id: ID, reason: 'x' });
  stranger.connect();
  assert.deepEqual([stranger.words(), stranger.changes], [[], 0]);
});

test('a caller cannot accept its own call for us', () => {
  const bob = new End('alice.');
  bob.hear({ type: 'call-offer', id: ID, audio: true, video: true });
  bob.hear({ type: 'call-accept', id: ID, audio: true, video: true });
  assert.equal(bob.incoming[0].state, 'ringing');
  const alice = new End('bobby');
  assert.throws(() => alice.calls.call('bobby', null).accept(), { name: 'StateError' });
});

test('the reason of a stranger is shortened', () => {
  const alice = new End('bobby');
  const call = alice.calls.call('bobby', null);
  alice.hear({ type: 'call-end', id: call.id, reason: 'x'.repeat(5000) });
  assert.equal(call.reason?.length, 200);
});

test('offers without end are answered one by one, and an answer that cannot be said is not', () => {
  const bob = new End('alice.');
  bob.hear({ type: 'call-offer', id: ID, audio: true, video: true });
  bob.refusal = new QueueFull('alice.', 1, 1);
  for (let each = 0; each < 100; each++) {
    bob.hear({ type: 'call-offer', id: toBase64url(new Uint8Array(8).fill(each)), audio: true, video: true });
  }
  assert.deepEqual([bob.incoming.length, bob.timers.waiting], [1, 1]);
  bob.incoming[0].end();
  assert.equal(bob.incoming[0].state, 'ended');
});

// --- telling --------------------------------------------------------------------------------------------------------

test('a call tells at once, and each change, in order, until it is told to stop', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call('bobby', null);
  const { subscribe } = call; // bound, so that it can be handed around
  /** @type {string[]} */
  const states = [];
  const stop = subscribe(({ state }) => states.push(state));
  deliver();
  bob.incoming[0].accept(camera('audio'));
  deliver();
  alice.track('audio');
  stop();
  call.end();
  assert.deepEqual(states, ['ringing', 'connecting', 'connected']);
  assert(alice.changes >= 4);
});

test('a callback may answer at once', () => {
  const { alice, bob, deliver } = pair();
  bob.onCall.add((call) => call.accept());
  const call = alice.calls.call('bobby', null);
  deliver();
  assert.equal(call.state, 'connected');
});
