/** When a peer is called: a caller with a line that a test answers, and a clock that it moves. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff } from '../../src/client/backoff.js';
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
} from '../../src/errors.js';
import { Caller, CROSSED, registeredAnew, SETTLED } from '../../src/store/caller.js';
import { FakeTimers, settle } from '../support/fake_timers.js';

const OFFLINE = new PeerOffline('bob');
const UNKNOWN = new PeerUnknown('bob');
const KEY_CHANGED = new PeerKeyChanged('bob', Uint8Array.of(1), Uint8Array.of(2));
const FAILED = new PeerConnectionFailed('bob', 'no path');
const FORGED = new ProofInvalid('bob', 'the signature is wrong');

/** What a test says of the peer, and what the caller has done to it. */
class Line {
  userId = 'bob';
  kept = true;
  queued = 0;
  watched = true;
  registered = true;
  state = 'new';
  clockFrom = 0;
  found = []; // what asking for the peer leads to; nothing wrong when empty
  asked = 0;
  dialled = 0;
  hungUp = [];
  errors = [];
  blocked = null;
  hold = null;
  timers = new FakeTimers();
  // Half of each ceiling: 0.5, 1, 2, 2...
  caller = new Caller(this, new Backoff({ first: 1, factor: 2, most: 4 }), this.timers, () => 0.5);

  get wanted() {
    return this.kept || this.queued > 0;
  }

  async find() {
    this.asked++;
    await this.hold;
    const error = this.found.shift();
    if (error) {
      throw error;
    }
  }

  dial() {
    this.dialled++;
    if (this.state !== 'connected') {
      this.state = 'connecting';
    }
  }

  hangUp(reason) {
    this.hungUp.push(reason);
    this.state = 'closed';
  }

  failed(error, forGood) {
    this.errors.push(error);
    if (forGood) {
      this.blocked = error;
    }
  }

  /** The connection comes to another state. */
  async becomes(state, error = null) {
    this.state = state;
    this.caller.stateChanged(state, error);
    await settle();
  }

  async poked() {
    this.caller.poke();
    await settle();
    return this;
  }

  async wait(seconds) {
    this.timers.advance(seconds);
    await settle();
  }

  /** Somebody wants the peer connected: what came of it is in `outcome`, as long as it is undefined they wait. */
  async connect(seconds = 5) {
    const waiting = { outcome: undefined };
    this.caller.connected(seconds).then(
      () => (waiting.outcome = null),
      (error) => (waiting.outcome = error),
    );
    await settle();
    return waiting;
  }
}

const failure = (waiting, reason) => {
  assert.ok(waiting.outcome instanceof PeerConnectionFailed, String(waiting.outcome));
  assert.match(waiting.outcome.reason, reason);
};

test('a wanted peer is called once', async () => {
  const line = await new Line().poked();
  await line.poked();
  assert.deepEqual([line.asked, line.dialled], [1, 1]);
  await line.becomes('connected');
  await line.poked();
  assert.deepEqual([line.asked, line.dialled], [1, 1]);
});

test('a peer that nobody wants is not called', async () => {
  const line = new Line();
  line.kept = false;
  await line.poked();
  await line.becomes('disconnected');
  await line.becomes('failed', FAILED);
  await line.wait(100);
  assert.equal(line.asked, 0);
});

test('nobody is called without a server, and all when it is back', async () => {
  const line = new Line();
  line.registered = false;
  await line.poked();
  assert.equal(line.asked, 0);
  line.registered = true;
  line.caller.poke(true);
  await settle();
  assert.equal(line.dialled, 1);
});

for (const error of [OFFLINE, UNKNOWN]) {
  test(`a peer that is away (${error.name}) is called when it comes`, async () => {
    const line = new Line();
    line.found = [error];
    await line.poked();
    await line.wait(1000);
    assert.equal(line.asked, 1);
    line.caller.presenceChanged(false, false);
    await settle();
    assert.equal(line.asked, 1);
    line.caller.presenceChanged(true, true);
    await settle();
    assert.equal(line.dialled, 1);
  });
}

test('a peer that cannot be watched is asked for again and again', async () => {
  const line = new Line();
  line.watched = false;
  line.found = [OFFLINE, OFFLINE];
  await line.poked();
  await line.wait(0.5);
  assert.equal(line.asked, 2);
  await line.wait(1);
  assert.equal(line.dialled, 1);
});

