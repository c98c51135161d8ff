import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  ConfigError,
  FeatureMissing,
  PeerConnectionFailed,
  QueueFull,
  StateError,
  TransferFailed,
  UsageError,
} from '../../../src/errors.js';
import { MAX_PIECE, decodeControl, encodeControl } from '../../../src/store/messages/control.js';
import { Jobs } from '../../../src/store/files/job.js';
import { encodePiece } from '../../../src/store/files/piece.js';
import { AT_ONCE, CONFIRM, MAX_OPEN, WINDOW } from '../../../src/store/files/window.js';
import { ID, Side, pair, fileOf, settle, until, piece, offer, offered } from '../../support/transfers.js';

// --- the two of them -----------------------------------------------------------------------------------------------

for (const size of [0, 1, MAX_PIECE, MAX_PIECE + 1, CONFIRM, 3 * WINDOW + 12_345]) {
  test(`a file of ${size} bytes arrives as it was`, async () => {
    const [alice, bob] = pair();
    const { bytes, file } = fileOf(size);
    /** @type {any[]} */
    const incoming = [];
    bob.onFile.add((transfer) => {
      incoming.push(transfer);
      transfer.accept();
    });
    const transfer = alice.transfers.send(alice.peer, file);
    /** @type {number[]} */
    const progress = [];
    transfer.subscribe(({ transferred }) => progress.push(transferred));
    await transfer.finished;
    const [received] = incoming;
    await received.finished;
    assert.deepEqual(new Uint8Array(await received.blob.arrayBuffer()), bytes);
    assert.equal(received.blob.type, 'image/png');
    for (const each of [transfer, received]) {
      assert.equal(each.state, 'done');
      assert.equal(each.error, null);
      assert.equal(each.transferred, size);
      assert.equal(each.name, 'a.png');
      assert.equal(each.size, size);
      assert.equal(each.mime, 'image/png');
      assert.equal(each.userId, 'peer');
    }
    assert.equal(transfer.id, received.id);
    assert.deepEqual([transfer.direction, received.direction, transfer.blob], ['out', 'in', null]);
    assert.deepEqual(
      progress,
      [...progress].sort((one, other) => one - other),
    );
    assert.ok(!alice.transfers.busy(alice.peer) && !bob.transfers.busy(bob.peer));
  });
}

test('a file goes into a stream as fast as that takes it, and is confirmed when it has', async () => {
  const [alice, bob] = pair();
  const { bytes, file } = fileOf(2 * WINDOW);
  /** @type {Uint8Array[]} */
  const written = [];
  /** @type {(() => void)[]} */
  const waiting = [];
  let closed = false;
  const sink = new WritableStream({
    write: (part) =>
      new Promise((resolve) => {
        written.push(part);
        waiting.push(() => resolve());
      }),
    close: () => void (closed = true),
  });
  bob.onFile.add((transfer) => transfer.accept({ sink }));
  const transfer = alice.transfers.send(alice.peer, file);
  await until(() => waiting.length === 1);
  await settle();
  assert.equal(transfer.transferred, 0);
  assert.equal(waiting.length, 1);
  while (transfer.state === 'running') {
    waiting.shift()?.();
    await settle();
  }
  await transfer.finished;
  assert.ok(closed);
  assert.deepEqual(new Uint8Array(await new Blob(/** @type {any} */ (written)).arrayBuffer()), bytes);
});

test('several files arrive as they were, side by side', async () => {
  const [alice, bob] = pair();
  /** @type {any[]} */
  const incoming = [];
  bob.onFile.add((transfer) => incoming.push(transfer));
  const files = Array.from({ length: 6 }, (_, index) => fileOf(700_000 + index));
  const outgoing = files.map(({ file }) => alice.transfers.send(alice.peer, file));
  await until(() => incoming.length === 6);
  incoming.forEach((transfer) => transfer.accept());
  await Promise.all(outgoing.map((transfer) => transfer.finished));
  for (const [index, transfer] of incoming.entries()) {
    assert.deepEqual(new Uint8Array(await transfer.blob.arrayBuffer()), files[index]?.bytes);
  }
});

