/**
 * All that a store keeps of one device of a peer: its messages, its dialer and the path to it.
 *
 * Rules of this module:
 *
 * - A device outlives its connections (`path`), and the login.
 * - Its name is not known before the server has said which devices are online, or one has called. Then it stays.
 * - A device that breaks the protocol loses the connection, and nothing else: what it has sent before stands.
 * - What belongs to the user (presence, the key, whether it is blocked) is in `peer.Peer`. It knows of no other device.
 */
import { PeerConnectionFailed, PeerOffline, PeerUnknown } from '../../errors.js';
import { randomBytes } from '../../peer/trust.js';
import { toBase64url } from '../../protocol/codec.js';
import * as Content from '../../protocol/kinds.js';
import { violation } from '../../protocol/shapes.js';
import { MessageStream } from '../messages/stream.js';
import { Dialer } from './dialer.js';
import { DirectPath } from './path.js';

/**
 * @import { Backoff } from '../../client/backoff.js'
 * @import { PeerEvent } from '../../client/events.js'
 * @import { Timers } from '../../client/timers.js'
 * @import { AldisError, PeerError } from '../../errors.js'
 * @import { PeerListener } from '../../peer/connection.js'
 * @import { PeerState } from '../../peer/negotiation.js'
 * @import { Ack, Chunk, Hello } from '../../protocol/channel.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { Delivery } from '../messages/delivery.js'
 * @import { Recipient } from '../messages/stream.js'
 * @import { PeerServices } from '../services.js'
 * @import { DeviceView, StoreLimits } from '../state.js'
 * @import { PathContext } from './path.js'
 */

/**
 * @typedef {object} OwnContext
 * @property {{ limits: StoreLimits, backoff: Backoff, mailbox: Recipient }} setup How much may be kept, the pauses
 *   between calls, and where messages go.
 * @property {Timers} timers
 * @property {boolean} registered Whether the server can be asked.
 * @property {AldisError | null} ended Why the server will never be there again, or null.
 * @property {PeerServices} services Files and calls.
 * @property {(size: number) => void} arrived So many bytes of a message have come.
 * @property {(device: PeerDevice, data: Bytes) => void} controlReceived The device's store says something. Throws
 *   `ProtocolViolation`.
 */

/** @typedef {OwnContext & PathContext} DeviceContext What a device needs of the store. */

/**
 * @typedef {object} DeviceOwner The user.
 * @property {string} userId
 * @property {AldisError | null} blocked Why nothing can be delivered before a person has accepted another key.
 * @property {boolean} watched Whether the server will tell when one of the user's devices comes online.
 * @property {(device: PeerDevice) => Promise<void>} find Ask the server for a device. Throws as `DialTarget.find`.
 * @property {(device: PeerDevice) => void} check Throws `PeerKeyChanged` until the new key is accepted, and why the
 *   server is gone for good where it is needed.
 * @property {() => void} channelOpened A device has a new connection.
 * @property {(device: PeerDevice) => void} heard Something has come from the device.
 * @property {(device: PeerDevice, error: AldisError) => void} keyChanged The server says that the user has another key
 *   than the pinned one.
 * @property {() => void} connected A device has been connected.
 * @property {() => void} lost A device may be gone.
 * @property {() => void} changed Something in a view may have changed.
 * @property {() => void} counted Only a number in a view may have changed.
 */

// Of what the device's program says that it can do; this version knows of two things, with short names.
const MAX_FEATURES = 16;
const MAX_FEATURE = 32;
const STREAM_BYTES = 16;

/**
 * How a device stands of which nothing is known.
 *
 * @type {Omit<DeviceView, 'device' | 'online'>}
 */
export const UNKNOWN = {
  state: 'new',
  roundTripTime: null,
  queued: 0,
  error: null,
  connections: 0,
  features: [],
};

/**
 * One device of a peer, as long as the store knows it.
 *
 * @implements {PeerListener}
 */