test('the pauses between failures grow, and begin small after a connection that stood', async () => {
  const line = await new Line().poked();
  for (const pause of [0.5, 1, 2, 2]) {
    const { dialled } = line;
    await line.becomes('failed', FAILED);
    await line.wait(pause - 0.01);
    assert.equal(line.dialled, dialled);
    await line.wait(0.01);
    assert.equal(line.dialled, dialled + 1);
  }
  await line.becomes('connected');
  await line.wait(SETTLED);
  await line.becomes('disconnected');
  const { dialled } = line;
  await line.wait(0.5);
  assert.equal(line.dialled, dialled + 1);
  assert.deepEqual(line.errors, [FAILED, FAILED, FAILED, FAILED]);
});

test('a path that heals is not called', async () => {
  const line = await new Line().poked();
  await line.becomes('connected');
  await line.becomes('disconnected');
  await line.becomes('connected');
  await line.wait(100);
  assert.equal(line.dialled, 1);
});

test('a lost path is replaced by a call that its healing ends', async () => {
  const line = await new Line().poked();
  await line.becomes('connected');
  await line.becomes('disconnected');
  await line.wait(0.5);
  assert.equal(line.dialled, 2);
  await line.becomes('disconnected'); // told again: no outcome
  await line.becomes('connected');
  await line.wait(100);
  assert.equal(line.dialled, 2);
});

test('a peer that says goodbye is left alone until it comes back', async () => {
  const line = await new Line().poked();
  await line.becomes('connected');
  await line.becomes('closed');
  line.caller.presenceChanged(true, true); // still, not again
  await line.wait(100);
  assert.equal(line.asked, 1);
  line.caller.presenceChanged(false, false);
  line.caller.presenceChanged(true, true);
  await settle();
  assert.equal(line.dialled, 2);
});

test('a peer that says goodbye is called for a message', async () => {
  const line = await new Line().poked();
  await line.becomes('connected');
  await line.becomes('closed');
  line.queued = 1;
  line.caller.queued();
  await settle();
  assert.equal(line.dialled, 2);
});

test('a peer that hangs up while messages wait is called again', async () => {
  const line = await new Line().poked();
  await line.becomes('connected');
  line.queued = 1;
  await line.becomes('closed');
  await line.wait(0.5);
  assert.equal(line.dialled, 2);
});

test('a connection that is lost in the very moment in which it opened is made again', async () => {
  const line = await new Line().poked();
  line.state = 'connected';
  line.caller.stateChanged('connected', null);
  line.state = 'failed';
  line.caller.stateChanged('failed', FAILED);
  await settle();
  await line.wait(0.5);
  assert.equal(line.dialled, 2);
});

test('a server that forgets us may have missed a return', async () => {
  const line = await new Line().poked();
  await line.becomes('connected');
  await line.becomes('closed');
  line.caller.poke(false);
  await settle();
  assert.equal(line.asked, 1);
  line.caller.poke(true);
  await settle();
  assert.equal(line.asked, 2);
});

test('an attempt that began before the peer came back is replaced', async () => {
  const line = await new Line().poked();
  const waiting = await line.connect();
  line.caller.presenceChanged(false, false);
  assert.equal(line.state, 'connecting');
  line.caller.presenceChanged(true, true);
  await settle();
  assert.deepEqual([line.hungUp.length, line.dialled], [1, 2]);
  await line.becomes('connected');
  assert.equal(waiting.outcome, null);
});

test('an attempt that is replaced in the moment in which it failed is not made twice', async () => {
  const line = await new Line().poked();
  const waiting = await line.connect();
  line.caller.presenceChanged(false, false);
  line.caller.stateChanged('failed', FAILED);
  line.state = 'connecting'; // the peer calls, too
  line.caller.presenceChanged(true, true);
  await settle();
  assert.equal(line.dialled, 2);
  await line.becomes('connected');
  assert.equal(waiting.outcome, null);
});

test('a lost path is replaced at once when the server has news of the peer', async () => {
  const line = await new Line().poked();
  await line.becomes('connected');
  await line.becomes('disconnected');
  line.caller.presenceChanged(true, true);
  await settle();
  assert.deepEqual([line.hungUp.length, line.dialled], [1, 2]);
});

