/** The machine's own rules for renegotiation, then whole histories on a link that loses, repeats and reorders. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RENEGOTIATION } from '../../src/peer/attempts.js';
import { NAME_BYTES, Negotiation } from '../../src/peer/negotiation.js';
import { generator } from '../support/generator.js';
import { ATTEMPT, HEAL, World } from '../support/negotiation_model.js';

const ALL = { trickle: true, restart: true };
const NO_RESTART = { trickle: false, restart: false };
const NAME = 'AAAAAAAAAAAAAAAAAAAAAA';
const theirs = (version, fragment = 'frag', certificate = 'AA') =>
  `v=${version}\r\na=fingerprint:sha-256 ${certificate}\r\na=ice-ufrag:${fragment}\r\n`;

function connected(local = 'bob', remote = 'alice', capabilities = ALL) {
  const machine = new Negotiation(local, remote, {
    capabilities: ALL,
    random: (size) => new Uint8Array(size),
    attemptSeconds: 30,
    healSeconds: 15,
  });
  machine.connect(0);
  machine.offerMade(NAME, 1, 'ours');
  machine.answerReceived(NAME, theirs(0), capabilities, 1);
  machine.channelOpened(NAME);
  machine.channelReady(NAME);
  assert.equal(machine.state, 'connected');
  return machine;
}

const offering = (serial, restart = false) => [{ type: 'makeOffer', name: NAME, serial, restart }];

test('a name is 16 random bytes', () => {
  assert.equal(NAME_BYTES, 16);
});

// --- renegotiation --------------------------------------------------------------------------------------------------

test('a renegotiation is an offer without restart on the same connection', () => {
  const machine = connected();
  assert.deepEqual(machine.renegotiate(NAME, 10), offering(2));
  assert.deepEqual(machine.offerMade(NAME, 2, 'tracks'), [{ type: 'sendOffer', name: NAME, serial: 2, sdp: 'tracks' }]);
  assert.equal(machine.deadline, 10 + RENEGOTIATION);
  assert.equal(machine.state, 'connected');
  assert.deepEqual(machine.answerReceived(NAME, theirs(1), ALL, 11), [
    { type: 'applyAnswer', name: NAME, serial: 2, sdp: theirs(1) },
  ]);
  assert.equal(machine.deadline, Infinity);
});

test('before HELLOs have been exchanged, and for other names, there is nothing to renegotiate', () => {
  const machine = new Negotiation('bob', 'alice', {
    capabilities: ALL,
    random: (size) => new Uint8Array(size),
    attemptSeconds: 30,
    healSeconds: 15,
  });
  machine.connect(0);
  assert.deepEqual(machine.renegotiate(NAME, 0), []);
  machine.offerMade(NAME, 1, 'ours');
  machine.answerReceived(NAME, theirs(0), ALL, 1);
  machine.channelOpened(NAME);
  assert.deepEqual(machine.renegotiate(NAME, 2), []);
  machine.channelReady(NAME);
  assert.equal(machine.deadline, Infinity);
  assert.deepEqual(machine.renegotiate('another', 2), []);
});

test('one that is wanted while an exchange is under way follows at once', () => {
  const machine = connected();
  machine.renegotiate(NAME, 10);
  assert.deepEqual(machine.renegotiate(NAME, 10), []);
  machine.offerMade(NAME, 2, 'tracks');
  assert.deepEqual(machine.renegotiate(NAME, 10), []);
  assert.deepEqual(machine.tick(11), []);
  machine.answerReceived(NAME, theirs(1), ALL, 12);
  assert.equal(machine.deadline, 0);
  assert.deepEqual(machine.tick(12), offering(3));
  machine.offerMade(NAME, 3, 'more tracks');
  machine.answerReceived(NAME, theirs(2), ALL, 13);
  assert.equal(machine.deadline, Infinity);
});

test('one that is wanted while theirs is being answered follows the answer', () => {
  const machine = connected();
  machine.offerReceived(NAME, theirs(1), ALL, 10);
  assert.deepEqual(machine.renegotiate(NAME, 10), []);
  machine.answerMade(NAME, 2, 'answer');
  assert.deepEqual(machine.tick(10), offering(3));
});

test('when two cross, the impolite side insists and the polite side answers', () => {
  const impolite = connected('bob', 'alice');
  impolite.renegotiate(NAME, 10);
  assert.deepEqual(impolite.offerReceived(NAME, theirs(1), ALL, 10), []);
  impolite.offerMade(NAME, 2, 'tracks');
  const again = [{ type: 'sendOffer', name: NAME, serial: 2, sdp: 'tracks' }];
  assert.deepEqual(impolite.offerReceived(NAME, theirs(2), ALL, 10), again);

  const polite = connected('alice', 'bob');
  polite.renegotiate(NAME, 10);
  polite.offerMade(NAME, 2, 'tracks');
  assert.deepEqual(polite.offerReceived(NAME, theirs(1), ALL, 10), [
    { type: 'makeAnswer', name: NAME, serial: 3, sdp: theirs(1) },
  ]);
  assert.deepEqual(polite.answerReceived(NAME, theirs(2), ALL, 11), []);
  polite.answerMade(NAME, 3, 'answer');
  assert.equal(polite.deadline, Infinity); // the browser says whether it is still needed
  assert.deepEqual(polite.renegotiate(NAME, 11), offering(4));
});

test('one that nobody answers is made again, ever more seldom, and ends nothing', () => {
  const machine = connected();
  let now = 100;
  const pauses = [];
  machine.renegotiate(NAME, now);
  for (let serial = 2; serial < 9; serial++) {
    machine.offerMade(NAME, serial, `tracks ${serial}`);
    pauses.push(machine.deadline - now);
    now = machine.deadline;
    assert.deepEqual(machine.tick(now), offering(serial + 1));
    assert.equal(machine.state, 'connected');
  }
  assert.deepEqual(pauses, [5, 10, 20, 40, 80, 80, 80]);
  machine.offerMade(NAME, 9, 'tracks');
  machine.answerReceived(NAME, theirs(1), ALL, now);
  machine.renegotiate(NAME, now);
  assert.equal(machine.deadline, now + RENEGOTIATION);
});

test('one that cannot be sent or made waits for its turn', () => {
  const machine = connected();
  machine.renegotiate(NAME, 10);
  machine.offerMade(NAME, 2, 'tracks');
  assert.deepEqual(machine.operationFailed(NAME, 2, 'the server is away'), []);
  assert.deepEqual(machine.renegotiate(NAME, 11), []);
  assert.deepEqual(machine.tick(14.9), []);
  assert.deepEqual(machine.tick(15), offering(3));
  machine.operationFailed(NAME, 3, 'the engine refuses');
  assert.deepEqual(machine.tick(25), offering(4));
});

test('one whose answer the engine refuses is made again, ever more seldom', () => {
  const machine = connected();
  let now = 100;
  const pauses = [];
  machine.renegotiate(NAME, now);
  for (let serial = 2; serial < 6; serial++) {
    machine.offerMade(NAME, serial, `tracks ${serial}`);
    machine.answerReceived(NAME, theirs(serial), ALL, now + 1);
    assert.equal(machine.deadline, Infinity);
    assert.deepEqual(machine.operationFailed(NAME, serial, 'bad answer'), []);
    assert.equal(machine.state, 'connected');
    pauses.push(machine.deadline - now);
    now = machine.deadline;
    assert.deepEqual(machine.tick(now), offering(serial + 1));
  }
  assert.deepEqual(pauses, [5, 10, 20, 40]);
  // Theirs takes its place: the browser says whether ours is still needed.
  machine.offerMade(NAME, 6, 'tracks');
  machine.answerReceived(NAME, theirs(6), ALL, now);
  machine.offerReceived(NAME, theirs(7), ALL, now);
  machine.answerMade(NAME, 7, 'answer');
  assert.deepEqual(machine.operationFailed(NAME, 6, 'bad answer'), []);
  assert.equal(machine.deadline, Infinity);
});

test('theirs that the engine cannot answer, or whose answer cannot be sent, is not asked for again', () => {
  const machine = connected();
  machine.offerReceived(NAME, theirs(2), ALL, 12);
  machine.operationFailed(NAME, 2, 'bad offer');
  assert.equal(machine.deadline, Infinity);
  machine.renegotiate(NAME, 13);
  machine.offerMade(NAME, 3, 'tracks');
  machine.answerReceived(NAME, theirs(3), ALL, 14);
  machine.offerReceived(NAME, theirs(4), ALL, 15);
  machine.answerMade(NAME, 4, 'answer');
  machine.operationFailed(NAME, 4, 'the server is away');
  assert.equal(machine.deadline, Infinity);
  assert.equal(machine.state, 'connected');
});

test('a renegotiation with another certificate is refused', () => {
  const machine = connected();
  assert.deepEqual(machine.offerReceived(NAME, theirs(1, 'frag', 'BB'), ALL, 5), [
    { type: 'refuse', name: NAME, reason: 'it does not fit the connection', code: 'invalid-offer', retryAfter: 10 },
  ]);
});

test('a lost path overtakes a renegotiation, which is made anew when the path is back', () => {
  const machine = connected();
  machine.renegotiate(NAME, 10);
  machine.offerMade(NAME, 2, 'tracks');
  assert.deepEqual(machine.pathLost(NAME, 11, false), offering(3, true));
  assert.deepEqual(machine.pathLost(NAME, 12, true), []);
  machine.offerMade(NAME, 3, 'restart');
  machine.answerReceived(NAME, theirs(1, 'more'), ALL, 12);
  assert.equal(machine.deadline, 26);
  assert.deepEqual(machine.tick(13), []);
  machine.pathRestored(NAME);
  assert.equal(machine.deadline, 0);
  assert.deepEqual(machine.tick(14), offering(4));
});

test('tracks that change while the path is lost wait until it is back', () => {
  const machine = connected();
  machine.pathLost(NAME, 11, false);
  machine.operationFailed(NAME, 2, 'the server is away');
  assert.deepEqual(machine.renegotiate(NAME, 12), []);
  assert.equal(machine.deadline, 26);
  machine.pathRestored(NAME);
  assert.deepEqual(machine.tick(13), offering(3));
});

test('without restarts a lost path leaves the renegotiation be', () => {
  const machine = connected('bob', 'alice', NO_RESTART);
  machine.renegotiate(NAME, 10);
  machine.offerMade(NAME, 2, 'tracks');
  assert.deepEqual(machine.pathLost(NAME, 11, false), []);
  assert.deepEqual(machine.tick(15), []);
  machine.pathRestored(NAME);
  assert.deepEqual(machine.tick(16), offering(3));
});

test('after the end there is nothing to renegotiate', () => {
  const machine = connected();
  machine.renegotiate(NAME, 10);
  machine.close('done');
  assert.deepEqual(machine.renegotiate(NAME, 11), []);
  assert.equal(machine.deadline, Infinity);
});

// --- whole histories ------------------------------------------------------------------------------------------------

const SEEDS = Array.from({ length: 300 }, (_, index) => index + 1);

test('two sides always come to rest with one connection or none, and their tracks told', () => {
  for (const seed of SEEDS) {
    const random = generator(seed);
    const world = new World(random.one([ALL, NO_RESTART]), random.one([ALL, NO_RESTART]));
    try {
      world.torment(Array.from({ length: random.below(160) }, () => random.below(10_000)));
      world.settle();
      world.checkRest();
      // Offers are limited in time, and the history may have used them up.
      world.advance(ATTEMPT + HEAL);
      world.connect(random.one(world.halves));
      world.settle();
      world.checkRest();
      assert.deepEqual(
        world.halves.map(({ machine }) => machine.state),
        ['connected', 'connected'],
      );
    } catch (error) {
      throw new Error(`with the seed ${seed}`, { cause: error });
    }
  }
});

test('both connecting at once get one connection in whatever order messages arrive, and at once', () => {
  for (const seed of SEEDS) {
    const random = generator(seed);
    const world = new World(random.one([ALL, NO_RESTART]), random.one([ALL, NO_RESTART]));
    for (const half of world.halves) world.connect(half);
    for (let steps; (steps = world.peaceful()).length;) random.one(steps)();
    world.settle();
    world.checkRest();
    assert.equal(world.halves[0].machine.state, 'connected');
    assert.equal(world.now, 0, `with the seed ${seed} it took a time-out to get there`);
  }
});

test('an open connection stays, and tracks are told in the end, however many messages get lost', () => {
  for (const seed of SEEDS) {
    const random = generator(seed);
    const world = new World();
    world.ordered = true;
    world.connect(world.halves[0]);
    world.settle();
    const name = world.halves[0].machine.current.name;
    const script = Array.from({ length: 80 }, () => random.below(10_000));
    world.torment(script, () => world.lossy());
    world.settle();
    world.checkRest();
    assert.equal(world.halves[0].machine.current.name, name, `with the seed ${seed}`);
  }
});

test('tracks that change on both sides are told without waiting, however messages and engines interleave', () => {
  for (const seed of SEEDS) {
    const random = generator(seed);
    const world = new World();
    world.ordered = true; // as it is with a server that works; what else may happen is made good by time-outs
    world.connect(world.halves[0]);
    world.settle();
    for (let changes = 0; changes < 6; changes++) {
      for (const half of world.halves) half.tracks += random.below(2);
      for (let steps = random.below(8); steps > 0; steps--) {
        const next = world.peaceful();
        if (next.length) random.one(next)();
      }
    }
    for (let steps; (steps = world.peaceful()).length;) random.one(steps)();
    world.checkRest();
    assert.equal(world.now, 0, `with the seed ${seed} it took a time-out to get there`);
  }
});
