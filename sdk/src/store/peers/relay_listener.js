/**
 * What the relay tells a device, and what comes of it: `listener` is the same for the direct connection.
 *
 * Rules: the messages of a session are taken only while the session carries them. A device that breaks the protocol loses
 * the session, and nothing else.
 */
import { PeerConnectionFailed } from '../../errors.js';
import { checkedSealKey } from '../../identity/seal_keys.js';
import { sameKey } from './pinning.js';

/**
 * @import { PeerSession } from '../../peer/session.js'
 * @import { Timers } from '../../client/timers.js'
 * @import { AldisError } from '../../errors.js'
 * @import { PublishedSealKey } from '../../identity/seal_keys.js'
 * @import { PeerTiming } from '../../peer/timing.js'
 * @import { Ack, Chunk, Hello } from '../../protocol/channel.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { DeviceOwner, PeerDevice } from './device.js'
 * @import { DeviceListener } from './listener.js'
 * @import { PathMode } from './paths.js'
 * @import { DirectoryPins } from './pinning.js'
 * @import { RelayLogin } from './relay_login.js'
 */

/** @typedef {{ sealKey: Bytes, identityKey: Bytes }} TheirKeys The seal key of a device, and the identity key that has signed it. */
/** @typedef {{ pathMode: (userId: string) => PathMode, pins: DirectoryPins }} ListenerContext What it needs of the store. */
/**
 * @typedef {object} RelayContext What the relay needs of the store.
 * @property {RelayLogin | null} relay null while the server cannot be asked, or relays nothing.
 * @property {Timers} timers
 * @property {{ timing: PeerTiming }} setup
 * @property {(farewell: Promise<void>) => Promise<void>} leaving Something is still on its way.
 */
/** @typedef {{ published: PublishedSealKey, identityKey: Bytes, sealKey: Bytes | null }} Checked */

/**
 * Whether a HELLO was made before the one of that stream and number. Programs that do not count theirs are believed.
 *
 * @param {Pick<Hello, 'stream' | 'channel'>} hello
 * @param {string | null | undefined} stream
 * @param {number} channel
 */
export const isOlder = (hello, stream, channel) => hello.stream === stream && (hello.channel ?? Infinity) < channel;

/** Why nothing goes through the server, by `relay` of `PeerConnectionFailed`. */
const NO_RELAY = {
  none: 'no relay is used',
  'no-key': 'the other program offers no relay',
  refused: 'the other side uses no relay, or not with us',
  tried: 'no answer came through the relay',
};

/**
 * The error of a direct connection that found no path, with why the relay did not help either.
 *
 * @param {PeerConnectionFailed} error
 * @param {keyof typeof NO_RELAY} relay
 */
export const unrelayed = ({ userId, reason, turn }, relay) =>
  new PeerConnectionFailed(userId, `${reason}; ${NO_RELAY[relay]}`, turn, relay);

export class RelayListener {
  #device;
  #owner;
  #listener;
  #context;
  #firstOf;
  /** @type {Checked | null} */
  #checked = null;

  /**
   * @param {PeerDevice} device
   * @param {DeviceOwner} owner
   * @param {DeviceListener} listener
   * @param {ListenerContext} context
   * @param {typeof PeerSession.firstOf} firstOf
   */
  constructor(device, owner, listener, context, firstOf) {
    this.#device = device;
    this.#owner = owner;
    this.#listener = listener;
    this.#context = context;
    this.#firstOf = firstOf;
  }

  get userId() {
    return this.#device.userId;
  }

  get name() {
    return this.#device.name;
  }

  get address() {
    return this.#device.address;
  }

  get queued() {
    return this.#device.queued;
  }

  get relayOnly() {
    return this.#device.relayOnly;
  }

  /** Whether there is a reason to begin a session, and the other side has not taken leave. */
  get wanted() {
    return this.#device.wanted && !this.#device.dialer?.hushed;
  }

  /** Whether HELLOs are being exchanged on a direct connection. */
  get directOpens() {
    return !!this.#device.connection?.opening;
  }

  /** Whether the relay may be used with the user, and there is no direct connection. */
  get mayBegin() {
    const { userId, path } = this.#device;
    if (this.#context.pathMode(userId) === 'direct' || path.state === 'connected') return false;
    try {
      this.#owner.check(this.#device);
      return true;
    } catch {
      return false;
    }
  }

  /** Ask the server for the device. Throws as `PeerDevice.find`. */
  find() {
    return this.#device.find();
  }

  // --- their key ---------------------------------------------------------------------------------------------------

  /** The seal key that the device has published, and the identity key that counts for the user. */
  get #published() {
    const { name, userId } = this.#device;
    const published = this.#owner.presence.sealKeys.get(name ?? '');
    const identityKey = published && this.#context.pins.standing(userId);
    return published && identityKey ? { published, identityKey } : null;
  }

