/** Whatever happens to the devices of a user: every message arrives, once and in order at each device (seeded). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PeerConnectionFailed, PeerOffline, TooManyPeers } from '../../../src/errors.js';
import { decode, encodeAck, VERSION } from '../../../src/protocol/channel.js';
import * as Content from '../../../src/protocol/kinds.js';
import { Inbox } from '../../../src/store/messages/inbox.js';
import { Outbox } from '../../../src/store/messages/outbox.js';
import { FakeConnection, Scene } from '../../support/devices.js';
import { settle } from '../../support/fake_timers.js';
import { generator } from '../../support/generator.js';

const NAMES = ['phone', 'desk', 'tablet'];
const SEEDS = 100;
const STEPS = 60;
const MANY_TURNS = 60;
const ROOM = 3; // frames on their way to a program

const bytes = (text) => new TextEncoder().encode(text);

/** A run of bob's program on one device. */
class Program {
  inbox = new Inbox();
  got = [];

  constructor(number) {
    this.outbox = new Outbox(`run ${number}`);
  }

  /** Take in a frame; what to say then. */
  take(data) {
    const frame = decode(data);
    if (frame.type === 'ack') this.outbox.acknowledge(frame.sequence);
    else this.inbox.receive(frame);
    for (let first; (first = this.inbox.first);) {
      this.inbox.take();
      if (first.content !== Content.CONTROL) this.got.push(new TextDecoder().decode(first.data));
    }
    return this.say();
  }

  say() {
    const said = [];
    const { due } = this.inbox;
    if (due !== null) {
      said.push(encodeAck(due));
      this.inbox.confirmed(due);
    }
    for (let frame; (frame = this.outbox.nextFrame());) {
      said.push(frame);
      this.outbox.sent();
    }
    return said;
  }
}

/** A connection with a program; frames wait on both ways until the test lets them through. */
class Channel extends FakeConnection {
  /** @type {Program | null} */
  program = null;
  back = [];

  receive(event) {
    super.receive(event);
    this.connect();
  }

  sendFrame(frame) {
    return this.frames.length < ROOM && super.sendFrame(frame);
  }

  /** The channel opens, to this program. */
  meets(program) {
    if (this.state === 'connected') this.fails('disconnected');
    this.program = program;
    program.inbox.opened(this.hello());
    const { stream } = program.outbox;
    const next = program.outbox.helloSent();
    const received = program.inbox.position();
    this.state = 'connected';
    this.listener.channelOpened({ type: 'hello', version: VERSION, stream, next, features: [], received });
    if (!this.listener) return;
    this.listener.stateChanged('connected', null);
    program.outbox.opened(null);
    this.back.push(...program.say());
  }

  /** The channel ends; what was on its way is lost. */
  fails(state) {
    this.program?.inbox.closed();
    this.program?.outbox.closed();
    this.program = null;
    this.frames = [];
    this.back = [];
    if (!this.listener || !['connecting', 'connected', 'disconnected'].includes(this.state)) return;
    this.listener.channelClosed();
    this.becomes(state);
  }

  /** One frame comes through. */
  forth() {
    if (!this.frames.length || !this.program) return;
    const full = this.frames.length >= ROOM;
    this.back.push(...this.program.take(this.frames.shift()));
    if (full) this.listener?.writable();
  }

  /** One frame comes back. */
  answer() {
    if (this.back.length && this.listener) this.listener.frameReceived(decode(this.back.shift()));
  }
}

/** Bob, whose devices do what they like. */
class World extends Scene {
  /** @type {Record<string, Channel>} */
  channels = {};
  /** @type {Record<string, Program>} those that run */
  programs = {};
  /** @type {Record<string, Program[]>} */
  runs = Object.fromEntries(NAMES.map((name) => [name, []]));
  listed = [];
  /** Each message, and the devices that have held it, one after the other. */
  sent = [];
  killed = false;
  wishes = [];

