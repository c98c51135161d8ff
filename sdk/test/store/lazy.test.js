/** Files and calls are loaded when they are first used, and nothing is lost when that fails. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Callbacks } from '../../src/client/callbacks.js';
import { LoadFailed, PeerConnectionFailed } from '../../src/errors.js';
import { LazyService, MAX_WAITING, PATIENCE } from '../../src/store/lazy.js';
import { LOAD_SECONDS, Part, PARTS } from '../../src/store/parts.js';
import { decodeControl, encodeControl } from '../../src/store/messages/control.js';
import { FakeTimers, settle } from '../support/fake_timers.js';

/** What waits for an answer, one load after the other. */
class Loads {
  /** @type {string[]} what was added to the URL */
  asked = [];
  /** @type {PromiseWithResolvers<object>[]} */
  #pending = [];

  load = (/** @type {string} */ again) => {
    this.asked.push(again);
    /** @type {any} */
    const pending = {};
    const promise = new Promise((resolve, reject) => Object.assign(pending, { resolve, reject }));
    this.#pending.push(pending);
    return promise;
  };

  async answers() {
    this.#pending.shift()?.resolve({});
    await settle();
  }

  async fails() {
    this.#pending.shift()?.reject(new TypeError('Failed to fetch dynamically imported module'));
    await settle();
  }
}

/** A service that says what it was told. */
class Told {
  all = [];
  busy = () => true;
  connected = (peer, features) => this.all.push(['connected', peer.userId, features]);
  parted = (peer) => this.all.push(['parted', peer.userId]);
  ended = (peer, error, restarted) => this.all.push(['ended', peer.userId, error.name, restarted]);
  trackReceived = (peer, track) => this.all.push(['track', peer.userId, track]);
  received = (peer, { type, id }) => this.all.push([type, peer.userId, id]);
  close = () => this.all.push(['close']);
}

class Scene {
  loads = new Loads();
  clock = new FakeTimers(); // of the part
  part = new Part('files', this.loads.load, this.clock);
  callbacks = new Callbacks();
  timers = new FakeTimers();
  told = new Told();
  lazy = new LazyService(this.part, () => this.told, 'file', this.callbacks, this.timers);
}

/** @returns {any} */
function makePeer(userId = 'bob') {
  const said = [];
  return { userId, said, sendControl: (data) => said.push(decodeControl(data)) };
}

const id = (number) => Buffer.from([0, 0, 0, 0, 0, 0, 0, number]).toString('base64url');
const offer = (number = 1) => read({ type: 'file-offer', id: id(number), name: 'a', size: 1, mime: 'text/plain' });
const read = (message) => /** @type {any} */ (decodeControl(encodeControl(message)));

test('whoever asks at the same time waits for one load, and gets one service', async () => {
  const { lazy, loads, told } = new Scene();
  const asked = [lazy.get(), lazy.get()];
  await loads.answers();
  assert.deepEqual(await Promise.all(asked), [told, told]);
  assert.equal(await lazy.get(), told);
  assert.deepEqual(loads.asked, ['']);
});

test('what does not load is told to whoever asked, and can be asked for again, each time at another address', async () => {
  const { lazy, loads, told } = new Scene();
  for (const again of ['', '?1', '?2']) {
    const asked = lazy.get();
    void loads.fails();
    await assert.rejects(asked, (error) => {
      assert.ok(error instanceof LoadFailed && error.temporary);
      assert.equal(error.part, 'files');
      assert.ok(error.cause instanceof TypeError);
      return true;
    });
    assert.equal(loads.asked.at(-1), again);
  }
  const asked = lazy.get();
  await loads.answers();
  assert.equal(await asked, told);
});

