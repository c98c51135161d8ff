/** The devices of one user: which one gets what is sent to the user, and what moves to another one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  DeliveryFailed,
  PeerConnectionFailed,
  PeerKeyChanged,
  PeerOffline,
  PeerRefused,
  TooManyPeers,
} from '../../../src/errors.js';
import * as Content from '../../../src/protocol/kinds.js';
import { MAX_DEVICES } from '../../../src/store/peers/peer.js';
import { Scene } from '../../support/devices.js';
import { settle } from '../../support/fake_timers.js';

/** Bob with a phone and a laptop that are both connected; the phone was heard from last. */
async function both(options) {
  const scene = new Scene(options);
  await scene.presence('phone', 'laptop');
  const laptop = await scene.calls('laptop');
  const phone = await scene.calls('phone');
  return { scene, laptop, phone };
}

test('the devices are listed as the server lists them, but whole numbers first, as in every object', async () => {
  const scene = new Scene();
  await scene.send('a', 'tablet');
  await scene.presence('phone', '7', 'laptop', '07');
  const { devices } = scene.view;
  assert.deepEqual(Object.keys(devices), ['7', 'phone', 'laptop', '07', 'tablet']);
  assert.equal(devices['7'].device, '7');
});

test('a limit of the server shows as long as an attempt waits for it', async () => {
  const scene = new Scene();
  await scene.presence('phone', 'laptop');
  const limited = new PeerRefused('bob', 'the server takes no more', 'rate-limited', 3);
  scene.peer.delayed('phone', limited);
  assert.equal(scene.view.error, null); // nothing waits
  await scene.send('a', 'phone');
  scene.peer.delayed('phone', limited);
  assert.equal(scene.view.devices.phone.error, limited);
  scene.connections['bob/phone'].open('of phone');
  assert.equal(scene.view.error, null);
  scene.peer.delayed(null, limited);
  assert.equal(scene.view.error, null);
});

test('an attempt that is under way ends when the peer gets another key', async () => {
  const scene = new Scene();
  await scene.presence('phone');
  await scene.send('a', 'phone');
  scene.connections['bob/phone'].becomes('connecting');
  scene.changeKey();
  await scene.presence('phone'); // it has come back at once: the server has told of no moment without it
  assert.ok(scene.view.error instanceof PeerKeyChanged, String(scene.view.error));
});

// --- which device ----------------------------------------------------------------------------------------------------

test('each device has a connection of its own, and none replaces another', async () => {
  const { scene, laptop, phone } = await both();
  assert.notEqual(laptop, phone);
  assert.deepEqual(scene.states, { 'bob/laptop': 'connected', 'bob/phone': 'connected' });
  assert.deepEqual([laptop.reason, phone.reason], [null, null]);
  assert.equal(scene.view.connections, 2);
});

test('what is sent to the user goes to the device heard from last', async () => {
  const { scene, laptop, phone } = await both();
  await scene.send('a');
  assert.deepEqual([laptop.take(), phone.take()], [[], ['1 a']]);
  laptop.says(1);
  await scene.send('b');
  assert.deepEqual([laptop.take(), phone.take()], [['1 b'], []]);
});

test('an acknowledgement and a reconnect are not heard', async () => {
  const { scene, laptop, phone } = await both();
  await scene.send('a', 'laptop');
  laptop.acknowledges(1);
  laptop.lose();
  laptop.open('of laptop');
  await scene.send('b');
  assert.deepEqual(phone.take(), ['1 b']);
  laptop.lose();
  laptop.open('started anew');
  await scene.send('c');
  assert.deepEqual(laptop.take(), ['1 a', '2 c']);
});

test('while none was heard from, it goes to the one that registered last', async () => {
  const scene = new Scene();
  await scene.presence('phone', 'laptop');
  await scene.send('a');
  assert.deepEqual(scene.states, { 'bob/phone': 'connecting' });
  await scene.presence('tablet', 'phone', 'laptop');
  await scene.send('b');
  assert.deepEqual(scene.queued, { phone: 1, tablet: 1 });
});

test('what is sent to one device goes there, whoever was heard from', async () => {
  const { scene, laptop, phone } = await both();
  const { delivery } = await scene.send('a', 'laptop');
  assert.deepEqual([laptop.take(), phone.take()], [['1 a'], []]);
  assert.deepEqual([delivery.device, (await scene.send('b')).delivery.device], ['laptop', null]);
});

