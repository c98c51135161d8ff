/**
 * NetworkStore: one object with which a page talks to others by their names.
 *
 * Offers, candidates, reconnects, lost messages and proofs do not show.
 *
 * Rules of this module:
 *
 * - One store, one user of one server, one life: after `disconnect()` a new one is needed.
 * - A fault of one peer, or of one callback, stays there.
 *
 * It is the face of the package and decides little: peers are the business of `manager`, messages that of
 * `stream` and `mailbox`, calls to peers that of `dialer`.
 */
import { known, PeerManager } from './peers/manager.js'; // first: so the bundle is 120 bytes smaller, gzipped
import { StateFeed } from './subscriptions.js';
import { BETWEEN_CALLS, Backoff } from '../client/backoff.js';
import { Callbacks } from '../client/callbacks.js';
import { checkType, settings } from '../client/settings.js';
import { checkIdentity, SignalingClient } from '../client/client.js';
import { timers } from '../client/timers.js';
import { ConfigError, PeerConnectionFailed, StateError, UsageError } from '../errors.js';
import { PUBLIC_KEY_BYTES } from '../identity/keys.js';
import { MemoryPins } from '../identity/pins.js';
import { engine } from '../peer/platform.js';
import { TIMING } from '../peer/timing.js';
import { checkUserId, parse } from '../protocol/addresses.js';
import { readServers } from '../protocol/ice.js';
import { violation } from '../protocol/shapes.js';
import { bind } from '../proxies.js';
import { decode, encode } from './messages/content.js';
import { PARTS } from './parts.js';
import { Mailbox } from './messages/mailbox.js';
import { OPTIONS } from './options.js';
import { checkPath } from './peers/paths.js';
import { CLOSED, storeLimits, storeState } from './state.js';

/**
 * @import { BackoffOptions } from '../client/backoff.js'
 * @import { Identity } from '../identity/keys.js'
 * @import { Bytes } from '../protocol/codec.js'
 * @import { Visibility } from '../protocol/messages.js'
 * @import { Call } from './calls/call.js'
 * @import { Sendable } from './messages/content.js'
 * @import { Delivery } from './messages/delivery.js'
 * @import { QueuedMessage } from './messages/mailbox.js'
 * @import { PathMode } from './peers/paths.js'
 * @import { Peer } from './peers/peer.js'
 * @import { StoreOptions } from './options.js'
 * @import { PeerQuality, PeerStats } from './readings.js'
 * @import { PeerSignaling } from './peers/signaling.js'
 * @import { Ways } from './ways.js'
 * @import { Message, StoreState } from './state.js'
 * @import { FolderFile, Transfer } from './files/transfer.js'
 */

/**
 * Talk to other users of a signaling server, directly and privately.
 *
 * `await connectToSignaling(url, userId)` first; then `send`, `messages`, `connectToPeer`, `subscribe`; at the end
 * `await disconnect()`.
 */
export class NetworkStore {
  #setup;
  #feed = new StateFeed(storeState({}));
  #mailbox;
  #manager;
  /** @type {Promise<void> | null} */
  #closing = null;

