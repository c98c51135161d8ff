/** A call from the ringing to the end: who calls whom, when both do, and when nobody may. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { QueueFull } from '../../../src/errors.js';
import { toBase64url } from '../../../src/protocol/codec.js';
import { AWAY_SECONDS, RING_SECONDS } from '../../../src/store/calls/call.js';
import { decodeControl } from '../../../src/store/messages/control.js';
import { End, ID, pair, talking } from '../../support/calls.js';
import { camera } from '../../support/fake_media.js';
import { generator } from '../../support/generator.js';

// --- ringing --------------------------------------------------------------------------------------------------------

test('a call rings, is accepted, and is connected when the other side is heard', () => {
  const { alice, bob, deliver } = pair();
  const [mine, theirs] = [camera('audio', 'video'), camera('audio')];
  const call = alice.calls.call(alice.peer, mine);
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
  const call = alice.calls.call(alice.peer, camera('audio'));
  deliver();
  bob.incoming[0].accept();
  deliver();
  assert.equal(call.state, 'connected');
  assert.equal(bob.incoming[0].state, 'connecting');
  bob.track('audio');
  assert.equal(bob.incoming[0].state, 'connected');
});

test('who has nothing to send any more when the call is accepted says so, and is not waited for', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call(alice.peer, camera('audio'));
  deliver();
  call.replaceStream(null); // the microphone was unplugged
  bob.incoming[0].accept(camera('audio'));
  assert.equal(bob.incoming[0].state, 'connecting');
  deliver();
  assert.equal(bob.incoming[0].state, 'connected');
  assert.equal(call.state, 'connecting');
  bob.incoming[0].replaceStream(camera()); // unplugged as well, before anything of it has arrived
  deliver();
  assert.equal(call.state, 'connected');
  bob.incoming[0].replaceStream(null);
  assert.deepEqual(bob.messages(), []); // that is known
});

test('a reason that is none is an empty one', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call(alice.peer, null);
  deliver();
  bob.incoming[0].decline(/** @type {any} */ (null));
  deliver();
  assert.deepEqual([call.state, call.reason], ['ended', '']);
  const other = alice.calls.call(alice.peer, null);
  other.end(/** @type {any} */ (0));
  assert.deepEqual([other.state, other.reason], ['ended', '0']);
});

test('a call that is declined ends with the reason of the other side', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call(alice.peer, null);
  deliver();
  bob.incoming[0].decline('in a\nmeeting');
  deliver();
  assert.deepEqual([call.state, call.reason, call.error], ['ended', 'in ameeting', null]);
  assert.deepEqual([bob.incoming[0].state, bob.incoming[0].reason], ['ended', 'in ameeting']);
  assert.deepEqual([alice.sending, bob.sending], [undefined, undefined]);
});

test('who hangs up before it is answered stops the ringing', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call(alice.peer, null);
  deliver();
  call.end();
  deliver();
  assert.deepEqual([bob.incoming[0].state, bob.incoming[0].reason], ['ended', 'ended']);
  assert.throws(() => bob.incoming[0].accept(camera('audio')), { name: 'StateError' });
  bob.incoming[0].decline();
  assert.deepEqual(bob.messages(), []);
});

test('where nobody takes calls, they are declined', () => {
  const bob = new End('alice.', { answers: false });
  bob.hear({ type: 'call-offer', id: ID, audio: true, video: true });
  assert.deepEqual(bob.messages(), [{ type: 'call-decline', id: ID, reason: 'no calls here' }]);
  assert.equal(bob.timers.waiting, 0);
});

test('a call that nobody answers ends at both ends', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call(alice.peer, null);
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
  assert.deepEqual(bob.messages(), [{ type: 'call-decline', id: ID, reason: 'no answer' }]);
});

test('a call that was answered may last', () => {
  const { alice, bob, call, answered } = talking();
  alice.timers.advance(3600);
  bob.timers.advance(3600);
  assert.deepEqual([call.state, answered.state], ['connecting', 'connecting']);
});

test('a call does not outlast a connection that is lost for long, and nobody is kept busy by it', () => {
  const { alice, call } = talking();
  alice.track('audio');
  alice.features = null;
  alice.calls.parted(alice.peer);
  alice.timers.advance(AWAY_SECONDS - 1);
  assert.equal(call.state, 'connected');
  alice.connect();
  alice.timers.advance(3600);
  assert.equal(call.state, 'connected');
  alice.features = null;
  alice.calls.parted(alice.peer);
  alice.timers.advance(AWAY_SECONDS);
  assert.deepEqual(
    [call.state, call.reason, call.error?.name],
    ['ended', 'the connection was lost', 'PeerConnectionFailed'],
  );
  assert.deepEqual([alice.calls.busy(alice.peer), alice.timers.waiting], [false, 0]);
  alice.calls.parted(alice.peer); // no call: nothing happens
});

