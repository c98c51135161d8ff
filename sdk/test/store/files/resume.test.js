/** Checked transfers: resumed, checked, folders and streams. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, FeatureMissing, PeerConnectionFailed, UsageError } from '../../../src/errors.js';
import { BLOCK, Digest } from '../../../src/store/files/digest.js';
import { MAX_PIECE } from '../../../src/store/messages/control.js';
import { ID, Side, pair, fileOf, until, piece, offer } from '../../support/transfers.js';

const BOTH = ['files', 'files-2'];
const GONE = new PeerConnectionFailed('peer', 'it is gone');
const SUM = 'A'.repeat(43);

/** Two sides that know checked transfers; bob takes all files. @param {any} [take] */
function checked(take = (transfer) => transfer.accept()) {
  const [alice, bob] = pair();
  alice.features = bob.features = BOTH;
  /** @type {any[]} */
  const incoming = [];
  bob.onFile.add((transfer) => {
    incoming.push(transfer);
    take(transfer);
  });
  return { alice, bob, incoming };
}

/** What was received. @param {any} transfer */
const contentOf = async (transfer) => new Uint8Array(await transfer.blob.arrayBuffer());

/** The recipient's connection ends in the middle, and another program is there. */
async function interrupt(alice, bob, transfer, at) {
  await until(() => transfer.transferred >= at);
  alice.other = bob.other = null;
  alice.features = null;
  bob.transfers.ended(bob.peer, GONE);
  alice.transfers.ended(alice.peer, GONE, 'same');
  alice.sent.length = bob.sent.length = 0;
  await new Promise((resolve) => setImmediate(resolve));
  alice.sent.length = bob.sent.length = 0;
  alice.other = bob;
  bob.other = alice;
  alice.features = BOTH;
}

for (const size of [0, 1, MAX_PIECE, BLOCK, 2 * BLOCK + 77]) {
  test(`a checked file of ${size} bytes arrives as it was`, async () => {
    const { alice, incoming } = checked();
    const { bytes, file } = fileOf(size);
    const transfer = alice.transfers.send(alice.peer, file);
    await transfer.finished;
    await incoming[0].finished;
    assert.deepEqual(await contentOf(incoming[0]), bytes);
    assert.equal(incoming[0].resumed, 0);
  });
}

test('a file goes on where it stopped', async () => {
  const { alice, bob, incoming } = checked();
  const { bytes, file } = fileOf(8 * BLOCK + 5);
  const transfer = alice.transfers.send(alice.peer, file);
  await interrupt(alice, bob, transfer, 3 * BLOCK);
  assert.equal(transfer.state, 'offered');
  assert.equal(incoming[0].state, 'failed');
  alice.transfers.connected(alice.peer);
  await transfer.finished;
  assert.ok(transfer.resumed >= 3 * BLOCK);
  assert.equal(incoming[1].resumed, transfer.resumed);
  assert.deepEqual(await contentOf(incoming[1]), bytes);
});

test('what was kept and is not the beginning of the file is sent again', async () => {
  const { alice, bob, incoming } = checked();
  const { bytes } = fileOf(4 * BLOCK);
  const other = new File([bytes.slice().fill(1)], 'a.png', { lastModified: 5 });
  const file = new File([bytes], 'a.png', { lastModified: 5 });
  const first = alice.transfers.send(alice.peer, other);
  await interrupt(alice, bob, first, BLOCK);
  alice.features = null;
  first.cancel();
  alice.features = BOTH;
  const second = alice.transfers.send(alice.peer, file);
  await second.finished;
  assert.equal(second.resumed, 0);
  assert.equal(incoming[1].resumed, 0);
  assert.deepEqual(await contentOf(incoming[1]), bytes);
});

test('what was begun is not for another key', async () => {
  const { alice, bob } = checked();
  const transfer = alice.transfers.send(alice.peer, fileOf(4 * BLOCK).file);
  await until(() => transfer.transferred >= BLOCK);
  bob.other = null;
  alice.transfers.ended(alice.peer, GONE, true);
  assert.equal(transfer.state, 'failed');
});

