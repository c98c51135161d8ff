/**
 * Two negotiation machines, their engines as bookkeeping, and a link that a script of numbers torments.
 *
 * An engine is reduced to what matters here: it makes descriptions and takes them in order, its channel opens when both
 * ends hold the same pair of ICE credentials, and it says that tracks have changed as browsers do (only when nothing is
 * pending, once, and again after each exchange that has not settled it). Proofs are reduced to their effect: an offer is
 * taken once, an answer only for the offer that is out. Every step is a choice among what could happen next.
 */
import assert from 'node:assert/strict';
import { Negotiation } from '../../src/peer/negotiation.js';

export const ATTEMPT = 30;
export const HEAL = 15;
const CAPABILITIES = { trickle: true, restart: true };

/** One side: a machine that may be started anew, as a page is. */
class Half {
  process = 0;

  constructor(world, user, other, capabilities) {
    Object.assign(this, { world, user, other, capabilities });
    this.start();
  }

  start() {
    this.process++;
    this.machine = new Negotiation(this.user, this.other, {
      capabilities: this.capabilities,
      random: (size) =>
        Uint8Array.from({ length: size }, (_, index) => (index ? 0 : this.world.number() % 256)).fill(
          this.world.number() >> 8,
          1,
          2,
        ),
      attemptSeconds: ATTEMPT,
      healSeconds: HEAL,
    });
    this.engines = new Map();
    this.dropped = new Set();
    this.seenOffers = new Set();
    this.offers = new Map();
    this.tracks = 0; // which of the sets of tracks that there have been is the latest
  }

  get peer() {
    return this.world.halves.find((each) => each.user === this.other);
  }

  /** A description of an engine, as text for the machine and as facts for the model. */
  describe(name, fragment) {
    const sdp = `v=${this.world.number()}\r\na=ice-ufrag:${fragment}\r\na=fingerprint:sha-256 ${this.user}${this.process}:${name}\r\n`;
    this.world.facts.set(sdp, { fragment, tracks: this.tracks });
    return sdp;
  }

  do(commands) {
    for (const command of commands) this.#do(command);
  }