test('what never comes is given up after a while, and can be asked for again at another address', async () => {
  const { lazy, loads, told, clock } = new Scene();
  const asked = lazy.get();
  const refused = assert.rejects(asked, (error) => {
    assert.ok(error instanceof LoadFailed && error.cause instanceof Error);
    assert.equal(error.cause.message, `nothing came within ${LOAD_SECONDS} s`);
    return true;
  });
  clock.advance(LOAD_SECONDS);
  await refused;
  const again = lazy.get();
  await loads.answers(); // that of the first, which nobody waits for any more
  await loads.answers();
  assert.equal(await again, told);
  assert.deepEqual([loads.asked, clock.waiting], [['', '?1'], 0]);
});

test('for offers that wait, what never comes is asked for again', async () => {
  const { lazy, loads, told, callbacks, timers, clock } = new Scene();
  callbacks.add(() => {});
  lazy.received(makePeer(), offer());
  clock.advance(LOAD_SECONDS);
  await settle();
  timers.advance(1);
  await loads.answers();
  await loads.answers();
  assert.deepEqual([told.all, loads.asked], [[['file-offer', 'bob', id(1)]], ['', '?1']]);
});

test('without a callback an offer is declined, and nothing is loaded for a stranger', () => {
  const { lazy, loads } = new Scene();
  const peer = makePeer();
  lazy.received(peer, offer());
  assert.deepEqual(peer.said, [{ type: 'file-decline', id: id(1), reason: 'no files here' }]);
  lazy.received(peer, read({ type: 'call-offer', id: id(2), audio: true, video: false }));
  lazy.received(peer, read({ type: 'file-cancel', id: id(3), reason: '' }));
  lazy.received(peer, { type: 'piece', id: id(4), offset: 0, data: new Uint8Array(1) });
  assert.deepEqual([peer.said.length, loads.asked], [1, []]);
});

test('offers wait until it is loaded, in their order; those that are over do not', async () => {
  const { lazy, loads, told, callbacks } = new Scene();
  callbacks.add(() => {});
  const [bob, carol] = [makePeer('bob'), makePeer('carol')];
  for (const number of [1, 2, 3]) lazy.received(bob, offer(number));
  lazy.received(carol, offer(2));
  lazy.received(bob, read({ type: 'file-cancel', id: id(2), reason: '' }));
  assert.deepEqual([lazy.busy(bob), loads.asked], [false, ['']]);
  await loads.answers();
  assert.deepEqual(told.all, [
    ['file-offer', 'bob', id(1)],
    ['file-offer', 'bob', id(3)],
    ['file-offer', 'carol', id(2)],
  ]);
  assert.deepEqual([lazy.busy(bob), bob.said], [true, []]);
});

test('what a peer has offered that is gone does not arrive later', async () => {
  const { lazy, loads, told, callbacks } = new Scene();
  callbacks.add(() => {});
  const [bob, carol] = [makePeer('bob'), makePeer('carol')];
  lazy.received(bob, offer());
  lazy.received(carol, offer());
  lazy.ended(bob, new PeerConnectionFailed('bob', 'it has hung up'), false);
  await loads.answers();
  assert.deepEqual(told.all, [['file-offer', 'carol', id(1)]]);
});

test('a bounded number of offers waits, and the next is declined', async () => {
  const { lazy, loads, told, callbacks } = new Scene();
  callbacks.add(() => {});
  const peer = makePeer();
  for (let number = 0; number < MAX_WAITING + 2; number++) lazy.received(peer, offer(number));
  assert.deepEqual(
    peer.said.map(({ id, reason }) => [id, reason]),
    [MAX_WAITING, MAX_WAITING + 1].map((number) => [id(number), 'too many files']),
  );
  await loads.answers();
  assert.equal(told.all.length, MAX_WAITING);
});

