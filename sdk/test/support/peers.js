/**
 * PeerConnections over a link in memory: real keys and proofs, engines of `fake_rtc.js`, and a server between them that
 * loses, repeats, reorders or forges as a test says. Everything waits on conditions, nothing sleeps.
 */
import assert from 'node:assert/strict';
import { Identity } from '../../src/identity/keys.js';
import { MemoryPins } from '../../src/identity/pins.js';
import { PeerConnection } from '../../src/peer/connection.js';
import { Trust } from '../../src/peer/trust.js';
import { VERSION } from '../../src/protocol/channel.js';
import { FakeNetwork } from './fake_rtc.js';
import { FakeTimers } from './fake_timers.js';

export const SERVER = 'server.test';
const PATIENCE = 30_000; // milliseconds; a test that needs them has failed already

// WebCrypto works on threads, which a busy machine may let wait: what they have to do is counted.
let underWay = 0;
for (const name of /** @type {const} */ (['digest', 'exportKey', 'generateKey', 'importKey', 'sign', 'verify'])) {
  const original = crypto.subtle[name];
  // `configurable`: other tests replace it, and those of `test:fast` share a process.
  Object.defineProperty(crypto.subtle, name, {
    configurable: true,
    writable: true,
    value: async (...values) => {
      underWay++;
      try {
        return await original.apply(crypto.subtle, values);
      } finally {
        underWay--;
      }
    },
  });
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Let what is under way go on until `holds()`. */
export async function until(holds, what = String(holds)) {
  const end = Date.now() + PATIENCE;
  while (!holds()) {
    assert(Date.now() < end, `never: ${what}`);
    await turn();
  }
}

/** Let everything happen that is not waiting for a timer. */
export async function quiet() {
  // A message takes a turn or two of the loop from one side to the other, and what it leads to as many.
  for (let idle = 0; idle < 10; idle = underWay ? 0 : idle + 1) {
    await turn();
  }
}

/** Let time pass second by second, so that what is sent meanwhile arrives in its time. */
export async function pass({ timers }, seconds) {
  for (let second = 0; second < seconds; second++) {
    timers.advance(1);
    await quiet();
  }
}

/** Signaling between sides. `middle` decides what arrives of each message: the server, in short. */
export class Link {
  network = new FakeNetwork();
  timers = new FakeTimers();
  /** @type {Map<string, Side>} */ sides = new Map();
  /** @type {{ from: string, to: string, event: any }[]} */ passed = [];
  middle = (message) => [message];
  /** @type {Error | null} */ down = null;

  async send(from, to, event) {
    if (this.down) throw this.down;
    const message = { from, to, event: { sender: from, ...event } };
    this.passed.push(message);
    for (const each of this.middle(message)) this.deliver(each);
  }

  deliver({ to, event }) {
    setImmediate(() => this.sides.get(to.split('/')[0])?.peer.receive(event));
  }

  /** The events of a type that have been sent. */
  of(type, from) {
    return this.passed
      .filter((each) => each.event.type === type && (!from || each.from === from))
      .map((each) => each.event);
  }
}

/** A user with one PeerConnection, and all that it has told. */
export class Side {
  states = [];
  errors = [];
  refusals = [];
  hellos = [];
  frames = [];
  tracks = [];
  writable = 0;
  closings = 0;
  open = false;
  /** Called when there is room again. */
  told = () => {};

  static async make(link, local, remote, options = {}) {
    return new Side(link, local, remote, { identity: await Identity.generate(), ...options });
  }

  constructor(link, local, remote, { identity, pins = new MemoryPins(), version = VERSION, ...options }) {
    Object.assign(this, { link, local, identity });
    this.trust = new Trust(identity, local, SERVER, pins);
    const send =
      (make) =>
      (to, ...rest) =>
        link.send(local, to, make(...rest));
    const described = (type) => send((sdp, more) => ({ type: `${type}Received`, description: { type, sdp }, ...more }));
    link.sides.set(local, this);
    this.peer = new PeerConnection({
      local,
      remote,
      trust: this.trust,
      signaling: {
        sendOffer: described('offer'),
        sendAnswer: described('answer'),
        sendIceCandidate: send((candidate, more) => ({ type: 'candidateReceived', candidate, ...more })),
        sendBye: send((more) => ({ type: 'byeReceived', ...more })),
      },
      listener: this.#listener(),
      hello: () => ({ type: 'hello', version, stream: `${local}-stream`, next: 1, features: [], received: null }),
      timers: link.timers,
      RTCPeerConnection: link.network.RTCPeerConnection,
      config: () => ({}),
      ...options,
    });
  }

  #listener() {
    const note = (list) => (value) => {
      assert(this.open, 'only while a channel is open');
      list.push(value);
    };
    return {
      stateChanged: (state, error) => {
        assert(state !== 'connected' || this.open, 'connected without a channel');
        assert(state === 'disconnected' || (error !== null) === (state === 'failed'));
        this.states.push(state);
        if (error) this.errors.push(error);
      },
      channelOpened: (hello) => {
        assert(!this.open, 'a channel opened while one is open');
        this.open = true;
        this.hellos.push(hello);
      },
      channelClosed: () => {
        assert(this.open, 'a channel closed that was not open');
        this.open = false;
        this.closings++;
      },
      frameReceived: note(this.frames),
      trackReceived: (track, streams) => note(this.tracks)({ track, streams }),
      pathFound: () => {},
      writable: () => {
        this.writable++;
        this.told();
      },
      refused: (error) => this.refusals.push(error),
    };
  }

  /** Wait for a state, told and all. */
  async until(state) {
    await until(() => this.peer.state === state && this.states.at(-1) === state, `${this.local} ${state}`);
  }
}

/** Two sides that are about to connect. */
export async function pair(options = {}) {
  const link = new Link();
  const alice = await Side.make(link, 'alice', 'bob', options);
  const bob = await Side.make(link, 'bob', 'alice', options);
  return { link, alice, bob, network: link.network, timers: link.timers };
}

/** Two sides that are connected; alice has made the connection. */
export async function connected(options) {
  const world = await pair(options);
  world.alice.peer.connect();
  await world.alice.until('connected');
  await world.bob.until('connected');
  const [ours, theirs] = world.network.open;
  return { ...world, ours, theirs };
}

/** Close both, and see that nothing is left: no connection, no timer. */
export async function end({ link, alice, bob }) {
  const closing = [alice, bob].map(async (side) => {
    const closed = side.peer.close();
    assert.equal(side.peer.state, 'closed');
    assert(!side.open);
    await closed;
  });
  await quiet();
  link.timers.advance(1); // where nothing comes through, the goodbye is not waited for any longer
  await Promise.all(closing);
  await quiet();
  assert.deepEqual(link.network.open, []);
  assert.equal(link.timers.waiting, 0);
}
