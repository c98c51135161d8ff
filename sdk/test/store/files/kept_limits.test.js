/** How much is kept of transfers, and what is so when it cannot be kept. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { JournalDiskFull, StateError, TooManyPeers } from '../../../src/errors.js';
import { BLOCK, Digest } from '../../../src/store/files/digest.js';
import { Journal } from '../../../src/store/journal/journal.js';
import { OTHER, Page, again, begun, contentOf, meet, offer } from '../../support/kept_pages.js';
import { fileOf, ID, piece, settle, Side, until } from '../../support/transfers.js';

// --- limits ----------------------------------------------------------------------------------------------------------------

test('what is larger than all that may be kept is transferred, and says that it is not kept', async () => {
  const limits = { journalFileSize: 2 * BLOCK };
  const [alice, bob] = [await Page.open(undefined, limits), await Page.open(undefined, limits)];
  meet(alice, bob);
  const { file, bytes } = fileOf(2 * BLOCK + 1);
  const outgoing = alice.side.transfers.send(alice.side.peer, file);
  await until(() => bob.asked.length === 1);
  const [incoming] = bob.asked;
  assert.equal(incoming.canKeep, false);
  incoming.accept();
  await outgoing.finished;
  for (const { kept, keptProblem } of [outgoing, incoming]) {
    assert.ok(!kept);
    assert.match(keptProblem, /larger than what the journal keeps of files, 2097152 bytes/);
  }
  assert.deepEqual(await contentOf(incoming), bytes);
  assert.deepEqual(
    [await alice.kept(), await bob.kept()],
    [
      [[], 0],
      [[], 0],
    ],
  );
});

test('so do files that are too many or too large together; what others send takes no room from ours', async () => {
  for (const limits of [{ journalFiles: 2 }, { journalFileSize: 10 }]) {
    const page = await Page.open(undefined, limits);
    const ids = [ID, OTHER, 'CBECAwQFBgc'];
    for (const id of ids) page.side.hear({ ...offer, id });
    const sent = ids.map(() => page.side.transfers.send(page.side.peer, new Blob(['12345']), { name: 'x' }));
    for (const transfer of page.asked) transfer.accept();
    await settle();
    for (const transfers of [page.asked, sent]) {
      assert.deepEqual(
        transfers.map(({ kept, keptProblem }) => [kept, keptProblem]),
        [
          [true, ''],
          [true, ''],
          [false, 'the journal keeps as many files as it may'],
        ],
      );
    }
    const names = (await page.kept())[0];
    assert.deepEqual(names, ['in', 'in', 'out', 'out']);
    // When it is loaded anew it has its own, too, and no more.
    const fresh = await page.reload(limits);
    assert.equal(fresh.resumed.length, 2);
    assert.ok(fresh.resumed.every(({ kept }) => kept));
    fresh.side.hear({ ...offer, id: 'DBECAwQFBgc' });
    assert.ok(fresh.asked[0].canKeep); // what does not come makes room
    fresh.asked[0].accept();
    await settle();
    assert.deepEqual((await fresh.kept())[0], ['in', 'in', 'out', 'out']);
  }
});

test('what has arrived makes room first, then the oldest that does not come, and nothing that is held', async () => {
  const limits = { journalFiles: 3 };
  let page = await Page.open(undefined, limits);
  const whole = async (/** @type {string} */ id, /** @type {any} */ options) => {
    page.side.hear({ ...offer, id, size: 1 });
    page.asked.at(-1).accept(options);
    const data = Uint8Array.of(7);
    const digest = new Digest();
    digest.update(data);
    page.side.hearAll(piece({ id, data }), { type: 'file-end', id, bytes: 1, sha256: await digest.result() });
    await page.asked.at(-1).finished;
  };
  await whole('held-held-h', { hold: true });
  page.side.hear({ ...offer, id: 'waits-waits' });
  page.asked.at(-1).accept();
  await settle();
  page = await page.reload(limits);
  await whole('arrived-arr');
  const names = async () => (await page.kept(), page.backend.rows.flatMap(([key]) => key.split('/')[3] ?? []));
  assert.deepEqual(await names(), ['arrived-arr', 'held-held-h', 'waits-waits']);
  await whole('arrived-two');
  assert.deepEqual(await names(), ['arrived-two', 'held-held-h', 'waits-waits']);
  page.side.hear({ ...offer, id: 'another-ano' });
  page.asked.at(-1).accept();
  assert.deepEqual(await names(), ['another-ano', 'held-held-h', 'waits-waits']);
  page.side.hear({ ...offer, id: 'another-two' });
  page.asked.at(-1).accept();
  assert.deepEqual(await names(), ['another-ano', 'another-two', 'held-held-h']);
});

