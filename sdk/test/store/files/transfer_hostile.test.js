/**
 * Files of a peer that does not keep to the protocol: its transfers end, and nothing else does.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MAX_PIECE } from '../../../src/store/messages/control.js';
import { CONFIRM, MAX_OPEN, WINDOW } from '../../../src/store/files/window.js';
import { ID, Side, fileOf, settle, until, piece, offer, offered } from '../../support/transfers.js';

for (const [what, size, controls] of /** @type {[string, number, any[]][]} */ ([
  ['a wrong offset', 10, [piece({ offset: 1 })]],
  ['a part of a piece once more', 10, [piece({}), piece({ data: new Uint8Array(2) })]],
  ['more than was offered', 1, [piece({ data: new Uint8Array(2) })]],
  [
    'more than the window allows',
    2 * WINDOW,
    Array.from({ length: 17 }, (_, index) => piece({ offset: index * MAX_PIECE, data: new Uint8Array(MAX_PIECE) })),
  ],
  ['crumbs', 2 * WINDOW, Array.from({ length: 1025 }, (_, offset) => piece({ offset }))],
])) {
  test(`${what}: the transfer is over, and nothing else`, () => {
    const { side, transfer } = offered(size);
    transfer.accept();
    side.take();
    side.hearAll(...controls);
    assert.equal(transfer.state, 'failed');
    assert.match(transfer.error.reason, /breaks the protocol/);
    assert.deepEqual(
      side.take().map((message) => message?.type),
      ['file-cancel'],
    );
    side.hearAll(...controls);
    assert.deepEqual(side.take(), []);
  });
}

test('data before the file was accepted ends the transfer', () => {
  const { side, transfer } = offered(10);
  side.hear(piece({}));
  assert.equal(transfer.state, 'failed');
});

for (const [what, accepted, bytes] of /** @type {[string, boolean, number][]} */ ([
  ['what was not sent', true, 6],
  ['a file that was not accepted', false, 0],
])) {
  test(`a confirmation of ${what} ends the transfer`, async () => {
    const side = new Side();
    const transfer = side.transfers.send(side.peer, fileOf(5).file);
    if (accepted) side.hear({ type: 'file-accept', id: transfer.id });
    await settle();
    side.hear({ type: 'file-received', id: transfer.id, bytes });
    assert.equal(transfer.state, 'failed');
    assert.equal(side.take().at(-1)?.type, 'file-cancel');
  });
}

test('a confirmation that goes back ends the transfer', async () => {
  const side = new Side();
  const transfer = side.transfers.send(side.peer, fileOf(2 * WINDOW).file);
  side.hear({ type: 'file-accept', id: transfer.id });
  await until(() => side.sent.length > 10);
  side.hear({ type: 'file-received', id: transfer.id, bytes: CONFIRM });
  side.hear({ type: 'file-received', id: transfer.id, bytes: CONFIRM - 1 });
  assert.equal(transfer.state, 'failed');
});

test('what is said about an unknown transfer, twice, or by the wrong side is ignored', async () => {
  const { side, transfer } = offered(10);
  const outgoing = side.transfers.send(side.peer, fileOf(5).file);
  side.take();
  for (const type of ['file-accept', 'file-decline', 'file-received', 'file-cancel', 'piece', 'call-offer']) {
    side.hear(piece({ type, id: '__________8', reason: '', bytes: 0 }));
  }
  side.hear({ type: 'file-accept', id: ID });
  side.hear({ type: 'file-decline', id: ID, reason: '' });
  side.hear({ type: 'file-received', id: ID, bytes: 0 });
  side.hear(piece({ id: outgoing.id }));
  side.hear({ ...offer, size: 99 });
  side.hear({ type: 'file-accept', id: outgoing.id });
  side.hear({ type: 'file-accept', id: outgoing.id });
  await settle();
  assert.deepEqual([transfer.state, transfer.size, outgoing.state], ['offered', 10, 'running']);
  assert.deepEqual(
    side.take().map((message) => message?.type),
    ['piece'],
  );
});

test('thousands of offers leave 64 open', () => {
  const side = new Side();
  let told = 0;
  side.onFile.add(() => told++);
  for (let number = 0; number < 3000; number++) {
    const id = Buffer.from(BigUint64Array.of(BigInt(number)).buffer).toString('base64url');
    side.hear({ ...offer, id, name: '../..'.repeat(100) + 'CON' });
  }
  assert.equal(told, MAX_OPEN);
  assert.equal(side.take().length, 3000 - MAX_OPEN);
  assert.ok(!side.transfers.busy(side.peer));
});

test('names and types of strangers are made safe', () => {
  const side = new Side();
  /** @type {any} */
  let transfer;
  side.onFile.add((each) => (transfer = each));
  side.hear({ ...offer, name: '..\\..\\\u202egpj.exe', mime: 'TEXT/HTML; charset=x' });
  assert.deepEqual([transfer.name, transfer.mime], ['gpj.exe', 'text/html']);
});
