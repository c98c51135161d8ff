/** Calls with a user who has several devices. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StateError } from '../../../src/errors.js';
import { End, ID } from '../../support/calls.js';
import { camera } from '../../support/fake_media.js';

/** Another device of the same user, and what was said to it. */
function another(end, features = null) {
  const said = [];
  return {
    ...end.peer,
    directFeatures: features,
    name: 'laptop',
    said,
    sendControl: (control) => said.push(control),
    call: () => {},
  };
}

test('a call that was not offered yet moves to another device, unless it is for exactly this one', () => {
  for (const addressed of [false, true]) {
    const end = new End('bobby');
    end.features = null;
    const call = end.calls.call(end.peer, camera('audio'), addressed);
    const laptop = another(end, ['calls']);
    assert.equal(end.calls.movable(end.peer), !addressed);
    end.calls.moved(end.peer, laptop);
    assert.deepEqual([end.calls.busy(laptop), laptop.said.length], addressed ? [false, 0] : [true, 1]);
    assert.equal(end.calls.movable(laptop), false);
    assert.equal(call.device, addressed ? undefined : 'laptop');
  }
});

test('a call that was offered stays with its device', () => {
  const end = new End('bobby');
  const call = end.calls.call(end.peer, camera('audio'), false);
  const laptop = another(end, ['calls']);
  assert.equal(end.calls.movable(end.peer), false);
  end.calls.moved(end.peer, laptop);
  assert.deepEqual([laptop.said.length, call.state], [0, 'ringing']);
});

test('what another device says or loses is not about this call', () => {
  const end = new End('bobby');
  const call = end.calls.call(end.peer, camera('audio'), false);
  const laptop = another(end, ['calls']);
  end.calls.received(laptop, { type: 'call-accept', id: call.id, audio: true, video: false });
  end.calls.ended(laptop, new StateError('gone'));
  end.calls.parted(laptop);
  assert.equal(call.state, 'ringing');
});

test('who calls back takes the call that rings, but not at a device that does not call', () => {
  const end = new End('bobby');
  end.hear({ type: 'call-offer', id: ID, audio: true, video: false });
  const [call] = end.incoming;
  const laptop = another(end, ['calls']);
  assert.throws(() => end.calls.call(laptop, null, true), StateError);
  assert.equal(end.calls.call(laptop, null, false), call);
  assert.equal(call.state, 'connecting');
});
