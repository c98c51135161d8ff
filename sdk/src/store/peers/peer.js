/**
 * All that a store keeps of one peer, a user: its devices, and what the server says of it.
 *
 * Rules of this module:
 *
 * - Each device has a session of its own (`device`), so two devices of one user do not disturb each other.
 * - What is sent to the user goes to one device (`choice`). It moves to another one only when its own is gone, and never
 *   when it was sent to exactly that device.
 * - A peer outlives its connections, and the login. What it may ask of the store is in `PeerContext`; it knows of no
 *   other peer.
 */
import { PeerBlocked, PeerConnectionFailed, PeerOffline, TooManyPeers } from '../../errors.js';
import { UNKNOWN } from '../state.js';
import { choose, gone } from './choice.js';
import { PeerDevice } from './device.js';
import { checkFingerprint, sameKey } from './pinning.js';

/**
 * @import { PeerEvent, PresenceChanged } from '../../client/events.js'
 * @import { AldisError } from '../../errors.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { DeviceView, PeerView } from '../state.js'
 * @import { DeviceContext, DeviceOwner } from './device.js'
 * @import { PeerPresence, PresenceContext } from './presence.js'
 * @import { PeerViews } from './views.js'
 */

/**
 * @typedef {object} OwnContext
 * @property {PeerViews} views Is told when something in `Peer.view` may have changed.
 * @property {(peer: Peer) => void} makeDeviceRoom See that a peer may have one device more. Throws `TooManyPeers`.
 * @property {(userId: string) => boolean} blocks Whether our user has blocked another one.
 */

/** @typedef {OwnContext & DeviceContext & PresenceContext} PeerContext What a peer needs of the store. */

/** A user has at most 16 devices online. The others are those that have left, and may come back with the same program. */
export const MAX_DEVICES = 32;

/**
 * One peer, as long as the store knows it.
 *
 * @implements {DeviceOwner}
 */
export class Peer {
  /** @type {Bytes | null} the key with which the application lets the peer in */
  admitted = null;
  touched = 0; // when something happened here last
  known = false; // it is a peer, and takes the place of one
  stranger = true; // they have come by themselves: the application has neither called nor written
  /** @type {AldisError | null} why nothing can be delivered before a person has accepted another key */
  unaccepted = null;
  #context;
  #asking = 0;
  /** @type {{ error?: AldisError }} replaced by `close`: so pending calls learn of it */
  #life = {};
  #connections = 0; // of all devices so far
  #heard = 0; // counts what was heard, to tell which device was heard from last
  /** @type {Map<string, PeerDevice>} */
  #devices = new Map();
  /** @type {PeerDevice | null} the device to call, until it is known which one that is */
  #nameless = null;
  /** @type {PeerDevice | null} the device that was chosen last */
  #current = null;
  #chosen = false; // whether `#current` is still the right one

  /**
   * @param {string} userId
   * @param {PeerContext} context
   * @param {PeerPresence} presence
   */
  constructor(userId, context, presence) {
    this.userId = userId;
    this.presence = presence;
    this.#context = context;
  }

  // --- devices -------------------------------------------------------------------------------------------------------

  /** All devices, also one whose name is not known yet. */
  get devices() {
    const devices = [...this.#devices.values()];
    return this.#nameless ? [...devices, this.#nameless] : devices;
  }

  /**
   * A device, made if need be; for null the one that gets what is sent to the user. Throws `TooManyPeers`.
   *
   * @param {string | null} name
   */
  device(name) {
    return name === null ? this.#target() : (this.#devices.get(name) ?? this.#add(name));
  }

  /**
   * A device, if there is one; for null the one that was chosen last for what is sent to the user.
   *
   * @param {string | null} name
   */
  findDevice(name) {
    return name === null ? this.#current : this.#devices.get(name);
  }

  #target() {
    if (!this.#current || !this.#chosen) {
      this.#current = this.#choose();
      this.#chosen = true;
    }
    return this.#current;
  }

