/**
 * All that a store keeps of one peer: its messages, the dialer, and the connection when there is one.
 *
 * Rules of this module:
 *
 * - A peer outlives its connections. It listens to one at a time: what was let go of is not heard any more.
 * - A peer that breaks the protocol loses the connection, and nothing else: what it has sent before stands.
 * - What a peer may ask of the store is in `PeerContext`; it knows of no other peer.
 */
import { PeerConnectionFailed, PeerKeyChanged, PeerOffline, PeerUnknown, RequestFailed } from '../../errors.js';
import { randomBytes } from '../../peer/trust.js';
import { DEFAULT_DEVICE, split } from '../../protocol/addresses.js';
import { toBase64url } from '../../protocol/codec.js';
import * as Content from '../../protocol/kinds.js';
import { violation } from '../../protocol/shapes.js';
import { Dialer, registeredAnew } from './dialer.js';
import { MessageStream } from '../messages/stream.js';
import { checkFingerprint, sameKey } from './pinning.js';

/**
 * @import { AldisError, PeerError } from '../../errors.js'
 * @import { PeerConnection, PeerListener } from '../../peer/connection.js'
 * @import { PeerState } from '../../peer/negotiation.js'
 * @import { Ack, Chunk, Hello, OurHello } from '../../protocol/channel.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { Recipient } from '../messages/stream.js'
 * @import { Delivery } from '../messages/delivery.js'
 * @import { Backoff } from '../../client/backoff.js'
 * @import { SignalingClient } from '../../client/client.js'
 * @import { PeerEvent } from '../../client/events.js'
 * @import { PeerServices } from '../services.js'
 * @import { PeerView, StoreLimits } from '../state.js'
 */

/**
 * What a peer needs of the store that it belongs to.
 *
 * @typedef {object} PeerContext
 * @property {{ limits: StoreLimits, backoff: Backoff, mailbox: Recipient }} setup How much may be kept, the pauses between
 *   calls, and where messages go.
 * @property {Pick<SignalingClient, 'watch' | 'discover'>} client
 * @property {import('../../client/timers.js').Timers} timers
 * @property {import('./pinning.js').DirectoryPins} pins
 * @property {boolean} registered Whether the server can be asked.
 * @property {AldisError | null} ended Why the server will never be there again, or null.
 * @property {(userId: string, listener: PeerListener, hello: () => OurHello) => PeerConnection} connect Make a connection.
 * @property {(farewell: Promise<void> | undefined) => Promise<void>} leaving A goodbye is on its way.
 * @property {(peer: Peer) => void} peerChanged Something in `Peer.view` may have changed.
 * @property {PeerServices} services What goes on with peers beyond messages.
 * @property {() => void} arrived A piece of a message has come.
 * @property {(peer: Peer, data: Bytes) => void} controlReceived The peer's store says something. Throws
 *   `ProtocolViolation`.
 */

// Of what the peer's program says that it can do; this version knows of two things, with short names.
const MAX_FEATURES = 16;
const MAX_FEATURE = 32;
const STREAM_BYTES = 16;

/** @type {readonly string[]} */
const NOTHING = [];

/**
 * One peer, as long as the store knows it.
 *
 * @implements {PeerListener}
 */
export class Peer {
  kept = false; // the application has asked for a connection, and had it
  /** @type {Bytes | null} the key with which the application lets the peer in */
  admitted = null;
  touched = 0; // when something happened here last
  known = false; // it is a peer, and takes the place of one
  stranger = true; // they have come by themselves: the application has neither called nor written
  shown = false; // the application watches it
  watched = false; // the server tells of it
  /** @type {boolean | null} what the server says */
  online = null;
  /** @type {readonly string[]} those that are online, newest first */
  devices = NOTHING;
  /** @type {Readonly<PeerView> | null} how it stood when the application was told last */
  told = null;
  #context;
  #asking = 0;
  /** @type {{ error?: AldisError }} until `close`: how those learn of it who wait for something else */
  #life = {};
  /** @type {PeerState} */
  #state = 'new';
  /** @type {AldisError | null} */
  #error = null;
  /** @type {AldisError | null} why nothing can be delivered before a person has accepted another key */
  blocked = null;
  /** @type {PeerConnection | null} */
  #connection = null;
  #connections = 0;
  /** @type {readonly string[]} what the peer's program can do, as it has said last */
  #features = [];

