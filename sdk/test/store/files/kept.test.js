/** Transfers that outlive the page: kept in a journal, and resumed from there. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PeerBlocked, SignalingError } from '../../../src/errors.js';
import { BLOCK } from '../../../src/store/files/digest.js';
import { LEFT, OTHER, Page, again, begun, contentOf, meet, offer, part, unheard } from '../../support/kept_pages.js';
import { fileOf, ID, settle, until } from '../../support/transfers.js';

// --- the pages end -----------------------------------------------------------------------------------------------------

test('a recipient that was loaded anew goes on with a file, and nobody is asked', async () => {
  const { alice, bob, outgoing, bytes } = await begun(6 * BLOCK + 5, 3 * BLOCK);
  const first = bob.asked[0];
  const fresh = await bob.reload(undefined, false);
  assert.deepEqual([first.state, first.error.kept], ['failed', true]);
  again(fresh, alice);
  await outgoing.finished;
  assert.ok(outgoing.resumed >= 2 * BLOCK);
  const [incoming] = fresh.resumed;
  assert.deepEqual([incoming.id, incoming.resumed], [first.id, outgoing.resumed]);
  await incoming.finished;
  assert.deepEqual(await contentOf(incoming), bytes);
  assert.deepEqual(await fresh.kept(), [['in'], 0]); // that it has arrived
  assert.deepEqual(await alice.kept(), [[], 0]);
});

test('a sender that was loaded anew goes on by itself, and nobody is asked again', async () => {
  const { alice, bob, outgoing, bytes } = await begun(6 * BLOCK + 5, 3 * BLOCK);
  const fresh = await alice.reload();
  assert.deepEqual([outgoing.state, outgoing.error.kept], ['failed', true]);
  const [again_] = fresh.resumed;
  assert.deepEqual(fresh.transfers, [again_]);
  const { id, name, size, state, direction, kept } = again_;
  assert.deepEqual(
    { id, name, size, state, direction, kept },
    { id: outgoing.id, name: 'a.png', size: 6 * BLOCK + 5, state: 'offered', direction: 'out', kept: true },
  );
  again(fresh, bob);
  await again_.finished;
  assert.ok(again_.resumed >= 2 * BLOCK);
  assert.equal(bob.asked.length, 1);
  assert.equal(bob.resumed[0].id, id);
  assert.deepEqual(await contentOf(bob.resumed[0]), bytes);
  assert.deepEqual(await fresh.kept(), [[], 0]);
});

test('both may be loaded anew, again and again', async () => {
  const first = await begun(12 * BLOCK + 5, 2 * BLOCK);
  let { alice, bob, outgoing } = first;
  for (let round = 1; round < 3; round++) {
    bob = await bob.reload();
    again(bob, alice);
    await until(() => bob.resumed[0]?.transferred >= (3 * round + 1) * BLOCK);
    alice = await alice.reload();
    again(alice, bob);
    outgoing = alice.resumed[0];
    await until(() => outgoing.transferred >= (3 * round + 2) * BLOCK);
  }
  await outgoing.finished;
  assert.deepEqual(await contentOf(bob.resumed.at(-1)), first.bytes);
});

test('a recipient that has left gets it when it is back; what it says to the old one means the old one', async () => {
  const { alice, bob, outgoing, bytes } = await begun(6 * BLOCK, 3 * BLOCK);
  part(alice);
  alice.side.transfers.ended(alice.side.peer, LEFT, 'left');
  bob.side.transfers.ended(bob.side.peer, LEFT, 'left');
  assert.deepEqual([outgoing.state, bob.asked[0].state, bob.asked[0].error.kept], ['offered', 'failed', true]);
  for (const control of bob.side.take()) alice.side.hear(control); // that it has given up
  meet(alice, bob);
  await outgoing.finished;
  assert.ok(outgoing.resumed >= 2 * BLOCK);
  assert.deepEqual(await contentOf(bob.resumed[0]), bytes);
});

test('a server that is gone for good leaves what is under way to the next page', async () => {
  const { alice, bob, outgoing } = await begun(6 * BLOCK, BLOCK);
  part(alice);
  alice.side.transfers.ended(alice.side.peer, new SignalingError('it is gone'));
  assert.ok(outgoing.error.kept);
  const fresh = await alice.reload();
  again(fresh, bob);
  await fresh.resumed[0].finished;
});

test('a folder goes on too', async () => {
  const [alice, bob] = [await Page.open(), await Page.open()];
  meet(alice, bob);
  const { bytes } = fileOf(4 * BLOCK);
  const files = ['one', 'two'].map((path) => ({ path: `deep/${path}`, blob: new Blob([bytes]) }));
  const outgoing = alice.side.transfers.send(alice.side.peer, files, { name: 'trip' });
  await until(() => outgoing.kept && bob.asked.length === 1);
  bob.asked[0].accept();
  await until(() => outgoing.transferred >= 5 * BLOCK);
  const fresh = await alice.reload();
  assert.ok(fresh.resumed[0].isFolder);
  again(fresh, bob);
  await fresh.resumed[0].finished;
  const [incoming] = bob.resumed;
  assert.deepEqual(
    incoming.files.map(({ path }) => path),
    ['deep/one', 'deep/two'],
  );
  assert.deepEqual(new Uint8Array(await incoming.files[1].blob.arrayBuffer()), bytes);
});

test('a sender that did not hear of the end does not send it twice, and the application hears nothing', async () => {
  const { alice, bob, outgoing } = await begun(2 * BLOCK + 7, 0);
  const killed = await unheard(alice);
  await outgoing.finished;
  await settle();
  const [sender, recipient] = [await killed(), await bob.reload()];
  again(sender, recipient);
  const [again_] = sender.resumed;
  await again_.finished;
  assert.equal(again_.resumed, 2 * BLOCK);
  assert.deepEqual([recipient.asked, recipient.resumed, recipient.transfers], [[], [], []]);
  assert.deepEqual(await sender.kept(), [[], 0]);
});

// --- what is held ------------------------------------------------------------------------------------------------------

test('what has arrived and is held comes to the next page, until the application has it', async () => {
  const { alice, bob, outgoing, bytes } = await begun(2 * BLOCK + 5, 0, { hold: true });
  await outgoing.finished;
  await bob.asked[0].finished;
  assert.deepEqual([bob.asked[0].kept, await bob.kept()], [true, [['in'], 3]]);
  assert.deepEqual([bob.transfers, alice.transfers], [[bob.asked[0]], []]);
  let fresh = await bob.reload();
  fresh = await fresh.reload();
  const [held] = fresh.resumed;
  assert.deepEqual([held.state, held.transferred, held.device, held.error], ['done', bytes.length, 'main', null]);
  await held.finished;
  assert.deepEqual(await contentOf(held), bytes);
  assert.deepEqual(fresh.transfers, [held]);
  held.accept();
  held.cancel();
  held.decline();
  held.release();
  held.release();
  assert.deepEqual(fresh.transfers, []);
  assert.deepEqual(await contentOf(held), bytes);
  assert.deepEqual(await fresh.kept(), [['in'], 0]);
  assert.equal((await fresh.reload()).resumed.length, 0);
  assert.deepEqual(await alice.kept(), [[], 0]);
});

test('what is held is among the transfers until the application has it, and what is not held is not', async () => {
  for (const hold of [true, false]) {
    const { bob, outgoing } = await begun(2 * BLOCK + 5, 0, { hold });
    const [incoming] = bob.asked;
    await Promise.all([outgoing.finished, incoming.finished]);
    assert.deepEqual(bob.transfers, hold ? [incoming] : []);
    await incoming.release();
    assert.deepEqual(bob.transfers, []);
  }
});

test('a folder is held too, and what was resumed stays held', async () => {
  const [alice, bob] = [await Page.open(), await Page.open()];
  meet(alice, bob);
  const { bytes } = fileOf(3 * BLOCK);
  const outgoing = alice.side.transfers.send(alice.side.peer, [{ path: 'a', blob: new Blob([bytes]) }], { name: 'b' });
  await until(() => outgoing.kept && bob.asked.length === 1);
  bob.asked[0].accept({ hold: true });
  await until(() => outgoing.transferred >= 2 * BLOCK);
  let fresh = await bob.reload();
  again(fresh, alice);
  await outgoing.finished;
  fresh = await fresh.reload();
  assert.equal(fresh.resumed[0].files[0].blob.size, 3 * BLOCK);
  fresh.resumed[0].release();
  assert.deepEqual(await fresh.kept(), [['in'], 0]);
});

test('what is held and offered once more, by a sender that did not hear of the end, is not asked for again', async () => {
  const { alice, bob, outgoing, bytes } = await begun(2 * BLOCK + 7, 0, { hold: true });
  const killed = await unheard(alice);
  await outgoing.finished;
  await settle();
  let recipient = bob;
  for (const round of [1, 2, 3]) {
    const sender = await killed();
    again(sender, recipient);
    const [again_] = sender.resumed;
    await again_.finished;
    assert.equal(again_.resumed, 2 * BLOCK);
    assert.deepEqual([recipient.asked.length, recipient.resumed.length], round === 1 ? [1, 0] : [0, 1]);
    const [held] = [...recipient.asked, ...recipient.resumed];
    assert.ok(held.kept);
    assert.deepEqual(await contentOf(held), bytes);
    assert.deepEqual(await recipient.kept(), [['in'], 3]);
    recipient = await recipient.reload();
  }
  await recipient.resumed[0].release();
  const sender = await killed();
  again(sender, recipient);
  await sender.resumed[0].finished;
  assert.deepEqual([recipient.asked, recipient.transfers], [[], []]);
  assert.deepEqual(await recipient.kept(), [['in'], 0]);
});

test('what is released while it is offered once more is released', async () => {
  const { alice, bob, outgoing } = await begun(2 * BLOCK + 7, 0, { hold: true });
  const killed = await unheard(alice);
  await outgoing.finished;
  await settle();
  const sender = await killed();
  again(sender, bob);
  await bob.asked[0].release();
  await sender.resumed[0].finished;
  assert.deepEqual(await bob.kept(), [['in'], 0]);
  const fresh = await bob.reload();
  assert.deepEqual(fresh.resumed, []);
});

test('a file of which the browser has lost a part is not shown', async () => {
  const { bob, outgoing } = await begun(2 * BLOCK + 5, 0, { hold: true });
  await outgoing.finished;
  const [key] = await bob.backend.blocks.keys();
  await bob.backend.blocks.put(key, new Blob(['x']));
  const fresh = await bob.reload();
  assert.deepEqual([fresh.resumed, await fresh.kept()], [[], [[], 0]]);
});

test('what is released before it has arrived is still held', async () => {
  const { bob, outgoing } = await begun(2 * BLOCK, BLOCK, { hold: true });
  bob.asked[0].release();
  await outgoing.finished;
  assert.ok(bob.asked[0].kept);
  bob.asked[0].release();
  assert.ok(!bob.asked[0].kept);
  assert.deepEqual(await bob.kept(), [['in'], 0]);
});

// --- what is not kept ----------------------------------------------------------------------------------------------------

test('what is kept and is not the beginning of the file is sent again', async () => {
  const { alice, bob, outgoing, bytes } = await begun(4 * BLOCK, 2 * BLOCK);
  const [key] = await bob.backend.blocks.keys();
  await bob.backend.blocks.put(key, new Blob([new Uint8Array(BLOCK)]));
  const fresh = await bob.reload();
  again(fresh, alice);
  await outgoing.finished;
  assert.equal(outgoing.resumed, 0);
  assert.deepEqual(await contentOf(fresh.resumed[0]), bytes);
});

test('behind a block that is not whole nothing counts', async () => {
  const { alice, bob, outgoing, bytes } = await begun(5 * BLOCK, 3 * BLOCK);
  const [, key] = await bob.backend.blocks.keys();
  await bob.backend.blocks.put(key, new Blob(['x']));
  const fresh = await bob.reload();
  again(fresh, alice);
  await outgoing.finished;
  assert.equal(outgoing.resumed, BLOCK);
  assert.deepEqual(await contentOf(fresh.resumed[0]), bytes);
});

test('a file of which the page had no whole copy when it ended fails clearly', async () => {
  const { alice } = await begun(4 * BLOCK, BLOCK);
  const [key] = await alice.backend.blocks.keys();
  await alice.backend.blocks.put(key, new Blob(['x']));
  const fresh = await alice.reload();
  await assert.rejects(fresh.resumed[0].finished, /ended before this browser had a copy/);
  assert.deepEqual([fresh.resumed[0].error.kept, await fresh.kept()], [false, [[], 0]]);
});

for (const [what, end] of /** @type {[string, (ends: any) => void][]} */ ([
  ['cancelled by the recipient', ({ bob }) => bob.asked[0].cancel()],
  ['cancelled by the sender', ({ outgoing }) => outgoing.cancel()],
])) {
  test(`what is ${what} is forgotten at both ends`, async () => {
    const ends = await begun(4 * BLOCK, 2 * BLOCK);
    end(ends);
    const { alice, bob, outgoing } = ends;
    for (const { finished } of [outgoing, bob.asked[0]]) await assert.rejects(finished, { kept: false });
    assert.deepEqual(
      [await alice.kept(), await bob.kept()],
      [
        [[], 0],
        [[], 0],
      ],
    );
  });
}