  #choose() {
    const heard = [...this.#devices]
      .filter(([, device]) => device.heard)
      .sort(([, one], [, other]) => other.heard - one.heard);
    const name = choose(
      heard.map(([name]) => name),
      this.#listed,
      this.#connected,
      // An earlier run of this program may have sent what waits: nobody else may get it while no other device is there.
      this.#current?.name ?? [...this.#devices].filter(([, { messages }]) => messages.movable).at(-1)?.[0] ?? null,
    );
    if (name === null) {
      return (this.#nameless ??= new PeerDevice(null, this, this.#context));
    }
    try {
      return this.#meet(name);
    } catch (error) {
      if (this.#current) return this.#current;
      throw error;
    }
  }

  /**
   * A device that nobody has asked for by its name. So it may be the one that was meant by the user's.
   *
   * @param {string} name
   */
  #meet(name) {
    let device = this.#devices.get(name);
    if (!device) {
      device = this.#add(name, this.#nameless);
      this.#nameless = null;
    }
    return device;
  }

  /**
   * @param {string} name
   * @param {PeerDevice | null} [nameless]
   */
  #add(name, nameless) {
    if (this.#devices.size) this.#context.makeDeviceRoom(this);
    if (this.#devices.size >= MAX_DEVICES && !this.forgetDevice()) {
      throw new TooManyPeers(MAX_DEVICES);
    }
    const device = nameless ?? new PeerDevice(name, this, this.#context);
    device.name = name;
    this.#devices.set(name, device);
    return device;
  }

  /**
   * Forget a device that is idle, one that is gone first; false when there is none. Nothing says any more which of its
   * messages have arrived.
   */
  forgetDevice() {
    const [oldest] = [...this.#devices]
      .filter(([, device]) => device.idle && device !== this.#current)
      .sort(([, one], [, other]) => +this.#isGone(other) - +this.#isGone(one) || one.touched - other.touched);
    if (!oldest) return false;
    const [name, device] = oldest;
    this.#devices.delete(name);
    const reason = 'too many devices';
    // Later: what a subscriber sends then goes to the devices that there are.
    queueMicrotask(() => void device.close('', reason, new PeerConnectionFailed(this.userId, reason)));
    return true;
  }

  /** The devices that the server lists now; null while that is not known. None when it is gone for good. */
  get #listed() {
    const { presence } = this;
    if (this.#context.ended) return [];
    return this.#context.registered && presence.isCurrent ? presence.devices : null;
  }

  get #connected() {
    return [...this.#devices].flatMap(([name, { paths }]) => (paths.connected ? name : []));
  }

  /** @param {PeerDevice} device */
  #isGone({ name }) {
    return name !== null && gone(name, this.#listed, this.#connected);
  }

  /**
   * Move what waits for devices that are gone to one that is there.
   *
   * @param {PeerDevice} [besides]
   */
  #settle(besides) {
    this.#tellMoved(this.#move(besides));
  }

  /**
   * Move the messages. Nobody is told of it before all have moved: a message that a subscriber sends then must not come
   * before one of them.
   *
   * @param {PeerDevice} [besides]
   * @returns {[device: PeerDevice, target: PeerDevice][]} From where to where.
   */
  #move(besides) {
    this.#chosen = false;
    /** @type {[PeerDevice, PeerDevice][]} */
    const moves = [];
    const nameless = this.#nameless;
    if (nameless && nameless !== besides) {
      const target = this.#target(); // the nameless one itself, which may have its name by now
      if (target !== nameless) {
        this.#nameless = null;
        moves.push([nameless, target]);
      }
    }
    // What was sent to a device that was heard from earlier was sent earlier, as a rule.
    for (const device of [...this.#devices.values()].sort((one, other) => one.heard - other.heard)) {
      if (device === besides || !device.movable || !this.#isGone(device)) continue;
      const target = this.#target();
      if (target !== device && !this.#isGone(target)) moves.push([device, target]);
    }
    for (const [device, target] of moves) device.moveTo(target);
    return moves;
  }

  /** @param {[device: PeerDevice, target: PeerDevice][]} moves */
  #tellMoved(moves) {
    for (const [device, target] of moves) device.movedTo(target);
    if (moves.length) this.counted();
  }

  // --- for the store -------------------------------------------------------------------------------------------------

  /** Whether there should be a connection. */
  get wanted() {
    return this.#asking > 0 || this.devices.some(({ wanted }) => wanted);
  }

  /** Whether it may be forgotten to make place for another peer. */
  get idle() {
    return !this.#asking && this.devices.every(({ idle }) => idle);
  }

  /**
   * The peer as the application sees it.
   *
   * @returns {PeerView}
   */
  get view() {
    const { online, devices: listed } = this.presence;
    const { state, roundTripTime, error, path, features } = this.#current?.view ?? UNKNOWN;
    const shown = [...this.#devices].flatMap(([name, device]) => (device.shown ? name : []));
    /** @type {Record<string, DeviceView>} */
    const devices = Object.create(null);
    for (const name of [...listed, ...shown]) {
      const isOnline = online && listed.includes(name); // null while that is not known
      devices[name] = { device: name, online: isOnline, ...(this.#devices.get(name)?.view ?? UNKNOWN) };
    }
    return {
      userId: this.userId,
      state,
      online,
      roundTripTime,
      ...this.#context.pins.known(this.userId),
      queued: this.devices.reduce((sum, { queued }) => sum + queued, 0),
      error: this.unaccepted ?? error,
      path,
      connections: this.#connections,
      features,
      blocked: this.#context.blocks(this.userId),
      devices,
    };
  }

  /**
   * Returns when a device is connected, or for null the one that the choice falls on. Throws `PeerError`, `StateError`,
   * `TooManyPeers`, `LoadFailed`, why the server is gone for good, and `UsageError` for what is no fingerprint.
   *
   * @param {string | null} name
   * @param {number} seconds
   * @param {string | null} fingerprint That of the only key that will do.
   */
  async connect(name, seconds, fingerprint) {
    let device = this.device(name);
    this.check(device);
    this.#asking++;
    const life = this.#life;
    const { pins, timers } = this.#context;
    const until = timers.time() + seconds;
    try {
      if (!this.#context.direct || fingerprint !== null) {
        await this.#context.load();
        // Also an empty one: a caller that means to require something must not require nothing by mistake.
        if (fingerprint !== null) {
          seconds = await pins.requireInTime(this.userId, checkFingerprint(fingerprint), seconds, timers);
        }
        device = this.device(name);
        this.check(device);
        if (life.error) {
          throw life.error;
        }
      }
      for (;;) {
        const before = device;
        try {
          await device.connect(seconds, name !== null);
          this.#settle(); // the device may be gone by now, and the wish with it
          return;
        } catch (error) {
          if (!(error instanceof PeerOffline) || (device = this.device(name)) === before) throw error;
          this.check(device); // much may have happened since
          seconds = +Math.max(until - timers.time(), 0).toFixed(1); // it has moved
        }
      }
    } finally {
      this.#asking--;
    }
  }

  /**
   * Queue a message for a device, or for null the one that the choice falls on. Throws `QueueFull`, `TooManyPeers`,
   * `PeerKeyChanged` until the new key is accepted, and why the server is gone for good where it would be needed.
   *
   * @param {string | null} name
   * @param {number} content One of `Content`.
   * @param {Bytes} data
   */
  send(name, content, data) {
    const device = this.device(name);
    this.check(device);
    return device.send(content, data, name !== null);
  }

  /**
   * Take in what a device says through the server; false when it is meant for a connection that is gone. Throws
   * `TooManyPeers` for an offer.
   *
   * @param {PeerEvent} event
   * @param {string} name
   */
  receive(event, name) {
    const device = event.type === 'offerReceived' ? this.#meet(name) : this.#devices.get(name);
    this.#current ??= device ?? null; // what becomes of a call shows, also when nothing was heard from anybody yet
    return device?.receive(event) ?? false;
  }

  /**
   * The server takes no more messages to a device for a while.
   *
   * @param {string | null} name
   * @param {AldisError} error
   */
  delayed(name, error) {
    const device = name === null ? this.#current : this.#devices.get(name);
    device?.delayed(error);
  }

  /**
   * The server has said which devices are online.
   *
   * @param {PresenceChanged} event
   */
  presenceChanged(event) {
    const anew = this.presence.changed(event);
    const { online, devices } = this.presence;
    for (const device of this.devices) {
      if (!devices.includes(device.name ?? '')) device.left();
    }
    const moves = this.#move(); // first: a dialer that ends a call has that told
    const { publicKey } = event;
    const standing = publicKey && !this.unaccepted && this.#context.pins.standing(this.userId);
    for (const device of this.devices) {
      const { name } = device;
      // Who has got another key will not answer what is under way. As if it had gone: the next attempt sees the key.
      if (standing && !sameKey(standing, publicKey)) device.dialer?.presenceChanged(false, false);
      const isNewest = name === null || name === devices[0];
      device.presenceChanged(name === null ? !!online : devices.includes(name), anew && isNewest);
    }
    this.#tellMoved(moves);
    this.changed();
  }

  /** The server has ended the watch: from now on it has to be asked whether the peer is there. */
  watchEnded() {
    this.presence.watchEnded();
    this.#chosen = false;
    this.devices.forEach(({ dialer }) => dialer?.poke(true));
    this.changed();
  }

  /**
   * We are registered again.
   *
   * @param {boolean} resumed Nothing was missed.
   */
  signalingReturned(resumed) {
    this.presence.isCurrent &&= resumed;
    this.#settle();
    this.devices.forEach((device) => device.signalingReturned(resumed));
  }

  /**
   * The application has accepted a key.
   *
   * @param {boolean} changed Another one was pinned before.
   */
  accept(changed) {
    this.unaccepted = null;
    this.devices.forEach((device) => device.accepted(changed));
    this.changed();
  }

  /** Other paths may be used from now on. */
  pathChanged() {
    this.devices.forEach((device) => device.pathChanged());
  }

  /** The device that begins a session of the relay. Throws `TooManyPeers`. @param {string} name */
  relayed(name) {
    const device = this.#meet(name);
    this.#current ??= device;
    return device;
  }

  /**
   * End everything with this peer (`PeerDevice.close`), or with one device of it.
   *
   * @param {string} farewell
   * @param {string} reason
   * @param {AldisError} error
   * @param {string | null} [name]
   */
  async close(farewell, reason, error, name = null) {
    if (name === null) {
      this.#life.error = error;
      this.#life = {};
    }
    const devices = this.devices.filter((device) => name === null || device.name === name);
    await Promise.all(devices.map((device) => device.close(farewell, reason, error)));
  }

  /**
   * The server will never be there again: what needs it is over, what is connected goes on.
   *
   * @param {AldisError} error
   */
  signalingEnded(error) {
    this.#settle();
    this.devices.forEach((device) => device.signalingEnded(error));
  }

  // --- for the devices (`DeviceOwner`) -------------------------------------------------------------------------------

  get watched() {
    return this.presence.watched;
  }

  /** @param {PeerDevice} device */
  check(device) {
    if (this.#context.blocks(this.userId)) {
      throw new PeerBlocked(this.userId);
    }
    if (this.unaccepted) {
      throw this.unaccepted;
    }
    const { ended } = this.#context;
    if (ended && !device.path.connected) {
      throw ended;
    }
  }

  /** @param {PeerDevice} device */
  async find(device) {
    await this.presence.find(this.#context);
    // Not the device that asks: its own dialer would be stopped in the midst of it. It is told by the error.
    this.#settle(device);
    if (device.name === null) {
      this.#meet(/** @type {string} */ (this.presence.devices[0])); // it takes this name, unless another one has it
    }
    if (device.name === null || this.#isGone(device)) {
      throw new PeerOffline(device.address);
    }
    this.#forgetSnapshot();
  }

  channelOpened() {
    this.#connections++;
  }

  /** @param {PeerDevice} device */
  heard(device) {
    if (device === this.#current && device.heard && device.heard === this.#heard) return;
    device.heard = ++this.#heard;
    this.#current = device;
    this.#chosen = false;
    if (this.#nameless) {
      this.#settle();
    }
    this.counted(); // once in a turn: not in the midst of a frame, nor for each that devices say by turns
  }

  /**
   * @param {PeerDevice} device
   * @param {AldisError} error
   */
  keyChanged(device, error) {
    if (this.#connected.length) {
      // A device that is connected has proved the pinned key, whatever the server says: it goes on.
      device.giveUp(error);
      return;
    }
    this.unaccepted = error;
    for (const each of this.devices) {
      if (each !== device) each.dialer?.stop(error);
      each.giveUp(error);
    }
  }

  connected() {
    this.#settle();
  }

  lost() {
    this.#settle();
    this.#forgetSnapshot();
  }

  /** Unless the server tells of changes, what it has said is true only in the moment in which it was asked. */
  #forgetSnapshot() {
    this.presence.isCurrent &&= this.watched;
  }

  changed() {
    this.#chosen = false;
    this.#touch();
    this.#context.views.changed(this);
  }

  counted() {
    this.#touch();
    this.#context.views.counted(this);
  }

  #touch() {
    this.touched = this.#context.timers.time();
  }
}