  constructor(random) {
    super();
    this.random = random;
    this.refusesWatch = random.next() < 0.3;
    this.lying = random.next() < 0.3 ? 3 : 0;
  }

  makeConnection(device, hello) {
    this.channels[device.name]?.fails('closed');
    return (this.channels[device.name] = new Channel(device, hello));
  }

  /** As it is when the answer is read: a server says nothing of changes before it. */
  found() {
    const read = () => super.found();
    return {
      get online() {
        return read().online;
      },
      get devices() {
        return read().devices;
      },
      get publicKey() {
        return read().publicKey;
      },
    };
  }

  moved(from, to) {
    for (const { delivery, name, holders } of this.sent) {
      if (name === null && !delivery.done && holders.at(-1) === from) holders.push(to);
    }
  }

  // --- what may happen ---

  starts(name) {
    if (this.programs[name]) return;
    this.programs[name] = new Program(Object.values(this.runs).flat().length);
    this.runs[name].push(this.programs[name]);
  }

  registers(name) {
    this.starts(name);
    this.listed = [name, ...this.listed.filter((each) => each !== name)];
    this.tell();
  }

  unregisters(name) {
    if (!this.listed.includes(name)) return;
    this.listed = this.listed.filter((each) => each !== name);
    this.tell();
  }

  /** The server knows which devices are online, and tells it if it is asked to. */
  tell(devices = this.listed, initial = false) {
    this.devices = [...devices];
    if (!this.registered || !this.peer.presence.watched) return;
    const online = devices.length > 0;
    this.peer.presenceChanged({ type: 'presenceChanged', userId: 'bob', online, devices: [...devices], initial });
  }

  dies(name) {
    if (!this.programs[name]) return;
    delete this.programs[name];
    this.killed = true;
    this.breaks(name);
  }

  breaks(name) {
    const channel = this.channels[name];
    const mayHeal = channel?.state === 'connecting' ? [] : ['disconnected'];
    channel?.fails(this.random.one(['failed', 'closed', ...mayHeal]));
  }

  /** What was lost, or is tried, comes to nothing. */
  givesUp(name) {
    const channel = this.channels[name];
    if (!channel?.listener || channel.state === 'connected') return;
    channel.listener.channelClosed();
    channel.becomes('failed');
  }

  calls(name) {
    if (this.programs[name] && this.listed.includes(name) && this.registered) this.offer(name);
  }

  opensIfItCan(name) {
    const channel = this.channels[name];
    const program = this.programs[name];
    if (program && channel?.listener && ['connecting', 'disconnected'].includes(channel.state)) channel.meets(program);
  }

  speaks(name) {
    const program = this.programs[name];
    if (!program) return;
    program.outbox.put(Content.TEXT, bytes('from bob'));
    if (this.channels[name]?.program === program) this.channels[name].back.push(...program.say());
  }

  passes(name) {
    const channel = this.channels[name];
    for (let frames = 1 + this.random.below(4); channel && frames > 0; frames--) {
      if (this.random.next() < 0.5) channel.forth();
      else channel.answer();
    }
  }

  /** A message to the user, or to a device. */
  sends(name = null) {
    const text = `${this.sent.length} to ${name ?? 'bob'}`;
    const holders = [this.peer.device(name)];
    this.sent.push({ text, name, holders, delivery: this.peer.send(name, Content.TEXT, bytes(text)) });
  }

  /** The application asks for a connection. */
  wants(name) {
    const wish = { done: false, error: null };
    this.wishes.push(wish);
    this.peer.connect(this.random.one([null, name]), 5, null).then(
      () => (wish.done = true),
      (error) => Object.assign(wish, { done: true, error }),
    );
  }

  watchEnds() {
    if (this.registered && this.peer.presence.watched && this.random.next() < 0.2) this.peer.watchEnded();
  }

