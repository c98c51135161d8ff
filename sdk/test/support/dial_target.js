/** A peer as a dialer sees it, which a test answers for, with a clock that it moves. */
import { Backoff } from '../../src/client/backoff.js';
import { Dialer } from '../../src/store/peers/dialer.js';
import { FakeTimers, settle } from './fake_timers.js';

/** What a test says of the peer, and what the dialer has done to it. */
export class DialTarget {
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
  unaccepted = null;
  hold = null;
  timers = new FakeTimers();
  // Half of each ceiling: 0.5, 1, 2, 2...
  dialer = new Dialer(this, new Backoff({ first: 1, factor: 2, most: 4 }), this.timers, () => 0.5);

  get wanted() {
    return this.kept || this.hasWaiting;
  }

  get hasWaiting() {
    return this.queued > 0;
  }

  needServer() {}

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
      this.unaccepted = error;
    }
  }

  /** The connection comes to another state. */
  async becomes(state, error = null) {
    this.state = state;
    this.dialer.stateChanged(state, error);
    await settle();
  }

  async poked() {
    this.dialer.poke();
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
    this.dialer.connected(seconds).then(
      () => (waiting.outcome = null),
      (error) => (waiting.outcome = error),
    );
    await settle();
    return waiting;
  }
}