test('what goes into a stream is not resumed, and neither is what was cancelled', async () => {
  const { alice, bob, incoming } = checked((transfer) => transfer.accept({ sink: new WritableStream() }));
  const transfer = alice.transfers.send(alice.peer, fileOf(4 * BLOCK).file);
  await interrupt(alice, bob, transfer, BLOCK);
  alice.transfers.connected(alice.peer);
  await transfer.finished;
  assert.equal(incoming[1].resumed, 0);
  const second = alice.transfers.send(alice.peer, fileOf(4 * BLOCK).file);
  await until(() => second.transferred >= BLOCK);
  second.cancel();
  const third = alice.transfers.send(alice.peer, fileOf(4 * BLOCK).file);
  await third.finished;
  assert.equal(third.resumed, 0);
});

test('a file that does not fit its checksum is thrown away', async () => {
  const side = new Side();
  /** @type {any[]} */
  const files = [];
  side.onFile.add((transfer) => (files.push(transfer), transfer.accept()));
  side.hearAll({ ...offer, size: 1, version: 'v' }, piece({}), { type: 'file-end', id: ID, bytes: 1, sha256: SUM });
  await assert.rejects(files[0].finished, /does not fit the checksum/);
  assert.equal(side.take().at(-1).type, 'file-cancel');
});

for (const [what, ...end] of /** @type {[string, ...any[]][]} */ ([
  ['an end too early', { type: 'file-end', id: ID, bytes: 0, sha256: SUM }],
  ['an end of more than has come', { type: 'file-end', id: ID, bytes: 10, sha256: SUM }],
])) {
  test(`${what} ends the transfer`, async () => {
    const side = new Side();
    /** @type {any[]} */
    const files = [];
    side.onFile.add((transfer) => (files.push(transfer), transfer.accept()));
    side.hearAll({ ...offer, version: 'v' }, ...end);
    await assert.rejects(files[0].finished, /breaks the protocol/);
  });
}

for (const accept of [
  { from: 1, sha256: SUM },
  { from: BLOCK, sha256: '' },
  { from: 30 * BLOCK, sha256: SUM },
]) {
  test(`a recipient that has kept ${JSON.stringify(accept)} loses the transfer`, async () => {
    const side = new Side();
    side.features = BOTH;
    const transfer = side.transfers.send(side.peer, fileOf(2 * BLOCK).file);
    side.hear({ type: 'file-accept', id: transfer.id, ...accept });
    await assert.rejects(transfer.finished, /it has kept what it cannot have/);
  });
}

for (const more of [
  { manifest: 11, version: 'v' },
  { stream: true, version: 'v' },
  { manifest: 2 },
  { size: 0, stream: true },
]) {
  test(`an offer with ${JSON.stringify(more)} is declined`, () => {
    const side = new Side();
    side.onFile.add(() => assert.fail('it was told'));
    side.hear({ ...offer, ...more });
    assert.deepEqual(
      side.take().map(({ type }) => type),
      ['file-decline'],
    );
  });
}

test('an older program hears nothing of all that', () => {
  const side = new Side();
  side.transfers.send(side.peer, fileOf(5).file);
  assert.deepEqual(Object.keys(side.take()[0]), ['type', 'id', 'name', 'size', 'mime']);
});

test('a stream arrives, though nobody knows its size', async () => {
  const side = new Side();
  /** @type {any[]} */
  const files = [];
  side.onFile.add((transfer) => (files.push(transfer), transfer.accept()));
  side.hear({ ...offer, size: 0, stream: true, version: 'v' });
  assert.equal(files[0].size, null);
  side.hearAll(piece({ data: Uint8Array.of(1, 2) }), piece({ offset: 2, data: Uint8Array.of(3) }), {
    type: 'file-end',
    id: ID,
    bytes: 3,
    sha256: 'GcYZfiFAudA0-yC5rHu3U6QSM8rx4dr9pzFqmc70FBY',
  });
  await files[0].finished;
  assert.equal(files[0].size, 3);
});

test('of a stream all but the last byte is confirmed before its end', async () => {
  const side = new Side();
  side.onFile.add((transfer) => transfer.accept());
  side.hear({ ...offer, size: 0, stream: true, version: 'v' });
  for (let offset = 0; offset < 4 * MAX_PIECE; offset += MAX_PIECE) {
    side.hear(piece({ offset, data: new Uint8Array(MAX_PIECE) }));
  }
  const said = () => side.take().filter(({ type }) => type === 'file-received');
  /** @type {any[]} */
  let received = [];
  await until(() => (received = [...received, ...said()]).length > 0);
  assert.deepEqual(received, [{ type: 'file-received', id: ID, bytes: 4 * MAX_PIECE - 1 }]);
  side.transfers.close();
});

