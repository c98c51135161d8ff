/**
 * All that a store keeps of one device of a peer: its messages, its dialer and the paths to it.
 *
 * Rules of this module:
 *
 * - A device outlives its connections (`paths`), and the login. `path` is the direct one, which the dialer makes.
 * - Its name is not known before the server has said which devices are online, or one has called. Then it stays.
 * - A device that breaks the protocol loses the connection, and nothing else: what it has sent before stands.
 * - What belongs to the user (presence, the key, one not accepted) is in `peer.Peer`. It knows of no other device.
 */
import { PeerConnectionFailed, PeerOffline, PeerUnknown } from '../../errors.js';
import * as Content from '../../protocol/kinds.js';
import { MessageStream } from '../messages/stream.js';
import { UNKNOWN } from '../state.js';
import { DevicePaths } from './paths.js';

/**
 * @import { Backoff } from '../../client/backoff.js'
 * @import { PeerEvent } from '../../client/events.js'
 * @import { Timers } from '../../client/timers.js'
 * @import { AldisError } from '../../errors.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { Journal } from '../journal/journal.js'
 * @import { Delivery } from '../messages/delivery.js'
 * @import { Recipient, StreamSeams } from '../messages/stream.js'
 * @import { PeerServices } from '../services.js'
 * @import { StoreLimits } from '../state.js'
 * @import { Dialer } from './dialer.js'
 * @import * as Direct from './direct.js'
 * @import { DeviceListener } from './listener.js'
 * @import { PathContext } from './path.js'
 * @import { PathMode } from './paths.js'
 * @import { PeerPresence } from './presence.js'
 * @import { RelayPath } from './relay.js'
 */

/**
 * @typedef {object} OwnContext
 * @property {{ limits: StoreLimits, backoff: Backoff, mailbox: Recipient, journal?: Journal | null }} setup How much may be kept, the pauses
 *   between calls, and where messages go.
 * @property {Timers} timers
 * @property {typeof Direct | null} direct What connects devices; null until it is loaded, before the first login is done.
 * @property {() => Promise<typeof Direct>} load Load it.
 * @property {boolean} registered Whether the server can be asked.
 * @property {AldisError | null} ended Why the server will never be there again, or null.
 * @property {PeerServices | null} services Files and calls; null as `direct`.
 * @property {() => void} needServer A peer waits for the server.
 * @property {() => void} pathLost Nothing arrives from a device: the server may be gone too.
 * @property {() => void} pathFound An engine has a path to a device again: the network is back, and so may the server be.
 * @property {(userId: string) => PathMode} pathMode The paths that may be used with a user.
 * @property {(device: PeerDevice, owner: DeviceOwner) => RelayPath | null} relayPath The relay as the path to a device.
 * @property {(size: number) => void} arrived So many bytes of a message have come.
 * @property {(device: PeerDevice, data: Bytes) => void} controlReceived The device's store says something. Throws
 *   `ProtocolViolation`.
 */

/** @typedef {OwnContext & PathContext} DeviceContext What a device needs of the store. */

/**
 * @typedef {object} DeviceOwner The user.
 * @property {string} userId
 * @property {AldisError | null} unaccepted Why nothing can be delivered before a person has accepted another key.
 * @property {boolean} watched Whether the server will tell when one of the user's devices comes online.
 * @property {(device: PeerDevice) => Promise<void>} find Ask the server for a device. Throws as `DialTarget.find`.
 * @property {(device: PeerDevice) => void} check Throws `PeerKeyChanged` until the new key is accepted, and why the
 *   server is gone for good where it is needed.
 * @property {() => void} channelOpened A device has a new connection.
 * @property {PeerPresence} presence What the server says of the user.
 * @property {(device: PeerDevice) => void} heard Something has come from the device.
 * @property {(device: PeerDevice, error: AldisError) => void} keyChanged The server says that the user has another key
 *   than the pinned one.
 * @property {() => void} connected A device has been connected.
 * @property {() => void} lost A device may be gone.
 * @property {() => void} changed Something in a view may have changed.
 * @property {() => void} counted Only a number in a view may have changed.
 */

