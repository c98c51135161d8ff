/**
 * RTCPeerConnection without a network, as far as Aldis uses it, and as https://www.w3.org/TR/webrtc/ describes it:
 * signaling states, implicit and explicit rollback, the chain of operations, `negotiationneeded`, transceivers and their
 * directions, data channels that buffer and close. Nothing is told after `close()`, and what was pending then stays so.
 *
 * Descriptions are short texts of one line per fact. Two connections find each other when each holds the other's text.
 */
import { FakeChannel } from './fake_channel.js';
import { combined, fault, parse, receives, reversed, sends } from './fake_descriptions.js';
import { Transceiver } from './fake_tracks.js';

export { FakeStream } from './fake_tracks.js';

const later = globalThis.setImmediate;

/** A medium between connections: all of one network can reach each other. */
export class FakeNetwork {
  /** @type {FakePeerConnection[]} in the order of their making */
  connections = [];
  /** Messages stay in their buffers. */
  stalled = false;
  /** No two connections find each other, as if a firewall were between them. */
  blocked = false;
  /** Operations of connections stay pending. */
  frozen = false;
  /** Refuse a call: name of the method -> message. */
  refuses = new Map();
  #numbers = 0;

  constructor() {
    const network = this;
    /** What is given to the code under test. */
    this.RTCPeerConnection = /** @type {typeof globalThis.RTCPeerConnection} */ (
      /** @type {unknown} */ (
        class extends FakePeerConnection {
          /** @param {RTCConfiguration} [configuration] */
          constructor(configuration = {}) {
            super(network, configuration);
          }
        }
      )
    );
  }

  number() {
    return ++this.#numbers;
  }

  /** The connections that nobody has closed. */
  get open() {
    return this.connections.filter((each) => each.signalingState !== 'closed');
  }

  /** Messages flow again. */
  resume() {
    this.stalled = false;
    for (const each of this.connections) for (const channel of each.channels) channel.flush();
  }

  /** Open what can be opened now. */
  match() {
    if (this.blocked) return;
    for (const one of this.open) {
      const other = this.open.find(
        (each) => each !== one && each.remoteText === one.localText && each.localText === one.remoteText,
      );
      if (!other || !one.localText) continue;
      one.other = other;
      one.found();
    }
  }
}

/** @param {RTCConfiguration} configuration */
function checkServers({ iceServers = [], iceTransportPolicy = 'all' }) {
  if (!['all', 'relay'].includes(iceTransportPolicy)) throw new TypeError(`bad policy ${iceTransportPolicy}`);
  for (const { urls } of iceServers) {
    if (![urls].flat().every((url) => /^(stun|turn)s?:./.test(url))) throw fault('SyntaxError', `bad URL ${urls}`);
  }
}

class FakePeerConnection {
  signalingState = 'stable';
  connectionState = 'new';
  onicecandidate = null;
  onconnectionstatechange = null;
  ondatachannel = null;
  onnegotiationneeded = null;
  ontrack = null;
  /** @type {FakePeerConnection | null} */ other = null;
  /** @type {FakeChannel[]} */ channels = [];
  /** what arrived by addIceCandidate */ candidates = [];
  offersCreated = 0;
  severed = false;
  /** @type {Transceiver[]} */ #transceivers = [];
  #current = { local: null, remote: null };
  #pending = { local: null, remote: null };
  /** @type {Promise<unknown>} */ #chain = Promise.resolve();
  #chained = 0;
  #needed = false;
  #checkOnEmpty = false;
  #fragment = '';
  #restart = false;
  /** @type {Map<string, string>} the kinds of the sections that there have ever been */ #offered = new Map();
  #version = 0;
  #sections = [];
  /** what `createOffer` has made last */ #created = null;

  constructor(network, configuration) {
    checkServers(configuration);
    this.network = network;
    this.configuration = configuration;
    this.id = network.number();
    network.connections.push(this);
  }

  // --- what the specification has -----------------------------------------------------------------------------------

  get localDescription() {
    return this.#pending.local ?? this.#current.local;
  }

  get remoteDescription() {
    return this.#pending.remote ?? this.#current.remote;
  }

  getTransceivers() {
    return [...this.#transceivers];
  }

  createDataChannel(label) {
    const channel = new FakeChannel(this, label);
    this.channels.push(channel);
    this.updateNeeded();
    return channel;
  }

  addTrack(track, ...streams) {
    this.#alive();
    let transceiver = this.#transceivers.find(
      (each) => !each.sender.track && each.kind === track.kind && !each.sender.everSent && each.direction !== 'stopped',
    );
    if (transceiver) transceiver.direction = sends(transceiver.direction) ? transceiver.direction : 'sendrecv';
    else this.#transceivers.push((transceiver = new Transceiver(this, track.kind, 'sendrecv')));
    transceiver.fromTrack = true;
    transceiver.sender.track = track;
    transceiver.sender.streams = streams.map(({ id }) => id);
    this.updateNeeded();
    return transceiver.sender;
  }

