/**
 * Files and calls: what peers exchange beyond messages. Each is loaded when it is first used (`lazy`).
 *
 * It does not know what they do.
 */
import { timers } from '../client/timers.js';
import { LazyService } from './lazy.js';
import { PARTS } from './parts.js';

/**
 * @import { Callbacks } from '../client/callbacks.js'
 * @import { AldisError } from '../errors.js'
 * @import { Call } from './calls/call.js'
 * @import { Transfer } from './files/transfer.js'
 * @import { Journal } from './journal/journal.js'
 * @import { ControlMessage } from './messages/control.js'
 * @import { PeerDevice } from './peers/device.js'
 * @import { StoreLimits } from './state.js'
 */

/** @typedef {{ onFile: Callbacks<Transfer>, onCall: Callbacks<Call>, onResumedFile?: Callbacks<Transfer>, journal?: Journal | null,
 *   limits?: StoreLimits }} ServiceCallbacks Those of the application; and what keeps files that are under way. */

export class PeerServices {
  /** @param {ServiceCallbacks} setup */
  constructor(setup) {
    const { files, calls } = PARTS;
    const { onFile, onCall } = setup;
    this.files = new LazyService(files, ({ FileService }) => new FileService(onFile, setup), 'file', onFile, timers);
    this.calls = new LazyService(calls, ({ CallService }) => new CallService(onCall), 'call', onCall, timers);
  }

  /** @param {PeerDevice} peer Whether something is under way that needs a connection. */
  busy(peer) {
    return this.files.busy(peer) || this.calls.busy(peer);
  }

  /** @param {PeerDevice} peer Whether something waits that could as well be said to another device of the user. */
  movable(peer) {
    return this.files.movable(peer) || this.calls.movable(peer);
  }

  /**
   * A device is gone, and another one there: what could be said to any device is for the other one now.
   *
   * @param {PeerDevice} peer
   * @param {PeerDevice} other
   */
  moved(peer, other) {
    this.files.moved(peer, other);
    this.calls.moved(peer, other);
  }

  /**
   * What is sent gets through, now or again.
   *
   * @param {PeerDevice} peer
   * @param {readonly string[]} features What the peer's program can do.
   */
  connected(peer, features) {
    this.files.connected(peer, features);
    this.calls.connected(peer, features);
  }

  /** @param {PeerDevice} peer Nothing gets through, for now. */
  parted(peer) {
    this.calls.parted(peer);
  }

  /** @param {PeerDevice} peer It was not reached directly. */
  notDirect(peer) {
    this.files.notDirect(peer);
  }

  /**
   * What is under way will not get any further.
   *
   * @param {PeerDevice} peer
   * @param {AldisError} error
   * @param {boolean | 'same' | 'left'} [restarted] A new program has taken the other's place: it can be told what is not said yet. Or
   *   the peer has left, and may come back.
   */
  ended(peer, error, restarted) {
    this.files.ended(peer, error, restarted);
    this.calls.ended(peer, error, restarted);
  }

  /**
   * The peer's store has said something.
   *
   * @param {PeerDevice} peer
   * @param {ControlMessage} control
   */
  received(peer, control) {
    this.files.received(peer, control);
    this.calls.received(peer, control);
  }

  /**
   * The peer sends a track.
   *
   * @param {PeerDevice} peer
   * @param {MediaStreamTrack} track
   * @param {readonly MediaStream[]} streams
   */
  trackReceived(peer, track, streams) {
    this.calls.trackReceived(peer, track, streams);
  }

  /** End everything. */
  close() {
    this.files.close();
    this.calls.close();
  }
}
