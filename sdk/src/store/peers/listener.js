/**
 * What the connection with a device tells, and what comes of it.
 *
 * Rules: what is told of a connection may be overtaken by a new attempt already. A device that breaks the protocol loses the
 * connection, and nothing else. It does not know when there should be a connection, nor what is said on it.
 */
import { PeerConnectionFailed } from '../../errors.js';
import { violation } from '../../protocol/shapes.js';
import { PARTS } from '../parts.js';

/**
 * @import { AldisError, PeerError } from '../../errors.js'
 * @import { PeerListener } from '../../peer/connection.js'
 * @import { PeerState } from '../../peer/negotiation.js'
 * @import { Ack, Chunk, Hello } from '../../protocol/channel.js'
 * @import { DeviceContext, DeviceOwner, PeerDevice } from './device.js'
 */

// Of what the device's program says that it can do; this version knows of two things, with short names.
const MAX_FEATURES = 16;
const MAX_FEATURE = 32;

/** @implements {PeerListener} */
export class DeviceListener {
  /** How many channels have been opened. */
  connections = 0;
  /** @type {readonly string[]} what the device's program can do, as it has said last */
  features = [];
  /** The number of their last HELLO. */
  channel = 0;
  /** Whether the direct connection leads through a TURN server, as far as is known. @type {'direct' | 'turn'} */
  path = 'direct';
  #device;
  #owner;
  #context;

  /**
   * @param {PeerDevice} device
   * @param {DeviceOwner} owner
   * @param {DeviceContext} context
   */
  constructor(device, owner, context) {
    this.#device = device;
    this.#owner = owner;
    this.#context = context;
  }

  /**
   * @param {PeerState} state
   * @param {PeerError | null} error
   */
  stateChanged(state, error) {
    const { path } = this.#device;
    const before = path.told;
    const isLate = this.#device.hasLeft && ['connecting', 'failed'].includes(state);
    path.told = isLate ? 'closed' : state;
    if (state === 'connected') {
      this.#device.error = null;
      this.#device.hasLeft = false;
      this.#owner.connected();
      this.getsThrough();
    } else {
      if (!isLate && !this.#device.paths.connected) this.#device.error = error ?? this.#device.error;
      if (before === 'connected') {
        if (state === 'disconnected') this.#context.pathLost();
        this.#context.services?.parted(this.#device);
      }
    }
    // A goodbye that is said after the path was lost is no farewell: the peer has lost the path, too, and gave up first.
    if (state === 'closed' && before === 'connected') {
      this.#device.over(new PeerConnectionFailed(this.#device.userId, 'it has hung up'), 'left');
    }
    // What was told may be overtaken by a new attempt already; the dialer counts attempts.
    if (state === this.#device.state) {
      this.#device.dialer?.stateChanged(state, error);
    }
    if (state !== 'connecting' && state !== 'connected') this.#device.paths.relay?.wantAgain();
    if (before === 'connected') {
      this.#owner.lost();
    }
    const { ended } = this.#context;
    if (ended) {
      this.#device.signalingEnded(ended);
    }
    this.#device.changed();
  }

  /** @param {Hello} hello */
  channelOpened(hello) {
    this.connections++;
    this.#owner.channelOpened();
    this.#device.paths.directOpened();
    if (this.opened(hello) && this.#device.path.told === 'connected') {
      this.getsThrough(); // in place of the connection before
      this.#device.changed();
    }
  }

  /** Their HELLO has come on the path that carries the messages; false when it breaks the protocol. @param {Hello} hello */
  opened(hello) {
    this.channel = hello.channel ?? 0;
    // What is not of this version is shown too, so that a program may tell; within reason, since it is a stranger's.
    this.features = hello.features.filter(({ length }) => length <= MAX_FEATURE).slice(0, MAX_FEATURES);
    if (this.#device.messages.isNewProgram(hello)) {
      this.#owner.heard(this.#device); // a reconnect says nothing of where the user is, a program that starts does
    }
    return this.obey(() => {
      if (this.#device.messages.opened(hello)) {
        this.#device.over(new PeerConnectionFailed(this.#device.userId, 'it was started anew'), 'same');
      }
    });
  }

  /** @param {Chunk | Ack} frame */
  frameReceived(frame) {
    // Else it comes again, on the path that carries the messages.
    if (this.#device.paths.carrier === 'direct') this.take(frame);
  }

  /** A frame has come on the path that carries the messages. @param {Chunk | Ack} frame */
  take(frame) {
    const isChunk = frame.type !== 'ack';
    if (isChunk) {
      this.#owner.heard(this.#device);
    }
    this.obey(() => this.#device.messages.received(frame));
    if (isChunk) {
      this.#context.arrived(frame.data.length);
    } else {
      this.#context.services?.files.acknowledged(this.#device);
    }
  }

  /** A session of the relay begins. */
  relayed() {
    this.#context.services?.files.relayed(this.#device);
  }

  channelClosed() {
    this.#device.paths.directClosed();
  }

  pathFound() {
    this.#context.pathFound();
    this.#device.dialer?.pathFound();
  }

  writable() {
    this.#device.messages.pump();
  }

  /** @param {AldisError} error */
  refused(error) {
    this.#device.dialer?.refused(error);
    if (this.#device.state !== 'connected') {
      this.#device.error = error;
    }
    this.#device.changed();
  }

  /**
   * @param {MediaStreamTrack} track
   * @param {readonly MediaStream[]} streams
   */
  trackReceived(track, streams) {
    this.#context.services?.trackReceived(this.#device, track, streams);
  }

  /** What is sent gets through, now or again. */
  getsThrough() {
    // Where it cannot be loaded, it is not told that there is a TURN server.
    PARTS.readings
      .load()
      .then(({ namePath }) => namePath(this.#device))
      .catch(() => {});
    this.#context.services?.connected(this.#device, this.features);
  }

  /** Take in what the device says; false when it breaks the protocol. @param {() => void} takeIn */
  obey(takeIn) {
    const before = this.#device.queued;
    try {
      takeIn();
      if (this.#device.queued !== before) {
        this.#device.counted();
      }
      return true;
    } catch (error) {
      this.#device.broke(violation(error));
      return false;
    }
  }
}
