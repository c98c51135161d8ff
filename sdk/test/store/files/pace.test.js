import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MAX_PIECE } from '../../../src/store/messages/control.js';
import { BEGIN, DELAY, LEAST, Pace } from '../../../src/store/files/pace.js';
import { WINDOW } from '../../../src/store/files/window.js';
import { fileOf, pair, settle, until } from '../../support/transfers.js';

/** A line that passes so many bytes a second, and takes so many seconds besides. */
class Line {
  pace = new Pace();
  time = 0;
  #freeAt = 0;
  /** @type {[at: number, said: number, onItsWay: number][]} */
  #pieces = [];

  constructor(rate, latency = 0) {
    this.rate = rate;
    this.latency = latency;
  }

  get onItsWay() {
    return this.#pieces.length * MAX_PIECE;
  }

  /** How long a message waits that is said now. */
  get delay() {
    return Math.max(this.#freeAt - this.time, 0);
  }

  /** Send so many pieces as soon as they may go. */
  send(count) {
    for (let sent = 0; sent < count; sent++) {
      while ((this.pace.limits && !this.pace.allows(this.onItsWay)) || this.onItsWay >= WINDOW) this.#wait();
      this.#freeAt = Math.max(this.#freeAt, this.time) + MAX_PIECE / this.rate;
      this.#pieces.push([this.#freeAt + this.latency, this.time, this.onItsWay + MAX_PIECE]);
    }
  }

  #wait() {
    const [at, said, onItsWay] = /** @type {[number, number, number]} */ (this.#pieces.shift());
    this.time = at;
    this.pace.took(onItsWay, at - said);
  }
}

for (const latency of [0, 0.02, 0.3, 0.6]) {
  for (const rate of [15e3, 25e3, 100e3, 1e6, 10e6]) {
    test(`a message waits for little more than half a second or one piece: ${rate} bytes a second, ${latency} s`, () => {
      const line = new Line(rate, latency);
      line.send(20);
      const most = Math.max(DELAY + Math.min(latency + MAX_PIECE / rate, 0.5), LEAST / rate) + MAX_PIECE / rate;
      for (let count = 0; count < 50; count++) {
        line.send(1);
        assert.ok(line.delay <= most, `${line.delay} s`);
      }
    });
  }
}

test('a quick line is not limited after the first answers, and a change is noticed', () => {
  const line = new Line(50e6, 0.02);
  assert.ok(line.pace.limits);
  line.send((2 * BEGIN) / MAX_PIECE);
  assert.ok(!line.pace.limits);
  line.rate = 50e3;
  line.send(40);
  assert.ok(line.delay <= LEAST / line.rate + DELAY + 1.5);
  line.rate = 50e6;
  line.send(60);
  assert.ok(!line.pace.limits);
});

test('before the first answer little of a file is on its way', async () => {
  const [alice, bob] = pair();
  bob.onFile.add((transfer) => transfer.accept());
  const { file } = fileOf(3 * WINDOW);
  const transfer = alice.transfers.send(alice.peer, file);
  const stop = transfer.subscribe(({ state }) => void (alice.isSilent ||= state === 'running'));
  await until(() => alice.pieces.length * MAX_PIECE === BEGIN);
  for (let turn = 0; turn < 10; turn++) await settle();
  assert.equal(alice.pieces.length * MAX_PIECE, BEGIN);
  stop();
  alice.direct();
  await transfer.finished;
});
