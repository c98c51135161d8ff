/**
 * The sealed relay of one login: takes apart what the server brings, and seals and sends what sessions say.
 *
 * Rules of this module:
 *
 * - Only what opens has an effect: a handshake that its sender has not sealed and signed for this device changes nothing.
 * - Admission, pins and blocks are those of offers. A handshake costs more than an offer's check, so its sender is limited
 *   before it is opened (`peer/relay_guard`).
 * - What cannot be opened is answered with `seal-unknown`, so that the sender begins anew.
 * - Opening is a promise, so messages of one device wait for each other, and before `started` all do. One for which there
 *   is no room (`peer/relay_guard`) is answered as one that cannot be opened.
 *
 * It does not know the state of sessions, nor when there should be one. This and what it imports alone is loaded when a
 * store connects that may use the relay.
 */
import { timers } from '../../client/timers.js';
import { RequestFailed, TooManyPeers } from '../../errors.js';
import { SealKeys } from '../../identity/seal_keys.js';
import { RelayGuard } from '../../peer/relay_guard.js';
import * as sealing from '../../peer/sealing.js';
import { PROOF_PAUSE, refusalOf, TOO_MANY } from '../../peer/refusal_reasons.js';
import { DEFAULT_DEVICE, sortsBefore, split } from '../../protocol/addresses.js';
import { LARGEST_SENT } from '../../protocol/message_frames.js';
import { toBase64url } from '../../protocol/codec.js';
import { RelayPath } from './relay.js';
import { RelayListener } from './relay_listener.js';

/**
 * @import { SignalingClient } from '../../client/client.js'
 * @import { RelayReceived } from '../../client/events.js'
 * @import { Timers } from '../../client/timers.js'
 * @import { AldisError } from '../../errors.js'
 * @import { Identity } from '../../identity/keys.js'
 * @import { Handshake, Opened, SessionKeys } from '../../peer/sealing.js'
 * @import { PeerSession } from '../../peer/session.js'
 * @import { Trust } from '../../peer/trust.js'
 * @import { Bytes } from '../../protocol/codec.js'
 * @import { Limits } from '../../protocol/messages.js'
 * @import { Admission } from './admission.js'
 * @import { DeviceOwner, PeerDevice } from './device.js'
 * @import { DeviceListener } from './listener.js'
 * @import { PathMode } from './paths.js'
 * @import { Peer } from './peer.js'
 * @import { ListenerContext, RelayContext } from './relay_listener.js'
 */

/** @typedef {{ sender: string, connection: string }} SessionCall Who begins a session: as an offer names its sender and its connection. */

/**
 * @typedef {object} LoginContext The peers.
 * @property {(userId: string) => Peer | undefined} find
 * @property {(userId: string) => PathMode} pathMode The paths that may be used with a user.
 * @property {Timers} timers
 */

/** Bytes of a `relay` message beside `sealed`: its names, and the address of 193 characters at most, escaped. */
const ENVELOPE = 1024;
// Seconds for the server to take a message; then it is asked whether it is there. It answers at once, also what it refuses.
const TAKEN = 2;
const LARGEST_FRAME = sealing.FRAME_OVERHEAD + LARGEST_SENT;

export class RelayLogin {
  /** Have what has come so far opened: whoever it comes from can be let in from now on. @type {() => void} */
  started = () => {};
  #client;
  #identity;
  #trust;
  #admission;
  #context;
  #Session;
  /** No more sessions are taken. */
  stopped = false;
  #guard = new RelayGuard();
  #disabled = false;
  /** @type {Limits | null} */
  #limits = null;
  #renewing = false;
  /** @type {Map<string, Promise<void>>} by device */
  #queues = new Map();
  /** @type {Promise<void>} */
  #start = new Promise((resolve) => (this.started = resolve));

  /**
   * The client publishes keys from now on: with its next registration.
   *
   * @param {SignalingClient} client
   * @param {Pick<Identity, 'publicKey' | 'sign'>} identity
   * @param {Trust} trust
   * @param {Admission} admission
   * @param {LoginContext} context
   * @param {typeof PeerSession} Session What makes a session: it is loaded with the direct connection, which has one, too.
   */
  constructor(client, identity, trust, admission, context, Session) {
    client.sealKeys = new SealKeys(client.userId, client.device);
    this.#client = client;
    this.#identity = identity;
    this.#trust = trust;
    this.#admission = admission;
    this.#context = context;
    this.#Session = Session;
  }

