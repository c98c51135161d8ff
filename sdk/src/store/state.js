/**
 * What a store tells of itself: immutable values, made anew at each change.
 *
 * Rules: frozen all the way down, so that a subscriber may keep what it was given, and compare it with the next one. A
 * part that has not changed is the same object in the next state, so `===` tells what has. (Only the bytes of a key
 * cannot be frozen in JavaScript: they are a copy.) It does not know how any of it comes about.
 */
import { settings } from '../client/settings.js';
import { MAX_MESSAGE } from '../protocol/message_frames.js';
import { DEFAULT_PRIVACY } from '../protocol/privacy.js';

/** @import { SignalingState } from '../client/events.js' */
/** @import { AldisError, JournalError } from '../errors.js' */
/** @import { PeerState } from '../peer/negotiation.js' */
/** @import { Bytes } from '../protocol/codec.js' */
/** @import { Privacy } from '../protocol/privacy.js' */
/** @import { Received } from './messages/content.js' */

/**
 * How things stand with one device of another user; the properties are those of `PeerView`.
 *
 * @typedef {object} DeviceView
 * @property {string} device
 * @property {PeerState} state
 * @property {boolean | null} online null while the server has not said which devices are online.
 * @property {number | null} roundTripTime
 * @property {number} queued
 * @property {AldisError | null} error
 * @property {'direct' | 'turn' | 'relay' | null} path
 * @property {number} connections
 * @property {readonly string[]} features
 */

/**
 * How things stand with one other user. `state`, `roundTripTime`, `error`, `path` and `features` are those of the device that
 * was heard from last, or that the store calls.
 *
 * @typedef {object} PeerView
 * @property {string} userId
 * @property {PeerState} state
 * @property {boolean | null} online What the server says; null when it has not been asked or has not said.
 * @property {number | null} roundTripTime Seconds; null unless connected.
 * @property {Bytes | null} publicKey The pinned key (32 bytes); null before the first contact.
 * @property {string | null} fingerprint The pinned key for people to compare.
 * @property {number} queued How many messages are not acknowledged yet.
 * @property {AldisError | null} error What went wrong last, until it goes right.
 * @property {'direct' | 'turn' | 'relay' | null} path How messages get to the peer: directly, through a TURN server, or
 *   sealed through the signaling server; null unless connected.
 * @property {number} connections How many direct connections have been opened so far; a device that reconnects counts
 *   again.
 * @property {readonly string[]} features What the peer's program can do beyond messages (`files`, `calls`), as it says;
 *   empty while not connected.
 * @property {boolean} blocked Our user wants nothing to do with this one (`NetworkStore.block`).
 * @property {Readonly<Record<string, Readonly<DeviceView>>>} devices By name: those that are online, the one that
 *   registered last first, then others that are connected or have messages waiting. An object without a prototype. As in
 *   every object, names that are whole numbers come first.
 */

/**
 * How things stand with the server and with every peer.
 *
 * @typedef {object} StoreState
 * @property {SignalingState} signaling
 * @property {AldisError | null} signalingError
 * @property {JournalError | null} journalError Why the journal cannot be written now, if so. New messages fail then, and
 *   what arrives is not acknowledged.
 * @property {string | null} userId Who we are.
 * @property {string | null} server The host of the server, as keys are pinned for it.
 * @property {string | null} fingerprint Our own key for people to compare.
 * @property {Readonly<Privacy>} privacy Who may see and call us, and whom we have blocked, on all our devices.
 * @property {Readonly<Record<string, Readonly<PeerView>>>} peers By user id; an object without a prototype, so that a
 *   peer may be called `constructor`.
 */

/**
 * A message that has arrived.
 *
 * @typedef {object} Message
 * @property {string} sender The user.
 * @property {string} device Their device: `send(`${sender}/${device}`, …)` answers exactly this one.
 * @property {Received} content
 * @property {number} sequence Counts the messages of one stream of the sender's to us, from 1; numbers of messages that
 *   were given up, or that the programs exchange among themselves, are missing. A stream is one run of the sender's
 *   program, or all its runs with one journal.
 * @property {string} id Names the message among all of this sender's device. It stays the same when the message comes
 *   again, so an application that keeps the ids of what it has done does each message once.
 * @property {boolean} redelivered An earlier run of our program may have had this message, and ended before it asked for
 *   the next one.
 */