  /**
   * @param {string} userId
   * @param {PeerContext} context
   */
  constructor(userId, context) {
    this.userId = userId;
    this.#context = context;
    this.messages = new MessageStream(userId, toBase64url(randomBytes(STREAM_BYTES)), {
      limits: context.setup.limits,
      path: this,
      recipient: context.setup.mailbox,
      control: (data) => this.#obey(() => context.controlReceived(this, data)),
      timers: context.timers,
    });
    this.dialer = new Dialer(this, context.setup.backoff, context.timers, Math.random);
  }

  // --- for the store -------------------------------------------------------------------------------------------------

  /** Whether there should be a connection. */
  get wanted() {
    return this.kept || this.#asking > 0 || this.queued > 0 || this.#context.services.busy(this);
  }

  /** Whether it may be forgotten to make place for another peer. */
  get idle() {
    return !(this.connected || this.state === 'connecting' || this.wanted || this.messages.waiting);
  }

  /** What the peer's program can do; null while nothing gets through to it. */
  get features() {
    return this.state === 'connected' ? this.#features : null;
  }

  /** Whether there is a connection, be it broken at the moment: it needs no server. */
  get connected() {
    return this.state === 'connected' || this.state === 'disconnected';
  }

  /** What connects us, or is about to: what is not to be sent any more must be taken off it in any state. */
  get connection() {
    return this.#connection;
  }

  /**
   * The peer as the application sees it.
   *
   * @returns {PeerView}
   */
  get view() {
    return {
      userId: this.userId,
      state: this.#state,
      online: this.online,
      roundTripTime: this.#state === 'connected' ? (this.#connection?.roundTripTime ?? null) : null,
      ...this.#context.pins.known(this.userId),
      queued: this.queued,
      error: this.#error,
      connections: this.#connections,
      features: this.#state === 'connected' ? this.#features : NOTHING,
    };
  }

  /**
   * Returns when the peer is connected. Throws `PeerError`, `StateError`, why the server is gone for good, and `UsageError`
   * for what is no fingerprint.
   *
   * @param {number} seconds
   * @param {string | null} fingerprint That of the only key that will do.
   */
  async connect(seconds, fingerprint) {
    this.#check();
    this.#asking++;
    const life = this.#life;
    try {
      // Also an empty one: who means to require something must not end up with requiring nothing.
      if (fingerprint !== null) {
        const { pins, timers } = this.#context;
        const began = timers.time();
        const required = pins.require(this.userId, checkFingerprint(fingerprint));
        await new Promise((resolve, reject) => {
          const late = () =>
            reject(new PeerConnectionFailed(this.userId, `the pins have not answered after ${seconds} s`));
          required.finally(timers.callLater(seconds, late)).then(resolve, reject);
        });
        seconds = +(seconds - timers.time() + began).toFixed(1);
        this.#check();
        if (life.error) {
          throw life.error;
        }
      }
      await this.dialer.connected(seconds);
      this.kept = true;
    } finally {
      this.#asking--;
      this.dialer.reconsider();
      this.#changed();
    }
  }

  /**
   * Queue a message. Throws `QueueFull`, `PeerKeyChanged` until the new key is accepted, and why the server is gone for
   * good where it would be needed.
   *
   * @param {number} content One of `Content`.
   * @param {Bytes} data
   * @returns {Delivery}
   */
  send(content, data) {
    this.#check();
    const delivery = this.messages.send(content, data);
    if (this.state !== 'connected') {
      this.dialer.queued();
    }
    this.#changed();
    return delivery;
  }

  /** Have the peer called, for as long as `PeerContext.busy`. Throws as `send` does. */
  call() {
    this.#check();
    this.dialer.queued();
  }

  /** What needed the peer is over, perhaps. */
  reconsider() {
    this.dialer.reconsider();
  }

  /**
   * Queue a control message. Throws as `send` does; nobody is called for it.
   *
   * @param {Bytes} data
   */
  sendControl(data) {
    this.#check();
    return this.messages.send(Content.CONTROL, data);
  }

