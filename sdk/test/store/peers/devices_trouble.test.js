/** What goes wrong when the devices of a user come and go; Python has the same in tests/store/peers/. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PeerKeyChanged, StateError } from '../../../src/errors.js';
import { Scene } from '../../support/devices.js';
import { settle } from '../../support/fake_timers.js';

test('what waits for a device that has gone moves when another one heals without the server', async () => {
  const scene = new Scene();
  const phone = await scene.calls('phone');
  const desk = await scene.calls('desk');
  await scene.presence('phone', 'desk');
  desk.lose();
  phone.says(1);
  phone.lose();
  await scene.send('one');
  await scene.presence();
  assert.equal(scene.peer.findDevice('phone').queued, 1);
  desk.becomes('connected');
  await settle();
  assert.equal(scene.peer.findDevice('phone').queued, 0);
  assert.equal(scene.peer.findDevice('desk').queued, 1);
});

for (const order of [
  ['phone', 'tablet'],
  ['tablet', 'phone'],
]) {
  test(`what was sent to two devices that go at once moves in the order in which it was sent: ${order}`, async () => {
    const scene = new Scene();
    await scene.presence('phone', 'tablet');
    await scene.calls('tablet');
    await scene.calls('phone');
    for (const [number, device] of order.entries()) {
      scene.connections[`bob/${device}`].says(1);
      await scene.send(`${number}`);
    }
    assert.deepEqual(scene.queued, { phone: 1, tablet: 1 });
    for (const device of ['tablet', 'phone']) {
      scene.connections[`bob/${device}`].listener.channelClosed();
      scene.connections[`bob/${device}`].becomes('failed');
    }
    await scene.presence('desk');
    const desk = scene.connections['bob/desk'];
    desk.open('of desk');
    assert.deepEqual(desk.take(), ['1 0', '2 1']);
  });
}

test('a call that succeeds in the moment in which the device goes keeps the other one', async () => {
  const scene = new Scene();
  await scene.presence('phone');
  const call = scene.peer.connect(null, 10, null);
  await settle();
  const phone = scene.connections['bob/phone'];
  // All in one turn: the call learns of it when the phone has gone, and the desk is there.
  phone.open('of phone');
  phone.listener.channelClosed();
  phone.becomes('failed');
  const listed = scene.presence('desk');
  await call;
  await listed;
  assert.ok(scene.peer.findDevice('desk').kept);
  assert.ok(!scene.peer.findDevice('phone').wanted);
});

test('a device whose messages have moved is called again for what stays', async () => {
  const scene = new Scene();
  await scene.presence('phone');
  scene.refusesWatch = true;
  await scene.send('one');
  await scene.send('only for the phone', 'phone');
  scene.devices = ['desk'];
  await scene.presence('desk');
  const { asked } = scene;
  scene.peer.findDevice('phone').dialer.poke(true);
  await settle();
  assert.ok(scene.asked > asked);
  assert.equal(scene.peer.findDevice('phone').queued, 1);
});

test('a bare message does not go to a device that was left and has gone', async () => {
  const scene = new Scene();
  await scene.calls('phone');
  await scene.presence('desk', 'phone');
  await scene.send('x'); // so the choice is made
  await scene.presence('desk');
  await scene.peer.findDevice('phone').close('', 'left', new StateError('left'));
  await scene.send('one');
  assert.equal(scene.peer.findDevice('desk').queued, 1);
});

test('the first device counts as heard from', async () => {
  const scene = new Scene();
  await scene.presence('desk', 'phone');
  await scene.calls('phone');
  assert.equal(scene.peer.device(null).name, 'phone');
  assert.ok(scene.peer.findDevice('phone').heard > 0);
});

test('a call that goes on with another device sees that the key has changed', async () => {
  const scene = new Scene();
  await scene.presence('phone');
  const call = scene.peer.connect(null, 10, null);
  const failed = assert.rejects(call, PeerKeyChanged);
  await settle();
  scene.changeKey();
  scene.peer.unaccepted = new PeerKeyChanged('bob', new Uint8Array(32), new Uint8Array(32).fill(2));
  await scene.presence('desk');
  await failed;
});

test('messages to the user go to the connected device when the server is gone for good', async () => {
  const scene = new Scene();
  const phone = await scene.calls('phone');
  const desk = await scene.calls('desk');
  await scene.presence('phone', 'desk');
  phone.says(1);
  phone.lose();
  const { delivery } = await scene.send('one');
  let failed = false;
  delivery.catch(() => (failed = true));
  scene.ended = new StateError('gone for good');
  scene.peer.signalingEnded(scene.ended);
  await settle();
  assert.equal(failed, false);
  assert.equal(desk.state, 'connected');
  assert.equal(scene.peer.device(null).name, 'desk');
});

test('a device that has gone is forgotten before one that is online, and a subscriber may send meanwhile', async () => {
  const scene = new Scene();
  const names = Array.from({ length: 32 }, (_, number) => `d${number}`);
  for (const name of names) scene.offer(name);
  for (const device of scene.peer.devices) await device.close('', 'left', new StateError('left'));
  await scene.presence(...names.slice(0, 31));
  scene.onChange = () => {
    scene.onChange = () => {};
    scene.peer.send('one-more', 0, new Uint8Array(1));
  };
  assert.equal(scene.offer('one-more'), true);
  await settle();
  assert.equal(scene.peer.findDevice('d31'), undefined);
  assert.equal(scene.peer.devices.filter(({ name }) => name === 'one-more').length, 1);
});

test('what was heard is told once in a turn, and not in the midst of a frame', async () => {
  const scene = new Scene();
  const phone = await scene.calls('phone');
  const desk = await scene.calls('desk');
  let changes = 0;
  scene.onChange = () => changes++;
  for (let number = 1; number < 10; number++) {
    phone.says(number);
    desk.says(number);
  }
  assert.equal(changes, 0);
});