test('a call that is accepted while there is no connection waits for one as long', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call(alice.peer, camera('audio'));
  deliver();
  bob.features = null;
  bob.calls.parted(bob.peer); // which does not make it ring any shorter
  bob.timers.advance(RING_SECONDS - 1);
  const [answered] = bob.incoming;
  answered.accept();
  bob.timers.advance(AWAY_SECONDS - 1);
  assert.deepEqual([call.state, answered.state], ['ringing', 'connecting']);
  bob.timers.advance(1);
  assert.equal(answered.state, 'ended');
});

// --- one call per peer ----------------------------------------------------------------------------------------------

test('a second call of the same peer is declined as busy, ringing or not, and the first goes on', () => {
  const bob = new End('alice.');
  bob.hear({ type: 'call-offer', id: ID, audio: true, video: false });
  const second = toBase64url(new Uint8Array(8).fill(201));
  bob.hear({ type: 'call-offer', id: second, audio: true, video: false });
  bob.incoming[0].accept();
  bob.messages();
  bob.hear({ type: 'call-offer', id: second, audio: true, video: false });
  assert.deepEqual(bob.messages(), [{ type: 'call-decline', id: second, reason: 'busy' }]);
  bob.hear({ type: 'call-offer', id: ID, audio: true, video: false }); // said twice
  assert.deepEqual(bob.messages(), []);
  assert.equal(bob.incoming.length, 1);
  assert.equal(bob.incoming[0].state, 'connecting');
});

test('the same peer cannot be called twice, and can be again after the end', () => {
  const alice = new End('bobby');
  const call = alice.calls.call(alice.peer, null);
  assert.throws(() => alice.calls.call(alice.peer, null), { name: 'StateError' });
  call.end();
  assert.notEqual(alice.calls.call(alice.peer, null).id, call.id);
});

test('to call somebody who is calling is to answer', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call(alice.peer, null);
  deliver();
  assert.equal(bob.calls.call(bob.peer, null), bob.incoming[0]);
  deliver();
  assert.equal(call.state, 'connected');
});