  /**
   * Take in what the peer says through the server; null when it is meant for a connection that is gone.
   * @param {PeerEvent} event
   */
  receive(event) {
    const known = event.type === 'answerReceived' ? this.#connection?.knows(event.connection) : this.#connection;
    if (event.type !== 'offerReceived' && !known) {
      return null;
    }
    // A bare user id as sender is the device `main`; as recipient it would be whichever device came last.
    const [userId, device] = split(event.sender);
    return this.#connect().receive({ ...event, sender: `${userId}/${device ?? DEFAULT_DEVICE}` });
  }

  /**
   * The server has said whether the peer is online.
   *
   * @param {import('../../client/events.js').PresenceChanged} event
   */
  presenceChanged({ online, devices, initial }) {
    const anew = !initial && registeredAnew(this.devices, devices);
    Object.assign(this, { online, devices });
    this.dialer.presenceChanged(online, anew);
    this.#changed();
  }

  /**
   * The application has accepted a key.
   *
   * @param {boolean} changed Another one was pinned before.
   */
  accept(changed) {
    this.blocked = this.#error = null;
    if (changed) {
      const reason = 'another key was accepted';
      this.hangUp(reason);
      // Whoever has the new key knows nothing of it.
      this.#over(new PeerConnectionFailed(this.userId, reason), true);
    }
    this.dialer.accepted();
    this.#changed();
  }

  /**
   * End the connection and what is under way on it, and call again later if it is wanted.
   *
   * @param {string} reason
   * @param {'closed' | 'failed'} [state] It has failed by a fault of the peer's.
   */
  drop(reason, state = 'failed') {
    const error = new PeerConnectionFailed(this.userId, reason);
    this.#release(reason, state);
    this.#error = state === 'failed' ? error : this.#error;
    this.#over(error); // the other side is told goodbye, which ends it there
    this.dialer.stateChanged(state, error);
    this.#changed();
  }

  /**
   * What the peer has said breaks the protocol.
   *
   * @param {string} problem
   */
  broke(problem) {
    this.drop(`it breaks the protocol: ${problem}`);
  }

  /**
   * End everything with this peer: it is told `farewell`, what waits for it fails for `reason`, who waits for a
   * connection gets `error`. The peer can be used again. Done before it first waits, but for the connection's own end.
   *
   * @param {string} farewell
   * @param {string} reason
   * @param {AldisError} error
   */
  async close(farewell, reason, error) {
    this.kept = false;
    this.#life.error = error;
    this.#life = {};
    this.dialer.stop(error);
    this.messages.flush();
    const connection = this.#detach();
    this.#fail(reason, error);
    if (this.#state !== 'new') {
      this.#state = 'closed';
    }
    this.#error = this.blocked;
    this.#changed();
    await this.#context.leaving(connection?.close(farewell));
  }

  /**
   * The server will never be there again: what needs it is over, what is connected goes on.
   *
   * @param {AldisError} error
   */
  signalingEnded(error) {
    if (!this.connected) {
      this.dialer.stop(error);
      this.#fail(`the server is gone for good: ${error.message}`, error);
      this.#changed();
    }
  }

