/**
 * Programs with journals that are killed, ended, put back to earlier states, and cut off, in an order drawn by chance. As
 * tests/support/crash_world.py, which says more.
 *
 * `a` sends to the user `b`, who has two devices. The world checks at each step what a journal promises.
 */
import assert from 'node:assert/strict';
import { timers } from '../../src/client/timers.js';
import { StateError } from '../../src/errors.js';
import { CHUNK, decode } from '../../src/protocol/channel.js';
import * as Content from '../../src/protocol/kinds.js';
import { Journal } from '../../src/store/journal/journal.js';
import { HeldBackend, keyOf, LIMITS, Line } from './crash_program.js';

/** A random generator that is the same for each seed (mulberry32). */
export function randomOf(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** One of the three programs, over all its runs. */
class Node {
  peers = new Map(); // by link
  run = 0;
  alive = {}; // the run
  lines = new Map();
  rows = new Map();
  calls = false;
  came = new Map(); // what has come, with its id
  inHands = null;
  atCrash = new Set();
  excused = new Set();
  queued = new Set(); // what was ever on the disk to be sent
  arrived = new Set(); // and of what has arrived
  wired = new Map(); // which message has a number of a stream
  streams = new Map();
  backup = null;
  dies = false;
  left = null;

  constructor(userId, device) {
    this.userId = userId;
    this.device = device;
  }

  written(rows) {
    for (const [key, value] of rows) {
      const found = value?.data && keyOf(value.data);
      if (typeof found === 'number') (key.startsWith('o/') ? this.queued : this.arrived).add(found);
    }
  }

  /** The keys of what is on the disk in rows of a kind. */
  onDisk(kind) {
    return new Set([...this.rows].filter(([key]) => key.startsWith(kind)).map(([, { data }]) => keyOf(data)));
  }
}

export class World {
  log = [];
  sent = [];
  connected = new Set();
  retries = new Set();
  failure = null;
  nodes = [new Node('a', 'main'), new Node('b', 'main'), new Node('b', 'tablet')];

  constructor(seed) {
    this.random = randomOf(seed);
    for (const link of [0, 1]) {
      this.nodes[0].peers.set(link, this.nodes[link + 1]);
      this.nodes[link + 1].peers.set(link, this.nodes[0]);
    }
  }

  choose(list) {
    return list[Math.floor(this.random() * list.length)];
  }

  chance(probability) {
    return this.random() < probability;
  }

  /** So many steps, then what brings everything over that is not lost. */
  async play(steps) {
    const actions = Object.entries(WEIGHTS).flatMap(([name, weight]) => Array(weight).fill(name));
    const { callLater } = timers;
    timers.callLater = (_, callback) => {
      this.retries.add(callback); // it is tried again when the world says so
      return () => this.retries.delete(callback);
    };
    try {
      for (const node of this.nodes) await this.#start(node);
      for (let step = 0; step < steps; step++) {
        const name = this.choose(actions);
        this.log.push(name);
        await this[name](this.choose(this.nodes));
        await this.#settle();
      }
      await this.#bringAllOver();
    } finally {
      timers.callLater = callLater;
    }
  }

  async #start(node) {
    node.run++;
    const alive = (node.alive = {});
    const backend = (node.backend = new HeldBackend(node.rows, (rows) => node.written(rows)));
    const journal = (node.journal = await Journal.open(backend));
    const lines = (node.lines = new Map());
    const mailbox = (node.mailbox = journal.mailbox(LIMITS, () => ({
      peer: () => ({ device: (name) => this.#device(node, name) }),
      publish: () => {},
      handOver: () => lines.forEach((line) => line.stream.handOver()),
    })));
    void journal.claim({ server: 'here', userId: node.userId, device: node.device });
    for (const link of node.peers.keys()) {
      const nameless = link === 0 && node === this.nodes[0] && this.chance(0.3);
      if (!lines.has(link)) this.#addLine(node, link, nameless ? null : node.peers.get(link).device);
    }
    node.calls = this.chance(0.4);
    node.reading = null;
    if (node.calls) mailbox.onMessage((message) => node.alive === alive && this.#called(node, message));
    else node.loop = mailbox.iterate((message) => message);
  }

  /** A device for which messages wait in the journal. */
  #device(node, name) {
    for (const [link, peer] of node.peers) {
      if ((name ?? 'main') !== peer.device && peer.userId === 'b') continue;
      assert(!node.lines.has(link));
      this.#addLine(node, link, name);
    }
  }

  #addLine(node, link, name) {
    const { userId } = node.peers.get(link);
    const check = (frame) => {
      try {
        this.#checkFrame(node, link, frame);
      } catch (error) {
        this.failure ??= error; // it is thrown within the journal
      }
    };
    node.lines.set(link, new Line(node.journal, node.mailbox, userId, name, check));
  }

  async #settle() {
    await new Promise(setImmediate);
    if (this.failure) throw this.failure;
    for (const node of this.nodes) {
      if (node.left) await this.#kill(node);
      this.#checkDisk(node);
    }
  }

  #link(node) {
    return this.choose([...node.peers.keys()]);
  }

  // --- what happens ------------------------------------------------------------------------------------------------

  send(node) {
    const link = this.#link(node);
    const { stream, owner } = node.lines.get(link);
    if (this.chance(0.3)) {
      // Now and then more of them than the journal lets be numbered at a time.
      for (let each = this.chance(0.1) ? 70 : 1; each > 0; each--) {
        stream.send(Content.CONTROL, new TextEncoder().encode('control'));
      }
      return;
    }
    const text = `${this.sent.length}:${' '.repeat(this.choose([0, 1, CHUNK + 1]))}`;
    const addressed = owner.name !== null && this.chance(0.3);
    const delivery = stream.send(Content.TEXT, new TextEncoder().encode(text), addressed);
    delivery.then(
      () => {},
      () => {},
    );
    this.sent.push({
      sender: node,
      run: node.run,
      link,
      delivery,
      accepted: false,
      moved: false,
      excused: false,
      twice: false,
    });
  }

  connect(node) {
    this.#connect(this.#link(node));
  }

  #connect(link) {
    const ends = [this.nodes[0], this.nodes[link + 1]];
    for (const each of ends) each.lines.get(link).lose();
    ends[0].lines.get(link).owner.name ??= ends[1].device;
    for (const each of ends) each.lines.get(link).connect();
    this.connected.add(link);
  }

  lose(node) {
    this.#lose(this.#link(node));
  }

  #lose(link) {
    for (const node of [this.nodes[0], this.nodes[link + 1]]) node.lines.get(link).lose();
    this.connected.delete(link);
  }

  transmit(node) {
    const link = this.#link(node);
    const line = node.lines.get(link);
    line.room = 1 + Math.floor(this.random() * 6);
    if (this.connected.has(link)) line.sendsWhatIsDue();
  }

  deliver(node) {
    this.#deliver(node, this.#link(node), 1 + Math.floor(this.random() * 8));
  }

  #deliver(node, link, frames) {
    const { wire } = node.lines.get(link);
    for (let each = 0; each < frames && wire.length && this.connected.has(link); each++) {
      if (!node.peers.get(link).lines.get(link).arrive(wire.shift())) this.#lose(link);
    }
  }

  write(node) {
    node.backend.run();
  }

  async carry(node) {
    const link = this.#link(node);
    const ends = [node, node.peers.get(link)];
    for (let each = Math.floor(this.random() * 4); each > 0; each--) this.send(node);
    if (!this.connected.has(link)) this.connect(node);
    for (let turn = 0; turn < 3; turn++) {
      for (const each of ends) await this.#push(each, link, 20);
    }
    for (let each = Math.floor(this.random() * 5); each > 0; each--) {
      this.read(ends[1]);
      await this.#settle();
    }
  }

  async #push(node, link, frames) {
    node.backend.run();
    await this.#settle();
    node.lines.get(link).room = frames;
    if (this.connected.has(link)) node.lines.get(link).sendsWhatIsDue();
    this.#deliver(node, link, frames);
    await this.#settle();
  }

  async meetAFullDisk(node) {
    node.backend.fail();
    await this.#settle();
    if (this.chance(0.7)) this.#tryAgain();
  }

  #tryAgain() {
    const due = [...this.retries];
    this.retries.clear();
    for (const retry of due) retry();
  }

  read(node) {
    if (node.calls || node.reading) return;
    node.inHands = null;
    const { alive } = node;
    node.reading = node.loop.next().then(({ value }) => {
      if (node.alive !== alive) return;
      node.reading = null;
      if (value) node.inHands = this.#got(node, value);
    });
  }

  async kill(node) {
    if (this.chance(0.5)) node.backend.run();
    await this.#kill(node);
  }

  killWithinACallback(node) {
    node.dies = node.calls;
  }

  async #kill(node) {
    this.#stop(node);
    await this.#start(node);
  }

  #stop(node) {
    for (const link of node.peers.keys()) this.#lose(link);
    node.alive = {};
    node.backend.die();
    node.rows = new Map(node.left ?? node.rows);
    void node.journal.close();
    if (node.inHands !== null) node.atCrash.add(node.inHands);
    node.inHands = node.left = null;
    node.dies = false;
  }

  async end(node) {
    for (const link of node.peers.keys()) this.#lose(link);
    for (const { stream } of node.lines.values()) stream.fail('the store was closed', new StateError('closed'));
    if (this.chance(0.3)) {
      node.backend.fail();
      node.backend.broken = this.chance(0.5);
    }
    const closing = node.mailbox.close();
    if (this.chance(0.5)) this.read(node);
    let closed = false;
    void closing.then(() => (closed = true));
    const { run } = node;
    for (let turn = 0; turn < 10 && !closed; turn++) {
      node.backend.run();
      await this.#settle();
      if (node.run !== run) return; // it was killed within a callback
    }
    assert(closed, 'it does not end');
    await this.#kill(node);
  }

  backUp(node) {
    const held = [...node.rows].some(([key, value]) => key.startsWith('s/') && value.sent !== undefined);
    node.backup = { rows: new Map(node.rows), queued: node.onDisk('o/'), held };
  }

  async putBack(node) {
    if (!node.backup) return;
    this.#stop(node);
    node.rows = new Map(node.backup.rows);
    for (const [key, sent] of this.sent.entries()) {
      if (sent.sender !== node) {
        if (sent.sender.userId !== node.userId) node.excused.add(key);
      } else if (node.backup.queued.has(key)) {
        sent.twice ||= node.backup.held;
      } else {
        sent.excused = true;
      }
    }
    node.atCrash.clear();
    await this.#start(node);
    if (this.chance(0.5)) {
      for (let each = Math.floor(this.random() * 5); each > 0; each--) this.send(node);
      await this.#settle();
      await this.kill(node);
    }
    if (this.chance(0.5)) await this.#greet(node, this.#link(node));
  }

  /** A channel begins, and gets no further for now. */
  async #greet(node, link) {
    this.#connect(link);
    for (const each of [node, node.peers.get(link)]) this.#deliver(each, link, 1);
    await this.#settle();
  }

  async move() {
    const [node] = this.nodes;
    const link = this.choose([0, 1]);
    if (this.chance(0.5) || !this.#move(link)) return;
    const isGreeted = this.chance(0.3);
    if (isGreeted) {
      await this.#greet(node, link);
      await this.#kill(node);
    }
    if (!isGreeted && this.chance(0.3)) {
      await this.#settle();
      await this.meetAFullDisk(node);
    }
  }

  #move(link) {
    const { lines } = this.nodes[0];
    const { stream } = lines.get(link);
    if (this.connected.has(link) || !stream.movable) return false;
    const withdrawn = stream.withdraw();
    for (const [, { data }] of withdrawn) this.sent[keyOf(data)].moved = true;
    lines.get(1 - link).stream.takeOver(withdrawn);
    return true;
  }

  // --- what the applications get -----------------------------------------------------------------------------------

  #called(node, message) {
    if (node.left) return; // it is dead
    const key = this.#got(node, message);
    if (!node.dies) return;
    node.inHands = key;
    node.left = new Map(node.rows);
  }

  #got(node, message) {
    const key = keyOf(message.data);
    const sent = this.sent[key];
    const id = `${message.stream}:${message.sequence}`;
    const { done, delivered, stored } = sent.delivery;
    if (done && !delivered && !stored && !sent.moved) this.failure ??= new Error(`${key} has failed and comes`);
    const free = node.excused.has(key) || sent.moved || (sent.twice && node.came.has(key));
    if (!free && message.redelivered && node.came.has(key)) {
      if (node.came.get(key) !== id) this.failure ??= new Error(`${key} has another id now`);
    } else if (!free) {
      try {
        assert(!node.came.has(key), `${key} came twice`);
        this.#checkOrder(node, key, sent);
      } catch (error) {
        this.failure ??= error; // it is thrown within the application
      }
    }
    node.atCrash.delete(key);
    node.came.set(key, id);
    return key;
  }

  #checkOrder(node, key, sent) {
    for (const [number, other] of this.sent.entries()) {
      if (other.sender !== sent.sender || other.link !== sent.link || node.excused.has(number) || other.moved) continue;
      if (number > key) assert(!node.came.has(number) || other.excused, `${key} came after ${number}`);
      if (number < key && other.delivery.stored && !other.excused) {
        assert(node.came.has(number), `${key} came before ${number}`);
      }
    }
  }

  // --- what has to be ----------------------------------------------------------------------------------------------

  #checkFrame(node, link, data) {
    const frame = decode(data);
    if (frame.type === 'hello') {
      node.streams.set(link, frame.stream);
      if (frame.received) this.#checkAcknowledged(node, link, frame.received);
    } else if (frame.type === 'ack') {
      const stream = node.peers.get(link).streams.get(link);
      this.#checkAcknowledged(node, link, { stream, sequence: frame.sequence });
    } else if (frame.type === 'chunk' && frame.content === Content.TEXT) {
      const key = keyOf(frame.data);
      if (key === null) return;
      assert(node.queued.has(key), `${key} is sent and not stored`);
      node.wired.set(key, { stream: node.streams.get(link), sequence: frame.sequence });
    }
  }

  #checkAcknowledged(node, link, { stream, sequence }) {
    for (const [key, wired] of node.peers.get(link).wired) {
      const { moved, excused } = this.sent[key];
      if (wired.stream === stream && wired.sequence <= sequence && !moved && !excused) {
        assert(node.arrived.has(key), `${key} is acknowledged and not stored`);
      }
    }
  }

  #checkDisk(node) {
    const queued = node.onDisk('o/');
    for (const [key, sent] of this.sent.entries()) {
      const { sender, run, delivery } = sent;
      if (sender !== node || run !== node.run) continue;
      assert(!delivery.stored || delivery.done || queued.has(key), `${key} was accepted and is not on the disk`);
      assert(delivery.stored || !sent.accepted, `${key} was accepted and has failed`);
      sent.accepted = delivery.stored;
    }
    const due = new Set([...node.arrived].filter((key) => !node.came.has(key)).concat([...node.atCrash]));
    if (node.inHands !== null) due.add(node.inHands);
    const arrived = node.onDisk('i/');
    for (const key of due) {
      assert(node.excused.has(key) || arrived.has(key), `${key} was not handed over and is not on the disk`);
    }
  }

  async #bringAllOver() {
    const gone = this.chance(0.3);
    this.log.push('bring all over');
    if (gone) this.#lose(1);
    for (let turn = 0; turn < 25; turn++) {
      if (gone) this.#move(1);
      for (const link of gone ? [0] : [0, 1]) if (!this.connected.has(link)) this.connect(this.nodes[link + 1]);
      for (const node of this.nodes) {
        this.#tryAgain();
        for (const link of node.peers.keys()) await this.#push(node, link, 50);
        for (let each = 0; each < 10; each++) {
          this.read(node);
          await this.#settle();
        }
      }
      if (turn > 2 && this.#isOver(gone)) break;
    }
    for (const node of [...this.nodes, ...this.nodes]) {
      node.backend.run();
      await this.#settle();
    }
    this.#checkEnd(gone);
    for (const node of this.nodes) this.#stop(node);
  }

  #isOver(gone) {
    const busy = this.nodes.some(({ lines }) =>
      [...lines.values()].some(({ stream, wire }) => stream.queued || wire.length),
    );
    return !gone && !busy && this.nodes.every(({ atCrash }) => !atCrash.size);
  }

  #checkEnd(gone) {
    for (const [key, sent] of this.sent.entries()) {
      const peers = [...sent.sender.peers.values()];
      const waits = gone && sent.link === 1 && (sent.sender !== this.nodes[0] || sent.delivery.device !== null);
      if (sent.excused || waits || peers.some(({ came, excused }) => came.has(key) || excused.has(key))) continue;
      assert(!sent.delivery.stored, `${key} was accepted and never came`);
      if (sent.run === sent.sender.run) assert(sent.delivery.done, `what became of ${key} is not known`);
    }
    for (const node of this.nodes) {
      const { atCrash, lines } = node;
      const left = node.onDisk('o/').size;
      assert.deepEqual([...atCrash], [], 'what was in the hands of the application did not come again');
      for (const [link, { stream }] of lines) assert((gone && link === 1) || !stream.queued, 'something waits');
      assert((gone && lines.has(1)) || !left, 'what has arrived is still in the journal');
      for (const key of node.onDisk('i/')) {
        assert(key === node.inHands || !node.came.has(key), `${key} was handed over and is in the journal`);
      }
    }
  }
}

const WEIGHTS = {
  send: 16,
  connect: 8,
  lose: 3,
  transmit: 12,
  deliver: 20,
  write: 16,
  carry: 8,
  read: 14,
  meetAFullDisk: 3,
  kill: 5,
  killWithinACallback: 3,
  end: 2,
  backUp: 3,
  putBack: 2,
  move: 3,
};