  #do({ type, name, serial, sdp, restart, candidate }) {
    const { world } = this;
    if (type === 'createConnection') {
      assert(!this.engines.has(name) && !this.dropped.has(name), name);
      this.engines.set(name, { name, process: this.process, todo: [], local: '', remote: '', pending: '' });
      return;
    }
    if (type === 'sendBye') {
      world.flying.push({ to: this.other, type: 'bye', name });
      return;
    }
    const engine = this.engines.get(name);
    assert(engine, `${type} for a connection that is not there`);
    switch (type) {
      case 'dropConnection':
        this.engines.delete(name);
        this.dropped.add(name);
        break;
      case 'makeOffer':
      case 'makeAnswer':
      case 'applyAnswer':
      case 'addCandidate':
        engine.todo.push({ type, serial, sdp, restart });
        break;
      case 'sendOffer':
        this.offers.set(name, sdp);
        world.flying.push({ to: this.other, type: 'offer', name, sdp });
        break;
      case 'sendAnswer':
        world.flying.push({ to: this.other, type: 'answer', name, sdp, offerSdp: engine.remote });
        break;
      case 'sendCandidate':
        world.flying.push({ to: this.other, type: 'candidate', name, candidate });
        break;
      case 'probe':
        if (!world.works(this, name)) this.do(this.machine.attemptEnded(name, 'the probe failed', true));
    }
  }

  receive({ type, name, sdp, offerSdp, candidate }) {
    const { machine, world } = this;
    switch (type) {
      case 'offer':
        if (this.seenOffers.has(sdp)) break;
        this.seenOffers.add(sdp);
        this.do(machine.offerReceived(name, sdp, this.peer.capabilities, world.now));
        break;
      case 'answer':
        if (machine.isOver(name) || (machine.awaitsAnswer(name) && this.offers.get(name) === offerSdp)) {
          this.do(machine.answerReceived(name, sdp, this.peer.capabilities, world.now));
        }
        break;
      case 'candidate':
        this.do(machine.candidateReceived(name, candidate));
        break;
      case 'bye':
        this.do(machine.byeReceived(name, 'bye'));
    }
  }

  /** Let the engine do the next thing. */
  operate(name, refuse = false) {
    const { machine, world } = this;
    const engine = this.engines.get(name);
    const { type, serial, sdp, restart } = engine.todo.shift();
    const fragmentOf = (text) => world.facts.get(text)?.fragment;
    if (type === 'addCandidate') {
      assert(engine.remote, 'a candidate before its description');
      return;
    }
    if (refuse) {
      this.do(machine.operationFailed(name, serial, 'refused'));
      return;
    }
    if (type === 'makeOffer') {
      const fragment = restart || !engine.local ? `u${world.number()}` : fragmentOf(engine.local);
      engine.pending = this.describe(name, fragment);
      this.do(machine.offerMade(name, serial, engine.pending));
    } else if (type === 'makeAnswer') {
      const same = engine.local && fragmentOf(engine.remote) === fragmentOf(sdp);
      engine.pending = '';
      engine.remote = sdp;
      engine.local = this.describe(name, same ? fragmentOf(engine.local) : `u${world.number()}`);
      this.do(machine.answerMade(name, serial, engine.local));
    } else if (engine.pending) {
      [engine.local, engine.remote, engine.pending] = [engine.pending, sdp, ''];
    }
    if (!engine.pending) engine.asked = null; // the browser looks again whether all is negotiated
    if (this.engines.has(name)) {
      const usernameFragment = fragmentOf(engine.pending || engine.local);
      this.do(machine.candidateGathered(name, { candidate: 'c', sdpMid: '0', sdpMLineIndex: 0, usernameFragment }));
    }
  }

  /** Whether the browser would fire `negotiationneeded`. */
  needs(engine) {
    if (!engine.greeted || engine.pending || engine.asked === this.tracks) return false;
    return this.world.facts.get(engine.local).tracks !== this.tracks;
  }

  ask(engine) {
    engine.asked = this.tracks;
    this.do(this.machine.renegotiate(engine.name, this.world.now));
  }
}

/** Both halves, what is in flight between them, and the time. */
export class World {
  now = 0;
  flying = [];
  ordered = false; // messages to one side arrive in the order in which they were sent
  facts = new Map();
  #numbers = 0;

  constructor(alice = CAPABILITIES, bob = CAPABILITIES) {
    this.halves = [new Half(this, 'alice', 'bob', alice), new Half(this, 'bob', 'alice', bob)];
  }

  number() {
    return ++this.#numbers;
  }

  /** Whether both ends are there, of the pages that made them, with one pair of credentials. */
  works(half, name) {
    const mine = half.engines.get(name);
    const theirs = half.peer.engines.get(name);
    const fragment = (sdp) => this.facts.get(sdp)?.fragment;
    return (
      !!mine?.local &&
      !!theirs?.local &&
      fragment(mine.local) === fragment(theirs.remote) &&
      fragment(mine.remote) === fragment(theirs.local)
    );
  }

  // --- what can happen next ----------------------------------------------------------------------------------------