test('a path that is being healed is left alone when the server only says how things stand', async () => {
  const line = await new Line().poked();
  await line.becomes('connected');
  await line.becomes('disconnected');
  line.caller.presenceChanged(true, false);
  await settle();
  assert.deepEqual(line.hungUp, []);
  line.caller.presenceChanged(false, false);
  line.caller.presenceChanged(true, false); // it was offline: that is a return, whoever tells it
  await settle();
  assert.equal(line.hungUp.length, 1);
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
    const line = new Line();
    line.found = [error];
    await assert.rejects(line.caller.connected(5), (thrown) => thrown === error);
  }
  const line = new Line();
  const waiting = [await line.connect(), await line.connect()];
  await line.wait(CROSSED);
  await line.becomes('failed', FAILED);
  waiting.forEach((one) => failure(one, /no path/));
  assert.equal(line.dialled, 1);
});

test('who waits for a connected peer does not wait', async () => {
  const line = await new Line().poked();
  await line.becomes('connected');
  await line.caller.connected(0);
});

test('a connection that is there but not told yet is waited for', async () => {
  const line = new Line();
  line.state = 'connected';
  const waiting = await line.connect();
  assert.equal(waiting.outcome, undefined);
  await line.becomes('connected');
  assert.equal(waiting.outcome, null);
  assert.equal(line.asked, 0);
});

test('an attempt that was ended at once is made once more for who waits', async () => {
  const line = new Line();
  const waiting = await line.connect();
  await line.becomes('failed', FAILED);
  assert.equal(line.dialled, 2);
  await line.becomes('connected');
  assert.equal(waiting.outcome, null);
  assert.equal(line.asked, 1);
});

test('a peer that hangs up during the attempt is a failure', async () => {
  const line = new Line();
  const waiting = await line.connect();
  await line.becomes('closed');
  assert.equal(waiting.outcome, undefined);
  await line.becomes('closed');
  failure(waiting, /hung up/);
});

test('what was wrong with an answer is why an attempt failed or took too long', async () => {
  for (const end of [(line) => line.becomes('failed', FAILED), (line) => line.wait(5)]) {
    const line = new Line();
    const waiting = await line.connect(5);
    line.caller.refused(FORGED);
    await end(line);
    assert.equal(waiting.outcome, FORGED);
  }
});

test('the time to connect begins with the turn of the attempt', async () => {
  const line = new Line();
  line.clockFrom = null;
  const waiting = line.caller.connected(5);
  let over = false;
  waiting.catch(() => {}).finally(() => (over = true));
  await line.wait(42);
  line.clockFrom = line.timers.time();
  await line.wait(4.9);
  assert.equal(over, false);
  await line.wait(0.1);
  await assert.rejects(waiting, /not there after 5 s/);
});

test('taking too long is told with what is known', async () => {
  for (const [registered, reason] of [
    [true, /not there after 5 s/],
    [false, /server cannot be reached after 5 s/],
  ]) {
    const line = new Line();
    line.registered = registered;
    const waiting = await line.connect(5);
    await line.wait(5);
    failure(waiting, reason);
  }
});

test('losing the server during a call is no outcome', async () => {
  for (const error of [new ConnectionLost('gone'), new StateError('not connected')]) {
    const line = new Line();
    line.found = [error];
    const waiting = await line.connect();
    assert.equal(waiting.outcome, undefined);
    await line.wait(0.5);
    await line.becomes('connected');
    assert.equal(waiting.outcome, null);
    assert.equal(line.asked, 2);
  }
});

test('a refusal of the server is told, and tried again only if it may pass and not too soon', async () => {
  const line = new Line();
  line.found = [new RequestFailed('rate-limited', 'too fast', { temporary: true, retryAfter: 7 })];
  const waiting = await line.connect();
  failure(waiting, /too fast/);
  await line.wait(7); // and not all who were told so at the same time
  assert.equal(line.asked, 1);
  await line.wait(0.6);
  assert.equal(line.asked, 2);
  const other = new Line();
  other.found = [new RequestFailed('forbidden', 'no')];
  await other.poked();
  await other.wait(1000);
  assert.equal(other.asked, 1);
});

test('a peer that refuses for now is called again when it says', async () => {
  const line = new Line();
  line.queued = 1;
  const waiting = await line.connect();
  await line.becomes('failed', new PeerRefused('bob', 'too many peers', 'too-many-peers', 30));
  failure(waiting, /too many peers/);
  assert.equal(line.dialled, 1); // not once more at once, although somebody waits
  await line.wait(30);
  assert.equal(line.dialled, 1);
  await line.wait(0.6);
  assert.equal(line.dialled, 2);
});