/** One device of a peer, as long as the store knows it. */
export class PeerDevice {
  kept = false; // the application has asked for a connection with the user, and had it
  keptHere = false; // the same, with exactly this device
  heard = 0; // the larger, the later something has come; 0 is never
  touched = 0; // when something happened here last
  /** @type {AldisError | null} */
  error = null;
  hasLeft = false; // what it began before, and ends late, is no failure
  #owner;
  #context;
  #asking = 0;
  /** @type {Dialer | null} */
  #dialer = null;
  /** @type {DeviceListener | null} */
  #listener = null;

  /**
   * @param {string | null} name null: not known yet.
   * @param {DeviceOwner} owner
   * @param {DeviceContext} context
   */
  constructor(name, owner, context) {
    this.name = name;
    this.userId = owner.userId;
    this.#owner = owner;
    this.#context = context;
    this.paths = new DevicePaths(this, context, () => context.relayPath(this, owner));
    this.path = this.paths.direct;
    const { journal, limits } = context.setup;
    /** @type {StreamSeams} */
    const seams = {
      limits,
      path: this.paths,
      recipient: context.setup.mailbox,
      control: (data) => this.listener?.obey(() => context.controlReceived(this, data)),
      timers: context.timers,
    };
    this.messages = journal?.stream(this, seams) ?? new MessageStream(this, crypto.randomUUID(), seams);
  }

