/** One user with several devices as a store sees them: the server, the clock and the connections are the test's. */
import { Backoff } from '../../src/client/backoff.js';
import { RequestFailed } from '../../src/errors.js';
import { decode } from '../../src/protocol/channel.js';
import * as Content from '../../src/protocol/kinds.js';
import * as Direct from '../../src/store/peers/direct.js';
import { Mailbox } from '../../src/store/messages/mailbox.js';
import { Peer } from '../../src/store/peers/peer.js';
import { PeerPresence } from '../../src/store/peers/presence.js';
import { peerView, storeLimits } from '../../src/store/state.js';
import { FakeTimers, settle } from './fake_timers.js';

const OURS = new Uint8Array(32).fill(1);
const text = (data) => new TextDecoder().decode(data);
const bytes = (value) => new TextEncoder().encode(value);

/** What connects us with one device. */
export class FakeConnection {
  state = 'new';
  roundTripTime = null;
  clockFrom = 0;
  /** Why it was closed. */
  reason = null;
  received = [];
  frames = [];

  constructor(device, hello) {
    this.listener = device.listener;
    this.hello = hello;
  }

  connect() {
    if (this.state !== 'connected') this.becomes('connecting');
  }

  receive(event) {
    this.received.push(event.type);
  }

  knows() {
    return true;
  }

  leave() {}

  async stats() {
    return null;
  }

  sendFrame(frame) {
    if (this.state !== 'connected') return false;
    this.frames.push(frame);
    return true;
  }

  async close(reason) {
    this.reason = reason;
    this.state = 'closed';
  }

  becomes(state, error = null) {
    this.state = state;
    this.listener?.stateChanged(state, error);
  }

  /** The channel is open; `stream` is the name of the program at the other end. */
  open(stream = 'theirs', received = null) {
    this.hello();
    this.state = 'connected';
    this.listener.channelOpened({ type: 'hello', version: 1, stream, next: 1, features: ['files', 'calls'], received });
    this.listener.stateChanged('connected', null);
  }

  lose() {
    this.listener.channelClosed();
    this.becomes('disconnected');
  }

  /** A message comes from there. */
  says(sequence, content = 'x') {
    const data = bytes(content);
    this.listener.frameReceived({
      type: 'chunk',
      content: Content.TEXT,
      sequence,
      size: data.length,
      last: true,
      data,
    });
  }

  acknowledges(sequence) {
    this.listener.frameReceived({ type: 'ack', sequence });
  }

  /** What was sent since: the messages as `number text`. */
  take() {
    const frames = this.frames.splice(0).map(decode);
    return frames.flatMap(({ type, sequence, data }) => (type === 'chunk' ? `${sequence} ${text(data)}` : []));
  }
}

/** A store that knows bob, and nobody else. */
export class Scene {
  timers = new FakeTimers();
  registered = true;
  ended = null;
  /** By address of the device: the one that was made last. */
  connections = {};
  /** What the server says: bob's devices, and his key. */
  devices = [];
  publicKey = OURS;
  refusesWatch = false;
  asked = 0;
  moves = [];
  onChange = () => {};

  constructor({ limits, services = {} } = {}) {
    const all = storeLimits(limits);
    this.mailbox = new Mailbox(all, () => {});
    this.messages = this.mailbox.iterate((message) => message);
    const nothing = () => {};
    const scene = this;
    this.peer = new Peer(
      'bob',
      /** @type {any} */ ({
        setup: { limits: all, backoff: new Backoff({ first: 1, most: 4 }), mailbox: this.mailbox },
        timers: this.timers,
        direct: Direct,
        load: async () => Direct,
        get registered() {
          return scene.registered;
        },
        get ended() {
          return scene.ended;
        },
        services: {
          busy: () => false,
          movable: () => false,
          moved: (from, to) => this.moved(from, to),
          connected: nothing,
          parted: nothing,
          ended: nothing,
          notDirect: nothing,
          trackReceived: nothing,
          files: { acknowledged: nothing },
          ...services,
        },
        views: { changed: () => this.onChange(), counted: nothing },
        makeDeviceRoom: nothing,
        blocks: () => false,
        pathMode: () => 'direct',
        relayPath: () => null,
        relay: null,
        arrived: nothing,
        needServer: nothing,
        pathLost: nothing,
        pathFound: nothing,
        controlReceived: nothing,
        leaving: (farewell) => Promise.resolve(farewell),
        connect: (device, hello) => (this.connections[device.address] = this.makeConnection(device, hello)),
        client: {
          watch: async () => {
            if (this.refusesWatch) throw new RequestFailed('too-large', 'no more');
          },
          discover: async () => {
            this.asked++;
            return this.found();
          },
        },
        pins: {
          known: () => ({ publicKey: OURS, fingerprint: 'f' }),
          standing: () => OURS,
          expect: async () => OURS,
        },
      }),
      new PeerPresence('bob'),
    );
    this.peer.known = true;
  }

  /** What the server answers who asks for bob. */
  found() {
    const { devices, publicKey } = this;
    return { online: devices.length > 0, devices, publicKey };
  }

  makeConnection(device, hello) {
    return new FakeConnection(device, hello);
  }

  moved(from, to) {
    this.moves.push(`${from.address} > ${to.address}`);
  }

  get view() {
    return peerView(this.peer.view, null);
  }

  /** The server tells which devices are online, the newest first. */
  async presence(...devices) {
    this.devices = devices;
    this.peer.presence.watched = true;
    this.peer.presenceChanged({
      type: 'presenceChanged',
      userId: 'bob',
      online: devices.length > 0,
      publicKey: this.publicKey,
      devices,
      initial: false,
    });
    await settle();
  }

  /** Somebody else has bob's name now, as the server says. */
  changeKey() {
    this.publicKey = new Uint8Array(32).fill(2);
  }

  /** Send a text to `bob` or one of his devices. In an object, since a promise would wait for the delivery. */
  async send(content, device = null) {
    const delivery = this.peer.send(device, Content.TEXT, bytes(content));
    await settle();
    return { delivery };
  }

  /** An offer comes in. */
  offer(device) {
    return this.peer.receive(
      /** @type {any} */ ({ type: 'offerReceived', sender: `bob/${device}`, connection: 'c' }),
      device,
    );
  }

  /** A device calls, and is connected. */
  async calls(device, stream = `of ${device}`) {
    this.offer(device);
    this.connections[`bob/${device}`].open(stream);
    await settle();
    return this.connections[`bob/${device}`];
  }

  /** The state of each connection that was made. */
  get states() {
    return Object.fromEntries(Object.entries(this.connections).map(([address, { state }]) => [address, state]));
  }

  /** What waits, by device. */
  get queued() {
    return Object.fromEntries(this.peer.devices.map(({ name, queued }) => [name, queued]));
  }
}