  /** The server lists devices that there are not, and not those that there are; one of them calls. */
  serverLies() {
    const all = [...NAMES, ...Array.from({ length: 50 }, (_, number) => `none-${number}`)];
    const said = Array.from({ length: this.random.below(6) }, () => all.splice(this.random.below(all.length), 1)[0]);
    this.devices = said;
    if (this.random.next() < 0.5) this.tell(said);
    if (!this.registered || !said.length) return;
    try {
      this.offer(said.at(-1));
    } catch (error) {
      assert.ok(error instanceof TooManyPeers);
    }
  }

  serverGoes() {
    this.registered = false;
  }

  serverComes() {
    if (this.registered) return;
    this.registered = true;
    const resumed = this.random.next() < 0.5;
    this.peer.signalingReturned(resumed);
    this.tell(this.listed, !resumed);
  }

  timePasses() {
    this.timers.advance(this.random.one([0.5, 2, 12]));
  }

  step() {
    const name = this.random.one(NAMES);
    const steps = [
      ...['registers', 'registers', 'unregisters', 'dies', 'breaks', 'givesUp', 'calls'],
      ...['opensIfItCan', 'opensIfItCan', 'opensIfItCan', 'speaks', 'passes', 'passes'],
      ...['sends', 'sends', 'sendsHere', 'serverGoes', 'serverComes', 'timePasses', 'wants', 'watchEnds'],
      ...Array(this.lying).fill('serverLies'),
    ];
    const step = this.random.one(steps);
    if (step === 'sends') this.sends();
    else if (step === 'sendsHere') this.sends(name);
    else this[step](name);
  }

  /** All devices are there, and every path works. */
  async allIsWell() {
    this.serverComes();
    Object.keys(this.channels).forEach((name) => this.givesUp(name));
    NAMES.forEach((name) => this.registers(name));
    for (let turn = 0; turn < MANY_TURNS; turn++) {
      await settle();
      for (const name of NAMES) {
        this.opensIfItCan(name);
        for (let frames = 0; frames < 20; frames++) {
          this.channels[name]?.forth();
          this.channels[name]?.answer();
        }
      }
      this.timers.advance(1);
      if (this.sent.every(({ delivery }) => delivery.done) && this.wishes.every(({ done }) => done)) return;
    }
  }
}

for (let seed = 0; seed < SEEDS; seed++) {
  test(`every message arrives, whatever the devices do: ${seed}`, async (t) => {
    const random = generator(seed);
    t.mock.method(Math, 'random', random.next); // the pauses of the dialer
    const world = new World(random);
    for (let step = 0; step < STEPS; step++) {
      world.step();
      if (random.next() < 0.5) await settle();
    }
    await world.allIsWell();
    assert.deepEqual(
      world.sent.filter(({ delivery }) => !delivery.delivered).map(({ text }) => text),
      [],
    );
    for (const { done, error } of world.wishes) {
      assert.ok(done && (!error || error instanceof PeerConnectionFailed || error instanceof PeerOffline), error);
    }
    for (const { text, name, holders } of world.sent) {
      const got = NAMES.flatMap((each) => world.runs[each].filter((run) => run.got.includes(text)).map(() => each));
      assert.ok(got.length, `${text} has not arrived`);
      for (const each of NAMES) {
        // One that goes and comes back to a device gets a new number.
        const times = holders.filter((device) => device.name === each).length;
        const most = Math.max(0, ...world.runs[each].map((run) => run.got.filter((one) => one === text).length));
        assert.ok(most <= times, `${text} has arrived ${most} times`);
      }
      if (name !== null) assert.deepEqual([...new Set(got)], [name]);
      if (holders.length === 1 && !world.killed) assert.equal(got.length, 1, text);
    }
    const stayed = new Map(world.sent.flatMap(({ text, holders }, at) => (holders.length === 1 ? [[text, at]] : [])));
    for (const { got } of Object.values(world.runs).flat()) {
      const order = got.flatMap((text) => stayed.get(text) ?? []);
      assert.deepEqual(
        order,
        order.toSorted((one, other) => one - other),
      );
    }
  });
}