test('a peer that refuses for good is left alone until there is a reason', async () => {
  const line = new Line();
  line.queued = 1;
  const waiting = await line.connect();
  await line.becomes('failed', new PeerRefused('bob', 'no', 'not-accepted'));
  failure(waiting, /no/);
  assert.equal(waiting.outcome.temporary, false);
  await line.wait(10_000);
  line.caller.presenceChanged(true, true); // no return: it was there
  await settle();
  assert.deepEqual([line.dialled, line.queued], [1, 1]);
  line.caller.queued();
  await settle();
  assert.equal(line.dialled, 2);
});

test('a changed key blocks until it is accepted', async () => {
  const line = new Line();
  line.found = [KEY_CHANGED];
  await line.poked();
  assert.equal(line.blocked, KEY_CHANGED);
  line.caller.presenceChanged(false, false);
  line.caller.presenceChanged(true, true);
  await line.wait(1000);
  assert.equal(line.asked, 1);
  line.blocked = null;
  line.caller.accepted();
  await settle();
  assert.equal(line.dialled, 1);
});

test('whatever the server says, a peer that has connected meanwhile is there', async () => {
  for (const error of [KEY_CHANGED, OFFLINE, null]) {
    const line = new Line();
    let release = () => {};
    line.hold = new Promise((resolve) => (release = resolve));
    line.found = [error];
    const waiting = await line.connect();
    await line.becomes('connected');
    assert.equal(waiting.outcome, null);
    release();
    await settle();
    assert.deepEqual([line.blocked, line.errors], [null, []]);
    await line.wait(1000);
    assert.equal(line.asked, 1);
  }
});

test('an attempt ends when nobody wants it any more', async () => {
  const line = await new Line().poked();
  line.caller.reconsider();
  assert.deepEqual(line.hungUp, []);
  line.kept = false;
  line.caller.reconsider();
  assert.deepEqual(line.hungUp, ['not wanted any more']);
  line.caller.reconsider();
  assert.equal(line.timers.waiting, 0);
});

test('an attempt that is stopped while the server is asked goes no further', async () => {
  for (const error of [null, OFFLINE]) {
    const line = new Line();
    let release = () => {};
    line.hold = new Promise((resolve) => (release = resolve));
    line.found = [error];
    await line.poked();
    line.caller.stop(new StateError('the store is closed'));
    release();
    await settle();
    assert.deepEqual([line.dialled, line.errors], [0, []]);
  }
});

test('stopping tells who waits', async () => {
  const line = new Line();
  const waiting = await line.connect();
  line.kept = false;
  const closed = new StateError('the store is closed');
  line.caller.stop(closed);
  await settle();
  assert.equal(waiting.outcome, closed);
  assert.equal(line.timers.waiting, 0);
});

test('a fault of the program is told and logged', async (t) => {
  const log = t.mock.method(console, 'error', () => {});
  const line = new Line();
  line.found = [new RangeError('oops')];
  const waiting = await line.connect();
  failure(waiting, /internal error/);
  assert.equal(log.mock.callCount(), 1);
  await line.wait(0.5);
  assert.equal(line.dialled, 1);
});

test('an error that is none of the known ones is an outcome', async () => {
  const line = new Line();
  line.found = [FORGED];
  const waiting = await line.connect();
  assert.equal(waiting.outcome, FORGED);
});

test('a refusal beside a connection that is lost is heard at once', async () => {
  const line = new Line();
  await line.becomes('connected');
  await line.becomes('disconnected');
  const waiting = await line.connect();
  assert.equal(line.dialled, 1);
  const busy = new PeerRefused('bob', 'busy', 'busy', 5);
  await line.becomes('disconnected', busy);
  assert.equal(waiting.outcome, busy);
  await line.wait(4.9);
  assert.equal(line.dialled, 1);
  await line.wait(2.1);
  assert.equal(line.dialled, 2);
});

test('a peer that comes and goes does not put off the time-out for ever', async () => {
  const line = new Line();
  const waiting = await line.connect(5);
  for (let round = 0; round < 5; round++) {
    // Each time the attempt is made anew, and its clock with it.
    await line.wait(2);
    line.caller.presenceChanged(false, false);
    line.caller.presenceChanged(true, true);
    await settle();
    line.clockFrom = line.timers.time();
  }
  failure(waiting, /it was not there after 5 s/);
});

test('no server silences a peer for longer than five minutes', async () => {
  const line = new Line();
  line.found = [new RequestFailed('rate-limited', 'never', { temporary: true, retryAfter: 1e308 })];
  await line.poked();
  await line.wait(299);
  assert.equal(line.asked, 1);
  await line.wait(2);
  assert.equal(line.asked, 2);
});