test('a file can be declined, with or without a reason', async () => {
  for (const [reason, words] of /** @type {const} */ ([
    ['not now', 'declined: not now'],
    [undefined, 'declined'],
  ])) {
    const [alice, bob] = pair();
    bob.onFile.add((transfer) => transfer.decline(reason));
    const transfer = alice.transfers.send(alice.peer, fileOf(9).file);
    await assert.rejects(transfer.finished, (error) => error instanceof TransferFailed && error.reason === words);
    assert.equal(transfer.state, 'declined');
    assert.equal(transfer.error?.userId, 'peer');
  }
});

test('either side may cancel, before and while it runs', async () => {
  for (const early of [true, false]) {
    for (const sender of [true, false]) {
      const [alice, bob] = pair();
      /** @type {any[]} */
      const incoming = [];
      bob.onFile.add((transfer) => incoming.push(transfer));
      const outgoing = alice.transfers.send(alice.peer, fileOf(2 * WINDOW).file);
      await until(() => incoming.length === 1);
      if (!early) {
        let writes = 0;
        // It never gets to the end.
        const sink = new WritableStream({ write: () => new Promise((resolve) => ++writes < 10 && resolve(undefined)) });
        incoming[0].accept({ sink });
        await until(() => outgoing.transferred > 0);
      }
      const [one, other] = sender ? [outgoing, incoming[0]] : [incoming[0], outgoing];
      one.cancel('enough');
      assert.equal(one.error.reason, 'cancelled: enough');
      await assert.rejects(other.finished, { reason: 'cancelled by the other side: enough' });
      assert.deepEqual([one.state, other.state], ['cancelled', 'cancelled']);
      one.cancel();
      incoming[0].accept();
      incoming[0].decline();
      assert.equal(incoming[0].blob, null);
    }
  }
});

test('a reason that is no text is taken for one, and nobody waits for ever', async () => {
  for (const reason of [null, undefined, 0, { x: 1 }]) {
    const side = new Side();
    const transfer = side.transfers.send(side.peer, fileOf(1).file);
    transfer.cancel(/** @type {any} */ (reason));
    await assert.rejects(transfer.finished, TransferFailed);
    const { transfer: other } = offered(1);
    other.decline(reason);
    await assert.rejects(other.finished, TransferFailed);
  }
});

test('who is called for a file alone need not be called any more when it is cancelled', () => {
  const side = new Side();
  side.features = null;
  const transfer = side.transfers.send(side.peer, fileOf(1).file);
  assert.deepEqual([side.transfers.busy(side.peer), side.reconsidered], [true, 0]);
  transfer.cancel();
  assert.deepEqual([side.transfers.busy(side.peer), side.reconsidered], [false, 1]);
});

test('a stream that fails ends the transfer at both ends, with its words', async () => {
  const [alice, bob] = pair();
  bob.onFile.add((transfer) =>
    transfer.accept({ sink: new WritableStream({ write: () => Promise.reject(new Error('the disk is full')) }) }),
  );
  const outgoing = alice.transfers.send(alice.peer, fileOf(WINDOW).file);
  await assert.rejects(outgoing.finished, {
    reason: 'cancelled by the other side: the recipient cannot write it: the disk is full',
  });
});

test('a stream is aborted when the file does not arrive, also while it takes its time', async () => {
  const [alice, bob] = pair();
  let aborted = null;
  const sink = new WritableStream(
    { write: () => new Promise(() => {}), abort: (reason) => void (aborted = reason) },
    {},
  );
  const signalled = new Promise((resolve) => {
    const stuck = new WritableStream({
      write: (_, controller) => {
        controller.signal.addEventListener('abort', () => resolve(null));
        return new Promise(() => {});
      },
    });
    bob.onFile.add((transfer) => transfer.accept({ sink: transfer.size === 5 ? sink : stuck }));
  });
  const first = alice.transfers.send(alice.peer, fileOf(WINDOW).file);
  await until(() => first.state === 'running');
  await settle();
  first.cancel();
  await signalled;
  const second = alice.transfers.send(alice.peer, fileOf(5).file);
  await until(() => second.state === 'running');
  bob.transfers.ended(bob.peer, new PeerConnectionFailed('peer', 'gone'));
  await until(() => second.state === 'cancelled');
  assert.equal(aborted, null); // not before its write has ended, says the standard
});

test('a file that cannot be read any more is cancelled', async () => {
  const [alice, bob] = pair();
  bob.onFile.add((transfer) => transfer.accept());
  const file = new File([new Uint8Array(10)], 'a');
  file.slice = () => {
    throw new DOMException('gone', 'NotReadableError');
  };
  const outgoing = alice.transfers.send(alice.peer, file);
  await assert.rejects(outgoing.finished, { reason: 'the file has changed, or is gone' });
  assert.equal(outgoing.state, 'failed');
});