  addTransceiver(kind) {
    this.#alive();
    const transceiver = new Transceiver(this, kind, 'sendrecv');
    this.#transceivers.push(transceiver);
    this.updateNeeded();
    return transceiver;
  }

  removeTrack(sender) {
    this.#alive();
    const transceiver = this.#transceivers.find((each) => each.sender === sender);
    if (!sender.track) return;
    sender.track = null;
    transceiver.direction = transceiver.direction === 'sendrecv' ? 'recvonly' : 'inactive';
  }

  /** Section 4.4.2, "set a configuration". */
  setConfiguration(configuration) {
    this.#alive();
    if (configuration.bundlePolicy !== this.configuration.bundlePolicy) {
      throw fault('InvalidModificationError', 'another bundle policy');
    }
    checkServers(configuration);
    this.configuration = configuration;
  }

  restartIce() {
    this.#restart = true;
    this.updateNeeded();
  }

  createOffer() {
    return this.chained('createOffer', () => {
      this.#created = this.#makeOffer();
      this.offersCreated++;
      return { type: 'offer', sdp: this.#created.sdp };
    });
  }

  setLocalDescription(description) {
    return this.chained('setLocalDescription', () => {
      if (description?.type === 'rollback') return this.#rollBack();
      const answers = this.signalingState === 'have-remote-offer';
      if (answers) this.#settle({ type: 'answer', sdp: this.#makeAnswer() }, this.#pending.remote);
      else {
        const { sdp, sections, fragment, mids } = description ? this.#created : this.#makeOffer();
        if (description && description.sdp !== sdp) throw fault('InvalidModificationError');
        this.#sections = sections;
        this.#fragment = fragment;
        for (const [transceiver, mid] of mids) transceiver.mid = mid;
        this.#pending.local = { type: 'offer', sdp };
        this.#become('have-local-offer');
      }
      this.#gather();
    });
  }

  setRemoteDescription({ type, sdp }) {
    return this.chained('setRemoteDescription', () => {
      if (type === 'rollback') return this.#rollBack();
      const facts = parse(sdp);
      if (type === 'offer') {
        // Not the specification but Chromium, and also after a rollback.
        for (const { kind, mid } of facts.sections) {
          if ((this.#offered.get(mid) ?? kind) !== kind) throw fault('OperationError', `${mid} has been another kind`);
        }
        if (this.signalingState === 'have-local-offer') this.#rollBack();
        this.#pending.remote = { type, sdp };
        this.#become('have-remote-offer');
        this.#sections = facts.sections.map(({ kind, mid }) => ({ kind, mid }));
        this.#hear(facts, true);
      } else {
        if (this.signalingState !== 'have-local-offer') throw fault('InvalidStateError', 'no offer is pending');
        if (facts.sections.length !== this.#sections.length) throw fault('InvalidAccessError', 'other sections');
        this.#settle(this.#pending.local, { type, sdp });
        this.#hear(facts, false);
      }
    });
  }

  addIceCandidate(candidate) {
    return this.chained('addIceCandidate', () => {
      if (!this.remoteDescription) throw fault('InvalidStateError', 'no remote description');
      if (candidate?.candidate && candidate.sdpMid === null && candidate.sdpMLineIndex === null) {
        throw new TypeError('both sdpMid and sdpMLineIndex are null');
      }
      this.candidates.push(candidate);
    });
  }

  async getStats() {
    this.#alive();
    const candidate = { type: 'local-candidate', candidateType: 'host', protocol: 'udp' };
    return new Map(this.stats ?? [['L', candidate]]);
  }

  /** No event comes of it, and nothing that is pending ever ends. */
  close() {
    if (this.signalingState === 'closed') return;
    this.signalingState = this.connectionState = 'closed';
    const peers = this.channels.map(({ peer }) => peer);
    for (const channel of this.channels) channel.die();
    // The other side is told by its transport that the channels have gone.
    for (const peer of peers) if (peer) later(() => peer.readyState === 'open' && !this.severed && peer.close());
  }

  // --- for tests -------------------------------------------------------------------------------------------------------

  get localText() {
    return this.#current.local?.sdp;
  }

  get remoteText() {
    return this.#current.remote?.sdp;
  }

  /** Say what the network says. */
  become(state) {
    this.connectionState = state;
    this.onconnectionstatechange?.({});
  }

  /** Nothing comes through in either direction, and nobody says so, until ICE is restarted. */
  sever() {
    for (const end of [this, this.other]) if (end) end.severed = true;
  }

  // --- within ------------------------------------------------------------------------------------------------------------

  /** A path is there. */
  found() {
    if (this.severed && this.#fragment !== this.foundWith) {
      this.severed = false;
      for (const channel of this.channels) channel.flush();
    }
    this.foundWith = this.#fragment;
    if (this.connectionState === 'connected') return;
    later(() => {
      if (this.signalingState === 'closed' || !this.other) return;
      this.become('connected');
      for (const channel of this.channels) if (channel.readyState === 'connecting') this.#openWith(channel);
    });
  }

  #openWith(channel) {
    const { other } = this;
    if (!other || channel.peer) return;
    const end = new FakeChannel(other, channel.label);
    [channel.peer, end.peer] = [end, channel];
    end.unready = true;
    other.channels.push(end);
    later(() => {
      if (other.signalingState !== 'closed') {
        other.ondatachannel?.({ channel: end });
        end.open();
      }
      if (this.signalingState !== 'closed') channel.open();
    });
  }

  #alive() {
    if (this.signalingState === 'closed') throw fault('InvalidStateError', 'it is closed');
  }

  chained(name, operation) {
    if (this.signalingState === 'closed') return Promise.reject(fault('InvalidStateError', 'it is closed'));
    this.#chained++;
    const result = this.#chain.then(
      () =>
        new Promise((resolve, reject) => {
          later(() => {
            if (this.signalingState === 'closed' || this.network.frozen) return;
            try {
              if (this.network.refuses.has(name)) throw fault('OperationError', this.network.refuses.get(name));
              resolve(operation());
            } catch (error) {
              reject(error);
            }
            if (--this.#chained === 0 && this.#checkOnEmpty) {
              this.#checkOnEmpty = false;
              this.updateNeeded();
            }
          });
        }),
    );
    this.#chain = result.catch(() => {});
    return result;
  }

  #become(state) {
    this.signalingState = state;
  }