test('when both call each other at once, it is one call, and either may end it', () => {
  for (const ender of ['alice', 'bob']) {
    const { alice, bob, deliver } = pair();
    const [mine, theirs] = [camera('audio'), camera('video')];
    const ours = alice.calls.call(alice.peer, mine);
    const other = bob.calls.call(bob.peer, theirs);
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
  const ours = alice.calls.call(alice.peer, null);
  ours.end();
  const other = bob.calls.call(bob.peer, null);
  deliver(); // to Bob it looks as if both called at once; to Alice as if he called after hers was over
  assert.equal(other.state, 'ended');
  assert.deepEqual(
    alice.incoming.map(({ state }) => state),
    ['ended'],
  );
});

test('a call that crosses two of the other side leaves nobody ringing either', () => {
  const { alice, bob, deliver } = pair();
  alice.calls.call(alice.peer, null).end();
  const again = alice.calls.call(alice.peer, null);
  const other = bob.calls.call(bob.peer, null);
  deliver();
  assert.equal(other.state, 'ended');
  assert.equal(again.state, 'ended');
  assert(bob.incoming.every(({ state }) => state === 'ended'));
  assert.deepEqual([alice.timers.waiting, bob.timers.waiting], [0, 0]);
});

test('who would have called is called: one call, accepted by a message', () => {
  const alice = new End('bobby');
  alice.features = null;
  const call = alice.calls.call(alice.peer, camera('audio'));
  alice.hear({ type: 'call-offer', id: ID, audio: false, video: false });
  assert.deepEqual(alice.messages(), [{ type: 'call-accept', id: ID, audio: true, video: false }]);
  assert.deepEqual([call.id, call.state], [ID, 'connected']);
  alice.connect();
  assert.deepEqual(alice.messages(), []);
  assert.equal(alice.sending, call.localStream);
});

test('whatever both do, in whatever order it is heard, in the end they agree', () => {
  for (let seed = 1; seed <= 400; seed++) {
    const random = generator(seed);
    const { alice, bob, deliver } = pair();
    const ends = [alice, bob];
    /** @type {import('../../../src/store/calls/call.js').Call[][]} what each has seen */
    const seen = [alice.incoming, bob.incoming];
    for (let step = 0; step < 30; step++) {
      const here = random.below(2);
      const end = ends[here];
      const call = seen[here].find(({ state }) => state !== 'ended');
      const rings = call?.state === 'ringing' && call.direction === 'in';
      switch (random.below(5)) {
        case 0:
          if (!call || rings) {
            const made = end.calls.call(end.peer, null);
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
            ends[1 - here].calls.received(ends[1 - here].peer, decodeControl(control));
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
  const call = alice.calls.call(alice.peer, camera('video'));
  assert.deepEqual([alice.opened, alice.messages(), alice.calls.busy(alice.peer)], [['bobby'], [], true]);
  alice.connect();
  assert.deepEqual(alice.messages(), [{ type: 'call-offer', id: call.id, audio: false, video: true }]);
  alice.connect();
  assert.deepEqual(alice.messages(), []);
});

test('a call that waits for the connection can be given up, and is never offered', () => {
  const alice = new End('bobby');
  alice.features = null;
  alice.calls.call(alice.peer, null).end();
  alice.connect();
  assert.deepEqual(alice.messages(), []);
  assert.equal(alice.calls.busy(alice.peer), false);
});

test('a program without calls fails the call: at once, or when it is connected', () => {
  const alice = new End('bobby');
  alice.features = ['files'];
  assert.throws(() => alice.calls.call(alice.peer, null), {
    name: 'FeatureMissing',
    userId: 'bobby',
    feature: 'calls',
  });
  alice.features = null;
  const call = alice.calls.call(alice.peer, null);
  alice.connect(['files']);
  assert.equal(call.state, 'ended');
  assert.equal(call.error?.name, 'FeatureMissing');
  assert.equal(call.reason, call.error?.message);
  assert.deepEqual(alice.messages(), []);
});

test('a call that cannot be made throws, and leaves nothing behind', () => {
  for (const features of [null, ['calls']]) {
    const alice = new End('bobby');
    alice.features = features;
    alice.refusal = new QueueFull('bobby', 1, 1);
    assert.throws(() => alice.calls.call(alice.peer, null), alice.refusal);
    assert.deepEqual([alice.calls.busy(alice.peer), alice.timers.waiting], [false, 0]);
    alice.refusal = null;
    assert.equal(alice.calls.call(alice.peer, null).state, 'ringing');
  }
});

test('a call that cannot be offered when the connection is there has failed', () => {
  const alice = new End('bobby');
  alice.features = null;
  const call = alice.calls.call(alice.peer, null);
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
  assert.deepEqual([bob.calls.busy(bob.peer), bob.opened], [false, []]);
  bob.incoming[0].accept();
  assert.deepEqual([bob.calls.busy(bob.peer), bob.opened], [true, ['alice.']]);
});

// --- messages that change nothing ----------------------------------------------------------------------------------------

test('messages about calls that are not known here, or from the wrong side, change nothing', () => {
  const { alice, bob, call, answered } = talking();
  const [before, after] = [call.state, answered.state];
  for (const end of [alice, bob]) {
    end.hear({ type: 'call-accept', id: ID, audio: true, video: true });
    end.hear({ type: 'call-decline', id: ID, reason: 'x' });
    end.hear({ type: 'call-end', id: ID, reason: 'x' });
    end.hear({ type: 'file-accept', id: call.id });
    end.hear({ type: 'call-accept', id: call.id, audio: true, video: true }); // once more
    assert.deepEqual(end.messages(), []);
  }
  assert.deepEqual([call.state, answered.state], [before, after]);
  const stranger = new End('x');
  stranger.hear({ type: 'call-end', id: ID, reason: 'x' });
  stranger.connect();
  assert.deepEqual([stranger.messages(), stranger.changes], [[], 0]);
});

test('the promise of a stream is no stream', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call(alice.peer, null);
  deliver();
  const [incoming] = bob.incoming;
  const wrong = /** @type {any} */ (Promise.resolve(null));
  const fault = { name: 'ConfigError', setting: 'stream' };
  assert.throws(() => incoming.accept(wrong), fault);
  assert.equal(incoming.state, 'ringing');
  incoming.accept();
  assert.throws(() => call.replaceStream(wrong), fault);
});

test('a caller cannot accept its own call for us', () => {
  const bob = new End('alice.');
  bob.hear({ type: 'call-offer', id: ID, audio: true, video: true });
  bob.hear({ type: 'call-accept', id: ID, audio: true, video: true });
  assert.equal(bob.incoming[0].state, 'ringing');
  const alice = new End('bobby');
  assert.throws(() => alice.calls.call(alice.peer, null).accept(), { name: 'StateError' });
});

test('the reason of a stranger is shortened', () => {
  const alice = new End('bobby');
  const call = alice.calls.call(alice.peer, null);
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

test('applications see of a call what is for them, and nothing else', () => {
  const end = new End('bobby');
  const call = end.calls.call(end.peer, null);
  const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(call));
  const told = ['id', 'device', 'state', 'reason', 'error', 'localStream', 'remoteStream'];
  assert.deepEqual(methods, ['constructor', ...told, 'accept', 'decline', 'end', 'replaceStream', 'subscribe']);
  assert.deepEqual(
    Object.keys(call).sort().join(),
    'audio,device,direction,error,id,localStream,reason,remoteStream,state,userId,video',
  );
});

test('a call tells at once, and each change, in order, until it is told to stop', () => {
  const { alice, bob, deliver } = pair();
  const call = alice.calls.call(alice.peer, null);
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
  assert.equal(alice.changes, 3); // accepted, heard, ended: whether the peer has to be called is looked at each time
});

test('a callback may answer at once', () => {
  const { alice, bob, deliver } = pair();
  bob.onCall.add((call) => call.accept());
  const call = alice.calls.call(alice.peer, null);
  deliver();
  assert.equal(call.state, 'connected');
});