test('a message says which device it is from', async () => {
  const { scene, laptop } = await both();
  laptop.says(1, 'hello');
  const { value } = await scene.messages.next();
  assert.deepEqual([value.sender, value.device, value.sequence], ['bob', 'laptop', 1]);
});

// --- the device whose name is not known -------------------------------------------------------------------------------

test('what is sent before anything is known waits, and goes to the device that registered last', async () => {
  const scene = new Scene();
  scene.registered = false;
  await scene.send('a');
  await scene.send('b');
  assert.deepEqual(scene.queued, { null: 2 });
  assert.deepEqual([scene.view.queued, scene.view.devices], [2, Object.create(null)]);
  scene.registered = true;
  scene.devices = ['phone', 'laptop'];
  scene.peer.signalingReturned(false);
  await settle();
  assert.deepEqual(scene.queued, { phone: 2 });
  scene.connections['bob/phone'].open();
  assert.deepEqual(scene.connections['bob/phone'].take(), ['1 a', '2 b']);
});

test('the device that calls first is the one that was meant', async () => {
  const scene = new Scene();
  scene.registered = false;
  await scene.send('a');
  const laptop = await scene.calls('laptop');
  assert.deepEqual([scene.queued, laptop.take()], [{ laptop: 1 }, ['1 a']]);
});

test('what waits for a device without a name goes to the one of that name which is there already', async () => {
  const scene = new Scene();
  scene.registered = false;
  await scene.send('to the phone', 'phone');
  const { delivery } = await scene.send('to bob');
  assert.deepEqual([scene.queued, delivery.sequence], [{ phone: 1, null: 1 }, 1]);
  scene.registered = true;
  await scene.presence('phone');
  assert.deepEqual([scene.queued, delivery.sequence], [{ phone: 2 }, 2]);
  scene.connections['bob/phone'].open();
  assert.deepEqual(scene.connections['bob/phone'].take(), ['1 to the phone', '2 to bob']);
});

test('nobody is called while no device is online', async () => {
  const scene = new Scene();
  const failed = assert.rejects(scene.peer.connect(null, 30, null), PeerOffline);
  await failed;
  assert.deepEqual(scene.states, {});
});

// --- moving ----------------------------------------------------------------------------------------------------------

test('messages move when their device has gone: in order, with their deliveries, and no others', async () => {
  const { scene, laptop, phone } = await both();
  const { delivery: a } = await scene.send('a');
  const { delivery: explicit } = await scene.send('for the phone', 'phone');
  const { delivery: b } = await scene.send('b');
  phone.take();
  phone.lose();
  await scene.send('c');
  assert.deepEqual(laptop.take(), [], 'a lost connection alone moves nothing');
  await scene.presence('laptop');
  assert.deepEqual(laptop.take(), ['1 a', '2 b', '3 c']);
  assert.deepEqual(scene.queued, { laptop: 3, phone: 1 });
  assert.deepEqual([a.sequence, b.sequence, explicit.sequence], [1, 2, 2]);
  laptop.acknowledges(2);
  assert.deepEqual([a.delivered, b.delivered, explicit.done], [true, true, false]);
  // The phone comes back with the same program: its stream goes on, and the place of what was sent and has moved is void.
  await scene.presence('phone', 'laptop');
  scene.connections['bob/phone'].open('of phone');
  assert.deepEqual(scene.connections['bob/phone'].take(), ['2 for the phone', '3 \0']);
  scene.connections['bob/phone'].acknowledges(3);
  assert.equal(explicit.delivered, true);
});

test('a void stands where a message was that came behind one that stays', async () => {
  const { scene, laptop, phone } = await both();
  await scene.send('for the phone', 'phone');
  await scene.send('a');
  await scene.send('for the phone, too', 'phone');
  phone.take();
  phone.lose();
  await scene.presence('laptop');
  assert.deepEqual(laptop.take(), ['1 a']);
  await scene.presence('phone', 'laptop');
  const again = scene.connections['bob/phone'];
  again.open('of phone');
  assert.deepEqual(again.take(), ['1 for the phone', '2 \0', '3 for the phone, too']);
});

test('a device that is connected keeps its messages, although the server lists it no more', async () => {
  const { scene, laptop, phone } = await both();
  await scene.send('a');
  await scene.presence('laptop');
  assert.deepEqual([scene.queued.phone, laptop.take()], [1, []]);
  phone.lose();
  assert.deepEqual(laptop.take(), ['1 a']);
});