  /** @param {StoreOptions} [options] Nothing is connected yet. Throws `ConfigError`. */
  constructor(options) {
    const given = settings(/** @type {StoreOptions} */ (OPTIONS), options);
    const { identity, iceServers, journal, backoff, timing } = given;
    const limits = storeLimits(given.limits);
    const pins = given.pins ?? new MemoryPins();
    if (identity && !('then' in Object(identity))) {
      checkIdentity(/** @type {Identity} */ (identity));
    }
    if (!pins.find?.call || !pins.pin?.call || !pins.accept?.call) {
      throw new ConfigError('pins', 'without find, pin or accept');
    }
    checkType('journal', (journal ?? { mailbox: Object }).mailbox, 'function');
    for (const name of /** @type {const} */ (['accept', 'RTCPeerConnection'])) {
      checkType(name, given[name] ?? Object, 'function');
    }
    this.#mailbox =
      journal?.mailbox(limits, () => this.#manager) ?? new Mailbox(limits, () => this.#manager.handOver());
    this.#setup = {
      ...given,
      path: checkPath(given.path ?? 'auto'),
      pins,
      limits,
      iceServers: iceServers && /** @type {RTCIceServer[]} */ (readServers(iceServers)),
      timing: settings(TIMING, timing, 'timing'),
      backoff: new Backoff(backoff, BETWEEN_CALLS),
      mailbox: this.#mailbox,
      feed: this.#feed,
      /** @type {Callbacks<Transfer>} */
      onFile: new Callbacks(),
      /** @type {Callbacks<Transfer>} */
      onResumedFile: new Callbacks(),
      /** @type {Callbacks<Call>} */
      onCall: new Callbacks(),
    };
    this.#manager = new PeerManager(this.#setup);
    bind(this, 'NetworkStore');
  }

  /** Our key; null when it was not given, or only promised, and `connectToSignaling` has not got one yet. */
  get identity() {
    return known(this.#setup.identity);
  }

  // --- the signaling server ------------------------------------------------------------------------------------------

  /**
   * Connect to the server at `url` and register as `userId`. A lost connection comes back by itself.
   *
   * Rejects with `ServerUnreachable`, `RequestFailed` (code `key-mismatch`: the name belongs to another key),
   * `LoadFailed`, what the promise of an identity rejects with, `UsageError` for arguments that cannot work, and `StateError` when the store
   * is or was connected. After any other error than the last it may be called again.
   *
   * @param {string} url `ws:`, `wss:`, `http:` or `https:`.
   * @param {string} userId
   * @param {object} [options]
   * @param {string} [options.device] Tells the programs of one user apart. 'main'
   * @param {string | (() => string | Promise<string>) | null} [options.token] What the server's operator asks for, if
   *   anything: a text, or a function that gets one before each registration.
   * @param {BackoffOptions} [options.backoff] Between attempts to reconnect.
   */
  async connectToSignaling(url, userId, options) {
    this.#checkOpen();
    if (this.#manager.signaling) {
      throw new StateError('the store is connected already');
    }
    const client = new SignalingClient(url, checkUserId(userId), options);
    const restored = this.#setup.journal?.claim(client);
    try {
      await this.#manager.start(client, restored);
    } catch (error) {
      this.#checkOpen();
      throw error;
    }
  }

  /**
   * Say goodbye to all peers, leave the server, release everything. May be called again.
   *
   * What has not been acknowledged fails with `DeliveryFailed` (wait with `drain` first); messages that have arrived
   * can still be read.
   */
  disconnect() {
    if (!this.#closing) {
      let close = () => {};
      this.#closing = new Promise((resolve) => (close = () => resolve(this.#close())));
      close(); // not before it is marked as closing: callbacks that are told of it may ask for something new
    }
    return this.#closing;
  }

  async #close() {
    await this.#manager.close();
    await this.#mailbox.close(); // and with it the journal
  }

  // --- peers -----------------------------------------------------------------------------------------------------------

  /**
   * Returns when there is a direct connection to a user; from then on it is kept up, whatever happens to it.
   *
   * Not needed before `send`, which connects by itself. Rejects with `PeerOffline`, `PeerUnknown` (nobody has this
   * name), `PeerKeyChanged` (see `acceptKey`), `FingerprintMismatch`, `ProofInvalid`, `PeerConnectionFailed` with a
   * reason, after at most `timeout` seconds; `IdentityError` when the pins cannot be read or written; `TooManyPeers`,
   * `StateError`, `UsageError` for what is no name or no fingerprint, `EngineMissing` where there is no WebRTC, and
   * `LoadFailed` before the first registration.
   *
   * @param {string} address `user`, so that one of their devices is called, or `user/device` for exactly that one.
   * @param {object} [options]
   * @param {number} [options.timeout] Seconds. 30
   * @param {string | null} [options.fingerprint] From an invitation. Until a key is pinned, only one with this
   *   fingerprint is taken for theirs, also after this call has failed.
   */
  async connectToPeer(address, options) {
    const { timeout, fingerprint } = settings(
      { timeout: 30, fingerprint: /** @type {string | null} */ (null) },
      options,
    );
    this.#ready();
    const [peer, device] = this.#peer(address);
    await peer.connect(device, timeout, fingerprint);
  }

