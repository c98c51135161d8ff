/** What a signature has to cover, and what is refused. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PeerKeyChanged, ProofInvalid, ProtocolViolation } from '../../src/errors.js';
import { Identity } from '../../src/identity/keys.js';
import { MemoryPins } from '../../src/identity/pins.js';
import { MAX_NONCES, MAX_PEERS, Trust } from '../../src/peer/trust.js';
import { toBase64 } from '../../src/protocol/codec.js';
import { generator } from '../support/generator.js';

const NAME = 'n'.repeat(22);
const OFFER = 'v=0 the offer';
const ANSWER = 'v=0 the answer';

async function world() {
  const [alices, bobs, mallorys] = await Promise.all([1, 2, 3].map(() => Identity.generate()));
  const pins = new MemoryPins();
  const trust = (identity, user) => new Trust(identity, user, 's', new MemoryPins());
  return {
    keys: { alice: alices.publicKey, bob: bobs.publicKey, mallory: mallorys.publicKey },
    pins,
    alice: trust(alices, 'alice'),
    bob: new Trust(bobs, 'bob', 's', pins),
    elsewhere: new Trust(bobs, 'bob', 'another server', pins),
    mallory: trust(mallorys, 'alice'), // says that she is alice
    falseBob: trust(mallorys, 'bob'),
    carol: trust(mallorys, 'carol'),
  };
}

/** An offer of alice's that bob has checked, and his answer. */
async function exchanged() {
  const all = await world();
  const offer = await all.alice.sign('bob', NAME, OFFER);
  const answer = await all.bob.sign('alice', NAME, ANSWER, { sdp: OFFER, proof: offer });
  return { ...all, offer, answer };
}

const invalid = (problem) => (error) => error instanceof ProofInvalid && error.message.includes(problem);

test('an offer and its answer pass and pin the keys', async () => {
  const { alice, bob, offer, answer, pins, keys } = await exchanged();
  await bob.check('alice', NAME, OFFER, offer);
  assert.deepEqual(await pins.find('s', 'alice'), keys.alice);
  // Its nonce is the offer's: whether the answer is still wanted is for the negotiation to say.
  for (const _ of [1, 2]) await alice.check('bob', NAME, ANSWER, answer, { sdp: OFFER, proof: offer });
});

for (const [what, sender, name, sdp] of [
  ['sender', 'carol', NAME, OFFER],
  ['connection', 'alice', 'm'.repeat(22), OFFER],
  ['description', 'alice', NAME, `${OFFER} `],
]) {
  test(`an offer with another ${what} is refused and pins nothing`, async () => {
    const { bob, offer, pins } = await exchanged();
    await assert.rejects(bob.check(sender, name, sdp, offer), invalid('signature'));
    assert.equal(await pins.find('s', sender), null);
    await bob.check('alice', NAME, OFFER, offer); // and the true one still passes
  });
}

test('an offer to somebody else is refused', async () => {
  const { alice, bob } = await world();
  await assert.rejects(bob.check('alice', NAME, OFFER, await alice.sign('carol', NAME, OFFER)), invalid('signature'));
});

test('an answer is no offer and an offer no answer', async () => {
  const { alice, bob, offer, answer } = await exchanged();
  await assert.rejects(alice.check('bob', NAME, ANSWER, answer), invalid('signature'));
  await assert.rejects(bob.check('alice', NAME, OFFER, offer, { sdp: OFFER, proof: offer }), invalid('signature'));
});

for (const changed of ['sdp', 'offerSdp', 'name', 'nonce', 'sender']) {
  test(`an answer with another ${changed} is refused`, async () => {
    const { alice, offer, answer } = await exchanged();
    const another = await alice.sign('bob', NAME, OFFER);
    const is = (what) => what === changed;
    await assert.rejects(
      alice.check(
        is('sender') ? 'carol' : 'bob',
        is('name') ? 'm'.repeat(22) : NAME,
        is('sdp') ? `${ANSWER}x` : ANSWER,
        answer,
        { sdp: is('offerSdp') ? `${OFFER}x` : OFFER, proof: is('nonce') ? another : offer },
      ),
      invalid(is('nonce') ? 'belongs to another offer' : 'signature'),
    );
  });
}

test('the key of another is refused once a key is pinned, until a person accepts it', async () => {
  const { alice, bob, mallory, keys, pins } = await world();
  await bob.check('alice', NAME, OFFER, await alice.sign('bob', NAME, OFFER));
  const forged = await mallory.sign('bob', NAME, OFFER);
  await assert.rejects(bob.check('alice', NAME, OFFER, forged), (error) => {
    assert(error instanceof PeerKeyChanged);
    assert.deepEqual([error.pinned, error.offered], [keys.alice, keys.mallory]);
    return true;
  });
  await pins.accept('s', 'alice', keys.mallory);
  await bob.check('alice', NAME, OFFER, forged);
});