test('messages stay where they are while no other device is there, and go on to the next one', async () => {
  const scene = new Scene();
  await scene.presence('phone');
  const phone = await scene.calls('phone');
  await scene.send('a');
  phone.take();
  phone.lose();
  await scene.presence();
  assert.deepEqual(scene.queued, { phone: 1 });
  await scene.presence('laptop');
  assert.deepEqual(scene.queued, { phone: 0, laptop: 1 });
  assert.equal(scene.moves.join(), 'bob/phone > bob/laptop');
});

test('nothing moves while we are not registered, and what has to, when we are again', async () => {
  const { scene, laptop, phone } = await both();
  await scene.send('a');
  await scene.presence('laptop');
  scene.registered = false;
  phone.lose();
  assert.deepEqual(laptop.take(), []);
  scene.registered = true;
  scene.peer.signalingReturned(true);
  assert.deepEqual(laptop.take(), ['1 a']);
});

test('what a subscriber sends while messages move comes behind them', async () => {
  const { scene, laptop, phone } = await both();
  await scene.send('a');
  phone.lose();
  scene.onChange = () => {
    scene.onChange = () => {};
    scene.peer.send(null, 0, new TextEncoder().encode('b'));
  };
  await scene.presence('laptop');
  assert.deepEqual(laptop.take(), ['1 a', '2 b']);
});

test('what is sent while two devices move comes behind the messages of both', async () => {
  const services = {
    moved: () => {
      services.moved = () => {};
      scene.peer.send(null, Content.TEXT, new TextEncoder().encode('c'));
    },
  };
  const scene = new Scene({ services: { moved: () => services.moved() } });
  await scene.presence('desk', 'phone', 'tablet');
  const desk = await scene.calls('desk');
  for (const [device, content] of [
    ['phone', 'a'],
    ['tablet', 'b'],
  ]) {
    (await scene.calls(device)).lose();
    await scene.send(content);
  }
  assert.deepEqual(scene.queued, { desk: 0, phone: 1, tablet: 1 });
  await scene.presence('desk');
  assert.deepEqual(desk.take(), ['1 a', '2 b', '3 c']);
});

test('what is sent while a device comes back and another one goes comes behind what moves', async () => {
  const { scene, laptop, phone } = await both();
  laptop.lose();
  phone.lose();
  await scene.presence('phone');
  await scene.send('only for the laptop', 'laptop');
  await scene.send('a');
  scene.onChange = () => {
    scene.onChange = () => {};
    assert.equal(scene.view.devices.laptop.state, 'closed'); // the call to the laptop as it was before
    scene.peer.send(null, Content.TEXT, new TextEncoder().encode('b'));
  };
  await scene.presence('laptop');
  scene.connections['bob/laptop'].open('another run');
  assert.deepEqual(scene.connections['bob/laptop'].take(), ['1 only for the laptop', '2 a', '3 b']);
});

test('the limits of a queue do not count for what moves', async () => {
  const { scene, laptop, phone } = await both({ limits: { queueMessages: 1 } });
  await scene.send('a');
  await scene.send('b', 'laptop');
  phone.lose();
  await scene.presence('laptop');
  assert.deepEqual(laptop.take(), ['1 b', '2 a']);
});

test('who waits for a connection with the user waits on when it is another device', async () => {
  const scene = new Scene();
  await scene.presence('phone');
  const connecting = scene.peer.connect(null, 30, null);
  await settle();
  assert.deepEqual(scene.states, { 'bob/phone': 'connecting' });
  await scene.presence('laptop');
  assert.deepEqual(scene.states, { 'bob/phone': 'closed', 'bob/laptop': 'connecting' });
  scene.connections['bob/laptop'].open();
  await connecting;
  // The wish moves on as well.
  scene.connections['bob/laptop'].lose();
  await scene.presence('tablet');
  assert.equal(scene.states['bob/tablet'], 'connecting');
});

test('who waits for one device hears that it is offline, whatever other there is', async () => {
  const scene = new Scene();
  await scene.presence('laptop');
  await assert.rejects(scene.peer.connect('phone', 30, null), (error) => {
    return error instanceof PeerOffline && error.userId === 'bob/phone';
  });
  const connecting = scene.peer.connect('laptop', 30, null);
  await settle();
  scene.connections['bob/laptop'].open();
  await connecting;
  scene.connections['bob/laptop'].lose();
  await scene.presence('phone');
  assert.equal(scene.states['bob/phone'], undefined, 'what was asked of exactly one device is not asked of another');
});