test('for offers that wait loading is tried again, and they arrive when it works', async () => {
  const { lazy, loads, told, callbacks, timers } = new Scene();
  callbacks.add(() => {});
  lazy.received(makePeer(), offer());
  for (const pause of [1, 2, 4]) {
    await loads.fails();
    timers.advance(pause - 0.1);
    assert.equal(timers.waiting, 1);
    timers.advance(0.1);
  }
  assert.deepEqual(loads.asked, ['', '?1', '?2', '?3']);
  await loads.answers();
  assert.deepEqual(told.all, [['file-offer', 'bob', id(1)]]);
});

test('after some time offers that wait are declined, the fault is reported, and a later offer is tried again', async (t) => {
  const reported = t.mock.method(
    globalThis.reportError ? globalThis : console,
    globalThis.reportError ? 'reportError' : 'error',
    () => {},
  );
  const { lazy, loads, told, callbacks, timers } = new Scene();
  callbacks.add(() => {});
  const peer = makePeer();
  lazy.received(peer, offer());
  await loads.fails();
  while (timers.waiting) {
    timers.advance(PATIENCE);
    await loads.fails();
  }
  assert.deepEqual(peer.said, [{ type: 'file-decline', id: id(1), reason: 'cannot load files' }]);
  assert.ok(reported.mock.calls[0].arguments[0] instanceof LoadFailed);
  lazy.received(peer, offer(2));
  await loads.answers();
  assert.deepEqual(told.all, [['file-offer', 'bob', id(2)]]);
});

test('an offer that is taken back while loading fails is not asked for again', async () => {
  const { lazy, loads, callbacks, timers } = new Scene();
  callbacks.add(() => {});
  const peer = makePeer();
  lazy.received(peer, offer());
  lazy.received(peer, read({ type: 'file-cancel', id: id(1), reason: '' }));
  await loads.fails();
  assert.deepEqual([timers.waiting, peer.said], [0, []]);
});

test('a store that is closed declines what waits, and asks no more', async () => {
  const { lazy, loads, told, callbacks, timers } = new Scene();
  callbacks.add(() => {});
  const peer = makePeer();
  lazy.received(peer, offer());
  await loads.fails();
  lazy.close();
  assert.deepEqual([timers.waiting, peer.said.map(({ reason }) => reason)], [0, ['the store was closed']]);
  assert.deepEqual(told.all, []);
});

test('nobody is harmed by an offer that cannot be declined any more', () => {
  const { lazy } = new Scene();
  const peer = makePeer();
  peer.sendControl = () => {
    throw new PeerConnectionFailed('bob', 'gone');
  };
  lazy.received(peer, offer());
});

test('once it is there it hears everything, and so does that of the next store', async () => {
  const { lazy, loads, told, callbacks, timers, part } = new Scene();
  void lazy.get();
  await loads.answers();
  const next = new LazyService(part, () => told, 'file', callbacks, timers);
  const peer = makePeer();
  const track = /** @type {any} */ ('a track');
  next.connected(peer, ['files']);
  next.parted(peer);
  next.received(peer, offer());
  next.trackReceived(peer, track, []);
  next.ended(peer, new PeerConnectionFailed('bob', 'it has hung up'), true);
  next.close();
  assert.deepEqual(told.all, [
    ['connected', 'bob', ['files']],
    ['parted', 'bob'],
    ['file-offer', 'bob', id(1)],
    ['track', 'bob', track],
    ['ended', 'bob', 'PeerConnectionFailed', true],
    ['close'],
  ]);
  assert.deepEqual(loads.asked, ['']);
});

test('until it is there it has heard nothing', () => {
  const { lazy, told } = new Scene();
  const peer = makePeer();
  lazy.connected(peer, ['files']);
  lazy.parted(peer);
  lazy.trackReceived(peer, /** @type {any} */ ('a track'), []);
  lazy.close();
  assert.deepEqual(told.all, []);
});

test('the parts are those of this SDK', async () => {
  const [files, calls] = await Promise.all([PARTS.files.load(), PARTS.calls.load()]);
  assert.deepEqual([typeof files.FileService, typeof calls.CallService], ['function', 'function']);
});