  /**
   * Say goodbye to all devices of a user, or to one. What they have not acknowledged fails. They may call again, and so
   * may we. Rejects with `InvalidAddress`.
   *
   * @param {string} address `user` or `user/device`
   */
  async disconnectFromPeer(address) {
    const [userId, device] = parse(address);
    const reason = 'hung up';
    const error = new PeerConnectionFailed(userId, reason);
    await this.#manager.find(userId)?.close('it has hung up', reason, error, device);
  }

  /**
   * Trust this key of a peer (32 bytes) from now on, instead of any other.
   *
   * To be called only after a person has compared fingerprints by other means: it is the one thing that keeps a
   * stranger from taking the peer's place. Ends a connection that was made with another key.
   *
   * @param {string} userId
   * @param {Bytes} publicKey
   */
  async acceptKey(userId, publicKey) {
    this.#ready();
    checkUserId(userId);
    if (publicKey.length !== PUBLIC_KEY_BYTES) {
      throw new UsageError(`a public key has ${PUBLIC_KEY_BYTES} bytes, not ${publicKey.length}`);
    }
    const key = publicKey.slice();
    const { acceptKey } = await this.#online();
    await acceptKey(this.#manager, userId, key);
  }

  /**
   * Have `state.peers` show whether users are online, without connecting to them. A user leaves the state again, or has
   * `online` null, when the server does not take the watch over into a new session: it may have been started anew with
   * a smaller limit of watched names. Call this again when there is room. Rejects with `SignalingError`,
   * `InvalidAddress`, `StateError`.
   *
   * @param {string[]} userIds
   */
  async watch(...userIds) {
    const { watchAll } = await this.#online();
    await watchAll(this.#manager, userIds);
  }

  /**
   * End what `watch` began. Users who are peers besides stay in `state.peers`.
   *
   * @param {string[]} userIds
   */
  async unwatch(...userIds) {
    const { unwatchAll } = await this.#online();
    await unwatchAll(this.#manager, userIds);
  }

  /**
   * Have nothing to do with these users any more, on any device of ours, until `unblock`.
   *
   * Takes effect here at once: connections and calls end, what waits for these users fails with `DeliveryFailed`, their
   * calls get no answer, and `send` and `connectToPeer` throw `PeerBlocked`. Then the server is told, which keeps it: to
   * these users we are offline from then on. When that fails, this rejects with `SignalingError`. The block then holds
   * here until `unblock` or the end of the store, which tells the server again whenever it registers. Rejects with `InvalidAddress`, `UsageError`, `StateError`, too.
   *
   * @param {string[]} userIds
   */
  async block(...userIds) {
    await this.#ready().block(userIds);
  }

  /**
   * End that. Rejects with `SignalingError`, `InvalidAddress`, `StateError`.
   *
   * @param {string[]} userIds
   */
  async unblock(...userIds) {
    await this.#ready().unblock(userIds);
  }

  /**
   * Count these users as contacts, on all devices of ours. Rejects as `setVisibility`.
   *
   * @param {string[]} userIds
   */
  async addContacts(...userIds) {
    await this.#ready().client.changePrivacy({ addContacts: userIds });
  }

  /**
   * End that. Rejects as `setVisibility`.
   *
   * @param {string[]} userIds
   */
  async removeContacts(...userIds) {
    await this.#ready().client.changePrivacy({ removeContacts: userIds });
  }

  /**
   * Say who may see that we are online, and who may call us: `public`, which is everybody and the default, `contacts`,
   * or `hidden`, which is nobody. What is left out stays as it is.
   *
   * The server keeps it for all devices of ours, and `state.privacy` shows it. Whom we call may answer, whatever is set
   * here. Someone who may call us can find out that we are online, so set both to be hidden. Rejects with
   * `SignalingError` (a `RequestFailed` with the code `unknown-type`: the server is too old), `InvalidAddress`,
   * `UsageError`, `StateError`.
   *
   * @param {{ presence?: Visibility, offers?: Visibility }} visibility
   */
  async setVisibility(visibility) {
    const unchanged = /** @type {typeof visibility} */ ({ presence: undefined, offers: undefined });
    await this.#ready().client.changePrivacy(settings(unchanged, visibility));
  }

  /**
   * Choose the paths that may be used with a user, instead of the store's own; null ends that.
   *
   * `auto`: messages go sealed through the server at once, and over a direct connection as soon as there is one.
   * `direct`: never through the server. `turn`: direct connections through TURN servers only, so that the peer learns no
   * address of ours, and through the server. `relay`: through the server only, for the same reason. Connections that this
   * does not allow end. A store that was made with `direct` has no relay. Throws `ConfigError` for another word,
   * `InvalidAddress`, `StateError`.
   *
   * @param {string} userId
   * @param {PathMode | null} path
   */
  setPath(userId, path) {
    this.#checkOpen();
    this.#manager.setPath(checkUserId(userId), path && checkPath(path));
  }

  /**
   * How the connection to a peer runs, and what has gone over it; null without one. Rejects with `InvalidAddress`.
   *
   * @param {string} address `user`, for the device that messages to the user go to, or `user/device`
   * @returns {Promise<PeerStats | null>}
   */
  async stats(address) {
    const [userId, device] = parse(address);
    const { statsOfDevice } = await PARTS.readings.load();
    return statsOfDevice(this.#manager.find(userId)?.findDevice(device) ?? null);
  }

  /**
   * How well the connection with a peer runs now: a grade, and what it is made of. Rejects as `stats`.
   * @param {string} address as in `stats`
   * @returns {Promise<PeerQuality>}
   */
  async quality(address) {
    const [userId, device] = parse(address);
    const { qualityOf } = await PARTS.readings.load();
    return qualityOf(this.#manager.find(userId)?.findDevice(device) ?? null, timers.time());
  }

  /**
   * A reading of `quality` each `every` seconds (0.25 to 3600), until you stop or the store closes. Throws as `stats`.
   *
   * @param {string} address
   * @param {{ every?: number }} [options]
   * @returns {AsyncGenerator<PeerQuality, void, void>}
   */
  async *readings(address, options) {
    const { readings } = await PARTS.readings.load();
    yield* readings(() => !this.#closing && this.quality(address), options);
  }

  /**
   * By which ways peers in other networks are reached from here. It asks the STUN and TURN servers, for 5 s at most.
   * @returns {Promise<Ways>}
   */
  async ways() {
    const manager = this.#ready();
    const { signaling } = manager;
    const [{ waysOf }, { makeConnection }] = await Promise.all([PARTS.readings.load(), manager.load()]);
    const { RTCPeerConnection } = this.#setup;
    return waysOf(/** @type {PeerSignaling} */ (signaling).ways, (config) => makeConnection(config, RTCPeerConnection));
  }

  #checkOpen() {
    if (this.#closing) {
      throw new StateError(CLOSED);
    }
  }

  /** @returns {PeerManager} */
  #ready() {
    this.#checkOpen();
    if (!this.#manager.signaling) {
      throw new StateError('call connectToSignaling() first');
    }
    return this.#manager;
  }

  /** What needs a login, loaded. Throws as `#ready`, and `LoadFailed`. */
  async #online() {
    const direct = await this.#ready().load();
    this.#ready(); // the login may have failed meanwhile
    return direct;
  }

  /**
   * The peer that is to be connected, and the device if it has to be one. Throws `EngineMissing` where that can never be.
   *
   * @param {string} address
   * @returns {[peer: Peer, device: string | null]}
   */
  #peer(address) {
    engine(this.#setup.RTCPeerConnection);
    const [userId, device] = parse(address);
    return [this.#manager.peer(userId), device];
  }

  // --- messages --------------------------------------------------------------------------------------------------------

  /**
   * Queue a message for a peer: a string, bytes, or a JSON value.
   *
   * Returns at once. Messages arrive once and in order, as soon as the peer can be reached; `await` what is returned to
   * know when this one has, or ignore it. Throws `MessageTooLarge`, `QueueFull`, `UsageError` for what cannot be sent,
   * `PeerKeyChanged` until the new key is accepted, `TooManyPeers`, `StateError`, `EngineMissing`.
   *
   * @param {string} address `user/device` for exactly this device; `user` for the device heard from last, else the one
   *   that registered last. The message moves to another one when that device is gone.
   * @param {Sendable} message
   * @returns {Delivery}
   */
  send(address, message) {
    this.#checkOpen();
    const [content, data] = encode(message);
    const [peer, device] = this.#peer(address);
    return peer.send(device, content, data);
  }

  /**
   * Wait until all that was sent so far (to one user, or to all) is acknowledged.
   *
   * Rejects with `DeliveryFailed` when a message will not be, and with a `TimeoutError` (a `DOMException`) in the end.
   *
   * @param {string | null} [userId]
   * @param {object} [options]
   * @param {number | null} [options.timeout] Seconds; null waits for ever.
   */
  async drain(userId = null, options) {
    if (userId !== null) checkUserId(userId);
    const { timeout } = settings({ timeout: /** @type {number | null} */ (null) }, options);
    const peers = this.#manager.peers.filter((peer) => userId === null || userId === peer.userId);
    let cancel = () => {};
    const late = new Promise((_, reject) => {
      if (timeout !== null) {
        checkType('timeout', timeout, 'number');
        cancel = timers.callLater(timeout, () => reject(new DOMException('the time is over', 'TimeoutError')));
      }
    });
    // Of each device the newest messages: those before them have arrived by then, or fail with them.
    const last = peers.flatMap(({ devices }) => devices.flatMap(({ messages }) => messages.last));
    await Promise.race([late, Promise.all(last)]).finally(cancel);
  }

  /**
   * The messages that arrive, of all peers: `for await (const message of store.messages())`; ends after `disconnect()`.
   *
   * Several loops share the messages. A program that does not read holds the senders back: nothing is lost. Without a
   * loop messages wait; while there is an `onMessage` callback they go there instead.
   *
   * @returns {AsyncIterableIterator<Message, undefined, undefined>}
   */
  messages() {
    return this.#mailbox.iterate((queued) => this.#read(queued));
  }

  /**
   * Have each message handed to `callback` instead of to `messages()`. Returns what ends it. When a callback throws,
   * that is logged, and the message counts as delivered.
   *
   * @param {(message: Message) => unknown} callback With a journal, a message is handed over when the callback returns;
   *   if it returns a promise, when that is settled.
   * @returns {() => void}
   */
  onMessage(callback) {
    checkType('callback', callback, 'function');
    return this.#mailbox.onMessage((queued) => {
      const message = this.#read(queued);
      return message && callback(message);
    });
  }

  /**
   * @param {QueuedMessage} queued
   * @returns {Message | null}
   */
  #read({ sender, device, content, data, sequence, stream, redelivered = false }) {
    try {
      return { sender, device, content: decode(content, data), sequence, id: `${stream}:${sequence}`, redelivered };
    } catch (error) {
      this.#manager.unreadable(sender, device, violation(error));
      return null;
    }
  }

  // --- files and calls -------------------------------------------------------------------------------------------------

  /**
   * Offer a file or a folder to a peer; it is sent once they accept it. Returns when it is queued. A peer whose program is
   * started anew is offered it again, and resumes it.
   *
   * Rejects with what `send` throws, `UsageError` for what is no file, and `LoadFailed` when the part of the SDK for
   * files cannot be loaded; it may be called again then.
   *
   * @param {string} address As in `send`; a file that was offered to a device does not move to another one.
   * @param {Blob | Iterable<File | FolderFile>} file For a folder its files, as an `<input webkitdirectory>` has them, or each with
   *   its `path` in the folder and its `blob`.
   * @param {{ name?: string }} [options] `name`: how to call it, when it is no `File` or has another name.
   * @returns {Promise<Transfer>}
   */
  async sendFile(address, file, options) {
    const manager = this.#ready();
    this.#peer(address);
    const service = await (await manager.loadServices()).files.get();
    this.#checkOpen();
    const [peer, device] = this.#peer(address);
    return service.send(peer.device(device), file, options, device !== null);
  }

  /**
   * Have each file that is offered handed to `callback`, which calls `accept` or `decline` of it, then or later.
   * Returns what ends it. Without a callback offers are declined.
   *
   * @param {(transfer: Transfer) => void} callback
   */
  onFile(callback) {
    const remove = this.#setup.onFile.add(callback);
    PARTS.files.load().catch(() => {}); // so that it is there when an offer comes; if it is not, it is tried again then
    return remove;
  }

  /**
   * Have each transfer that goes on handed to `callback`: from an earlier page with this journal, or when the other side is back.
   * It runs, or waits for that, or has arrived already (`hold`). Returns what ends it. To be called before
   * `connectToSignaling`; later `transfers` has them too.
   *
   * @param {(transfer: Transfer) => void} callback
   */
  onResumedFile(callback) {
    return this.#setup.onResumedFile.add(callback);
  }

  /** All files that are on offer or under way, in both directions; and those that have arrived and are held. */
  get transfers() {
    return this.#manager.services?.files.transfers ?? [];
  }

  /**
   * Call a peer, who hears a ring first; sound and pictures flow once they accept. Returns when the call is queued.
   *
   * Rejects with what `send` throws, and with `LoadFailed` when the part of the SDK for calls cannot be loaded; it may
   * be called again then.
   *
   * @param {string} address As in `send`; a call that was offered to a device does not move to another one.
   * @param {MediaStream | null} [stream] What they are to hear and see; null to only listen and look.
   * @returns {Promise<Call>}
   */
  async call(address, stream = null) {
    if (stream && !stream.getAudioTracks) throw new ConfigError('stream', 'not a MediaStream: await it');
    const manager = this.#ready();
    this.#peer(address);
    if (this.#manager.pathMode(parse(address)[0]) === 'relay') {
      throw new UsageError('a call needs a direct path or TURN, and only the relay may be used');
    }
    const service = await (await manager.loadServices()).calls.get();
    this.#checkOpen();
    const [peer, device] = this.#peer(address);
    return service.call(peer.device(device), stream, device !== null);
  }

  /**
   * Have each call that comes in handed to `callback`, which calls `accept` or `decline` of it, then or later. Returns
   * what ends it. Without a callback calls are declined.
   *
   * @param {(call: Call) => void} callback
   */
  onCall(callback) {
    const remove = this.#setup.onCall.add(callback);
    PARTS.calls.load().catch(() => {}); // as for files
    return remove;
  }

  // --- state -----------------------------------------------------------------------------------------------------------

  /** How things stand now; a new object at each change, frozen all the way down. */
  get state() {
    return this.#feed.current;
  }

  /**
   * Have `run` called now, and at each change. Returns what ends it. What it throws is logged. Bound to its store: it
   * can be handed around, as Svelte (`$store`) and React (`useSyncExternalStore(store.subscribe, () => store.state)`)
   * do.
   *
   * Changes that only count queued messages may be told together.
   *
   * @param {(state: Readonly<StoreState>) => void} run
   * @returns {() => void}
   */
  subscribe(run) {
    return this.#feed.subscribe(run);
  }
}
