/**
 * All that a store keeps of one peer: its messages, the dialer, the path, and what the server says of it.
 *
 * Rules of this module:
 *
 * - A peer outlives its connections (`path`), and the login.
 * - A peer that breaks the protocol loses the connection, and nothing else: what it has sent before stands.
 * - What a peer may ask of the store is in `PeerContext`; it knows of no other peer.
 */
import { PeerConnectionFailed, PeerOffline, PeerUnknown } from '../../errors.js';
import { randomBytes } from '../../peer/trust.js';
import { toBase64url } from '../../protocol/codec.js';
import * as Content from '../../protocol/kinds.js';
import { violation } from '../../protocol/shapes.js';
import { MessageStream } from '../messages/stream.js';
import { Dialer } from './dialer.js';
import { DirectPath } from './path.js';
import { checkFingerprint } from './pinning.js';

/**
 * @import { Backoff } from '../../client/backoff.js'
 * @import { PeerEvent, PresenceChanged } from '../../client/events.js'
 * @import { Timers } from '../../client/timers.js'
 * @import { AldisError, PeerError } from '../../errors.js'
 * @import { PeerListener } from '../../peer/connection.js'
 * @import { PeerState } from '../../peer/negotiation.js'
 * @import { Ack, Chunk, Hello } from '../../protocol/channel.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { Delivery } from '../messages/delivery.js'
 * @import { Recipient } from '../messages/stream.js'
 * @import { PeerServices } from '../services.js'
 * @import { PeerView, StoreLimits } from '../state.js'
 * @import { PathContext } from './path.js'
 * @import { PeerPresence, PresenceContext } from './presence.js'
 * @import { PeerViews } from './views.js'
 */

/**
 * @typedef {object} OwnContext
 * @property {{ limits: StoreLimits, backoff: Backoff, mailbox: Recipient }} setup How much may be kept, the pauses
 *   between calls, and where messages go.
 * @property {Timers} timers
 * @property {boolean} registered Whether the server can be asked.
 * @property {AldisError | null} ended Why the server will never be there again, or null.
 * @property {PeerViews} views Is told when something in `Peer.view` may have changed.
 * @property {PeerServices} services Files and calls.
 * @property {(size: number) => void} arrived So many bytes of a message have come.
 * @property {(peer: Peer, data: Bytes) => void} controlReceived The peer's store says something. Throws
 *   `ProtocolViolation`.
 */

