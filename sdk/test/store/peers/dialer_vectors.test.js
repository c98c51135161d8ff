/** When a peer is called, against tests/vectors/dialer.json, which Python's dialer must follow as well. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff } from '../../../src/client/backoff.js';
import {
  ConnectionLost,
  PeerConnectionFailed,
  PeerKeyChanged,
  PeerOffline,
  PeerRefused,
  PeerUnknown,
  ProofInvalid,
  RequestFailed,
} from '../../../src/errors.js';
import { CROSSED, Dialer, SETTLED } from '../../../src/store/peers/dialer.js';
import { registeredAnew } from '../../../src/store/peers/presence.js';
import { FakeTimers, settle } from '../../support/fake_timers.js';
import { vectors } from '../../support/vectors.js';

const all = vectors('dialer');
const ERRORS = {
  offline: new PeerOffline('bob'),
  unknown: new PeerUnknown('bob'),
  'key changed': new PeerKeyChanged('bob', Uint8Array.of(1), Uint8Array.of(2)),
  'no path': new PeerConnectionFailed('bob', 'no path'),
  forged: new ProofInvalid('bob', 'the signature is wrong'),
  busy: new PeerRefused('bob', 'busy', 'busy', 5),
  'not accepted': new PeerRefused('bob', 'not accepted', 'not-accepted'),
  'server gone': new ConnectionLost('gone'),
  forbidden: new RequestFailed('forbidden', 'no'),
  'rate limited': new RequestFailed('rate-limited', 'later', { temporary: true, retryAfter: 7 }),
};

/** What a script says of the peer, and what the dialer does to it. */
class Target {
  userId = 'bob';
  wanted = true;
  queued = 0;
  watched = true;
  registered = true;
  state = 'new';
  clockFrom = 0;
  unaccepted = null;
  found = [];
  done = [];
  waiting = {};
  timers = new FakeTimers();
  dialer = new Dialer(this, new Backoff(all.backoff), this.timers, () => all.random);

  get hasWaiting() {
    return this.queued > 0;
  }

  needServer() {
    this.done.push('need the server');
  }

  async find() {
    this.done.push('find');
    const name = this.found.shift() ?? null;
    if (name !== null) throw ERRORS[name];
  }

  dial() {
    this.done.push('dial');
    if (this.state !== 'connected') this.state = 'connecting';
  }

  hangUp() {
    this.done.push('hang up');
    this.state = 'closed';
  }

  failed(error, forGood) {
    const how = forGood ? ', for good' : this.dialer.inVain ? ', in vain' : '';
    this.done.push(`failed: ${error.name}${how}`);
    if (forGood) this.unaccepted ??= error;
  }

  async connect({ name, seconds }) {
    const outcome = await this.dialer.connected(seconds).then(
      () => 'connected',
      (error) => error.name,
    );
    this.waiting[name] = outcome;
  }

  set({ clock_from: clockFrom = this.clockFrom, ...others }) {
    Object.assign(this, others, { clockFrom: clockFrom === 'now' ? this.timers.time() : clockFrom });
  }

  take(step) {
    const { dialer } = this;
    const error = ERRORS[step.error] ?? null;
    switch (step.step) {
      case 'set':
        return this.set(step.target);
      case 'poke':
        return dialer.poke(step.now);
      case 'queued':
        this.queued = step.count;
        return dialer.queued();
      case 'presence':
        return dialer.presenceChanged(step.online, step.anew);
      case 'signaling returned':
        return dialer.signalingReturned(step.resumed);
      case 'state':
        this.state = step.state;
        return dialer.stateChanged(step.state, error);
      case 'signaling lost':
        return dialer.poke();
      case 'path found':
        return dialer.pathFound();
      case 'network changed':
        return dialer.networkChanged();
      case 'refused':
        return dialer.refused(error);
      case 'dismissed':
        return dialer.dismissed();
      case 'accepted':
        this.unaccepted = null;
        return dialer.accepted();
      case 'reconsider':
        return dialer.reconsider();
      case 'stop':
        return dialer.stop(error);
      case 'connect':
        return void this.connect(step);
      case 'wait':
        return this.timers.advance(step.seconds);
      default:
        return assert.fail(`an unknown step: ${step.step}`);
    }
  }
}

test('the numbers of the dialer', () => {
  assert.deepEqual([SETTLED, CROSSED], [all.settled, all.crossed]);
});

test('a device that registers anew is told from one that leaves', () => {
  for (const [before, now, anew] of all.registered_anew) assert.equal(registeredAnew(before, now), anew);
});

for (const { name, steps } of all.scripts) {
  test(`a peer is called as in the script: ${name}`, async () => {
    const target = new Target();
    for (const step of steps) {
      Object.assign(target, { done: [], waiting: {}, found: step.found ?? target.found });
      target.take(step);
      await settle();
      const { done, waiting, state } = target;
      const expected = { done: step.done, waiting: step.waiting, is: step.is };
      assert.deepEqual({ done, waiting, is: state }, expected, JSON.stringify(step));
    }
  });
}