// --- folders ---------------------------------------------------------------------------------------------------------

/** @param {string} path @param {string} text */
function inFolder(path, text) {
  const file = new File([text], path.replace(/.*\//, ''));
  Object.defineProperty(file, 'webkitRelativePath', { value: path });
  return file;
}
const TREE = [inFolder('tree/a.txt', 'aa'), inFolder('tree/deep/b.txt', ''), inFolder('tree/deep/c.txt', 'c')];

test('a folder arrives as one transfer', async () => {
  const { alice, incoming } = checked();
  const transfer = alice.transfers.send(alice.peer, TREE);
  assert.deepEqual([transfer.name, transfer.isFolder], ['tree', true]);
  await transfer.finished;
  assert.ok(incoming[0].isFolder);
  const got = await Promise.all(incoming[0].files.map(async ({ path, blob }) => [path, await blob.text()]));
  assert.deepEqual(got, [
    ['a.txt', 'aa'],
    ['deep/b.txt', ''],
    ['deep/c.txt', 'c'],
  ]);
});

test('a folder may be given as files and their paths, and sent on as it was received', async () => {
  const { alice, incoming } = checked();
  const files = [
    { path: 'a.txt', blob: new File(['aa'], 'x', { lastModified: 5 }) },
    { path: 'deep/c.txt', blob: new Blob(['c']) },
  ];
  const transfer = alice.transfers.send(alice.peer, files, { name: 'tree' });
  assert.equal(transfer.name, 'tree');
  await transfer.finished;
  await alice.transfers.send(alice.peer, incoming[0].files).finished;
  for (const { files } of incoming) {
    const got = await Promise.all(files.map(async ({ path, blob }) => [path, await blob.text()]));
    assert.deepEqual(got, [
      ['a.txt', 'aa'],
      ['deep/c.txt', 'c'],
    ]);
  }
  assert.equal(incoming[1].name, 'folder');
});

test('a folder that leads elsewhere is refused', async () => {
  /** @type {any[]} */
  const incoming = [];
  const list = new Blob(['[["../a",1]]']);
  const bob = new Side();
  bob.onFile.add((transfer) => (incoming.push(transfer), transfer.accept()));
  bob.hear({ ...offer, size: list.size + 1, manifest: list.size, version: 'v' });
  const data = new Uint8Array([...new Uint8Array(await list.arrayBuffer()), 1]);
  const digest = new Digest();
  digest.update(data);
  bob.hearAll(piece({ data }), { type: 'file-end', id: ID, bytes: data.length, sha256: await digest.result() });
  await assert.rejects(incoming[0].finished, /leads out of the folder/);
});

test('a folder is for newer programs, and for no stream', async () => {
  const side = new Side();
  await assert.rejects(side.transfers.send(side.peer, TREE).finished, FeatureMissing);
  const { alice, incoming } = checked(() => {});
  alice.transfers.send(alice.peer, TREE);
  await until(() => incoming.length === 1);
  assert.throws(() => incoming[0].accept({ sink: new WritableStream() }), ConfigError);
});

test('what is no folder is refused at once', () => {
  const side = new Side();
  for (const files of [[], ['a'], [null], [{ path: 'a' }], [inFolder('t/a:', ''), inFolder('t/a?', '')]]) {
    assert.throws(() => side.transfers.send(side.peer, /** @type {any} */ (files)), UsageError);
  }
});

test('a folder that other systems cannot take is refused, and which name is the reason', () => {
  const side = new Side();
  const deep = `${'a/'.repeat(32)}b`;
  for (const [paths, problem] of /** @type {[string[], string][]} */ ([
    [['x/a:', 'x/a?', 'b'], 'x/a?: two files with one name'],
    [['a:', 'a?/b'], 'a?/b: a file in the place of a folder'],
    [['a', String.raw`b\c`, 'd'], String.raw`b\c: a path that leads out of the folder`],
    [[deep], `${deep}: more than 32 folders deep, or a folder with content`],
    [Array(65_537).fill('a'), 'this folder: more than 65536 files'],
  ])) {
    const files = paths.map((path) => ({ path, blob: new Blob() }));
    assert.throws(() => side.transfers.send(side.peer, files), { message: `other systems cannot take ${problem}` });
  }
});