test('what was accepted holds neither for another key nor for a blocked user', async () => {
  for (const [error, restarted] of /** @type {any[]} */ ([[new PeerBlocked('peer')], [LEFT, true]])) {
    const { bob } = await begun(4 * BLOCK, 2 * BLOCK);
    const fresh = await bob.reload();
    assert.deepEqual((await fresh.kept())[0], ['in']);
    fresh.side.transfers.ended(/** @type {any} */ ({ userId: 'mallory' }), error, restarted);
    assert.deepEqual((await fresh.kept())[0], ['in']);
    fresh.side.transfers.ended(/** @type {any} */ ({ userId: 'peer' }), error, restarted);
    assert.deepEqual(await fresh.kept(), [[], 0]);
  }
});

test('a block, or a goodbye of ours, ends what is under way for good', async () => {
  for (const error of [new PeerBlocked('peer'), LEFT]) {
    const { alice, bob } = await begun(4 * BLOCK, 2 * BLOCK);
    for (const { side } of [alice, bob]) side.transfers.ended(side.peer, error);
    assert.deepEqual(
      [await alice.kept(), await bob.kept()],
      [
        [[], 0],
        [[], 0],
      ],
    );
  }
});

test('what is declined, never accepted, of unknown size, unchecked, or for a stream is not kept', async () => {
  const page = await Page.open();
  const ids = [ID, OTHER, 'CBECAwQFBgc', 'DBECAwQFBgc', 'EBECAwQFBgc'];
  for (const id of ids.slice(0, 3)) page.side.hear({ ...offer, id });
  page.side.hear({ ...offer, id: ids[3], version: undefined });
  page.side.hear({ ...offer, id: ids[4], size: 0, stream: true });
  const [first, , third, ...rest] = page.asked;
  assert.deepEqual(
    page.asked.map(({ canKeep }) => canKeep),
    [true, true, true, false, false],
  );
  first.decline();
  third.accept({ sink: new WritableStream(), hold: true });
  for (const transfer of rest) transfer.accept();
  assert.deepEqual(await page.kept(), [[], 0]);
  assert.deepEqual(
    page.asked.map(({ kept, keptProblem }) => [kept, keptProblem]),
    page.asked.map(() => [false, '']),
  );
});

