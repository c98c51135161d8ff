/**
 * One RTCPeerConnection behind the calls that Aldis makes of it, which are those of Python's engines.
 *
 * Rules:
 * - It knows nothing of signaling, users, proofs or frames. It turns descriptions and candidates into an open channel,
 *   and sends tracks.
 * - Its asynchronous calls are made one at a time. Closing one takes effect at once, gives no event, and leaves a call
 *   that was under way pending for ever: nobody may wait for one without asking whether it still matters.
 * - No STUN or TURN server is used that was not given.
 * - Descriptions and candidates from outside are hostile until proven otherwise: whatever the browser makes of them, the
 *   call rejects and the connection can be closed.
 *
 * Sections cited are those of https://www.w3.org/TR/webrtc/.
 */

import { ConfigError, EngineMissing, ProtocolViolation } from '../errors.js';
import { LABEL } from '../protocol/channel.js';

/** @import { Candidate, Capabilities, IceServer } from '../protocol/messages.js' */

/**
 * What a connection is made with; everything but the servers goes to the browser as it is.
 * @typedef {Omit<RTCConfiguration, 'iceServers'> & { iceServers?: readonly (IceServer | RTCIceServer)[] }} EngineConfig
 */

/** @typedef {'host' | 'srflx' | 'prflx' | 'relay'} CandidateType RFC 8445 section 4. */

/**
 * What the browser tells of the path that ICE has chosen, and of the bytes that went over it.
 * @typedef {object} EngineStats
 * @property {'direct' | 'turn'} path whether it leads through a TURN server on either side
 * @property {'udp' | 'tcp'} protocol of the path, or of our way to the TURN server
 * @property {CandidateType} local
 * @property {CandidateType} remote
 * @property {number} bytesSent
 * @property {number} bytesReceived
 */

/**
 * What the owner of a connection is told, never from within one of its own calls.
 * @typedef {object} EngineListener
 * @property {(candidate: Candidate | null) => void} candidateGathered to pass on; null when there will be no more
 * @property {(state: RTCPeerConnectionState) => void} stateChanged
 * @property {(channel: RTCDataChannel) => void} channelOpened one that either side has made; take its events now
 * @property {() => void} negotiationNeeded tracks have changed, and nothing of ours or theirs is pending
 * @property {(track: MediaStreamTrack, streams: readonly MediaStream[]) => void} trackReceived
 */

/** @type {Capabilities} */
export const CAPABILITIES = { trickle: true, restart: true };

/** A parser is not written for gigabytes: what a signaling frame can carry at most, in characters. */
export const MAX_SDP = 64 * 1024;
/** RFC 8839 section 5.1 leads to some 200 characters. */
export const MAX_CANDIDATE = 1024;

/** One connection. */
export class EngineConnection {
  /** @type {RTCPeerConnection} */ #native;
  #listener;
  #RTCPeerConnection;
  /** @type {RTCSessionDescriptionInit | null} an offer of ours that is applied with its answer */ #held = null;

