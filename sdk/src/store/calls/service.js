/**
 * All calls of one store: which peer has one, and which call a message or a track belongs to.
 *
 * What a call does with it, and the rules, are in `call`.
 */
import { timers as realTimers } from '../../client/timers.js';
import { StateError } from '../../errors.js';
import { randomBytes } from '../../peer/trust.js';
import { toBase64url } from '../../protocol/codec.js';
import { ID_BYTES } from '../messages/control.js';
import { attempt, Call, mediaOf, rings } from './call.js';
import { RemoteTracks } from './tracks.js';

/** @import { Callbacks } from '../../client/callbacks.js' */
/** @import { Timers } from '../../client/timers.js' */
/** @import { AldisError } from '../../errors.js' */
/** @import { Bytes } from '../../protocol/codec.js' */
/** @import { ControlMessage } from '../messages/control.js' */
/** @import { Peer } from '../peers/peer.js' */

/** All calls of one store. */
export class CallService {
  /** @type {Map<Peer, Call>} Those that have not ended. */
  open = new Map();
  /** @type {Map<Peer, RemoteTracks>} */
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
   * call with them already, and what `Peer.call` throws.
   *
   * @param {Peer} peer
   * @param {MediaStream | null} stream
   * @returns {Call}
   */
  call(peer, stream) {
    let call = this.open.get(peer);
    if (!call) {
      const id = toBase64url(this.#random(ID_BYTES));
      call = new Call(this, peer, { id, ...mediaOf(stream) }, stream);
      Call.begin(call);
    } else if (rings(call, 'in')) {
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
   * @param {Peer} peer
   */
  busy(peer) {
    const call = this.open.get(peer);
    return !!call && !rings(call, 'in');
  }

  /**
   * The peer is connected, now or again.
   *
   * @param {Peer} peer
   * @param {readonly string[]} features
   */
  connected(peer, features) {
    const call = this.open.get(peer);
    if (call) Call.connected(call, features);
  }

  /**
   * The peer has lost its connection, for now.
   *
   * @param {Peer} peer
   */
  parted(peer) {
    const call = this.open.get(peer);
    if (call) Call.parted(call);
  }

  /**
   * What is under way with this user will not get any further. With `restarted` somebody else has taken the peer's
   * place, and can be offered what was not offered yet.
   *
   * @param {Peer} peer
   * @param {AldisError} error
   * @param {boolean} [restarted]
   */
  ended(peer, error, restarted = false) {
    this.tracks.delete(peer);
    const call = this.open.get(peer);
    if (call) Call.lost(call, error, restarted);
  }

  /**
   * The peer's store has said something; what is not about calls is ignored.
   *
   * @param {Peer} peer
   * @param {ControlMessage} control
   */
  received(peer, control) {
    const call = this.open.get(peer);
    if (control.type !== 'call-offer') {
      if (call) Call.heard(call, control);
    } else if (call && rings(call, 'out')) {
      Call.meet(call, control);
    } else if (!call && this.#onCall.size) {
      this.#onCall.tell(new Call(this, peer, control));
    } else if (!call || !Call.is(call, control.id)) {
      const reason = call ? 'busy' : 'no calls here';
      attempt(peer, { type: 'call-decline', id: control.id, reason });
    }
  }

  /**
   * The peer sends a track.
   *
   * @param {Peer} peer
   * @param {MediaStreamTrack} track
   * @param {readonly MediaStream[]} streams Those that it belongs to there; one, or none.
   */
  trackReceived(peer, track, [stream]) {
    const tracks = this.tracks.get(peer) ?? new RemoteTracks();
    this.tracks.set(peer, tracks);
    const show = () => {
      const call = this.open.get(peer);
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