test('an answer with the key of another is refused', async () => {
  const { alice, bob, falseBob, offer, answer } = await exchanged();
  await alice.check('bob', NAME, ANSWER, answer, { sdp: OFFER, proof: offer });
  const forged = await falseBob.sign('alice', NAME, ANSWER, { sdp: OFFER, proof: offer });
  await assert.rejects(alice.check('bob', NAME, ANSWER, forged, { sdp: OFFER, proof: offer }), PeerKeyChanged);
  assert(bob);
});

test('a key under which the signature is wrong is never said to have changed', async () => {
  const { alice, bob, keys, offer } = await exchanged();
  await bob.check('alice', NAME, OFFER, offer);
  const proof = { ...(await alice.sign('bob', NAME, OFFER)), publicKey: toBase64(keys.mallory) };
  // Otherwise anybody could make people accept new keys, by naming one that they like.
  await assert.rejects(bob.check('alice', NAME, OFFER, proof), ProofInvalid);
});

test('an offer is taken once, also when it comes twice at the same time', async () => {
  const { bob, offer } = await exchanged();
  const results = await Promise.allSettled([1, 2].map(() => bob.check('alice', NAME, OFFER, offer)));
  assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected']);
  await assert.rejects(bob.check('alice', NAME, OFFER, offer), invalid('used before'));
});

test('others cannot push an offer out of the memory, and the memory is bounded', async () => {
  const { alice, bob, carol, offer } = await exchanged();
  await bob.check('alice', NAME, OFFER, offer);
  const forged = await carol.sign('bob', NAME, OFFER);
  for (let number = 0; number < MAX_NONCES; number++) {
    await bob.check('carol', NAME, OFFER, await carol.sign('bob', NAME, OFFER));
    await assert.rejects(bob.check('alice', NAME, 'forged', forged), ProofInvalid);
  }
  await assert.rejects(bob.check('alice', NAME, OFFER, offer), invalid('used before'));
  // The peer itself can: it gains nothing by that.
  for (let number = 0; number < MAX_NONCES; number++) {
    await bob.check('alice', NAME, OFFER, await alice.sign('bob', NAME, OFFER));
  }
  await bob.check('alice', NAME, OFFER, offer);
});

test('of too many peers the one that has offered least recently is forgotten', async () => {
  const identity = await Identity.generate();
  const bob = new Trust(identity, 'bob', 's', { pin: async (server, user, key) => key });
  const proofs = new Map();
  for (let number = 0; number <= MAX_PEERS; number++) {
    const user = `user${number}`;
    proofs.set(user, await new Trust(identity, user, 's', new MemoryPins()).sign('bob', NAME, OFFER));
    await bob.check(user, NAME, OFFER, proofs.get(user));
  }
  await assert.rejects(bob.check('user1', NAME, OFFER, proofs.get('user1')), invalid('used before'));
  await bob.check('user0', NAME, OFFER, proofs.get('user0'));
});

for (const name of [null, '', 'a\0b', 'n'.repeat(129), 'with space']) {
  test(`a connection named ${JSON.stringify(name)} cannot be signed for`, async () => {
    const { bob, offer } = await exchanged();
    await assert.rejects(bob.check('alice', name, OFFER, offer), invalid('names no connection'));
    await assert.rejects(
      bob.check('alice', name, OFFER, offer, { sdp: OFFER, proof: offer }),
      invalid('names no connection'),
    );
  });
}

test('no proof is no proof', async () => {
  const { bob } = await world();
  await assert.rejects(bob.check('alice', NAME, OFFER, null), invalid('no proof'));
  await assert.rejects(
    bob.check('alice', NAME, ANSWER, null, { sdp: OFFER, proof: { nonce: '' } }),
    invalid('no proof'),
  );
});

test('a field of nonsense is refused', async () => {
  const random = generator(7);
  const { bob, offer, pins } = await exchanged();
  for (const field of ['publicKey', 'nonce', 'signature']) {
    for (let number = 0; number < 40; number++) {
      const text = String.fromCodePoint(...Array.from({ length: random.below(60) }, () => random.below(300)));
      const values = [text, offer[field].slice(0, random.below(44)), `${offer[field]} `, btoa(offer[field])];
      await assert.rejects(
        bob.check('alice', NAME, OFFER, { ...offer, [field]: random.one(values) }),
        (error) => error instanceof ProofInvalid || error instanceof ProtocolViolation,
      );
    }
  }
  assert.equal(await pins.find('s', 'alice'), null);
});

test('pins of another server count for nothing', async () => {
  const { alice, bob, elsewhere, mallory, pins, keys } = await world();
  await bob.check('alice', NAME, OFFER, await alice.sign('bob', NAME, OFFER));
  await elsewhere.check('alice', NAME, OFFER, await mallory.sign('bob', NAME, OFFER));
  assert.deepEqual(await pins.find('another server', 'alice'), keys.mallory);
});
