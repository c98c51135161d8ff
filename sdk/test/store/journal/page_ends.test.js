/** The page ends while something is written, and what may be lost then. The backend takes its time, as IndexedDB does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { JournalDiskFull } from '../../../src/errors.js';
import { TEXT } from '../../../src/protocol/kinds.js';
import { BLOCK } from '../../../src/store/files/digest.js';
import { Journal } from '../../../src/store/journal/journal.js';
import { MemoryBackend } from '../../../src/store/journal/memory.js';
import { Page, begun } from '../../support/kept_pages.js';
import { settle } from '../../support/transfers.js';

/** A backend that has been asked, and makes it when it is told. */
class SlowBackend extends MemoryBackend {
  /** What it was asked for. @type {{ rows: any[], keys: string[], strict: boolean, make: () => Promise<void> }[]} */
  asked = [];

  /** @override @param {any[]} rows @param {boolean} [strict] */
  write(rows, strict = false) {
    const kept = structuredClone(rows);
    return new Promise((resolve, reject) => {
      const make = () => super.write(kept).then(resolve, reject);
      this.asked.push({ rows: kept, keys: kept.map(([key]) => key), strict, make });
    });
  }
}

/** A page whose application has each message that it gets in its hands until the end. */
class Reader {
  /** @type {number[]} */
  had = [];
  /** How many of its backend's transactions are made. */
  made = 0;
  backend = new SlowBackend();

  static async open() {
    const reader = new Reader();
    reader.journal = await Journal.open(reader.backend);
    reader.mailbox = mailboxOf(reader.journal);
    return reader;
  }

  reads() {
    this.mailbox.onMessage(({ sequence }) => {
      this.had.push(sequence);
      this.check();
      return new Promise(() => {});
    });
  }

  /** @param {number} sequence */
  arrive(sequence) {
    const stream = {
      address: 'alice/main',
      reached: [{ stream: 's', sequence }],
      keptByJournal() {},
      acknowledge() {},
    };
    const message = { sender: 'alice', device: 'main', stream: 's', sequence, content: TEXT, data: new Uint8Array(1) };
    this.journal.arrived(stream, {}, message);
  }

  /** If the page was killed now, the next one would know what this one had. */
  check() {
    const [, mark] = this.backend.rows.find(([key]) => key === 'g') ?? ['g', 0];
    assert.ok(mark >= Math.max(0, ...this.had), `${mark} is marked, and it had ${this.had}`);
  }

  /** All that it has asked for is made, one after the other, and it hears of that. */
  async goOn() {
    for (await settle(); this.made < this.backend.asked.length; await settle()) {
      await this.backend.asked[this.made++]?.make();
      this.check();
    }
  }

  /** It ends. All that it has asked for is made; what the next page gets of it: the numbers, and what was given twice. */
  async next() {
    const backend = new MemoryBackend();
    await backend.write(this.backend.rows);
    for (const { rows } of this.backend.asked.slice(this.made)) await backend.write(rows);
    /** @type {[sequence: number, redelivered: boolean][]} */
    const came = [];
    mailboxOf(await Journal.open(backend)).onMessage(({ sequence, redelivered }) => came.push([sequence, redelivered]));
    await settle();
    return came;
  }
}

/** @param {Journal} journal */
const mailboxOf = (journal) =>
  journal.mailbox({ unreadMessages: 100, unreadSize: 1000 }, () => ({ handOver() {}, publish() {} }));

/** Bob holds a file that has arrived, and his journal takes its time from now on. */
async function held() {
  const { bob, outgoing } = await begun(2 * BLOCK + 5, 0, { hold: true });
  await outgoing.finished;
  await settle();
  const [transfer] = bob.asked;
  const { write } = bob.backend;
  /** @type {(() => void)[]} */
  const waiting = [];
  let isSlow = true;
  bob.backend.write = async (/** @type {any[]} */ ...words) => {
    if (isSlow) await new Promise((resolve) => waiting.push(() => resolve(undefined)));
    return write.apply(bob.backend, words);
  };
  const goOn = () => {
    isSlow = false;
    waiting.splice(0).forEach((each) => each());
  };
  return { bob, transfer, goOn, backend: bob.backend };
}

test('a file is released when the journal has that, and its blocks go no sooner', async () => {
  const { bob, transfer, goOn } = await held();
  let released = 0;
  for (const _ of [1, 2]) void transfer.release().then(() => released++);
  assert.deepEqual([await bob.kept(), released], [[['in'], 3], 0]);
  goOn();
  assert.deepEqual([await bob.kept(), released], [[['in'], 0], 2]);
});

