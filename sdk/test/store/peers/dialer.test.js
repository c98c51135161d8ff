/** When a peer is called: a dialer with a target that a test answers, and a clock that it moves. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import {
  ConnectionLost,
  PeerConnectionFailed,
  PeerKeyChanged,
  PeerOffline,
  PeerRefused,
  PeerUnknown,
  ProofInvalid,
  RequestFailed,
  StateError,
} from '../../../src/errors.js';
import { CROSSED, SETTLED, TABLE } from '../../../src/store/peers/dialer.js';
import { registeredAnew } from '../../../src/store/peers/presence.js';
import { DialTarget } from '../../support/dial_target.js';
import { settle } from '../../support/fake_timers.js';

const OFFLINE = new PeerOffline('bob');
const UNKNOWN = new PeerUnknown('bob');
const KEY_CHANGED = new PeerKeyChanged('bob', Uint8Array.of(1), Uint8Array.of(2));
const FAILED = new PeerConnectionFailed('bob', 'no path');
const FORGED = new ProofInvalid('bob', 'the signature is wrong');

const failure = (waiting, reason) => {
  assert.ok(waiting.outcome instanceof PeerConnectionFailed, String(waiting.outcome));
  assert.match(waiting.outcome.reason, reason);
};

test('the phases are those of Python, which docs/architecture.md draws', async () => {
  const page = await readFile(new URL('../../../../docs/architecture.md', import.meta.url), 'utf8');
  const [, drawn] = /<!-- diagram: dialer -->(.*?)<!-- end -->/s.exec(page);
  const arrows = drawn.matchAll(/^ *(\w+) --> (\w+) : (.*)$/gm);
  const expected = Array.from(arrows, ([, from, to, events]) => events.split(', ').map((event) => [from, event, to]));
  const words = (event) => event.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  const ours = Object.entries(TABLE).map(([from, steps]) =>
    Object.entries(steps).map(([event, to]) => [from, words(event), to]),
  );
  assert.deepEqual(ours.flat().sort(), expected.flat().sort());
});

test('a wanted peer is called once', async () => {
  const target = await new DialTarget().poked();
  await target.poked();
  assert.deepEqual([target.asked, target.dialled], [1, 1]);
  await target.becomes('connected');
  await target.poked();
  assert.deepEqual([target.asked, target.dialled], [1, 1]);
});

test('a peer that nobody wants is not called', async () => {
  const target = new DialTarget();
  target.kept = false;
  await target.poked();
  await target.becomes('disconnected');
  await target.becomes('failed', FAILED);
  await target.wait(100);
  assert.equal(target.asked, 0);
});

test('nobody is called without a server, and all when it is back', async () => {
  const target = new DialTarget();
  target.registered = false;
  await target.poked();
  assert.equal(target.asked, 0);
  target.registered = true;
  target.dialer.poke(true);
  await settle();
  assert.equal(target.dialled, 1);
});

for (const error of [OFFLINE, UNKNOWN]) {
  test(`a peer that is away (${error.name}) is called when it comes`, async () => {
    const target = new DialTarget();
    target.found = [error];
    await target.poked();
    await target.wait(1000);
    assert.equal(target.asked, 1);
    target.dialer.presenceChanged(false, false);
    await settle();
    assert.equal(target.asked, 1);
    target.dialer.presenceChanged(true, true);
    await settle();
    assert.equal(target.dialled, 1);
  });
}

test('a peer that cannot be watched is asked for again and again', async () => {
  const target = new DialTarget();
  target.watched = false;
  target.found = [OFFLINE, OFFLINE];
  await target.poked();
  await target.wait(0.5);
  assert.equal(target.asked, 2);
  await target.wait(1);
  assert.equal(target.dialled, 1);
});

test('the pauses between failures grow, and begin small after a connection that stood', async () => {
  const target = await new DialTarget().poked();
  for (const pause of [0.5, 1, 2, 2]) {
    const { dialled } = target;
    await target.becomes('failed', FAILED);
    await target.wait(pause - 0.01);
    assert.equal(target.dialled, dialled);
    await target.wait(0.01);
    assert.equal(target.dialled, dialled + 1);
  }
  await target.becomes('connected');
  await target.wait(SETTLED);
  await target.becomes('disconnected');
  const { dialled } = target;
  await target.wait(0.5);
  assert.equal(target.dialled, dialled + 1);
  assert.deepEqual(target.errors, [FAILED, FAILED, FAILED, FAILED]);
});

test('a path that heals is not called', async () => {
  const target = await new DialTarget().poked();
  await target.becomes('connected');
  await target.becomes('disconnected');
  await target.becomes('connected');
  await target.wait(100);
  assert.equal(target.dialled, 1);
});

test('a lost path is replaced by a call that its healing ends', async () => {
  const target = await new DialTarget().poked();
  await target.becomes('connected');
  await target.becomes('disconnected');
  await target.wait(0.5);
  assert.equal(target.dialled, 2);
  await target.becomes('disconnected'); // told again: no outcome
  await target.becomes('connected');
  await target.wait(100);
  assert.equal(target.dialled, 2);
});

test('a peer that says goodbye is left alone until it comes back', async () => {
  const target = await new DialTarget().poked();
  await target.becomes('connected');
  await target.becomes('closed');
  target.dialer.presenceChanged(true, true); // still, not again
  await target.wait(100);
  assert.equal(target.asked, 1);
  target.dialer.presenceChanged(false, false);
  target.dialer.presenceChanged(true, true);
  await settle();
  assert.equal(target.dialled, 2);
});

test('a peer that says goodbye is called for a message', async () => {
  const target = await new DialTarget().poked();
  await target.becomes('connected');
  await target.becomes('closed');
  target.queued = 1;
  target.dialer.queued();
  await settle();
  assert.equal(target.dialled, 2);
});

test('a peer that hangs up while messages wait is called again', async () => {
  const target = await new DialTarget().poked();
  await target.becomes('connected');
  target.queued = 1;
  await target.becomes('closed');
  await target.wait(0.5);
  assert.equal(target.dialled, 2);
});

test('a connection that is lost in the very moment in which it opened is made again', async () => {
  const target = await new DialTarget().poked();
  target.state = 'connected';
  target.dialer.stateChanged('connected', null);
  target.state = 'failed';
  target.dialer.stateChanged('failed', FAILED);
  await settle();
  await target.wait(0.5);
  assert.equal(target.dialled, 2);
});

test('a server that forgets us may have missed a return', async () => {
  const target = await new DialTarget().poked();
  await target.becomes('connected');
  await target.becomes('closed');
  target.dialer.poke(false);
  await settle();
  assert.equal(target.asked, 1);
  target.dialer.poke(true);
  await settle();
  assert.equal(target.asked, 2);
});

test('an attempt that began before the peer came back is replaced', async () => {
  const target = await new DialTarget().poked();
  const waiting = await target.connect();
  target.dialer.presenceChanged(false, false);
  assert.equal(target.state, 'connecting');
  target.dialer.presenceChanged(true, true);
  await settle();
  assert.deepEqual([target.hungUp.length, target.dialled], [1, 2]);
  await target.becomes('connected');
  assert.equal(waiting.outcome, null);
});

test('an attempt that is replaced in the moment in which it failed is not made twice', async () => {
  const target = await new DialTarget().poked();
  const waiting = await target.connect();
  target.dialer.presenceChanged(false, false);
  target.dialer.stateChanged('failed', FAILED);
  target.state = 'connecting'; // the peer calls, too
  target.dialer.presenceChanged(true, true);
  await settle();
  assert.equal(target.dialled, 2);
  await target.becomes('connected');
  assert.equal(waiting.outcome, null);
});

test('a lost path is replaced at once when the server has news of the peer', async () => {
  const target = await new DialTarget().poked();
  await target.becomes('connected');
  await target.becomes('disconnected');
  target.dialer.presenceChanged(true, true);
  await settle();
  assert.deepEqual([target.hungUp.length, target.dialled], [1, 2]);
});

test('a path that is being healed is left alone when the server only says how things stand', async () => {
  const target = await new DialTarget().poked();
  await target.becomes('connected');
  await target.becomes('disconnected');
  target.dialer.presenceChanged(true, false);
  await settle();
  assert.deepEqual(target.hungUp, []);
  target.dialer.presenceChanged(false, false);
  target.dialer.presenceChanged(true, false); // it was offline: that is a return, whoever tells it
  await settle();
  assert.equal(target.hungUp.length, 1);
});

test('a device that registers is told from one that leaves', () => {
  const cases = [' a', 'a a', 'a ba', 'ba ab', 'cba bca', 'ba c'].map((pair) => [pair, true]);
  for (const [pair, anew] of [...cases, ['ba a', false], ['ba b', false], ['cba ca', false], ['ba ', false]]) {
    const [before, now] = pair.split(' ').map((devices) => [...devices]);
    assert.equal(registeredAnew(before, now), anew, pair);
  }
});

test('who waits gets the reason', async () => {
  for (const error of [OFFLINE, UNKNOWN, KEY_CHANGED]) {
    const target = new DialTarget();
    target.found = [error];
    await assert.rejects(target.dialer.connected(5), (thrown) => thrown === error);
  }
  const target = new DialTarget();
  const waiting = [await target.connect(), await target.connect()];
  await target.wait(CROSSED);
  await target.becomes('failed', FAILED);
  waiting.forEach((one) => failure(one, /no path/));
  assert.equal(target.dialled, 1);
});

test('who waits for a connected peer does not wait', async () => {
  const target = await new DialTarget().poked();
  await target.becomes('connected');
  await target.dialer.connected(0);
});

test('a connection that is there but not told yet is waited for', async () => {
  const target = new DialTarget();
  target.state = 'connected';
  const waiting = await target.connect();
  assert.equal(waiting.outcome, undefined);
  await target.becomes('connected');
  assert.equal(waiting.outcome, null);
  assert.equal(target.asked, 0);
});

test('an attempt that was ended at once is made once more for who waits', async () => {
  const target = new DialTarget();
  const waiting = await target.connect();
  await target.becomes('failed', FAILED);
  assert.equal(target.dialled, 2);
  await target.becomes('connected');
  assert.equal(waiting.outcome, null);
  assert.equal(target.asked, 1);
});

test('a peer that hangs up during the attempt is a failure', async () => {
  const target = new DialTarget();
  const waiting = await target.connect();
  await target.becomes('closed');
  assert.equal(waiting.outcome, undefined);
  await target.becomes('closed');
  failure(waiting, /hung up/);
});

test('what was wrong with an answer is why an attempt failed or took too long', async () => {
  for (const end of [(target) => target.becomes('failed', FAILED), (target) => target.wait(5)]) {
    const target = new DialTarget();
    const waiting = await target.connect(5);
    target.dialer.refused(FORGED);
    await end(target);
    assert.equal(waiting.outcome, FORGED);
  }
});

test('the time to connect begins with the turn of the attempt', async () => {
  const target = new DialTarget();
  target.clockFrom = null;
  const waiting = target.dialer.connected(5);
  let over = false;
  waiting.catch(() => {}).finally(() => (over = true));
  await target.wait(42);
  target.clockFrom = target.timers.time();
  await target.wait(4.9);
  assert.equal(over, false);
  await target.wait(0.1);
  await assert.rejects(waiting, /not there after 5 s/);
});

test('taking too long is told with what is known', async () => {
  for (const [registered, reason] of [
    [true, /not there after 5 s/],
    [false, /server cannot be reached after 5 s/],
  ]) {
    const target = new DialTarget();
    target.registered = registered;
    const waiting = await target.connect(5);
    await target.wait(5);
    failure(waiting, reason);
  }
});

test('losing the server during a call is no outcome', async () => {
  for (const error of [new ConnectionLost('gone'), new StateError('not connected')]) {
    const target = new DialTarget();
    target.found = [error];
    const waiting = await target.connect();
    assert.equal(waiting.outcome, undefined);
    await target.wait(0.5);
    await target.becomes('connected');
    assert.equal(waiting.outcome, null);
    assert.equal(target.asked, 2);
  }
});

test('a refusal of the server is told, and tried again only if it may pass and not too soon', async () => {
  const target = new DialTarget();
  target.found = [new RequestFailed('rate-limited', 'too fast', { temporary: true, retryAfter: 7 })];
  const waiting = await target.connect();
  failure(waiting, /too fast/);
  await target.wait(7); // and not all who were told so at the same time
  assert.equal(target.asked, 1);
  await target.wait(0.6);
  assert.equal(target.asked, 2);
  const other = new DialTarget();
  other.found = [new RequestFailed('forbidden', 'no')];
  await other.poked();
  await other.wait(1000);
  assert.equal(other.asked, 1);
});

test('a peer that refuses for now is called again when it says', async () => {
  const target = new DialTarget();
  target.queued = 1;
  const waiting = await target.connect();
  await target.becomes('failed', new PeerRefused('bob', 'too many peers', 'too-many-peers', 30));
  failure(waiting, /too many peers/);
  assert.equal(target.dialled, 1); // not once more at once, although somebody waits
  await target.wait(30);
  assert.equal(target.dialled, 1);
  await target.wait(0.6);
  assert.equal(target.dialled, 2);
});

test('a peer that refuses for good is left alone until there is a reason', async () => {
  const target = new DialTarget();
  target.queued = 1;
  const waiting = await target.connect();
  await target.becomes('failed', new PeerRefused('bob', 'no', 'not-accepted'));
  failure(waiting, /no/);
  assert.equal(waiting.outcome.temporary, false);
  await target.wait(10_000);
  target.dialer.presenceChanged(true, true); // no return: it was there
  await settle();
  assert.deepEqual([target.dialled, target.queued], [1, 1]);
  target.dialer.queued();
  await settle();
  assert.equal(target.dialled, 2);
});

test('a changed key blocks until it is accepted', async () => {
  const target = new DialTarget();
  target.found = [KEY_CHANGED];
  await target.poked();
  assert.equal(target.unaccepted, KEY_CHANGED);
  target.dialer.presenceChanged(false, false);
  target.dialer.presenceChanged(true, true);
  await target.wait(1000);
  assert.equal(target.asked, 1);
  target.unaccepted = null;
  target.dialer.accepted();
  await settle();
  assert.equal(target.dialled, 1);
});

test('a call with another key ends when the new one is accepted', async () => {
  const target = await new DialTarget().poked();
  target.state = 'closed'; // the peer has hung up
  target.dialer.accepted(true);
  await settle();
  assert.deepEqual([target.dialled, target.hungUp], [2, []]);
});

test('no pause begins while a call is under way', async () => {
  const target = new DialTarget();
  let release = () => {};
  target.hold = new Promise((resolve) => (release = resolve));
  await target.poked();
  await target.becomes('failed', FAILED); // a connection of theirs
  await target.wait(0.4);
  release();
  await settle();
  assert.deepEqual([target.asked, target.dialled], [1, 1]);
  await target.becomes('failed', FAILED);
  await target.wait(0.45);
  assert.equal(target.asked, 1);
  await target.wait(0.1);
  assert.equal(target.asked, 2);
});

test('whatever the server says, a peer that has connected meanwhile is there', async () => {
  for (const error of [KEY_CHANGED, OFFLINE, null]) {
    const target = new DialTarget();
    let release = () => {};
    target.hold = new Promise((resolve) => (release = resolve));
    target.found = [error];
    const waiting = await target.connect();
    await target.becomes('connected');
    assert.equal(waiting.outcome, null);
    release();
    await settle();
    assert.deepEqual([target.unaccepted, target.errors], [null, []]);
    await target.wait(1000);
    assert.equal(target.asked, 1);
  }
});

test('an attempt ends when nobody wants it any more', async () => {
  const target = await new DialTarget().poked();
  target.dialer.reconsider();
  assert.deepEqual(target.hungUp, []);
  target.kept = false;
  target.dialer.reconsider();
  assert.deepEqual(target.hungUp, ['not wanted any more']);
  target.dialer.reconsider();
  assert.equal(target.timers.waiting, 0);
});

test('an attempt that is stopped while the server is asked goes no further', async () => {
  for (const error of [null, OFFLINE]) {
    const target = new DialTarget();
    let release = () => {};
    target.hold = new Promise((resolve) => (release = resolve));
    target.found = [error];
    await target.poked();
    target.dialer.stop(new StateError('the store is closed'));
    release();
    await settle();
    assert.deepEqual([target.dialled, target.errors], [0, []]);
  }
});

test('stopping tells who waits', async () => {
  const target = new DialTarget();
  const waiting = await target.connect();
  target.kept = false;
  const closed = new StateError('the store is closed');
  target.dialer.stop(closed);
  await settle();
  assert.equal(waiting.outcome, closed);
  assert.equal(target.timers.waiting, 0);
});

test('a fault of the program is told and logged', async (t) => {
  const log = t.mock.method(console, 'error', () => {});
  const target = new DialTarget();
  target.found = [new RangeError('oops')];
  const waiting = await target.connect();
  failure(waiting, /internal error/);
  assert.equal(log.mock.callCount(), 1);
  await target.wait(0.5);
  assert.equal(target.dialled, 1);
});

test('an error that is none of the known ones is an outcome', async () => {
  const target = new DialTarget();
  target.found = [FORGED];
  const waiting = await target.connect();
  assert.equal(waiting.outcome, FORGED);
});

test('a refusal beside a connection that is lost is heard at once', async () => {
  const target = new DialTarget();
  await target.becomes('connected');
  await target.becomes('disconnected');
  const waiting = await target.connect();
  assert.equal(target.dialled, 1);
  const busy = new PeerRefused('bob', 'busy', 'busy', 5);
  await target.becomes('disconnected', busy);
  assert.equal(waiting.outcome, busy);
  await target.wait(4.9);
  assert.equal(target.dialled, 1);
  await target.wait(2.1);
  assert.equal(target.dialled, 2);
});

test('a peer that comes and goes does not put off the time-out for ever', async () => {
  const target = new DialTarget();
  const waiting = await target.connect(5);
  for (let round = 0; round < 5; round++) {
    // Each time the attempt is made anew, and its clock with it.
    await target.wait(2);
    target.dialer.presenceChanged(false, false);
    target.dialer.presenceChanged(true, true);
    await settle();
    target.clockFrom = target.timers.time();
  }
  failure(waiting, /it was not there after 5 s/);
});

test('no server silences a peer for longer than five minutes', async () => {
  const target = new DialTarget();
  target.found = [new RequestFailed('rate-limited', 'never', { temporary: true, retryAfter: 1e308 })];
  await target.poked();
  await target.wait(299);
  assert.equal(target.asked, 1);
  await target.wait(2);
  assert.equal(target.asked, 2);
});