  /** An offer, and what becomes of us when it is applied. */
  #makeOffer() {
    const fragment = this.#restart || !this.#fragment ? `u${this.network.number()}` : this.#fragment;
    const sections = [...this.#sections];
    const mids = new Map();
    if (this.channels.length && !sections.some(({ kind }) => kind === 'application')) {
      sections.push({ kind: 'application', mid: String(sections.length) });
    }
    for (const each of this.#transceivers) {
      if (each.mid !== null || each.direction === 'stopped') continue;
      const mid = String(sections.length);
      this.#offered.set(mid, each.kind);
      sections.push({ kind: each.kind, mid });
      mids.set(each, mid);
    }
    const find = (mid) => this.#transceivers.find((each) => (each.mid ?? mids.get(each)) === mid);
    return { sdp: this.#write(sections, fragment, find, ({ direction }) => direction), sections, fragment, mids };
  }

  #makeAnswer() {
    const offered = parse(this.#pending.remote.sdp).sections;
    if (!this.#fragment || this.#theirsIsNew()) this.#fragment = `u${this.network.number()}`;
    const find = (mid) => this.#transceivers.find((each) => each.mid === mid);
    return this.#write(this.#sections, this.#fragment, find, ({ mid, direction }) =>
      combined(direction, reversed[offered.find((each) => each.mid === mid).direction]),
    );
  }

  #theirsIsNew() {
    const before = this.#current.remote && parse(this.#current.remote.sdp).fragment;
    return before !== null && before !== parse(this.#pending.remote.sdp).fragment;
  }

  #write(all, fragment, find, directionOf) {
    const sections = all.map(({ kind, mid }) => {
      const transceiver = find(mid);
      if (!transceiver) return `m=${kind} 9 X\r\na=mid:${mid}\r\n`;
      const direction = directionOf(transceiver);
      const [stream] = transceiver.sender.streams;
      return `m=${kind} 9 X\r\na=mid:${mid}\r\na=${direction}\r\n${sends(direction) && stream ? `a=msid:${stream}\r\n` : ''}`;
    });
    const head = `v=0\r\no=- ${this.id} ${++this.#version}\r\na=ice-ufrag:${fragment}\r\na=fingerprint:sha-256 FA:${this.id}\r\n`;
    return head + sections.join('');
  }

