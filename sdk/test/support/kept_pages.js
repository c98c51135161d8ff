/** Pages whose transfers are kept in a journal in memory, and what is done with them; they end with each test. */
import { afterEach } from 'node:test';
import { PeerConnectionFailed } from '../../src/errors.js';
import { Journal } from '../../src/store/journal/journal.js';
import { MemoryBackend } from '../../src/store/journal/memory.js';
import { fileOf, ID, settle, Side, until } from './transfers.js';

export const BOTH = ['files', 'files-2'];
export const LEFT = new PeerConnectionFailed('peer', 'it has hung up');
export const offer = { type: 'file-offer', id: ID, name: 'a.png', size: 5, mime: '', version: 'v' };
export const OTHER = 'BBECAwQFBgc';

/** @type {Set<Page>} */
const pages = new Set();
afterEach(async () => {
  for (const { side, journal } of pages) {
    side.transfers.close();
    await journal.close();
  }
  pages.clear();
});

/** A page with a journal, and its transfers. */
export class Page {
  /** What it was asked for. @type {any[]} */
  asked = [];
  /** What goes on. @type {any[]} */
  resumed = [];

  /** @param {MemoryBackend} [backend] @param {any} [limits] @param {boolean} [takes] */
  static async open(backend = new MemoryBackend(), limits, takes = true) {
    const page = new Page();
    pages.add(page);
    page.backend = backend;
    page.journal = await Journal.open(backend);
    page.side = new Side(page.journal, limits);
    page.side.features = BOTH;
    if (takes) page.side.onFile.add((transfer) => void page.asked.push(transfer));
    page.side.onResumedFile.add((transfer) => void page.resumed.push(transfer));
    await page.side.transfers.restore(() => page.side.peer);
    return page;
  }

  /** The page is gone, and another one is there with the same journal. @param {any} [limits] @param {boolean} [takes] */
  async reload(limits, takes) {
    part(this);
    this.side.transfers.close();
    await this.journal.close();
    return Page.open(this.backend, limits, takes);
  }

  get transfers() {
    return this.side.transfers.transfers;
  }

  /** What the journal has: rows of files, and blocks. */
  async kept() {
    await settle();
    const names = this.backend.rows.map(([key]) => key).filter((key) => key.startsWith('f/'));
    return [names.map((name) => name.split('/')[1]), (await this.backend.blocks.keys()).length];
  }
}

/** Nobody hears this one any more. @param {any} page */
export function part({ side }) {
  if (side.other) side.other.other = side.other.features = null;
  side.other = side.features = null;
}

/** They are connected. @param {any} one @param {any} two */
export function meet(one, two) {
  for (const [here, there] of [
    [one, two],
    [two, one],
  ]) {
    here.side.other = there.side;
    here.side.features = BOTH;
    here.side.sent.length = 0;
  }
  for (const { side } of [one, two]) side.transfers.connected(side.peer);
}

/** One was killed, and started anew: the other notices when they meet. @param {any} fresh @param {any} other */
export function again(fresh, other) {
  other.side.transfers.ended(other.side.peer, LEFT, 'same');
  meet(fresh, other);
}

/**
 * The page as if it had been killed now, before it heard any more; returned is what starts it anew.
 *
 * @param {any} page
 */
export async function unheard(page) {
  const row = page.backend.rows.find((/** @type {any} */ [key]) => key.startsWith('f/'));
  const name = row[0].slice(2);
  const blocks = await page.backend.blocks.read(name);
  return async () => {
    await page.backend.write([row]);
    for (const [at, block] of blocks.entries()) await page.backend.blocks.put(`${name}/${at}`, block);
    return (page = await page.reload());
  };
}

/** Alice sends, and bob has got some of it. @param {number} size @param {number} at @param {any} [options] */
export async function begun(size, at, options) {
  const [alice, bob] = [await Page.open(), await Page.open()];
  meet(alice, bob);
  const { file, bytes } = fileOf(size);
  const outgoing = alice.side.transfers.send(alice.side.peer, file);
  await until(() => outgoing.kept && bob.asked.length === 1);
  bob.asked[0].accept(options);
  await until(() => outgoing.transferred >= at);
  return { alice, bob, outgoing, bytes };
}

/** @param {any} transfer */
export const contentOf = async (transfer) => new Uint8Array(await transfer.blob.arrayBuffer());
