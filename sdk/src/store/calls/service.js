/**
 * All calls of one store: which user has one, and which call a message or a track belongs to.
 *
 * What a call does with it, and the rules, are in `call`.
 */
import { timers as realTimers } from '../../client/timers.js';
import { StateError } from '../../errors.js';
import { randomBytes } from '../../identity/keys.js';
import { toBase64url } from '../../protocol/codec.js';
import { ID_BYTES } from '../messages/control.js';
import { attempt, Call, mediaOf, rings } from './call.js';
import { RemoteTracks } from './tracks.js';

/** @import { Callbacks } from '../../client/callbacks.js' */
/** @import { Timers } from '../../client/timers.js' */
/** @import { AldisError } from '../../errors.js' */
/** @import { Bytes } from '../../protocol/codec.js' */
/** @import { ControlMessage } from '../messages/control.js' */
/** @import { PeerDevice } from '../peers/device.js' */

/** All calls of one store. */
export class CallService {
  /** @type {Map<string, Call>} Those that have not ended, by user. */
  open = new Map();
  /** @type {Map<PeerDevice, RemoteTracks>} */
  tracks = new Map();
  #onCall;
  #random;

  /**
   * @param {Callbacks<Call>} onCall Are told of calls that come in; while there are none, calls are declined.
   * @param {object} [platform]
   * @param {Timers} [platform.timers]
   * @param {(size: number) => Bytes} [platform.random]
   */
  constructor(onCall, { timers = realTimers, random = randomBytes } = {}) {
    this.timers = timers;
    this.#onCall = onCall;
    this.#random = random;
  }

  /**
   * Call somebody; or take their call, when they are calling. Throws `FeatureMissing`, `StateError` when there is a
   * call with them already, and what `PeerDevice.call` throws.
   *
   * @param {PeerDevice} peer
   * @param {MediaStream | null} stream
   * @param {boolean} [addressed] Else another device of the user will do as well, while this one has not heard of it.
   * @returns {Call}
   */
  call(peer, stream, addressed = true) {
    let call = this.open.get(peer.userId);
    if (!call) {
      const id = toBase64url(this.#random(ID_BYTES));
      call = new Call(this, peer, { id, ...mediaOf(stream) }, stream, addressed);
      Call.begin(call);
    } else if (rings(call, 'in') && (!addressed || this.#with(peer))) {
      call.accept(stream);
    } else {
      throw new StateError('there is a call already');
    }
    return call;
  }

  // --- from the store ------------------------------------------------------------------------------------------------

  /**
   * Whether a connection with this user is needed. A call that nobody has answered here needs none: else strangers
   * could make us call them.
   *
   * @param {PeerDevice} peer
   */
  busy(peer) {
    const call = this.#with(peer);
    return !!call && !rings(call, 'in');
  }

  /** @param {PeerDevice} peer Whether a call was not offered yet, and is not for exactly this device. */
  movable(peer) {
    const call = this.#with(peer);
    return !!call && Call.movable(call);
  }

  /**
   * Offer to the other device what was not offered to this one.
   *
   * @param {PeerDevice} peer
   * @param {PeerDevice} other
   */
  moved(peer, other) {
    const call = this.#with(peer);
    if (call && Call.movable(call)) Call.move(call, other);
  }

  /** @param {PeerDevice} peer The call with exactly this device. */
  #with(peer) {
    const call = this.open.get(peer.userId);
    return call && Call.isWith(call, peer) ? call : undefined;
  }

  /**
   * The peer is connected, now or again.
   *
   * @param {PeerDevice} peer
   * @param {readonly string[]} features
   */
  connected(peer, features) {
    const call = this.#with(peer);
    if (call) Call.connected(call, features);
  }

  /**
   * The peer has lost its connection, for now.
   *
   * @param {PeerDevice} peer
   */
  parted(peer) {
    const call = this.#with(peer);
    if (call) Call.parted(call);
  }

  /**
   * What is under way with this user will not get any further. With `restarted` somebody else has taken the peer's
   * place, and can be offered what was not offered yet.
   *
   * @param {PeerDevice} peer
   * @param {AldisError} error
   * @param {boolean | 'same' | 'left'} [restarted]
   */
  ended(peer, error, restarted = false) {
    this.tracks.delete(peer);
    const call = this.#with(peer);
    if (call) Call.lost(call, error, !!restarted && restarted !== 'left');
  }

  /**
   * The peer's store has said something; what is not about calls is ignored.
   *
   * @param {PeerDevice} peer
   * @param {ControlMessage} control
   */
  received(peer, control) {
    const call = this.open.get(peer.userId);
    const ours = this.#with(peer);
    if (control.type !== 'call-offer') {
      if (ours) Call.heard(ours, control);
    } else if (ours && rings(ours, 'out')) {
      Call.meet(ours, control);
    } else if (!call && this.#onCall.size) {
      this.#onCall.tell(new Call(this, peer, control));
    } else if (!ours || !Call.is(ours, control.id)) {
      const reason = call ? 'busy' : 'no calls here';
      attempt(peer, { type: 'call-decline', id: control.id, reason });
    }
  }

  /**
   * The peer sends a track.
   *
   * @param {PeerDevice} peer
   * @param {MediaStreamTrack} track
   * @param {readonly MediaStream[]} streams Those that it belongs to there; one, or none.
   */
  trackReceived(peer, track, [stream]) {
    const tracks = this.tracks.get(peer) ?? new RemoteTracks();
    this.tracks.set(peer, tracks);
    const show = () => {
      const call = this.#with(peer);
      if (call) Call.show(call);
    };
    tracks.add(track, stream, show);
    show();
  }

  /** End all calls. */
  close() {
    for (const call of this.open.values()) Call.finish(call, 'the store was closed');
  }
}
