/** A file that is under way when the direct path is lost, and the relay carries what is sent. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MAX_PIECE } from '../../../src/store/messages/control.js';
import { CONFIRM, RELAY_WINDOW, WINDOW } from '../../../src/store/files/window.js';
import { fileOf, pair, settle, until } from '../../support/transfers.js';

const ALL = ['files', 'files-2', 'files-3'];
const SIZE = 5 * WINDOW + 777;

/** A file, the path of which is lost in the middle: all that may be said is said, and nothing acknowledged. */
async function underWay(features) {
  const [alice, bob] = pair();
  alice.features = bob.features = features;
  const arrived = [];
  bob.onFile.add((transfer) => {
    arrived.push(transfer);
    transfer.accept();
  });
  const { bytes, file } = fileOf(SIZE);
  const transfer = alice.transfers.send(alice.peer, file);
  const stop = transfer.subscribe(({ transferred }) => void (alice.isSilent ||= transferred > WINDOW));
  await until(() => alice.pieces.length * MAX_PIECE >= WINDOW - CONFIRM);
  stop();
  return { alice, bob, transfer, bytes, arrived };
}

async function arrives({ transfer, bytes, arrived }) {
  await transfer.finished;
  await arrived[0].finished;
  assert.deepEqual(new Uint8Array(await arrived[0].blob.arrayBuffer()), bytes);
}

for (const count of [0, 1, 5, 11]) {
  test(`a large file leaves the relay to the messages and goes on directly, where ${count} pieces had come`, async () => {
    const all = await underWay(ALL);
    const { alice, bob, transfer } = all;
    alice.pieces.forEach(([delivery, piece], index) => {
      delivery.sent = true;
      if (index < count) bob.hear(piece); // it is there, and the acknowledgement was lost
    });
    alice.relay(WINDOW);
    assert.equal(alice.pieces.length, 0);
    await settle();
    assert.equal(alice.pieces.length, 0, 'it waits for a direct path');
    assert.equal(transfer.state, 'running');
    alice.direct();
    await arrives(all);
  });
}

test('of a file that goes through the relay little is before a message', async () => {
  const all = await underWay(ALL);
  const { alice, transfer } = all;
  let most = 0;
  alice.relay(SIZE);
  transfer.subscribe(() => {
    most = Math.max(
      most,
      alice.pieces.reduce((sum, [, { data }]) => sum + data.length, 0),
    );
  });
  await arrives(all);
  assert.ok(most <= RELAY_WINDOW, `${most} bytes`);
});

test('the end of a file is taken back with its pieces', async () => {
  const [alice, bob] = pair();
  alice.features = bob.features = ALL;
  const arrived = [];
  bob.onFile.add((transfer) => arrived.push(transfer));
  const { bytes, file } = fileOf(CONFIRM - MAX_PIECE);
  const transfer = alice.transfers.send(alice.peer, file);
  await until(() => arrived.length > 0);
  alice.isSilent = true;
  arrived[0].accept();
  await until(() => alice.waiting.at(-1)?.[1].type === 'file-end');
  for (const [, control] of alice.waiting) bob.hear(control);
  alice.relay(0);
  assert.equal(alice.waiting.length, 0);
  alice.direct();
  await arrives({ transfer, bytes, arrived });
});

test('a program that takes no piece twice gets again what was never sent', async () => {
  const all = await underWay(ALL.slice(0, 2));
  const { alice } = all;
  const sent = alice.pieces.slice(0, 3);
  for (const [delivery] of sent) delivery.sent = true;
  alice.relay(WINDOW);
  assert.deepEqual(alice.pieces, sent);
  await settle();
  alice.direct();
  await arrives(all);
});

test('what is taken back of a file that ends is not said again', async () => {
  const { alice, transfer, arrived } = await underWay(ALL);
  alice.relay(WINDOW);
  transfer.cancel('enough');
  await assert.rejects(arrived[0].finished, /cancelled by the other side: enough/);
  alice.direct();
  await settle();
  assert.equal(alice.pieces.length, 0);
});