  /** What happens by itself when nothing goes wrong. */
  peaceful() {
    const steps = this.flying.flatMap(({ to }, index) =>
      this.ordered && this.flying.findIndex((each) => each.to === to) < index ? [] : [() => this.deliver(index)],
    );
    for (const half of this.halves) {
      for (const [name, engine] of half.engines) {
        const other = half.peer.engines.get(name);
        if (engine.todo.length) steps.push(() => half.operate(name));
        if (!engine.channel && this.works(half, name)) steps.push(() => this.#open(half, name));
        if (engine.channel && !engine.greeted && other?.channel) steps.push(() => this.#greet(half, name));
        if (engine.channel && other?.process !== half.peer.process) steps.push(() => this.#notice(half, name));
        if (half.needs(engine)) steps.push(() => half.ask(engine));
      }
      const { deadline } = half.machine;
      if (deadline <= this.now) steps.push(() => half.do(half.machine.tick(this.now)));
    }
    return steps;
  }

  /** What a bad link does, and what people do who make calls over it. */
  lossy() {
    return [
      ...this.flying.flatMap((message, index) => [() => this.flying.splice(index, 1), () => this.flying.push(message)]),
      ...this.halves.map((half) => () => half.tracks++),
      () => this.advance(1),
    ];
  }

  /** What else may happen. */
  hostile() {
    const steps = this.lossy();
    for (const half of this.halves) {
      steps.push(
        () => this.connect(half),
        () => half.start(),
      );
      for (const [name, engine] of half.engines) {
        if (engine.todo.length) steps.push(() => half.operate(name, true));
        if (engine.greeted) {
          steps.push(
            () => half.do(half.machine.pathLost(name, this.now, false)),
            () => half.do(half.machine.pathRestored(name)),
          );
        }
        steps.push(() => half.do(half.machine.pathLost(name, this.now, true)));
      }
    }
    return [...steps, () => this.advance(16)];
  }

  deliver(index) {
    const [message] = this.flying.splice(index, 1);
    this.halves.find(({ user }) => user === message.to).receive(message);
  }

  connect(half) {
    half.do(half.machine.connect(this.now));
  }

  #open(half, name) {
    half.engines.get(name).channel = true;
    half.do(half.machine.channelOpened(name));
    assert.equal(half.machine.current?.name, name);
    assert.deepEqual([...half.engines.keys()], [name], 'all others are gone');
  }

  #greet(half, name) {
    half.engines.get(name).greeted = true;
    half.do(half.machine.channelReady(name));
  }

  #notice(half, name) {
    half.do(half.machine.attemptEnded(name, 'the other end has gone', false));
  }

  advance(seconds) {
    this.now += seconds;
    for (const half of this.halves) {
      half.do(half.machine.tick(this.now));
      const { deadline } = half.machine;
      assert(deadline > this.now, 'what is due is done');
    }
  }

  // --- histories ---------------------------------------------------------------------------------------------------

  /** Live through a history: each number chooses the next step. */
  torment(script, worse = () => this.hostile()) {
    for (const number of script) {
      const peaceful = this.peaceful();
      const steps = [...peaceful, ...peaceful, ...peaceful, ...worse()];
      steps[number % steps.length]();
    }
  }

  /** Nothing goes wrong any more; go on until nothing is left to happen, however long it takes. */
  settle() {
    for (let round = 0; round < 40; round++) {
      let steps;
      for (let number = 0; (steps = this.peaceful()).length; number++) {
        assert(number < 5000, 'it goes on for ever');
        steps[0]();
      }
      for (const half of this.halves) {
        for (const [name, engine] of half.engines) {
          if (engine.greeted && this.works(half, name)) half.do(half.machine.pathRestored(name));
        }
      }
      if (this.peaceful().length) continue;
      if (this.halves.every(({ machine }) => machine.deadline === Infinity)) return;
      this.advance(ATTEMPT + HEAL);
    }
    assert.fail('it never comes to rest');
  }

  /** Both are connected by one connection, or neither is; nothing is pending, and each has heard of the other's tracks. */
  checkRest() {
    const [alice, bob] = this.halves;
    for (const { machine } of this.halves) {
      assert(['new', 'connected', 'failed', 'closed'].includes(machine.state), machine.state);
      assert.equal(machine.deadline, Infinity);
    }
    assert.equal(alice.machine.state === 'connected', bob.machine.state === 'connected');
    assert.equal(alice.machine.current?.name, bob.machine.current?.name);
    const name = alice.machine.current?.name;
    for (const half of this.halves) {
      assert.deepEqual([...half.engines.keys()], name === undefined ? [] : [name]);
      if (name !== undefined) {
        const heard = this.facts.get(half.peer.engines.get(name).remote);
        assert.equal(heard.tracks, half.tracks, 'the tracks have been told');
        assert.equal(half.engines.get(name).pending, '');
      }
    }
  }
}