  /**
   * Throws `ConfigError` for a configuration that the browser refuses, `EngineMissing` where there is no WebRTC.
   *
   * @param {EngineConfig} config
   * @param {EngineListener} listener
   * @param {typeof globalThis.RTCPeerConnection} [RTCPeerConnection]
   */
  constructor(config, listener, RTCPeerConnection = globalThis.RTCPeerConnection) {
    if (!RTCPeerConnection) throw new EngineMissing('WebRTC', 'this browser has none, or it is switched off');
    try {
      this.#native = new RTCPeerConnection({
        // Tracks that come later share the path that the channel has found.
        bundlePolicy: 'max-bundle',
        ...config,
        // The browser would take null for the text "null".
        iceServers: JSON.parse(JSON.stringify(config.iceServers ?? [], (_, value) => value ?? undefined)),
      });
    } catch (error) {
      throw new ConfigError('iceServers', messageOf(error));
    }
    this.#listener = listener;
    this.#RTCPeerConnection = RTCPeerConnection;
    this.#native.onicecandidate = ({ candidate }) => {
      // An empty one ends those of one media section (section 4.8.1.3); null, which follows, ends them all.
      if (candidate?.candidate !== '')
        listener.candidateGathered(candidate && /** @type {Candidate} */ (candidate.toJSON()));
    };
    this.#native.onconnectionstatechange = () => listener.stateChanged(this.#native.connectionState);
    this.#native.ondatachannel = ({ channel }) => this.#watch(channel);
    this.#native.onnegotiationneeded = () => listener.negotiationNeeded();
    this.#native.ontrack = ({ track, streams }) => listener.trackReceived(track, streams);
  }

  /** Make the channel; to be called before the first `offer`. */
  openChannel() {
    this.#watch(this.#native.createDataChannel(LABEL));
  }

  /** @param {RTCDataChannel} channel */
  #watch(channel) {
    channel.binaryType = 'arraybuffer';
    channel.onopen = () => this.#listener.channelOpened(channel);
  }

  /**
   * Make an offer; its SDP. Also while one of ours is pending, which it then replaces.
   *
   * The first one is applied at once, and candidates are gathered. One on a connection that stands is applied with its
   * answer only, so that there is nothing to roll back when the other side's offer crosses it: in Chromium 156 whoever
   * rolls back an offer never sees the pictures again that come in the sections of it.
   *
   * @param {boolean} restart gather anew (RFC 8445 section 9)
   */
  async offer(restart) {
    if (restart) this.#native.restartIce();
    if (!this.#native.remoteDescription) return this.#describe();
    this.#held = await this.#native.createOffer();
    return this.#held.sdp ?? '';
  }

  /**
   * Apply the other side's offer, and our answer to it; the answer's SDP. An offer of ours that is pending is dropped.
   *
   * @param {string} sdp
   */
  async answer(sdp) {
    this.#held = null;
    await this.#apply('offer', sdp);
    try {
      return await this.#describe();
    } catch (error) {
      // Or the next offer of ours would come out as an answer.
      await this.#native.setRemoteDescription({ type: 'rollback' });
      throw error;
    }
  }

  /**
   * Apply the other side's answer to our pending offer.
   *
   * @param {string} sdp
   */
  async accept(sdp) {
    const held = this.#held;
    this.#held = null;
    if (held) await this.#native.setLocalDescription(held);
    await this.#apply('answer', sdp);
  }

  async #describe() {
    await this.#native.setLocalDescription();
    return this.#native.localDescription?.sdp ?? '';
  }

  /**
   * @param {'offer' | 'answer'} type
   * @param {string} sdp
   */
  async #apply(type, sdp) {
    if (sdp.length > MAX_SDP) throw new ProtocolViolation('a session description too long');
    // Without the one there is no channel, without the other nobody knows whom it leads to.
    if (!/^m=application /m.test(sdp) || !/^a=fingerprint:/m.test(sdp)) {
      throw new ProtocolViolation('a session description without channel or fingerprint');
    }
    await this.#native.setRemoteDescription({ type, sdp });
  }

  /**
   * Add a candidate of the other side, or the end of them (null). Rejects for one that is of no use.
   *
   * @param {Candidate | null} candidate
   */
  async addCandidate(candidate) {
    if (candidate && candidate.candidate.length > MAX_CANDIDATE) throw new ProtocolViolation('a candidate too long');
    await this.#native.addIceCandidate(candidate);
  }

  /**
   * Send these tracks, and no others. A track takes the place of one of its kind that is not among them, without
   * negotiation where one was being sent; for what else changes, the browser wants one (`negotiationNeeded`).
   *
   * Whoever sends anything offers a section for audio and then one for video, so that the offers of two sides that begin
   * at once have the same sections. Chromium cannot take audio in a section for which it has offered video, applied or
   * not ("RTP extension ID reassignment not supported"), and would never answer again.
   *
   * @param {MediaStream | null} stream
   */
  async setTracks(stream) {
    const native = this.#native;
    const tracks = stream?.getTracks() ?? [];
    const sent = native.getTransceivers().map(({ sender }) => sender.track);
    const free = native
      .getTransceivers()
      .filter(({ direction, sender }) => direction !== 'stopped' && !(sender.track && tracks.includes(sender.track)));
    for (const kind of ['audio', 'video']) {
      if (!stream || !tracks.length) break;
      for (const track of tracks) {
        if (track.kind !== kind || sent.includes(track)) continue;
        const index = free.findIndex((each) => each.receiver.track.kind === kind);
        const [transceiver] = index < 0 ? [] : free.splice(index, 1);
        if (!transceiver) {
          native.addTrack(track, stream);
          continue;
        }
        await transceiver.sender.replaceTrack(track);
        if (!transceiver.direction.startsWith('send')) {
          transceiver.sender.setStreams(stream);
          transceiver.direction = 'sendrecv';
        }
      }
      if (!native.getTransceivers().some((each) => each.receiver.track.kind === kind)) {
        native.removeTrack(native.addTrack(this.#borrow(kind), stream));
      }
    }
    for (const { sender } of free) if (sender.track) native.removeTrack(sender);
    // An offer of ours that never got its answer keeps the browser from asking.
    if (this.#held || native.signalingState !== 'stable') this.#listener.negotiationNeeded();
  }

  /**
   * A track with nothing on it. Only a section that `addTrack` has made can become one of an offer of theirs that
   * crosses ours (RFC 8829 section 5.10); one of `addTransceiver` would be left over.
   *
   * @param {string} kind
   */
  #borrow(kind) {
    const lender = new this.#RTCPeerConnection();
    const { track } = lender.addTransceiver(kind).receiver;
    lender.close();
    return track;
  }

  /** @returns {Promise<EngineStats | null>} null while there is no path */
  async stats() {
    /** @type {Map<string, Record<string, any>>} */
    const report = new Map(/** @type {Iterable<[string, any]>} */ (await this.#native.getStats()));
    const all = [...report.values()];
    const pair =
      report.get(all.find((entry) => entry.selectedCandidatePairId)?.selectedCandidatePairId) ??
      all.find((entry) => entry.nominated && entry.state === 'succeeded'); // a Firefox that names no transport
    const local = report.get(pair?.localCandidateId);
    const remote = report.get(pair?.remoteCandidateId);
    if (!pair || !local || !remote) return null;
    return {
      path: [local, remote].some((end) => end.candidateType === 'relay') ? 'turn' : 'direct',
      protocol: (local.relayProtocol ?? local.protocol) === 'udp' ? 'udp' : 'tcp',
      local: local.candidateType,
      remote: remote.candidateType,
      bytesSent: pair.bytesSent,
      bytesReceived: pair.bytesReceived,
    };
  }

  /** End the connection and release what it holds. Idempotent. */
  close() {
    this.#native.close();
  }
}

/** @param {unknown} error */
export function messageOf(error) {
  return error instanceof Error ? error.message || error.name : String(error);
}