  #check() {
    if (this.blocked) {
      throw this.blocked;
    }
    const { ended } = this.#context;
    if (ended && !this.connected) {
      throw ended;
    }
  }

  // --- for the dialer ------------------------------------------------------------------------------------------------

  /** How many messages wait for the peer. */
  get queued() {
    return this.messages.queued;
  }

  /** Whether the server can be asked. */
  get registered() {
    return this.#context.registered;
  }

  /** When the turn of the attempt came; null while it waits for it. Long ago when there is no attempt. */
  get clockFrom() {
    return this.#connection ? this.#connection.clockFrom : 0;
  }

  /** How the connection stands now; what was told may be a moment older. */
  get state() {
    return this.#connection?.state ?? this.#state;
  }

  /** Ask the server for the peer. Throws `SignalingError`, `PeerError`. */
  async find() {
    const { userId } = this;
    if (!this.watched) {
      try {
        await this.#context.client.watch(userId);
        this.watched = true;
      } catch (error) {
        if (!(error instanceof RequestFailed)) {
          throw error;
        } // else the server allows no more watches: it is asked at each attempt then
      }
    }
    const { online, publicKey, devices } = await this.#context.client.discover(userId);
    Object.assign(this, { online, devices });
    if (publicKey) {
      const standing = await this.#context.pins.expect(userId, publicKey);
      if (!sameKey(standing, publicKey)) {
        throw new PeerKeyChanged(userId, standing, publicKey);
      }
    }
    if (!online) {
      throw publicKey ? new PeerOffline(userId) : new PeerUnknown(userId);
    }
  }

  /** Start to connect, unless that is under way. */
  dial() {
    this.#connect().connect();
  }

  /**
   * End an attempt or a connection, for good.
   *
   * @param {string} reason
   */
  hangUp(reason) {
    if (this.#connection) {
      this.#release(reason, 'closed');
      this.#changed();
    }
  }

  /**
   * An attempt has failed.
   *
   * @param {AldisError} error
   * @param {boolean} forGood The key has changed: nothing that waits can be delivered.
   */
  failed(error, forGood) {
    // That the peer is away is no fault: `online` says it.
    this.#error = error instanceof PeerOffline || error instanceof PeerUnknown ? null : error;
    if (forGood) {
      this.blocked = error;
      this.#release('the key has changed', 'failed');
      this.#fail(error.message, error);
    }
    this.#changed();
  }

  // --- for the messages ----------------------------------------------------------------------------------------------

  /**
   * The direct path.
   *
   * @param {Bytes} frame
   */
  sendFrame(frame) {
    return this.#connection?.sendFrame(frame) ?? false;
  }

  // --- what the connection tells (`PeerListener`) --------------------------------------------------------------------

  /**
   * @param {PeerState} state
   * @param {PeerError | null} error
   */
  stateChanged(state, error) {
    const before = this.#state;
    this.#state = state;
    if (state === 'connected') {
      this.#error = null;
      this.#getsThrough();
    } else {
      this.#error = error ?? this.#error;
      if (before === 'connected') {
        this.#context.services.parted(this);
      }
    }
    // One that is said when nothing comes through any more is no farewell: who has lost the path, too, gives up first.
    if (state === 'closed' && before === 'connected') {
      this.#over(new PeerConnectionFailed(this.userId, 'it has hung up'));
    }
    // What was told may be overtaken by a new attempt already; the dialer counts attempts.
    if (state === this.state) {
      this.dialer.stateChanged(state, error);
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
    // What is not of this version is shown too, so that a program may tell; within reason, since it is a stranger's.
    this.#features = hello.features.filter(({ length }) => length <= MAX_FEATURE).slice(0, MAX_FEATURES);
    this.#obey(() => {
      if (this.messages.opened(hello)) {
        this.#over(new PeerConnectionFailed(this.userId, 'it was started anew'), true);
      }
    });
    if (this.#state === 'connected') {
      this.#getsThrough(); // in place of the connection before
      this.#changed();
    }
  }

  /** @param {Chunk | Ack} frame */
  frameReceived(frame) {
    this.#obey(() => this.messages.received(frame));
    this.#context.arrived();
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
      this.#error = error;
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

  // --- the connection ------------------------------------------------------------------------------------------------

  /** The connection, made if need be. */
  #connect() {
    const { messages } = this;
    /** @type {PeerConnection} */
    const connection = (this.#connection ??= this.#context.connect(this.userId, this, () =>
      this.#connection === connection ? messages.hello() : messages.greeting(),
    ));
    return connection;
  }

  #detach() {
    const connection = this.#connection;
    this.#connection = null;
    if (connection) {
      connection.listener = null;
    }
    this.messages.closed();
    return connection;
  }

  /**
   * @param {string} reason
   * @param {PeerState} state
   */
  #release(reason, state) {
    void this.#context.leaving(this.#detach()?.close(reason));
    this.#state = state;
  }

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
    this.#context.peerChanged(this);
  }

  /** @param {() => void} takeIn */
  #obey(takeIn) {
    const before = this.queued;
    try {
      takeIn();
      if (this.queued !== before) {
        this.#changed();
      }
    } catch (error) {
      this.broke(violation(error));
    }
  }
}