export class PeerDevice {
  kept = false; // the application has asked for a connection with the user, and had it
  keptHere = false; // the same, with exactly this device
  heard = 0; // the larger, the later something has come; 0 is never
  touched = 0; // when something happened here last
  /** @type {AldisError | null} */
  error = null;
  #owner;
  #context;
  #asking = 0;
  #connections = 0;
  /** @type {readonly string[]} what the device's program can do, as it has said last */
  #features = UNKNOWN.features;

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
    this.path = new DirectPath(this, context);
    this.messages = new MessageStream(this, toBase64url(randomBytes(STREAM_BYTES)), {
      limits: context.setup.limits,
      path: this.path,
      recipient: context.setup.mailbox,
      control: (data) => this.#obey(() => context.controlReceived(this, data)),
      timers: context.timers,
    });
    this.dialer = new Dialer(this, context.setup.backoff, context.timers, Math.random);
  }

  // --- what others want to know ------------------------------------------------------------------------------------

  /** As an application writes it. */
  get address() {
    return this.name === null ? this.userId : `${this.userId}/${this.name}`;
  }

  /** Whether there should be a connection. */
  get wanted() {
    return this.kept || this.keptHere || this.#asking > 0 || this.queued > 0 || this.#context.services.busy(this);
  }

  /** Whether it may be forgotten to make place for another. */
  get idle() {
    return !(this.path.connected || this.state === 'connecting' || this.wanted || this.messages.waiting);
  }

  /** Whether an application may want to know of it, although the server does not list it. */
  get shown() {
    return this.queued > 0 || !['new', 'closed', 'failed'].includes(this.path.told);
  }

  /** What the device's program can do; null while nothing gets through to it. */
  get features() {
    return this.state === 'connected' ? this.#features : null;
  }

  /** The connection, also one in the making: a track that is no longer sent must be taken off it in any state. */
  get connection() {
    return this.path.connection;
  }

  /** The device as the application sees it. */
  get view() {
    const { connection, told: state } = this.path;
    const isConnected = state === 'connected';
    return {
      state,
      roundTripTime: isConnected ? (connection?.roundTripTime ?? null) : null,
      queued: this.queued,
      error: this.error,
      connections: this.#connections,
      features: isConnected ? this.#features : UNKNOWN.features,
    };
  }

  // --- for the user and the services -------------------------------------------------------------------------------

  /**
   * Returns when the device is connected. Throws as `Dialer.connected`.
   *
   * @param {number} seconds
   * @param {boolean} addressed It has to be this device.
   */
  async connect(seconds, addressed) {
    this.#asking++;
    try {
      await this.dialer.connected(seconds);
      if (addressed) this.keptHere = true;
      else this.kept = true;
    } finally {
      this.#asking--;
      this.dialer.reconsider();
      this.#changed();
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
    if (this.state !== 'connected') {
      this.dialer.queued();
    }
    this.#counted();
    return delivery;
  }

  /** Have the device called, for as long as it is `wanted`. Throws what `DeviceOwner.check` throws. */
  call() {
    this.#owner.check(this);
    this.dialer.queued();
  }

  /** What needed the device is over, perhaps. */
  reconsider() {
    this.dialer.reconsider();
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
    const { connection } = this.path;
    const isKnown = event.type === 'answerReceived' ? connection?.knows(event.connection) : connection;
    if (event.type !== 'offerReceived' && !isKnown) {
      return false;
    }
    void this.path.open().receive(event);
    return true;
  }

  /**
   * The application has accepted a key.
   *
   * @param {boolean} changed Another one was pinned before.
   */
  accepted(changed) {
    this.error = null;
    if (changed) {
      const reason = 'another key was accepted';
      this.hangUp(reason);
      // The owner of the new key knows nothing of what is under way.
      this.#over(new PeerConnectionFailed(this.userId, reason), true);
    }
    this.dialer.accepted(changed);
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
    this.error = state === 'failed' ? error : this.error;
    this.#over(error); // the other side is told goodbye, which ends it there
    this.dialer.stateChanged(state, error);
    this.#owner.lost();
    this.#changed();
  }

  /**
   * What the device has said breaks the protocol.
   *
   * @param {string} problem
   */
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
    this.dialer.stop(error);
    this.messages.flush();
    const connection = this.path.detach();
    this.#fail(reason, error);
    if (this.path.told !== 'new') {
      this.path.told = 'closed';
    }
    this.error = this.#owner.blocked;
    this.#changed();
    await this.#context.leaving(connection?.close(farewell));
  }

  /**
   * The server will never be there again: what needs it is over, what is connected goes on.
   *
   * @param {AldisError} error
   */
  signalingEnded(error) {
    if (!this.path.connected) {
      this.dialer.stop(error);
      this.#fail(`the server is gone for good: ${error.message}`, error);
      this.#changed();
    }
  }

  /**
   * The user has another key: nothing that waits can be delivered to this device.
   *
   * @param {AldisError} error
   */
  giveUp(error) {
    this.error = error;
    this.path.release('the key has changed', 'failed');
    this.#fail(error.message, error);
  }

  // --- moving to another device ------------------------------------------------------------------------------------

  /** Whether something is here that is meant for the user, and not for exactly this device. */
  get movable() {
    return this.kept || this.#asking > 0 || this.messages.movable > 0 || this.#context.services.movable(this);
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
    this.dialer.stop(new PeerOffline(this.address));
    this.dialer.retry(); // something may be left that does not move
    this.#context.services.moved(this, other);
    other.dialer.queued();
  }

  // --- for the dialer ----------------------------------------------------------------------------------------------

  /** Why the user must not be called. */
  get blocked() {
    return this.#owner.blocked;
  }

  /** How many messages wait for the device. */
  get queued() {
    return this.messages.queued;
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

  /** How the connection stands now; what was told may be a moment older. */
  get state() {
    return this.path.state;
  }

  /** Ask the server for the device. Throws `SignalingError`, `PeerError`. */
  find() {
    return this.#owner.find(this);
  }

  /** Start to connect, unless that is under way. */
  dial() {
    this.path.open().connect();
  }

  /**
   * End an attempt or a connection, for good.
   *
   * @param {string} reason
   */
  hangUp(reason) {
    if (this.connection) {
      this.path.release(reason, 'closed');
      this.#changed();
    }
  }

  /**
   * An attempt has failed.
   *
   * @param {AldisError} error
   * @param {boolean} keyChanged Nothing that waits can be delivered.
   */
  failed(error, keyChanged) {
    // That the device is away is no fault: `online` says it.
    this.error = error instanceof PeerOffline || error instanceof PeerUnknown ? null : error;
    if (keyChanged) {
      this.#owner.keyChanged(this, error);
    }
    this.#owner.lost();
    this.#changed();
  }

  // --- what the connection tells (`PeerListener`) ------------------------------------------------------------------

  /**
   * @param {PeerState} state
   * @param {PeerError | null} error
   */
  stateChanged(state, error) {
    const { path } = this;
    const before = path.told;
    path.told = state;
    if (state === 'connected') {
      this.error = null;
      this.#owner.connected();
      this.#getsThrough();
    } else {
      this.error = error ?? this.error;
      if (before === 'connected') {
        this.#context.services.parted(this);
      }
    }
    // A goodbye that is said after the path was lost is no farewell: the peer has lost the path, too, and gave up first.
    if (state === 'closed' && before === 'connected') {
      this.#over(new PeerConnectionFailed(this.userId, 'it has hung up'));
    }
    // What was told may be overtaken by a new attempt already; the dialer counts attempts.
    if (state === this.state) {
      this.dialer.stateChanged(state, error);
    }
    if (before === 'connected') {
      this.#owner.lost();
    }
    const { ended } = this.#context;
    if (ended) {
      this.signalingEnded(ended);
    }
    this.#changed();
  }

  /** @param {Hello} hello */
  channelOpened(hello) {
    this.#connections++;
    this.#owner.channelOpened();
    // What is not of this version is shown too, so that a program may tell; within reason, since it is a stranger's.
    this.#features = hello.features.filter(({ length }) => length <= MAX_FEATURE).slice(0, MAX_FEATURES);
    if (hello.stream !== this.messages.theirStream) {
      this.#owner.heard(this); // a reconnect says nothing of where the user is, a program that starts does
    }
    this.#obey(() => {
      if (this.messages.opened(hello)) {
        this.#over(new PeerConnectionFailed(this.userId, 'it was started anew'), true);
      }
    });
    if (this.path.told === 'connected') {
      this.#getsThrough(); // in place of the connection before
      this.#changed();
    }
  }

  /** @param {Chunk | Ack} frame */
  frameReceived(frame) {
    const isChunk = frame.type !== 'ack';
    if (isChunk) {
      this.#owner.heard(this);
    }
    this.#obey(() => this.messages.received(frame));
    if (isChunk) {
      this.#context.arrived(frame.data.length);
    }
  }

  channelClosed() {
    this.messages.closed();
  }

  writable() {
    this.messages.pump();
  }

  /** @param {AldisError} error */
  refused(error) {
    this.dialer.refused(error);
    if (this.state !== 'connected') {
      this.error = error;
    }
    this.#changed();
  }

  /**
   * @param {MediaStreamTrack} track
   * @param {readonly MediaStream[]} streams
   */
  trackReceived(track, streams) {
    this.#context.services.trackReceived(this, track, streams);
  }

  // --- what comes of it --------------------------------------------------------------------------------------------

  /**
   * @param {string} reason
   * @param {AldisError} error
   */
  #fail(reason, error) {
    this.messages.fail(reason, error);
    this.#over(error);
  }

  /**
   * What is under way beyond messages will not get any further.
   *
   * @param {AldisError} error
   * @param {boolean} [restarted] A new program has taken the other's place: it can be told what is not said yet.
   */
  #over(error, restarted) {
    this.#context.services.ended(this, error, restarted);
  }

  /** What is sent gets through, now or again. */
  #getsThrough() {
    this.#context.services.connected(this, this.#features);
  }

  #changed() {
    this.touched = this.#context.timers.time();
    this.#owner.changed();
  }

  /** A message more, or less, waits. */
  #counted() {
    this.touched = this.#context.timers.time();
    this.#owner.counted();
  }

  /** @param {() => void} takeIn */
  #obey(takeIn) {
    const before = this.queued;
    try {
      takeIn();
      if (this.queued !== before) {
        this.#counted();
      }
    } catch (error) {
      this.broke(violation(error));
    }
  }
}