/** @typedef {OwnContext & PathContext & PresenceContext} PeerContext What a peer needs of the store. */

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
  #context;
  #asking = 0;
  /** @type {{ error?: AldisError }} replaced by `close`: so pending calls learn of it */
  #life = {};
  /** @type {AldisError | null} */
  #error = null;
  /** @type {AldisError | null} why nothing can be delivered before a person has accepted another key */
  blocked = null;
  #connections = 0;
  /** @type {readonly string[]} what the peer's program can do, as it has said last */
  #features = [];

  /**
   * @param {string} userId
   * @param {PeerContext} context
   * @param {PeerPresence} presence
   */
  constructor(userId, context, presence) {
    this.userId = userId;
    this.presence = presence;
    this.#context = context;
    this.path = new DirectPath(this, context);
    this.messages = new MessageStream(userId, toBase64url(randomBytes(STREAM_BYTES)), {
      limits: context.setup.limits,
      path: this.path,
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
    return !(this.path.connected || this.state === 'connecting' || this.wanted || this.messages.waiting);
  }

  /** What the peer's program can do; null while nothing gets through to it. */
  get features() {
    return this.state === 'connected' ? this.#features : null;
  }

  /** The connection, also one in the making: a track that is no longer sent must be taken off it in any state. */
  get connection() {
    return this.path.connection;
  }

  /**
   * The peer as the application sees it.
   *
   * @returns {PeerView}
   */
  get view() {
    const { connection, told: state } = this.path;
    const isConnected = state === 'connected';
    return {
      userId: this.userId,
      state,
      online: this.presence.online,
      roundTripTime: isConnected ? (connection?.roundTripTime ?? null) : null,
      ...this.#context.pins.known(this.userId),
      queued: this.queued,
      error: this.#error,
      connections: this.#connections,
      features: isConnected ? this.#features : NOTHING,
    };
  }

  /**
   * Returns when the peer is connected. Throws `PeerError`, `StateError`, why the server is gone for good, and
   * `UsageError` for what is no fingerprint.
   *
   * @param {number} seconds
   * @param {string | null} fingerprint That of the only key that will do.
   */
  async connect(seconds, fingerprint) {
    this.#check();
    this.#asking++;
    const life = this.#life;
    try {
      // Also an empty one: a caller that means to require something must not require nothing by mistake.
      if (fingerprint !== null) {
        const { pins, timers } = this.#context;
        seconds = await pins.requireInTime(this.userId, checkFingerprint(fingerprint), seconds, timers);
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
    this.#counted();
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
   * Take in what the peer says through the server; false when it is meant for a connection that is gone.
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
   * The server has said whether the peer is online.
   *
   * @param {PresenceChanged} event
   */
  presenceChanged(event) {
    const anew = this.presence.changed(event);
    this.dialer.presenceChanged(event.online, anew);
    this.#changed();
  }

  /** The server has ended the watch: from now on it has to be asked whether the peer is there. */
  watchEnded() {
    Object.assign(this.presence, { watched: false, online: null, devices: [] });
    this.dialer.poke(true);
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
      // The owner of the new key knows nothing of what is under way.
      this.#over(new PeerConnectionFailed(this.userId, reason), true);
    }
    this.dialer.accepted(changed);
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
    this.path.release(reason, state);
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
   * End everything with this peer: it is told `farewell`, what waits for it fails for `reason`, callers that wait for a
   * connection get `error`. The peer can be used again. Done before it first waits, but for the connection's own end.
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
    const connection = this.path.detach();
    this.#fail(reason, error);
    if (this.path.told !== 'new') {
      this.path.told = 'closed';
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
    if (!this.path.connected) {
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
    if (ended && !this.path.connected) {
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

  /** Whether the server will tell when the peer comes online. */
  get watched() {
    return this.presence.watched;
  }

  /** When the turn of the attempt came; null while it waits for it. Long ago when there is no attempt. */
  get clockFrom() {
    return this.connection ? this.connection.clockFrom : 0;
  }

  /** How the connection stands now; what was told may be a moment older. */
  get state() {
    return this.path.state;
  }

  /** Ask the server for the peer. Throws `SignalingError`, `PeerError`. */
  find() {
    return this.presence.find(this.#context);
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
   * @param {boolean} forGood The key has changed: nothing that waits can be delivered.
   */
  failed(error, forGood) {
    // That the peer is away is no fault: `online` says it.
    this.#error = error instanceof PeerOffline || error instanceof PeerUnknown ? null : error;
    if (forGood) {
      this.blocked = error;
      this.path.release('the key has changed', 'failed');
      this.#fail(error.message, error);
    }
    this.#changed();
  }

  // --- what the connection tells (`PeerListener`) --------------------------------------------------------------------

  /**
   * @param {PeerState} state
   * @param {PeerError | null} error
   */
  stateChanged(state, error) {
    const { path } = this;
    const before = path.told;
    path.told = state;
    if (state === 'connected') {
      this.#error = null;
      this.#getsThrough();
    } else {
      this.#error = error ?? this.#error;
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
    if (this.path.told === 'connected') {
      this.#getsThrough(); // in place of the connection before
      this.#changed();
    }
  }

  /** @param {Chunk | Ack} frame */
  frameReceived(frame) {
    this.#obey(() => this.messages.received(frame));
    if (frame.type !== 'ack') {
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

  // --- what comes of it ----------------------------------------------------------------------------------------------

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
    this.#touch();
    this.#context.views.changed(this);
  }

  /** A message more, or less, waits. */
  #counted() {
    this.#touch();
    this.#context.views.counted(this);
  }

  #touch() {
    this.touched = this.#context.timers.time();
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