test('a page that ends before a release is written has the whole file again', async () => {
  const { transfer, backend, goOn } = await held();
  void transfer.release();
  await settle();
  const copy = new MemoryBackend();
  await copy.write(backend.rows);
  for (const key of await backend.blocks.keys()) await copy.blocks.put(key, await backend.blocks.get(key));
  const fresh = await Page.open(copy);
  assert.deepEqual([fresh.resumed[0].state, fresh.resumed[0].blob.size], ['done', 2 * BLOCK + 5]);
  goOn();
});

test('the next page removes the blocks that a released file has left', async () => {
  const { bob, transfer, goOn, backend } = await held();
  backend.blocks.remove = () => new Promise(() => {});
  const released = transfer.release();
  await settle();
  goOn();
  await released;
  assert.deepEqual(await bob.kept(), [['in'], 3]);
  Reflect.deleteProperty(backend.blocks, 'remove');
  backend.close();
  const fresh = await Page.open(backend);
  assert.deepEqual([fresh.resumed, await fresh.kept()], [[], [['in'], 0]]);
});

test('a release that cannot be written is told, and nobody has to listen', async () => {
  const { bob, transfer, backend } = await held();
  backend.write = () => Promise.reject(new JournalDiskFull(':memory:', 'has no room'));
  void transfer.release();
  await assert.rejects(transfer.release(), JournalDiskFull);
  assert.ok(bob.journal.error);
});

test('a release after the journal was let go of is told, too', async () => {
  const { bob, transfer, goOn } = await held();
  const closing = bob.journal.close();
  goOn();
  await closing;
  await assert.rejects(transfer.release(), { name: 'JournalInUse' });
});

test('what waits behind a transaction is written with it when the page goes away', async () => {
  const backend = new SlowBackend();
  const journal = await Journal.open(backend);
  journal.write('s/one', { userId: 'bob', device: null, last: 1 });
  journal.hurry(); // is on its way without
  await settle();
  journal.hurry(); // nothing waits
  assert.equal(backend.asked.length, 1);
  journal.write('o/one/1', 1);
  journal.hurry();
  assert.deepEqual(
    backend.asked.map(({ keys }) => keys),
    [['s/one'], ['s/one', 'o/one/1']],
  );
  // The page stays, so it is written once more in its turn.
  for (let at = 0; at < backend.asked.length; at++) {
    await backend.asked[at]?.make();
    await settle();
  }
  assert.deepEqual(
    backend.asked.map(({ keys }) => keys),
    [['s/one'], ['s/one', 'o/one/1'], ['o/one/1']],
  );
  assert.deepEqual(
    backend.rows.map(([key]) => key),
    ['o/one/1', 's/one'],
  );
  assert.equal(journal.error, null);
});

for (const [what, onItsWay, behind] of [
  ['is being written', [2, 3], []],
  ['waits for that', [], [2, 3]],
  ['is being written, and what waits for that', [2], [3]],
]) {
  test(`what ${what} as the page ends is new to the next one`, async () => {
    const page = await Reader.open();
    page.reads();
    page.arrive(1);
    await page.goOn();
    onItsWay.forEach((number) => page.arrive(number));
    page.journal.write('f/file', undefined);
    await settle();
    behind.forEach((number) => page.arrive(number));
    page.journal.hurry();
    await settle();
    assert.deepEqual(page.had, [1]);
    assert.deepEqual(await page.next(), [
      [1, true],
      [2, false],
      [3, false],
    ]);
  });
}

test('what waited in a page as it ended is new to the next one', async () => {
  const page = await Reader.open();
  for (const number of [1, 2, 3]) page.arrive(number);
  const first = page.mailbox.iterate((message) => message).next();
  await page.goOn();
  assert.equal((await first).value.sequence, 1);
  page.journal.hurry();
  await settle();
  assert.deepEqual(await page.next(), [
    [1, true],
    [2, false],
    [3, false],
  ]);
});

test('a page that stays gets nothing before it is marked anew', async () => {
  const page = await Reader.open();
  for (const number of [1, 2, 3]) page.arrive(number);
  void page.mailbox.iterate((message) => message).next();
  await page.goOn();
  page.had = [1];
  page.journal.hurry();
  page.reads();
  await page.goOn();
  page.arrive(4);
  await settle();
  page.arrive(5);
  page.journal.hurry();
  await page.goOn();
  page.journal.hurry(); // all is known
  page.arrive(6);
  await page.goOn();
  assert.deepEqual(page.had, [1, 2, 3, 4, 5, 6]);
  assert.deepEqual(
    await page.next(),
    page.had.map((number) => [number, true]),
  );
});
