/**
 * A `ClientMachine` on a bench: a clock that the test turns, and a server that says what the test says.
 *
 *     const bench = new Bench();
 *     bench.join();                                        // connected and registered as alice
 *     const number = bench.ask({ type: 'discover', userId: 'bob' });
 *     assert.deepEqual(bench.takeOne(), { type: 'discover', userId: 'bob', id: number });
 *     bench.say({ type: 'discover-response', userId: 'bob', online: false, re: number });
 *     assert.equal(bench.results.get(number).online, false);
 *
 * The bench checks the machine's promises at every step: a request ends once, nothing is sent without a connection,
 * `closed` is the last event, and no deadline lies in the past for longer than one `tick`.
 */
import assert from 'node:assert/strict';

import { Backoff } from '../../src/client/backoff.js';
import { ClientMachine } from '../../src/client/machine.js';
import { Identity } from '../../src/identity/keys.js';
import { toBase64 } from '../../src/protocol/codec.js';

export const HOST = 'signal.example:8080';
export const NONCE = Uint8Array.from({ length: 32 }, (_, index) => index);
export const SIGNATURE = new Uint8Array(64).fill(7);
export const ALICE = await Identity.generate();
export const BOB = await Identity.generate();

export const LIMITS = { maxMessageBytes: 65536, maxWatches: 10000, resumeWindow: 30 };

export class Bench {
  now = 1000;
  /** What `random()` says next; full jitter makes it the share of the ceiling. */
  lot = 1;
  sent = [];
  events = [];
  results = new Map();
  failures = new Map();
  closed = null;
  dials = 0;
  /** What is to be signed and is not yet. */
  signing = [];
  #attached = false;

  constructor({ userId = 'alice', device = 'main', token = null, backoff = {}, requestTimeout = 10 } = {}) {
    const settings = { host: HOST, userId, device, token, backoff: new Backoff(backoff), requestTimeout };
    this.machine = new ClientMachine(settings, () => this.lot);
  }

  // --- input ---

  /** Call something of the machine's and carry out what it wants. */
  do(command) {
    const result = command(this.machine, this.now);
    this.#carryOut();
    return result;
  }

  register(identity = ALICE) {
    return this.ask({ type: 'register' }, identity);
  }

  /** Make a request; its number. */
  ask(message, identity) {
    const asker = {};
    return this.do((machine, now) => (asker.number = machine.ask(now, message, asker, identity)));
  }

  connect() {
    this.closed = null;
    this.#attached = true;
    this.do((machine, now) => machine.connected(now));
  }

  say(message) {
    this.sayText(JSON.stringify(message));
  }

  sayText(text) {
    this.do((machine, now) => machine.received(now, text));
  }

  lose(code = 1006, reason = '') {
    this.#attached = false;
    this.do((machine, now) => machine.lost(now, code, reason));
  }

  failToConnect(reason = 'connection refused') {
    this.#attached = false;
    this.do((machine, now) => machine.lost(now, 1006, reason));
  }

  /** Sign the oldest of what is to be signed. */
  sign() {
    const { message } = this.signing.shift();
    this.do((machine, now) => machine.signed(now, message, SIGNATURE));
  }

  /** Turn the clock, stopping at each of the machine's deadlines on the way. */
  passTime(seconds) {
    const end = this.now + seconds;
    for (let deadline; (deadline = this.machine.nextDeadline) <= end;) {
      assert.ok(deadline >= this.now, 'a deadline that has passed was not acted on');
      this.now = deadline;
      this.do((machine, now) => machine.tick(now));
      const after = this.machine.nextDeadline;
      assert.ok(after > deadline, 'the machine asks for the same moment again');
    }
    this.now = end;
    this.do((machine, now) => machine.tick(now));
  }

  /** Let time pass without a look at the clock, as in a page that sleeps; then look. */
  sleep(seconds) {
    this.now += seconds;
    this.do((machine, now) => machine.tick(now));
  }

  // --- the usual ---

  /** Connect and register; what has come out of the machine so far is forgotten. */
  join(registered = {}) {
    this.connect();
    const number = this.register();
    this.admit(registered);
    this.forget();
    return number;
  }

  /** Play the server's part of the registration that the machine has just asked for. */
  admit({ session = 's1', resumed = false, ...more } = {}) {
    const register = this.sent.at(-1);
    assert.equal(register.type, 'register');
    this.say({ type: 'challenge', nonce: toBase64(NONCE), re: register.id });
    this.sign();
    const prove = this.sent.at(-1);
    assert.equal(prove.type, 'prove');
    this.say({
      type: 'registered',
      success: true,
      resumed,
      re: prove.id,
      userId: register.userId,
      device: register.device,
      session,
      secret: `secret of ${session}`,
      serverTime: 0,
      limits: LIMITS,
      ...more,
    });
  }

  /** Lose the connection, come back and register again. */
  reconnect(registered = {}) {
    this.lose();
    this.redial();
    this.admit(registered);
  }

  /** Wait for the next attempt and let it succeed. */
  redial() {
    for (const { dials } = this; this.dials === dials;) this.passTime(this.machine.nextDeadline - this.now);
    this.connect();
  }

  // --- output ---

  /** What has been sent since the last time. */
  take() {
    return this.sent.splice(0);
  }

  takeOne() {
    const sent = this.take();
    assert.equal(sent.length, 1, JSON.stringify(sent));
    return sent[0];
  }

  /** What has happened since the last time. */
  takeEvents() {
    return this.events.splice(0);
  }

  forget() {
    this.take();
    this.takeEvents();
  }

  get phase() {
    return this.machine.phase;
  }

  #carryOut() {
    for (let effect; (effect = this.machine.effects.shift());) this.#do(effect);
    if (!['open', 'registering', 'signing', 'proving', 'registered', 'closing'].includes(this.phase) && !this.closed) {
      assert.ok(!this.#attached, 'a connection that nobody wants');
    }
  }

  #do(effect) {
    switch (effect.type) {
      case 'send':
        assert.ok(this.#attached, `sent without a connection: ${effect.text}`);
        assert.ok(!this.closed, `sent after the connection was closed: ${effect.text}`);
        return this.sent.push(JSON.parse(effect.text));
      case 'sign':
        return this.signing.push(effect);
      case 'closeTransport':
        // The end of the client closes what there is, if anything.
        if (this.phase === 'ended' && (!this.#attached || this.closed)) return;
        assert.ok(this.#attached, 'closed what is not there');
        assert.ok(!this.closed, 'closed twice');
        return (this.closed = [effect.code, effect.reason]);
      case 'dial':
        assert.ok(!this.#attached, 'dials with a connection');
        return this.dials++;
      case 'completed':
        assert.ok(
          !this.results.has(effect.asker.number) && !this.failures.has(effect.asker.number),
          'a request ended twice',
        );
        if (effect.error) return this.failures.set(effect.asker.number, effect.error);
        return this.results.set(effect.asker.number, effect.result);
      case 'happened':
        assert.ok(!this.events.some((event) => event.type === 'closed'), 'an event after closed');
        return this.events.push(effect.event);
      default:
        assert.fail(`an unknown effect: ${effect.type}`);
    }
  }
}

/** A bench whose client is registered. */
export function joined(settings) {
  const bench = new Bench(settings);
  bench.join();
  return bench;
}