  /** The key that the device has published, if it was checked; else it is checked now, and a session begun then. */
  get theirKeys() {
    const found = this.#published;
    const checked = this.#checked;
    if (!found || !checked || !isSame(checked, found)) {
      if (found) void this.prepare().then(() => this.#device.paths.relay?.wantAgain());
      return null;
    }
    const { sealKey, identityKey } = checked;
    return sealKey && { sealKey, identityKey };
  }

  /** Check the key that the device has published. */
  async prepare() {
    const { name, userId } = this.#device;
    const found = this.#published;
    if (name === null || !found || (this.#checked && isSame(this.#checked, found))) return;
    const { published, identityKey } = found;
    const sealKey = await checkedSealKey(published, identityKey, userId, name);
    if (!sealKey) console.warn(`the seal key of ${this.#device.address} is not signed by its identity key`);
    this.#checked = { ...found, sealKey };
  }

  // --- what has happened -------------------------------------------------------------------------------------------

  /** @param {boolean} early Messages may follow at once. */
  hello(early) {
    this.#listener.relayed();
    return this.#device.paths.relayHello(early);
  }

  /**
   * Whether their HELLO on a new session is older than the direct connection, which was faster.
   *
   * @param {Bytes[]} frames The first ones of the session.
   */
  isLate(frames) {
    const frame = this.#firstOf(frames);
    const { paths, path, messages } = this.#device;
    return (
      frame?.type === 'hello' &&
      paths.carrier === 'direct' &&
      path.state === 'connected' &&
      isOlder(frame, messages.theirStream, this.#listener.channel)
    );
  }

  /** The session is open. @param {Hello} hello The other side's. */
  opened(hello) {
    this.#device.error = null;
    this.#device.hasLeft = false;
    this.#device.paths.hadRelay = true;
    this.#owner.connected();
    if (!this.#listener.opened(hello)) return;
    this.#listener.getsThrough();
    if (this.#device.relayOnly) this.#device.dialer?.stateChanged('connected', null);
    this.#device.changed();
  }

  /** @param {Chunk | Ack} frame */
  frameReceived(frame) {
    this.#listener.take(frame);
  }

  /** There is room. */
  pump() {
    this.#device.messages.pump();
  }

  /**
   * The session is over.
   *
   * @param {string} reason
   * @param {boolean} byThem The other side has taken leave.
   */
  closed(reason, byThem) {
    const device = this.#device;
    const { paths } = device;
    if (!paths.relayClosed()) return;
    paths.hadRelay &&= device.wanted && !byThem && !paths.relay?.refuses; // else nothing repairs it now
    if (byThem) {
      device.over(new PeerConnectionFailed(device.userId, 'it has hung up'), 'left');
      device.hangUp('it has hung up');
      device.hasLeft = true;
      device.path.told = 'closed';
      device.dialer?.dismissed();
    } else {
      const error = new PeerConnectionFailed(device.userId, reason, '', '', false);
      // What an attempt at a direct connection has said stands.
      if (!paths.hadRelay && !paths.connected && (!device.error || device.relayOnly)) device.error = error;
      if (device.relayOnly) {
        device.path.told = 'failed';
        device.dialer?.stateChanged('failed', error);
      }
    }
    this.#owner.lost();
    device.changed();
  }

  /** The server says that the other side, with which there was a session, is not online any more. */
  gone() {
    this.#device.gone();
  }

  /** We have ended the session, without a word. */
  dropped() {
    this.#device.paths.hadRelay = false;
    if (this.#device.paths.relayClosed()) this.#owner.changed();
  }

  /** The other side breaks the protocol. @param {string} reason */
  violated(reason) {
    this.#device.drop(reason);
  }

  /** The key of who answers is not the pinned one. @param {AldisError} error */
  untrusted(error) {
    this.#listener.refused(error);
  }
}

/** @param {Checked} checked @param {{ published: PublishedSealKey, identityKey: Bytes }} found */
const isSame = (checked, { published, identityKey }) =>
  sameKey(checked.published.publicKey, published.publicKey) &&
  sameKey(checked.published.signature, published.signature) &&
  sameKey(checked.identityKey, identityKey);