// --- one of them ---------------------------------------------------------------------------------------------------

test('an offer waits for the connection, and says what is on offer', async () => {
  const side = new Side();
  side.features = null;
  const transfer = side.transfers.send(side.peer, new Blob(['hello'], { type: 'text/plain' }), { name: '../../x.txt' });
  assert.equal(side.opened, 1);
  assert.ok(side.transfers.busy(side.peer));
  assert.ok(!side.transfers.busy({ ...side.peer }));
  side.transfers.connected(side.peer, []);
  assert.deepEqual(side.take(), []);
  side.features = ['files', 'calls'];
  side.transfers.connected(side.peer, side.features);
  side.transfers.connected(side.peer, side.features);
  assert.deepEqual(side.take(), [{ type: 'file-offer', id: transfer.id, name: 'x.txt', size: 5, mime: 'text/plain' }]);
});

test('what is cancelled while others are offered is not offered', () => {
  const side = new Side();
  side.features = null;
  const [first, second] = [1, 2].map((size) => side.transfers.send(side.peer, fileOf(size).file));
  first?.subscribe(({ state }) => state === 'failed' && second?.cancel());
  side.features = ['files'];
  side.refusal = new QueueFull('peer', 1, 1);
  second?.subscribe(({ state }) => state === 'cancelled' && (side.refusal = null));
  side.transfers.connected(side.peer);
  assert.deepEqual([first?.state, second?.state], ['failed', 'cancelled']);
  assert.deepEqual(
    side.take().filter((message) => message?.id === second?.id),
    [],
  );
});

test('a peer whose program takes no files is told apart at once', async () => {
  const side = new Side();
  side.features = ['calls'];
  const transfer = side.transfers.send(side.peer, fileOf(5).file);
  assert.equal(transfer.state, 'failed');
  await assert.rejects(transfer.finished, FeatureMissing);
  assert.deepEqual(side.take(), []);
});

test('what cannot be offered is refused at once', () => {
  const side = new Side();
  assert.throws(() => side.transfers.send(side.peer, /** @type {any} */ ('text')), UsageError);
  side.refusal = new StateError('closed');
  assert.throws(() => side.transfers.send(side.peer, fileOf(5).file), StateError);
  assert.ok(!side.transfers.busy(side.peer));
});

test('what cannot be said ends the transfer', async () => {
  const { side, transfer } = offered(10);
  side.refusal = new QueueFull('peer', 1, 1);
  transfer.accept();
  assert.equal(transfer.state, 'failed');
  assert.match(transfer.error.message, /can be queued|waiting/);
});

test('options that cannot work are refused where they are given', () => {
  const side = new Side();
  const { file } = fileOf(5);
  for (const options of [{ name: 5 }, { nme: 'x' }, 'x.txt']) {
    assert.throws(() => side.transfers.send(side.peer, file, /** @type {any} */ (options)), ConfigError);
  }
  const { transfer } = offered(5);
  const locked = new WritableStream();
  locked.getWriter();
  for (const options of [{ sink: {} }, { sink: locked }, { stream: new WritableStream() }]) {
    assert.throws(() => transfer.accept(options), ConfigError);
  }
  assert.equal(transfer.state, 'offered');
});

test('what the recipient has written is told as it is written, and confirmed in larger steps', async () => {
  const { side, transfer } = offered(2 * CONFIRM);
  transfer.accept();
  side.take();
  side.hear(piece({ data: new Uint8Array(MAX_PIECE) }));
  await settle();
  assert.deepEqual([transfer.transferred, side.take()], [MAX_PIECE, []]);
  for (const number of [1, 2, 3]) side.hear(piece({ offset: number * MAX_PIECE, data: new Uint8Array(MAX_PIECE) }));
  await settle();
  assert.equal(transfer.transferred, CONFIRM);
  assert.deepEqual(side.take(), [{ type: 'file-received', id: ID, bytes: CONFIRM }]);
});

test('without a callback files are declined', () => {
  const side = new Side();
  side.hear(offer);
  assert.deepEqual(side.take(), [{ type: 'file-decline', id: ID, reason: 'no files here' }]);
});