  /** When to call the device; null until there can be connections. @returns {Dialer | null} */
  get dialer() {
    const { direct, setup, timers } = this.#context;
    return (this.#dialer ??= direct && new direct.Dialer(this, setup.backoff, timers, Math.random));
  }

  /** What a connection tells; null until there can be one. @returns {DeviceListener | null} */
  get listener() {
    const { direct } = this.#context;
    return (this.#listener ??= direct && new direct.DeviceListener(this, this.#owner, this.#context));
  }

  // --- what others want to know ------------------------------------------------------------------------------------

  /** As an application writes it. */
  get address() {
    return this.name === null ? this.userId : `${this.userId}/${this.name}`;
  }

  /** Whether there should be a connection. */
  get wanted() {
    return this.kept || this.keptHere || this.#asking > 0 || this.hasWaiting;
  }

  /** Whether something waits for the device: messages, or files that go on. */
  get hasWaiting() {
    return this.queued > 0 || !!this.#context.services?.busy(this);
  }

  /** Whether it may be forgotten to make place for another. */
  get idle() {
    const { relay } = this.paths;
    const quiet = !(this.path.connected || this.path.state === 'connecting' || relay?.active) || relay?.resting;
    return !!quiet && !(this.wanted || this.messages.waiting);
  }

  /** Whether an application may want to know of it, although the server does not list it. */
  get shown() {
    return this.queued > 0 || !['new', 'closed', 'failed'].includes(this.paths.told);
  }

  /** What the device's program can do; null while nothing gets through to it. */
  get features() {
    return (this.paths.connected && this.listener?.features) || null;
  }

  /** The same for what needs a direct connection, as calls do. */
  get directFeatures() {
    return (this.path.state === 'connected' && this.listener?.features) || null;
  }

  /** The largest file that the path in use takes, in bytes. */
  get fileLimit() {
    return this.paths.carrier === 'relay' ? (this.paths.relay?.maxFileBytes ?? 0) : Infinity;
  }

  /** The connection, also one in the making: a track that is no longer sent must be taken off it in any state. */
  get connection() {
    return this.path.connection;
  }

  /** The device as the application sees it. */
  get view() {
    const { carrier, relay, told: state } = this.paths;
    const isConnected = state === 'connected';
    const { path, features, connections } = this.listener ?? UNKNOWN;
    const connection = carrier === 'relay' ? relay : this.connection;
    return {
      state,
      roundTripTime: isConnected ? (connection?.roundTripTime ?? null) : null,
      queued: this.queued,
      error: this.error,
      path: isConnected ? (carrier === 'relay' ? carrier : path) : null,
      connections,
      features: isConnected ? features : UNKNOWN.features,
    };
  }

  // --- for the user and the services -------------------------------------------------------------------------------

  /**
   * Returns when the device is connected directly; or, when that fails, through the relay. Throws as `Dialer.connected`.
   *
   * @param {number} seconds
   * @param {boolean} addressed It has to be this device.
   */
  async connect(seconds, addressed) {
    this.#asking++;
    const { timers } = this.#context;
    const until = timers.time() + seconds;
    try {
      this.paths.relay?.call();
      await /** @type {Dialer} */ (this.dialer).connected(seconds).catch(async (error) => {
        const isDirect = error instanceof PeerConnectionFailed;
        const { relay } = this.paths;
        if (!isDirect || !(await relay?.opened(Math.max(until - timers.time(), 0)))) {
          throw isDirect ? (relay?.explain(error, this.#mode !== 'direct') ?? error) : error;
        }
      });
      if (addressed) this.keptHere = true;
      else this.kept = true;
    } finally {
      this.#asking--;
      this.dialer?.reconsider();
      this.changed();
    }
  }

  /**
   * Queue a message. Throws `QueueFull`.
   *
   * @param {number} content One of `Content`.
   * @param {Bytes} data
   * @param {boolean} addressed It is for this device and no other.
   * @returns {Delivery}
   */
  send(content, data, addressed) {
    const delivery = this.messages.send(content, data, addressed);
    if (this.path.state !== 'connected') {
      this.paths.relay?.want();
      this.dialer?.queued();
    }
    this.counted();
    return delivery;
  }

  /** Have the device called, for as long as it is `wanted`. Throws what `DeviceOwner.check` throws. */
  call() {
    this.#owner.check(this);
    if (this.path.state !== 'connected') this.paths.relay?.want();
    this.dialer?.queued(this.relayed); // the relay is enough for messages, and the next attempt may be far away
  }

  /** What needed the device is over, perhaps. */
  reconsider() {
    this.dialer?.reconsider();
  }

  /**
   * Queue a control message. Throws `QueueFull`, and what `DeviceOwner.check` throws; nobody is called for it.
   *
   * @param {Bytes} data
   */
  sendControl(data) {
    this.#owner.check(this);
    return this.messages.send(Content.CONTROL, data);
  }

  /**
   * Take in what the device says through the server; false when it is meant for a connection that is gone.
   *
   * @param {PeerEvent} event
   */
  receive(event) {
    if (event.type === 'byeReceived' && this.paths.relay?.bye(event)) return true;
    const { connection } = this.path;
    const isKnown = event.type === 'answerReceived' ? connection?.knows(event.connection) : connection;
    if (event.type !== 'offerReceived' && !isKnown) {
      return false;
    }
    void this.path.open().receive(event);
    return true;
  }

  /** The application has accepted a key. @param {boolean} changed Another one was pinned before. */
  accepted(changed) {
    this.error = null;
    if (changed) {
      const reason = 'another key was accepted';
      this.hangUp(reason);
      this.paths.relay?.drop();
      // The owner of the new key knows nothing of what is under way.
      this.over(new PeerConnectionFailed(this.userId, reason), true);
    }
    this.dialer?.accepted(changed);
  }

  /**
   * End the connection and what is under way on it, and call again later if it is wanted.
   *
   * @param {string} reason
   * @param {'closed' | 'failed'} [state] It has failed by a fault of the device's.
   */
  drop(reason, state = 'failed') {
    const error = new PeerConnectionFailed(this.userId, reason);
    this.path.release(reason, state);
    this.paths.relay?.goodbye(reason);
    this.error = state === 'failed' ? error : this.error;
    this.over(error, 'left'); // the other side is told goodbye, which ends it there
    this.dialer?.stateChanged(state, error);
    this.#owner.lost();
    this.changed();
    this.paths.relay?.wantAgain();
  }

  /** What the device has said breaks the protocol. @param {string} problem */
  broke(problem) {
    this.drop(`it breaks the protocol: ${problem}`);
  }

  /**
   * End everything with this device: it is told `farewell`, what waits for it fails for `reason`, callers that wait for a
   * connection get `error`. It can be used again. Done before it first waits, but for the connection's own end.
   *
   * @param {string} farewell
   * @param {string} reason
   * @param {AldisError} error
   */
  async close(farewell, reason, error) {
    this.kept = this.keptHere = false;
    this.dialer?.stop(error);
    this.messages.flush();
    const connection = this.path.detach();
    const { relay } = this.paths;
    relay?.goodbye(farewell);
    this.#fail(reason, error);
    if (this.path.told !== 'new') {
      this.path.told = 'closed';
    }
    this.error = this.#owner.unaccepted;
    this.changed();
    await this.#context.leaving(Promise.all([connection?.close(farewell), relay?.finish()]).then(() => {}));
  }

  /**
   * The server will never be there again: what needs it is over, what is connected goes on.
   *
   * @param {AldisError} error
   */
  signalingEnded(error) {
    this.paths.relay?.drop();
    if (!this.path.connected) {
      this.dialer?.stop(error);
      this.#fail(`the server is gone for good: ${error.message}`, error);
      this.changed();
    }
  }

  /** The user has another key: nothing that waits can be delivered to this device. @param {AldisError} error */
  giveUp(error) {
    this.error = error;
    this.path.release('the key has changed', 'failed');
    this.paths.relay?.drop();
    this.#fail(error.message, error);
  }

  /**
   * The server says that the device is not there. The relay leads nowhere then, and nobody answers an attempt beside it: a
   * page that is left may not have got to its GOODBYE.
   */
  left() {
    if (this.paths.carrier === 'relay') this.gone();
    this.paths.relay?.drop();
  }

  /** The server says so, and the relay carries the messages, unless there is a direct connection again. */
  gone() {
    if (this.path.connected) return;
    this.dialer?.stop(new PeerOffline(this.address));
    this.hangUp('it has gone');
    this.hasLeft = true;
    this.path.told = 'closed';
  }

  /**
   * The server has said whether the device is online.
   *
   * @param {boolean} online
   * @param {boolean} anew It has just registered.
   */
  presenceChanged(online, anew) {
    if (anew) {
      this.hasLeft = false;
      this.paths.relay?.returned();
    }
    this.dialer?.presenceChanged(online, anew);
    if (online) this.paths.relay?.wantAgain();
  }

  /** We are registered again. @param {boolean} resumed Nothing was missed. */
  signalingReturned(resumed) {
    this.paths.relay?.returned();
    this.dialer?.signalingReturned(resumed);
    this.paths.relay?.wantAgain();
  }

  // --- moving to another device ------------------------------------------------------------------------------------

  /** Whether something is here that is meant for the user, and not for exactly this device. */
  get movable() {
    return this.kept || this.#asking > 0 || this.messages.movable > 0 || !!this.#context.services?.movable(this);
  }

  /**
   * This device is gone, and the other one there: hand over the messages for the user. Nobody is told before `movedTo`.
   *
   * @param {PeerDevice} other
   */
  moveTo(other) {
    if (this.connection) {
      this.path.release('it has gone', 'closed');
    }
    this.paths.relay?.drop();
    other.messages.takeOver(this.messages.withdraw());
    other.kept ||= this.kept;
    this.kept = false;
  }

  /**
   * The messages are there: hand over what else is meant for the user, and have the other device called.
   *
   * @param {PeerDevice} other
   */
  movedTo(other) {
    // Whoever waits for a connection goes on waiting for the other one (`Peer.connect`).
    this.dialer?.stop(new PeerOffline(this.address));
    this.dialer?.retry(); // something may be left that does not move
    this.#context.services?.moved(this, other);
    other.dialer?.queued();
  }

  // --- for the dialer ----------------------------------------------------------------------------------------------

  /** Why the user must not be called. */
  get unaccepted() {
    return this.#owner.unaccepted;
  }

  /** How many messages wait for the device. */
  get queued() {
    return this.messages.queued;
  }

  /** The device waits for the server. */
  needServer() {
    this.#context.needServer();
  }

  /** Whether messages get through meanwhile, by the relay. */
  get relayed() {
    return !!this.paths.relayed && !this.relayOnly;
  }

  /** Whether nothing was said through the relay for a while. */
  get resting() {
    return !!this.paths.relay?.resting;
  }

  /** Whether the server can be asked. */
  get registered() {
    return this.#context.registered;
  }

  /** Whether the server will tell when the device comes online. */
  get watched() {
    return this.#owner.watched;
  }

  /** When the turn of the attempt came; null while it waits for it. Long ago when there is no attempt. */
  get clockFrom() {
    return this.connection ? this.connection.clockFrom : 0;
  }

  /** How the connection stands now that the dialer makes; what was told may be a moment older. */
  get state() {
    return (this.relayOnly && this.paths.relay?.state) || this.path.state;
  }

  /** Ask the server for the device. Throws `SignalingError`, `PeerError`. */
  async find() {
    await this.#owner.find(this);
    await this.paths.relay?.prepare();
    this.paths.relay?.call();
  }

  /** Start to connect, unless that is under way. */
  dial() {
    this.hasLeft = false;
    if (!this.relayOnly) {
      this.path.open().connect();
    } else if (!this.paths.relay?.want()) {
      const reason = this.paths.relay?.failure ?? 'the relay cannot be used, and no other path may be';
      const error = new PeerConnectionFailed(this.userId, reason, '', '', false);
      queueMicrotask(() => this.dialer?.stateChanged('failed', error)); // the dialer waits for it from now on
    }
  }

  // --- the relay ---------------------------------------------------------------------------------------------------

  get #mode() {
    return this.#context.pathMode(this.userId);
  }

  /** Whether the relay is the only path that may be used. */
  get relayOnly() {
    return this.#mode === 'relay';
  }

  /** Other paths may be used from now on: end what may not go on, and begin anew. */
  pathChanged() {
    if (this.#mode !== 'auto') {
      // An address that the other side has can be used until the connection ends.
      this.hangUp('another path was chosen');
      this.path.told = 'new';
    }
    if (this.#mode === 'direct') this.paths.relay?.drop();
    if (this.wanted) {
      this.paths.relay?.want();
      this.dialer?.poke(true);
    }
    this.changed();
  }

  /** End an attempt or a connection, for good. @param {string} reason */
  hangUp(reason) {
    if (this.connection) {
      this.path.release(reason, 'closed');
      this.changed();
    }
  }

  /**
   * An attempt has failed.
   *
   * @param {AldisError} error
   * @param {boolean} keyChanged Nothing that waits can be delivered.
   */
  failed(error, keyChanged) {
    // That it is away is no fault: `online` says it. While the relay carries the messages, nothing is.
    const isAway = error instanceof PeerOffline || error instanceof PeerUnknown;
    this.error = isAway || this.paths.connected ? null : error;
    this.paths.hadRelay &&= !!this.paths.relay?.open;
    if (error instanceof PeerConnectionFailed && this.dialer?.inVain) this.#context.services?.notDirect(this);
    if (keyChanged) {
      this.#owner.keyChanged(this, error);
    }
    this.#owner.lost();
    this.changed();
  }

  /** The server takes no more messages to the device for a while; an attempt waits for that. @param {AldisError} error */
  delayed(error) {
    if (this.state === 'connecting') {
      this.error = error;
      this.changed();
    }
  }

  // --- what comes of it --------------------------------------------------------------------------------------------

  /**
   * @param {string} reason
   * @param {AldisError} error
   */
  #fail(reason, error) {
    this.messages.fail(reason, error);
    this.over(error);
  }

  /**
   * What is under way beyond messages will not get any further.
   *
   * @param {AldisError} error
   * @param {boolean | 'same' | 'left'} [restarted] See `PeerServices.ended`.
   */
  over(error, restarted) {
    this.#context.services?.ended(this, error, restarted);
  }

  /** Something in its view may have changed. */
  changed() {
    this.touched = this.#context.timers.time();
    this.#owner.changed();
  }

  /** A message more, or less, waits. */
  counted() {
    this.touched = this.#context.timers.time();
    this.#owner.counted();
  }
}