  /** Both descriptions stand. */
  #settle(local, remote) {
    this.#current = { local, remote };
    this.#pending = { local: null, remote: null };
    this.#restart &&= parse(local.sdp).fragment === this.settledWith;
    this.settledWith = parse(local.sdp).fragment;
    const { type, sdp } = remote.type === 'answer' ? remote : local;
    for (const { mid, direction } of parse(sdp).sections) {
      const transceiver = this.#transceivers.find((each) => each.mid === mid);
      if (!transceiver) continue;
      transceiver.fresh = false;
      transceiver.currentDirection = type === 'answer' && remote.type === 'answer' ? reversed[direction] : direction;
      transceiver.sender.everSent ||= sends(transceiver.currentDirection);
    }
    this.#become('stable');
    this.#needed = false;
    this.updateNeeded();
    if (this.connectionState === 'new') later(() => this.connectionState === 'new' && this.become('connecting'));
    later(() => this.network.match());
  }

  #rollBack() {
    if (this.signalingState === 'stable') throw fault('InvalidStateError', 'nothing to roll back');
    // Not the specification but Chromium, which does not even say so.
    if (this.signalingState === 'have-local-offer' && this.#transceivers.some((each) => each.currentDirection)) {
      throw fault('OperationError', 'what comes in these sections will never be seen again');
    }
    const described = new Set(this.#current.local ? parse(this.#current.local.sdp).sections.map(({ mid }) => mid) : []);
    this.#transceivers = this.#transceivers.filter((each) => !each.fresh || each.fromTrack || described.has(each.mid));
    for (const each of this.#transceivers) if (each.mid !== null && !described.has(each.mid)) each.mid = null;
    this.#sections = this.#sections.filter(({ mid }) => described.has(mid));
    this.#pending = { local: null, remote: null };
    if (this.#current.local) this.#fragment = parse(this.#current.local.sdp).fragment;
    this.#become('stable');
    this.#needed = false;
    this.updateNeeded();
  }

  /** What the other side sends of tracks. */
  #hear({ sections }, offered) {
    for (const { kind, mid, direction, stream } of sections) {
      if (kind === 'application') continue;
      let transceiver = this.#transceivers.find((each) => each.mid === mid);
      if (!transceiver && offered) {
        transceiver = this.#transceivers.find(
          (each) => each.mid === null && each.fromTrack && each.kind === kind && receives(direction),
        );
        if (!transceiver) this.#transceivers.push((transceiver = new Transceiver(this, kind, 'recvonly')));
        transceiver.mid = mid;
      }
      if (!transceiver) continue;
      const sending = sends(direction);
      if (sending && (!transceiver.receives || stream !== transceiver.heardIn)) {
        const { track } = transceiver.receiver;
        this.ontrack?.({ track, streams: stream ? [Object.assign(new EventTarget(), { id: stream })] : [] });
      }
      transceiver.receives = sending;
      transceiver.heardIn = stream;
    }
  }

  #gather() {
    const candidate = {
      candidate: `candidate:${this.id} 1 udp 1 192.0.2.${this.id} 9 typ host`,
      sdpMid: '0',
      sdpMLineIndex: 0,
      usernameFragment: this.#fragment,
    };
    if (this.gatheredWith === this.#fragment) return;
    this.gatheredWith = this.#fragment;
    for (const each of [candidate, { ...candidate, candidate: '' }, null]) {
      const event = { candidate: each && { ...each, toJSON: () => each } };
      later(() => this.signalingState !== 'closed' && this.onicecandidate?.(event));
    }
  }

  /** Section 4.7.3. */
  updateNeeded() {
    if (this.#chained) {
      this.#checkOnEmpty = true;
      return;
    }
    later(() => {
      if (this.signalingState === 'closed') return;
      if (this.#chained) {
        this.#checkOnEmpty = true;
      } else if (this.signalingState === 'stable') {
        const before = this.#needed;
        this.#needed = this.#isNeeded();
        if (this.#needed && !before) this.onnegotiationneeded?.({});
      }
    });
  }

  #isNeeded() {
    const { local, remote } = this.#current;
    if (this.#restart) return true;
    const mine = local ? parse(local.sdp).sections : [];
    if (this.channels.length && !mine.some(({ kind }) => kind === 'application')) return true;
    const theirs = remote ? parse(remote.sdp).sections : [];
    return this.#transceivers.some(({ mid, direction, sender }) => {
      const [ours, other] = [mine, theirs].map((sections) => sections.find((each) => each.mid === mid));
      if (mid === null || !ours || !other) return true;
      if (sends(direction) && sender.streams[0] !== ours.stream && sends(ours.direction)) return true;
      if (local.type === 'offer') return ours.direction !== direction && reversed[other.direction] !== direction;
      return ours.direction !== combined(direction, reversed[other.direction]);
    });
  }
}