test('another file under the same id is asked for', async () => {
  const { bob, outgoing } = await begun(4 * BLOCK, 2 * BLOCK);
  const fresh = await bob.reload();
  const same = { ...offer, name: 'a.png', size: 4 * BLOCK, resumes: outgoing.id };
  fresh.side.hear({ ...same, id: ID, version: 'another' });
  fresh.side.hear({ ...same, id: OTHER, size: 5 });
  assert.equal(fresh.asked.length, 2);
  assert.deepEqual(fresh.resumed, []);
  fresh.asked[0].accept(); // takes the place of what was kept under this id
  await settle();
  assert.ok(fresh.asked[0].kept);
});

test('what is accepted twice at once is asked for the second time, and not kept twice', async () => {
  const page = await Page.open();
  page.side.hear(offer);
  page.asked[0].accept();
  page.side.hear({ ...offer, id: OTHER, resumes: ID });
  page.asked[1].accept();
  await settle();
  assert.deepEqual(
    page.asked.map(({ kept, keptProblem }) => [kept, keptProblem]),
    [
      [true, ''],
      [false, 'it is under way already'],
    ],
  );
  page.asked[1].cancel();
  assert.deepEqual(await page.kept(), [['in'], 0]);
});

test('what has failed for good, and is offered anew, arrives whole, and stays so', async () => {
  const [alice, bob] = [await Page.open(), await Page.open()];
  const { file, bytes } = fileOf(6 * BLOCK);
  /** @type {any[]} */
  const outgoing = [];
  for (const round of [1, 2]) {
    meet(alice, bob);
    outgoing.push(alice.side.transfers.send(alice.side.peer, file));
    await until(() => bob.asked.length === round);
    bob.asked[round - 1].accept({ hold: true });
    if (round === 2) break;
    await until(() => outgoing[0].transferred >= 3 * BLOCK);
    part(alice);
    for (const { side } of [alice, bob]) side.transfers.ended(side.peer, LEFT);
    await settle();
  }
  await bob.asked[1].finished;
  assert.ok(bob.asked[1].resumed >= 2 * BLOCK);
  assert.deepEqual(await contentOf(bob.asked[1]), bytes);
  const fresh = await bob.reload();
  assert.deepEqual(await contentOf(fresh.resumed[0]), bytes);
});