/**
 * How much a store keeps at most; sizes in bytes.
 *
 * @typedef {object} StoreLimits
 * @property {number} peers Users at a time, so that one user with many names cannot fill the memory. Idle ones make
 *   place for others. A quarter of the places is kept for users whom the application itself has
 *   called or written to. 256
 * @property {number} queueMessages What waits for one device; a message of any size is taken when none is waiting. 10,000
 * @property {number} queueSize The same in bytes. 64 MiB
 * @property {number} unreadMessages What has arrived and waits for the application; beyond it nothing is acknowledged,
 *   and the senders hold back. 1,000
 * @property {number} unreadSize The same in bytes. 32 MiB
 * @property {number} arrivingSize All that has arrived in part, or waits behind the unread messages, of all peers
 *   together, at least the largest message (16 MiB); beyond it the channel with most of it is ended, and its peer sends
 *   again later. 128 MiB
 * @property {number} journalMessages What waits in the journal for all peers together. 100,000
 * @property {number} journalSize The same in bytes. 256 MiB
 * @property {number} queueAge Seconds after which a message or a file that waits in the journal is given up. 30 days
 * @property {number} journalFiles Files under way that the journal keeps, in each direction. 1,000
 * @property {number} journalFileSize Bytes of all of these, in each direction: the journal has their content. What is more is
 *   transferred and not kept. 1 GiB
 */

/** What a closed store says. */
export const CLOSED = 'the store was closed';

/**
 * How a device stands of which nothing is known.
 *
 * @type {Omit<DeviceView, 'device' | 'online'>}
 */
export const UNKNOWN = {
  state: 'new',
  roundTripTime: null,
  queued: 0,
  error: null,
  path: null,
  connections: 0,
  features: [],
};

/** @type {Omit<StoreState, 'peers'>} */
const START = {
  signaling: 'disconnected',
  signalingError: null,
  journalError: null,
  userId: null,
  server: null,
  fingerprint: null,
  privacy: DEFAULT_PRIVACY,
};

/** @type {StoreLimits} */
const LIMITS = {
  peers: 256,
  queueMessages: 10_000,
  queueSize: 64 * 1024 * 1024,
  unreadMessages: 1_000,
  unreadSize: 32 * 1024 * 1024,
  arrivingSize: 128 * 1024 * 1024,
  journalMessages: 100_000,
  journalSize: 256 * 1024 * 1024,
  queueAge: 30 * 24 * 3600,
  journalFiles: 1_000,
  journalFileSize: 1024 ** 3,
};

/**
 * The limits of a store: the defaults, with changes. Throws `ConfigError` for what is no whole number from 1 up, and
 * for an `arrivingSize` in which the largest message has no room: it would never arrive, nor anything behind it.
 *
 * @param {Partial<StoreLimits>} [changes]
 */
export const storeLimits = (changes) =>
  settings(
    LIMITS,
    changes,
    'limits',
    (value, name) => Number.isInteger(value) && value >= (name === 'arrivingSize' ? MAX_MESSAGE : 1),
  );

/**
 * How a peer stands.
 *
 * @param {PeerView} view Is changed and kept, with its devices. `publicKey` and `fingerprint` belong together; `features`
 *   is the same array as long as it has not changed, and is frozen.
 * @param {Readonly<PeerView> | null} before How it stood; given back when nothing has changed.
 * @returns {Readonly<PeerView>}
 */
export function peerView(view, before) {
  /** @type {Record<string, Readonly<DeviceView>>} */
  const devices = Object.create(null);
  for (const device of Object.values(view.devices)) {
    Object.freeze(device.features);
    devices[device.device] = settled(device, before?.devices[device.device]);
  }
  view.devices = settled(devices, before?.devices);
  Object.freeze(view.features);
  view.publicKey = before?.fingerprint === view.fingerprint ? before.publicKey : (view.publicKey?.slice() ?? null);
  return settled(view, before);
}

/**
 * How all stands.
 *
 * @param {Partial<Omit<StoreState, 'peers'>> & { peers?: Iterable<Readonly<PeerView>> }} values
 * @param {Readonly<StoreState> | null} before How it stood; given back when nothing has changed.
 * @returns {Readonly<StoreState>}
 */
export function storeState(values, before = null) {
  /** @type {Record<string, Readonly<PeerView>>} */
  const peers = Object.create(null);
  for (const view of values.peers ?? []) peers[view.userId] = view;
  return settled({ ...START, ...values, peers: settled(peers, before?.peers) }, before);
}

/**
 * `before`, if nothing has changed since; else the new value, frozen.
 *
 * @template {object} T
 * @param {T} value
 * @param {Readonly<T> | null} [before]
 * @returns {Readonly<T>}
 */
const settled = (value, before) => (before && same(value, before) ? before : Object.freeze(value));

/**
 * Whether two objects have the same parts, in the same order.
 *
 * @template {object} T
 * @param {T} one
 * @param {T} other
 */
export function same(one, other) {
  const keys = /** @type {(keyof T)[]} */ (Object.keys(one));
  const others = Object.keys(other);
  return keys.length === others.length && keys.every((key, at) => key === others[at] && one[key] === other[key]);
}