test('only an offer of the other side can be accepted or declined, and only once', () => {
  const side = new Side();
  const outgoing = side.transfers.send(side.peer, fileOf(5).file);
  assert.throws(() => outgoing.accept(), StateError);
  assert.throws(() => outgoing.decline(), StateError);
  const { transfer } = offered(5);
  transfer.accept();
  assert.throws(() => transfer.accept(), StateError);
  assert.throws(() => transfer.decline(), StateError);
});

test('a failure that nobody asks for complains nowhere', async () => {
  const { side, transfer } = offered(5);
  void transfer.finished;
  side.hear({ type: 'file-cancel', id: ID, reason: '' });
  await settle();
  assert.equal(transfer.error.reason, 'cancelled by the other side');
  await assert.rejects(transfer.finished, TransferFailed);
});

test('a blob has a type only if nothing in it runs when it is opened', async () => {
  for (const [mime, type] of [
    ['image/jpeg', 'image/jpeg'],
    ['video/mp4', 'video/mp4'],
    ['text/plain', 'text/plain'],
    ['text/html', ''],
    ['image/svg+xml', ''],
    ['application/pdf', ''],
  ]) {
    const side = new Side();
    /** @type {any} */
    let transfer;
    side.onFile.add((each) => (transfer = each).accept());
    side.hear({ ...offer, size: 0, mime });
    await transfer.finished;
    assert.equal(transfer.blob.type, type);
    assert.equal(transfer.mime, mime);
  }
});

test('the end of the stream ends what is under way, and says so', () => {
  const { side, transfer } = offered(10);
  const outgoing = side.transfers.send(side.peer, fileOf(5).file);
  side.take();
  const fault = new PeerConnectionFailed('peer', 'it has hung up');
  side.transfers.ended(side.peer, fault);
  assert.deepEqual([transfer.state, outgoing.state], ['failed', 'failed']);
  assert.deepEqual([transfer.error.cause, outgoing.error.cause], [fault, fault]);
  assert.equal(transfer.error.reason, 'it has hung up');
  assert.deepEqual(
    side.take().map((message) => message?.type),
    ['file-cancel', 'file-cancel'],
  );
});

test('what was not offered yet can be offered to the one who has taken the place of the other', () => {
  const side = new Side();
  side.features = null;
  const transfer = side.transfers.send(side.peer, fileOf(5).file);
  side.transfers.ended(side.peer, new PeerConnectionFailed('peer', 'started anew'), true);
  assert.equal(transfer.state, 'offered');
  side.features = ['files'];
  side.transfers.connected(side.peer, []);
  side.transfers.ended(side.peer, new PeerConnectionFailed('peer', 'started anew'), true);
  assert.equal(transfer.state, 'failed');
});

test('closing ends everything, and says nothing', () => {
  const { side, transfer } = offered(10);
  side.transfers.close();
  assert.equal(transfer.error.reason, 'the store was closed');
  assert.deepEqual(side.take(), []);
});

test('an offer too many waits until another one is over', async () => {
  const [alice, bob] = pair();
  /** @type {any[]} */
  const incoming = [];
  bob.onFile.add((transfer) => incoming.push(transfer));
  const all = Array.from({ length: MAX_OPEN + 1 }, () => alice.transfers.send(alice.peer, fileOf(1).file));
  await until(() => incoming.length === MAX_OPEN);
  await settle();
  assert.equal(incoming.length, MAX_OPEN);
  all[3]?.cancel();
  await until(() => incoming.length === MAX_OPEN + 1);
  assert.equal(incoming.at(-1).id, all.at(-1)?.id);
});

test('files that wait for their turn cost nothing with what is said about the others', async (t) => {
  const side = new Side();
  const all = Array.from({ length: 4 * MAX_OPEN }, () => side.transfers.send(side.peer, fileOf(1).file));
  side.take();
  let most = 0;
  Jobs.prototype[Symbol.iterator] = function* () {
    const waiting = Set.prototype.values.call(this);
    let looked = 0;
    for (let next; !(next = waiting.next()).done; yield next.value) most = Math.max(most, ++looked);
  };
  t.after(() => void delete (/** @type {any} */ (Jobs.prototype)[Symbol.iterator]));
  side.hear({ type: 'file-accept', id: all[0]?.id });
  await until(() => side.take().some((message) => message?.type === 'piece'));
  side.transfers.acknowledged(side.peer);
  side.hear({ type: 'file-received', id: all[0]?.id, bytes: 1 });
  await settle();
  assert.equal(all[0]?.state, 'done');
  assert.ok(side.take().some((message) => message?.id === all[MAX_OPEN]?.id));
  assert.ok(most <= MAX_OPEN + 1, `${most}`);
});