  /**
   * The second path to a device.
   *
   * @param {PeerDevice} device
   * @param {DeviceOwner} owner
   * @param {DeviceListener | null} listener
   * @param {RelayContext & ListenerContext} context
   */
  path(device, owner, listener, context) {
    const polite = sortsBefore(this.#client.userId, device.userId);
    return new RelayPath(
      new RelayListener(device, owner, /** @type {DeviceListener} */ (listener), context, this.#Session.firstOf),
      polite,
      context,
      this.#Session,
    );
  }

  // --- what others want to know ------------------------------------------------------------------------------------

  /** Whether the server relays sealed messages, each of which can carry the largest frame, and we have a key to open them. */
  get available() {
    return !this.#disabled && !!this.#limits?.relay && this.room >= LARGEST_FRAME && !!this.#client.sealKeys?.current;
  }

  /** The largest file that may go through the relay, in bytes. */
  get maxFileBytes() {
    return this.#limits?.maxRelayFileBytes ?? 0;
  }

  /** How many bytes of frames, with their lengths, one message can carry: handshakes have less room than others, and count. */
  get room() {
    const size = this.#limits?.maxMessageBytes ?? 0;
    return Math.floor((size - ENVELOPE) / 4) * 3 - sealing.HANDSHAKE_OVERHEAD;
  }

  /** We are registered, perhaps with another server of that name than before. @param {Limits | null} limits */
  registered(limits) {
    this.#limits = limits;
    this.#disabled = false;
  }

  // --- sending -----------------------------------------------------------------------------------------------------

  /**
   * Make a handshake. Rejects with `Unopened` when their key is none.
   *
   * @param {{ userId: string, name: string | null }} device
   * @param {Bytes} session
   * @param {readonly Bytes[]} frames
   * @param {Bytes} theirSealKey
   * @returns {Promise<[sealed: Bytes, keys: SessionKeys]>}
   */
  async start({ userId, name }, session, frames, theirSealKey) {
    const { userId: fromUser, device: fromDevice, sealKeys } = this.#client;
    const ours = sealKeys?.current;
    if (!ours) throw new sealing.Unopened('no seal key here');
    const parties = { fromUser, fromDevice, toUser: userId, toDevice: name ?? DEFAULT_DEVICE };
    const keys = { identity: this.#identity, sealKey: ours.publicKey, theirSealKey };
    return sealing.start(parties, session, frames, keys);
  }

  /** Send a sealed message; returns when the server has taken it. Rejects as `SignalingClient.relay`. @param {string} to @param {Bytes} sealed */
  async send(to, sealed) {
    const cancel = this.#context.timers.callLater(TAKEN, () => this.#client.suspect());
    try {
      await this.#client.relay(to, sealed);
    } catch (error) {
      this.#disabled ||= error instanceof RequestFailed && ['relay-disabled', 'unknown-type'].includes(error.code);
      throw error;
    } finally {
      cancel();
    }
  }

  // --- receiving ---------------------------------------------------------------------------------------------------

  /** The server brings a sealed message of a user who is not blocked. @param {RelayReceived} event */
  received({ sender, sealed }) {
    const [userId, named] = split(sender);
    const device = named ?? DEFAULT_DEVICE;
    const address = `${userId}/${device}`;
    const { length } = sealed;
    if (!this.#guard.hold(userId, length)) {
      this.#answerUnknown({ sender: address, connection: toBase64url(sealed.slice(2, 2 + sealing.SESSION_BYTES)) });
      return;
    }
    const queue = (this.#queues.get(address) ?? this.#start)
      .then(() => this.#open(sealed, userId, device))
      .catch((error) => {
        if (!(error instanceof sealing.Unopened)) console.error(error);
      })
      .then(() => {
        this.#guard.release(userId, length);
        if (this.#queues.get(address) === queue) this.#queues.delete(address);
      });
    this.#queues.set(address, queue);
  }

  /** @param {Bytes} bytes @param {string} userId @param {string} device */
  async #open(bytes, userId, device) {
    const sealed = sealing.read(bytes);
    const call = { sender: `${userId}/${device}`, connection: toBase64url(sealed.session) };
    if (sealed.type === 'handshake') {
      if (this.#context.pathMode(userId) !== 'direct') await this.#handshake(sealed, call, userId, device);
      else this.#admission.refuse(call, 'no relay is used here', 'no-relay');
      return;
    }
    const path = sealed.type === 'frames' && this.#known(userId)?.findDevice(device)?.paths.relay;
    const verdict = path ? await path.received(sealed) : 'unknown';
    if (verdict === 'unknown' || verdict === 'lost') this.#answerUnknown(call);
  }

  /** @param {Handshake} handshake @param {SessionCall} call @param {string} userId @param {string} device */
  async #handshake(handshake, call, userId, device) {
    const { sealKeys, userId: toUser, device: toDevice } = this.#client;
    const now = timers.time();
    const key = toBase64url(handshake.toSealKey);
    if (this.#guard.seen(key, call.connection)) return;
    const pause = this.#guard.pause(call.sender, now);
    if (pause) {
      this.#admission.refuse(call, 'too many handshakes', 'rate-limited', pause);
      return;
    }
    const pair = sealKeys?.find(handshake.toSealKey, now);
    if (!pair || this.#guard.full(key)) {
      if (pair) this.#renewKey();
      this.#answerUnknown(call);
      return;
    }
    /** @type {Opened} */
    let opened;
    try {
      opened = await sealing.accept({ fromUser: userId, fromDevice: device, toUser, toDevice }, handshake, pair);
    } catch (error) {
      if (!(error instanceof sealing.Unopened)) throw error;
      console.warn(`a sealed handshake in the name of ${call.sender} is refused: ${error.message}`);
      this.#admission.refuse(call, 'the proof is not valid', 'bad-proof', PROOF_PAUSE);
      return;
    }
    this.#guard.take(key, call.connection);
    const admitted = this.#admit(call, userId, device, opened.publicKey);
    if (!admitted) return;
    const wrong = await this.proved(userId, opened.publicKey);
    if (wrong) {
      admitted.listener?.refused(wrong);
      this.#admission.refuse(call, ...refusalOf(wrong));
    } else {
      admitted.paths.relay?.began(handshake.session, opened);
    }
  }

  /** A peer; one that is only watched is none. @param {string} userId */
  #known(userId) {
    const peer = this.#context.find(userId);
    return peer?.known ? peer : undefined;
  }

  /**
   * The device that begins a session with a proven key; undefined when it is not let in, which it is told.
   *
   * @param {SessionCall} call
   * @param {string} userId
   * @param {string} device
   * @param {Bytes} publicKey
   */
  #admit(call, userId, device, publicKey) {
    if (this.stopped) return undefined;
    try {
      return this.#admission.admitKey(call, publicKey, userId, this.#known(userId))?.relayed(device);
    } catch (error) {
      if (!(error instanceof TooManyPeers)) throw error;
      this.#admission.refuse(call, ...TOO_MANY);
      return undefined;
    }
  }

  /**
   * A user has proved this key: by a handshake, or by an answer in a session that only the owner of the seal key can open,
   * which this identity has signed. Pins the first one. Returns why it is not the one that counts.
   *
   * @param {string} userId
   * @param {Bytes} publicKey
   * @returns {Promise<AldisError | null>}
   */
  proved(userId, publicKey) {
    return this.#trust.checkKey(userId, publicKey).then(
      () => null,
      (error) => error,
    );
  }

  /** @param {SessionCall} call */
  #answerUnknown(call) {
    if (this.#guard.mayAnswer(call.sender, call.connection, timers.time())) {
      this.#admission.refuse(call, 'unknown session', 'seal-unknown');
    }
  }

  /** No more sessions can be told apart with the current key. */
  #renewKey() {
    if (this.#renewing) return;
    this.#renewing = true;
    const done = () => (this.#renewing = false);
    this.#client.renewSealKey().then(done, done);
  }
}