test('what has waited for too long is given up, and what was accepted and does not come is forgotten', async (t) => {
  t.mock.timers.enable({ apis: ['Date'], now: 1e12 });
  const { alice, bob } = await begun(4 * BLOCK, 2 * BLOCK);
  const limits = { queueAge: 100 };
  t.mock.timers.setTime(1e12 + 99_000);
  const [sender, recipient] = [await alice.reload(limits), await bob.reload(limits)];
  sender.side.features = null;
  assert.equal(sender.resumed[0].state, 'offered');
  sender.journal.files.clockWasSet(1000); // nothing is older by that
  recipient.journal.files.clockWasSet(1000);
  t.mock.timers.setTime(1e12 + 101_000 - 1);
  for (const { journal } of [sender, recipient]) journal.files.expire();
  assert.deepEqual([await sender.kept(), (await recipient.kept())[0]], [[['out'], 4], ['in']]);
  t.mock.timers.setTime(1e12 + 101_001);
  for (const { journal } of [sender, recipient]) journal.files.expire();
  await assert.rejects(sender.resumed[0].finished, { expired: true, kept: false, message: /more than 100 s/ });
  assert.deepEqual(
    [await sender.kept(), await recipient.kept()],
    [
      [[], 0],
      [[], 0],
    ],
  );
});

test('a user who cannot be had now keeps the file in the journal', async (t) => {
  const warn = t.mock.method(console, 'warn', () => {});
  const { alice } = await begun(4 * BLOCK, 2 * BLOCK);
  alice.side.transfers.close();
  await alice.journal.close();
  const journal = await Journal.open(alice.backend);
  const side = new Side(journal);
  await side.transfers.restore(() => {
    throw new TooManyPeers(1);
  });
  assert.deepEqual([side.transfers.transfers, (await alice.kept())[0]], [[], ['out']]);
  assert.equal(warn.mock.callCount(), 1);
});

// --- faults ----------------------------------------------------------------------------------------------------------------

test('a browser without room for a block loses what is kept of the file, and nothing else', async () => {
  const [alice, bob] = [await Page.open(), await Page.open()];
  meet(alice, bob);
  for (const { backend } of [alice, bob]) {
    const put = backend.blocks.put.bind(backend.blocks);
    const full = new JournalDiskFull(':memory:', 'has no room');
    backend.blocks.put = async (key, block) => {
      if (key.endsWith('2')) throw full;
      return put(key, block);
    };
  }
  const { file, bytes } = fileOf(5 * BLOCK);
  const outgoing = alice.side.transfers.send(alice.side.peer, file);
  await until(() => bob.asked.length === 1);
  const [incoming] = bob.asked;
  incoming.accept({ hold: true });
  await outgoing.finished;
  await incoming.finished;
  for (const { kept, keptProblem } of [outgoing, incoming]) {
    assert.equal(kept, false);
    assert.match(keptProblem, /has no room/);
  }
  assert.deepEqual(await contentOf(incoming), bytes);
  for (const page of [alice, bob]) assert.deepEqual([await page.kept(), page.journal.error], [[[], 0], null]);
});

test('a journal that cannot be written keeps no file', async () => {
  const page = await Page.open();
  page.backend.write = () => Promise.reject(new JournalDiskFull(':memory:', 'has no room'));
  const outgoing = page.side.transfers.send(page.side.peer, new Blob(['5']), { name: 'x' });
  page.side.hear(offer);
  page.asked[0].accept();
  await settle();
  for (const { kept, keptProblem, state } of [outgoing, page.asked[0]]) {
    assert.equal(kept, false);
    assert.match(keptProblem, /has no room/);
    assert.notEqual(state, 'failed');
  }
  assert.deepEqual((await page.backend.blocks.keys()).length, 0);
});

test('a journal whose blocks cannot be read begins with nothing', async () => {
  const { alice, bob, outgoing } = await begun(4 * BLOCK, 2 * BLOCK);
  const fresh = await bob.reload();
  fresh.backend.blocks.read = () => Promise.reject(new JournalDiskFull(':memory:', 'cannot be read'));
  again(fresh, alice);
  await outgoing.finished;
  assert.equal(outgoing.resumed, 0);
  assert.match(fresh.resumed[0].keptProblem, /cannot be read/);
});

test('a record that cannot be read is forgotten, the others are not, and blocks that belong to none go', async (t) => {
  const warn = t.mock.method(console, 'warn', () => {});
  const { alice } = await begun(4 * BLOCK, 2 * BLOCK);
  await alice.backend.write([
    ['f/out/bad', { id: 'bad' }],
    ['f/in/peer/none', null],
  ]);
  for (const file of ['out/bad', 'out/left']) await alice.backend.blocks.put(`${file}/0`, new Blob(['x']));
  const fresh = await alice.reload();
  assert.equal(fresh.resumed.length, 1);
  assert.deepEqual(await fresh.kept(), [['out'], 4]);
  assert.match(warn.mock.calls[0]?.arguments[0], /forgets 2 files/);
});

test('what cannot be called leaves no record', async () => {
  const page = await Page.open();
  page.side.refusal = new StateError('no');
  assert.throws(() => page.side.transfers.send(page.side.peer, new Blob(['1'])), StateError);
  assert.deepEqual(await page.kept(), [[], 0]);
});

test('a page goes on with what the journal has once, however often it tries to connect', async () => {
  const { alice } = await begun(4 * BLOCK, 2 * BLOCK);
  const fresh = await alice.reload();
  await fresh.side.transfers.restore(() => fresh.side.peer);
  assert.equal(fresh.transfers.length, 1);
});