test('where nothing is watched a device moves when the server says so to who asks', async () => {
  const scene = new Scene();
  scene.devices = ['phone'];
  const { delivery } = await scene.send('a');
  scene.peer.presence.watched = false;
  scene.devices = ['laptop'];
  scene.connections['bob/phone'].becomes('failed', new PeerConnectionFailed('bob', 'no path'));
  await settle();
  scene.timers.advance(5);
  await settle();
  assert.deepEqual([scene.states['bob/laptop'], scene.queued], ['connecting', { phone: 0, laptop: 1 }]);
  assert.equal(delivery.done, false);
});

// --- keys, limits, ends ----------------------------------------------------------------------------------------------

test('a changed key blocks the user while no device is connected', async () => {
  const scene = new Scene();
  await scene.presence('phone', 'laptop');
  scene.registered = false;
  const sent = [await scene.send('a'), await scene.send('b', 'laptop')];
  scene.changeKey();
  scene.registered = true;
  scene.peer.signalingReturned(false);
  await settle();
  for (const { delivery } of sent) await assert.rejects(Promise.resolve(delivery), DeliveryFailed);
  assert.ok(scene.view.error instanceof PeerKeyChanged);
  assert.throws(() => scene.peer.send('laptop', 0, new Uint8Array(1)), PeerKeyChanged);
  scene.peer.accept(true);
  assert.equal(scene.view.error, null);
  await scene.send('c');
});

test('a device that is connected has proved the key: the others fail alone', async () => {
  const scene = new Scene();
  await scene.presence('phone', 'laptop');
  const laptop = await scene.calls('laptop');
  scene.changeKey();
  const { delivery: lost } = await scene.send('a', 'phone');
  await assert.rejects(Promise.resolve(lost), DeliveryFailed);
  await scene.send('b');
  assert.deepEqual([laptop.take(), scene.peer.unaccepted], [['1 b'], null]);
  assert.ok(scene.view.devices.phone.error instanceof PeerKeyChanged);
});

test('a user has so many devices and no more: those that have left make place', async () => {
  const scene = new Scene();
  await scene.presence('phone');
  for (let n = 0; n < MAX_DEVICES; n++) {
    scene.timers.advance(1);
    await scene.calls(`d${n}`);
  }
  assert.throws(
    () => scene.offer('one more'),
    (error) => error instanceof TooManyPeers && error.limit === MAX_DEVICES,
  );
  assert.throws(() => scene.peer.send('one more', 0, new Uint8Array(1)), TooManyPeers);
  await scene.send('to the user'); // goes to the one heard from last
  scene.peer.findDevice('d3').path.release('gone', 'closed');
  scene.peer.findDevice('d5').path.release('gone', 'closed');
  assert.equal(scene.offer('one more'), true);
  const names = scene.peer.devices.map(({ name }) => name);
  assert.deepEqual([names.length, names.includes('d3'), names.includes('d5')], [MAX_DEVICES, false, true]);
});

test('saying goodbye to one device leaves the others', async () => {
  const { scene, laptop, phone } = await both();
  await scene.peer.close('bye', 'hung up', new PeerConnectionFailed('bob', 'hung up'), 'phone');
  assert.deepEqual([laptop.state, phone.state, phone.reason], ['connected', 'closed', 'bye']);
  await scene.peer.close('bye', 'hung up', new PeerConnectionFailed('bob', 'hung up'));
  assert.equal(laptop.state, 'closed');
});

// --- what shows ------------------------------------------------------------------------------------------------------

test('the state shows each device that is online, connected, or has something to get', async () => {
  const scene = new Scene();
  await scene.presence('phone', 'laptop');
  await scene.send('a', 'tablet');
  await scene.calls('laptop');
  const { devices, state, queued, features, online } = scene.view;
  assert.deepEqual(
    Object.values(devices).map(({ device, state, online, queued }) => [device, state, online, queued]),
    [
      ['phone', 'new', true, 0],
      ['laptop', 'connected', true, 0],
      ['tablet', 'new', false, 1],
    ],
  );
  assert.deepEqual([state, queued, features.length, online], ['connected', 1, 2, true]);
  assert.equal(Object.getPrototypeOf(devices), null);
  assert.ok(Object.isFrozen(devices) && Object.isFrozen(devices.phone));
  scene.peer.watchEnded();
  assert.deepEqual(
    Object.values(scene.view.devices).map(({ online }) => online),
    [null, null],
  );
});