test('many files that wait for a peer which takes none all fail', async () => {
  const side = new Side();
  side.features = null;
  const all = Array.from({ length: 3000 }, () => side.transfers.send(side.peer, fileOf(1).file));
  side.features = [];
  side.transfers.connected(side.peer, []);
  assert.ok(all.every((transfer) => transfer.error instanceof FeatureMissing));
});

test('a message of the application waits behind one window, however many files are accepted', async () => {
  const side = new Side();
  const all = Array.from({ length: AT_ONCE + 1 }, () => side.transfers.send(side.peer, fileOf(1.5 * WINDOW).file));
  side.take();
  /** What was sent meanwhile of each file. */
  const sent = async () => {
    for (let round = 0; round < 200; round++) await settle();
    const pieces = side.take().filter((each) => each?.type === 'piece');
    return all.map(({ id }) => pieces.reduce((sum, each) => sum + (each?.id === id ? each?.data.length : 0), 0));
  };
  all.forEach(({ id }) => side.hear({ type: 'file-accept', id }));
  assert.deepEqual(await sent(), [CONFIRM, CONFIRM, CONFIRM, CONFIRM, 0]);
  side.hear({ type: 'file-received', id: all[1]?.id, bytes: CONFIRM });
  assert.deepEqual(await sent(), [0, CONFIRM, 0, 0, 0]);
  all[0]?.cancel();
  assert.deepEqual(await sent(), [0, 0, 0, 0, CONFIRM]);
  all.slice(1, 4).forEach((each) => each.cancel());
  assert.deepEqual(await sent(), [0, 0, 0, 0, WINDOW - CONFIRM]); // one that is alone has it all
});

test('a transfer whose messages are read from the wire works as well', () => {
  const { side, transfer } = offered(2);
  transfer.accept();
  const bytes = [encodePiece(ID, 0, Uint8Array.of(1)), encodeControl({ type: 'file-cancel', id: ID, reason: 'x' })];
  bytes.forEach((each) => side.hear(decodeControl(each)));
  assert.equal(transfer.state, 'cancelled');
});

test('applications see of a transfer what is for them, and nothing else', () => {
  const [alice] = pair();
  const transfer = alice.transfers.send(alice.peer, fileOf(1).file);
  const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(transfer));
  const told = [
    'device',
    'size',
    'state',
    'transferred',
    'resumed',
    'kept',
    'keptProblem',
    'canKeep',
    'needsDirect',
    'error',
    'blob',
    'files',
  ];
  assert.deepEqual(methods, ['constructor', ...told, 'accept', 'decline', 'cancel', 'release', 'subscribe']);
  assert.deepEqual(
    Object.keys(transfer).sort().join(),
    'blob,canKeep,device,direction,error,files,finished,id,isFolder,kept,keptProblem,mime,name,needsDirect,resumed,size,state,transferred,userId',
  );
});

test('what was not offered yet moves to another device, unless it is for exactly this one', async () => {
  const side = new Side();
  side.features = null;
  const addressed = side.transfers.send(side.peer, fileOf(1).file, {}, true);
  const free = side.transfers.send(side.peer, fileOf(1).file, {}, false);
  const said = [];
  const laptop = { ...side.peer, name: 'laptop', features: ['files'], sendControl: (control) => said.push(control) };
  assert.deepEqual([side.transfers.movable(side.peer), free.device], [true, null]);
  side.transfers.moved(side.peer, laptop);
  assert.deepEqual(said, []); // not in the midst of what moves
  await null;
  assert.deepEqual(
    said.map((control) => decodeControl(control).id),
    [free.id],
  );
  assert.deepEqual([free.device, addressed.device], ['laptop', null]);
  assert.deepEqual([side.transfers.movable(side.peer), side.transfers.movable(laptop)], [false, false]);
  assert.deepEqual([side.transfers.busy(side.peer), side.transfers.busy(laptop)], [true, true]);
  addressed.cancel();
  side.transfers.received(laptop, { type: 'file-decline', id: free.id, reason: '' });
  assert.deepEqual(
    [free.state, side.transfers.busy(side.peer), side.transfers.busy(laptop)],
    ['declined', false, false],
  );
});
