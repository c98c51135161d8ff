/**
 * What every backend of a journal promises. It imports nothing: tests/browser/test_sdk_journal.py runs it in a page, for the
 * real IndexedDB.
 *
 * @typedef {import('../../src/store/journal/backend.js').JournalBackend} JournalBackend
 * @typedef {{ open: () => Promise<JournalBackend>, equal: (found: unknown, expected: unknown) => void }} Bench `open`: the same
 *   journal once more.
 */

/** @type {Record<string, (bench: Bench) => Promise<void>>} */
export const CONTRACT = {
  'a new one is empty': async ({ open, equal }) => {
    const backend = await open();
    equal(await backend.load(), []);
    backend.close();
  },

  'rows are kept, in the order of their keys': async ({ open, equal }) => {
    const first = await open();
    await first.load();
    await first.write(
      [
        ['b', { deep: [1, 'two', null] }],
        ['a', 1],
      ],
      true,
    );
    await first.write([['c', new Uint8Array([0, 255])]], false);
    first.close();
    const second = await open();
    const rows = await second.load();
    equal(
      rows.map(([key]) => key),
      ['a', 'b', 'c'],
    );
    equal(rows[1]?.[1], { deep: [1, 'two', null] });
    equal(Array.from(rows[2]?.[1] ?? []), [0, 255]);
    second.close();
  },

  'a row takes the place of the one before, and undefined takes it away': async ({ open, equal }) => {
    const first = await open();
    await first.load();
    await first.write(
      [
        ['a', 1],
        ['b', 2],
        ['c', 3],
      ],
      true,
    );
    await first.write(
      [
        ['a', 4],
        ['b', undefined],
        ['nothing', undefined],
      ],
      true,
    );
    first.close();
    const second = await open();
    equal(await second.load(), [
      ['a', 4],
      ['c', 3],
    ]);
    second.close();
  },

  'what cannot be kept leaves all as it was': async ({ open, equal }) => {
    const first = await open();
    await first.load();
    await first.write([['a', 1]], true);
    let failed = false;
    await first
      .write(
        [
          ['a', 2],
          ['b', () => {}],
        ],
        true,
      )
      .catch(() => (failed = true));
    equal(failed, true);
    first.close();
    const second = await open();
    equal(await second.load(), [['a', 1]]);
    second.close();
  },

  'blocks of a file are kept beside the rows, in the order of their numbers': async ({ open, equal }) => {
    const text = async (/** @type {Blob[]} */ blocks) => Promise.all(blocks.map((block) => block.text()));
    const first = await open();
    await first.load();
    await first.blocks.put('in/bob/a/2', new Blob(['third']));
    const stored = await first.blocks.get('in/bob/a/2');
    await first.blocks.put('in/bob/a/0', new Blob(['first']));
    await first.blocks.put('in/bob/a/1', new Blob(['old']));
    await first.blocks.put('in/bob/a/1', new Blob(['second']));
    await first.blocks.put('in/bob/ab/0', new Blob(['of another']));
    equal(await stored.text(), 'third');
    first.close();
    const second = await open();
    equal(await second.load(), []);
    equal(await second.blocks.keys(), ['in/bob/a/0', 'in/bob/a/1', 'in/bob/a/2', 'in/bob/ab/0']);
    const blocks = await second.blocks.read('in/bob/a');
    await second.blocks.remove('in/bob/a');
    equal(await text(blocks), ['first', 'second', 'third']); // what was given back stays
    equal(await second.blocks.read('in/bob/a'), []);
    equal(await text(await second.blocks.read('in/bob/ab')), ['of another']);
    await second.erase();
    equal(await second.blocks.keys(), []);
    second.close();
  },

  'erasing leaves nothing': async ({ open, equal }) => {
    const first = await open();
    await first.load();
    await first.write([['a', 1]], true);
    await first.erase();
    first.close();
    first.close();
    const second = await open();
    equal(await second.load(), []);
    second.close();
  },
};
