/**
 * Every error that Aldis throws on purpose, in one tree.
 *
 * Rules:
 * - Two branches differ in what a caller does: correct the call after a `UsageError` (a mistake in the calling program
 *   or its configuration), and perhaps try again after a `RemoteError` (a fault from elsewhere).
 * - An error carries its data in properties. Its text is for people and may change between versions.
 * - `temporary` says whether the same call may succeed later without any other change.
 * - `name` is the name of the class, also in the minified bundle.
 *
 * @import { Bytes } from './protocol/codec.js'
 */

/** The root of the tree: catch it to catch every error that Aldis throws on purpose. */
export class AldisError extends Error {
  /**
   * Whether the same call may succeed later without any other change.
   *
   * @readonly
   * @type {boolean}
   */
  temporary = false;
}

// --- local misuse ---------------------------------------------------------------------------------------------------

/** The call cannot work with these arguments or in this state, whatever the network does. */
export class UsageError extends AldisError {}

/** An option or a setting has an unknown name, or a value that cannot be used. */
export class ConfigError extends UsageError {
  /**
   * @param {string} setting
   * @param {string} problem
   */
  constructor(setting, problem) {
    super(`${setting}: ${problem}`);
    /** @readonly */
    this.setting = setting;
    /** @readonly */
    this.problem = problem;
  }
}

/** A user id or a device name is not valid in an address. */
export class InvalidAddress extends UsageError {
  /**
   * @param {string} value
   * @param {string} problem
   */
  constructor(value, problem) {
    super(`${JSON.stringify(value)}: ${problem}`);
    /** @readonly */
    this.value = value;
    /** @readonly */
    this.problem = problem;
  }
}

/** An identity key, or the pins, cannot be read, written or used. */
export class IdentityError extends UsageError {}

/** The object's state does not allow this call (closed, not connected, already registered). */
export class StateError extends UsageError {}

/** A message is too large to send. */
export class MessageTooLarge extends UsageError {
  /**
   * @param {number} size In bytes.
   * @param {number} limit In bytes.
   */
  constructor(size, limit) {
    super(`${size} bytes; the limit is ${limit}`);
    /** @readonly */
    this.size = size;
    /** @readonly */
    this.limit = limit;
  }
}

/** The platform has no WebRTC (an old browser, or one without it, or no browser at all), or no WebSocket. */
export class EngineMissing extends UsageError {
  /**
   * @param {string} engine
   * @param {string} hint
   */
  constructor(engine, hint) {
    super(`${engine} is missing here: ${hint}`);
    /** @readonly */
    this.engine = engine;
    /** @readonly */
    this.hint = hint;
  }
}

/**
 * A limit of this program leaves no room for the call now. The call is correct, and works as soon as there is room.
 * Wait (`drain`), use less, or set a larger limit.
 */
export class LimitReached extends AldisError {
  /** @override @readonly @type {boolean} */
  temporary = true;
}

/** A message cannot be queued, because too much is waiting for this peer. */
export class QueueFull extends LimitReached {
  /**
   * @param {string} userId
   * @param {number} messages The number of waiting messages.
   * @param {number} size Their bytes.
   */
  constructor(userId, messages, size) {
    super(`${messages} messages are waiting for ${userId} already`);
    /** @readonly */
    this.userId = userId;
    /** @readonly */
    this.messages = messages;
    /** @readonly */
    this.size = size;
  }
}

/** A message cannot be queued, because too much waits in the journal, for all peers together: `messages` and `size` say what. */
export class JournalFull extends QueueFull {}

/** The store has as many peers as it may have at a time. */
export class TooManyPeers extends LimitReached {
  /** @param {number} limit */
  constructor(limit) {
    super(`no more than ${limit} peers`);
    /** @readonly */
    this.limit = limit;
  }
}

// --- the journal of a store -----------------------------------------------------------------------------------------

/** The journal of a store cannot be opened, read or written. What it had accepted before stays in it. */
export class JournalError extends AldisError {
  /**
   * @param {string} journal The name of the journal.
   * @param {string} reason
   * @param {ErrorOptions} [options]
   */
  constructor(journal, reason, options) {
    super(`the journal '${journal}' ${reason}`, options);
    /** @readonly */
    this.journal = journal;
    /** @readonly */
    this.reason = reason;
  }
}

/** Another tab, or another store of this one, has the journal open. Only one may have it at a time. */
export class JournalInUse extends JournalError {
  /** @override @readonly @type {boolean} */
  temporary = true;
}

/** The journal belongs to another user, device or server than the one that the store connects as. */
export class JournalForeign extends JournalError {}

/** What the browser has kept is damaged. Erase the journal to begin a new one. */
export class JournalCorrupt extends JournalError {}

/** A newer release of Aldis has written the journal. */
export class JournalTooNew extends JournalError {}

/** The browser gives the page no more room. */
export class JournalDiskFull extends JournalError {
  /** @override @readonly @type {boolean} */
  temporary = true;
}

/** The browser keeps nothing for this page (a private window, storage switched off), or this is no browser. */
export class JournalReadOnly extends JournalError {}

// --- faults from elsewhere ------------------------------------------------------------------------------------------

/** Something outside this program failed, refused or misbehaved. */
export class RemoteError extends AldisError {}

/**
 * A part of the SDK that is loaded later did not load, or not within 10 seconds. Nothing is lost, and you may repeat the
 * call. If the server was updated since the page was loaded, reload the page.
 */
export class LoadFailed extends RemoteError {
  /** @override @readonly @type {boolean} */
  temporary = true;

  /**
   * @param {string} part Such as `files` or `calls`.
   * @param {ErrorOptions} [options]
   */
  constructor(part, options) {
    super(`cannot load the part for ${part}: try again, or reload the page if its server was updated`, options);
    /** @readonly */
    this.part = part;
  }
}

/** A failure between this client and the signaling server. */
export class SignalingError extends RemoteError {}

/** The client could not open a WebSocket connection to the server. */
export class ServerUnreachable extends SignalingError {
  /** @override @readonly @type {boolean} */
  temporary = true;

  /**
   * @param {string} url
   * @param {string} reason
   */
  constructor(url, reason) {
    super(`cannot reach ${url}: ${reason}`);
    /** @readonly */
    this.url = url;
    /** @readonly */
    this.reason = reason;
  }
}

/** The program's own function has given no token for the server. */
export class TokenUnavailable extends SignalingError {
  /** @override @readonly @type {boolean} */
  temporary = true;

  /**
   * @param {string} reason Without any part of a token.
   * @param {{ cause?: unknown }} [options]
   */
  constructor(reason, options) {
    super(`there is no token for the server: ${reason}`, options);
    /** @readonly */
    this.reason = reason;
  }
}

/** The connection to the server ended while a request was waiting for its reply. */
export class ConnectionLost extends SignalingError {
  /** @override @readonly @type {boolean} */
  temporary = true;
}

/**
 * The server has ended the connection, because this program asked far too much of it. The client connects again by
 * itself.
 */
export class OverLimits extends ConnectionLost {
  /**
   * @param {string} reason The server's words.
   * @param {number} retryAfter The seconds until then.
   */
  constructor(reason, retryAfter) {
    super(`the server has ended the connection for ${Math.round(retryAfter)} s: ${reason}`);
    /** @readonly */
    this.reason = reason;
    /** @readonly */
    this.retryAfter = retryAfter;
  }
}

/** The server did not reply in time. */
export class RequestTimeout extends SignalingError {
  /** @override @readonly @type {boolean} */
  temporary = true;

  /**
   * @param {string} request
   * @param {number} seconds The time-out.
   */
  constructor(request, seconds) {
    super(`no reply to '${request}' within ${seconds} s`);
    /** @readonly */
    this.request = request;
    /** @readonly */
    this.seconds = seconds;
  }
}

/** The server answered a request with an error. The `message` ends with the `code` (docs/protocol.md). */
export class RequestFailed extends SignalingError {
  /**
   * @param {string} code
   * @param {string} message The server's words.
   * @param {{ temporary?: boolean, retryAfter?: number | null, request?: string | null }} [options] `retryAfter` is in
   *   seconds, `request` the type of the request in the protocol, such as `discover`.
   */
  constructor(code, message, { temporary = false, retryAfter = null, request = null } = {}) {
    super(`${message} (${code})`);
    /** @readonly */
    this.code = code;
    /** @override @readonly */
    this.temporary = temporary;
    /** @readonly */
    this.retryAfter = retryAfter;
    /** @readonly */
    this.request = request;
  }
}

/** The server closed the connection for good; the client does not reconnect. */
export class ConnectionClosed extends SignalingError {
  /**
   * @param {number} code The WebSocket close code.
   * @param {string} reason
   */
  constructor(code, reason) {
    super(`the server closed the connection (${code}) ${reason}`);
    /** @readonly */
    this.code = code;
    /** @readonly */
    this.reason = reason;
  }
}

/** The other side has sent something that the protocol does not allow. */
export class ProtocolViolation extends RemoteError {}

/** A failure with one peer. */
export class PeerError extends RemoteError {
  /**
   * @param {string} userId
   * @param {string} message
   * @param {ErrorOptions} [options]
   */
  constructor(userId, message, options) {
    super(message, options);
    /** @readonly */
    this.userId = userId;
  }
}

/** The server knows the peer, but the peer is not online now. */
export class PeerOffline extends PeerError {
  /** @override @readonly @type {boolean} */
  temporary = true;

  /** @param {string} userId */
  constructor(userId) {
    super(userId, `${userId} is not online`);
  }
}

/** No client has ever registered this name with the server. */
export class PeerUnknown extends PeerError {
  /** @override @readonly @type {boolean} */
  temporary = true;

  /** @param {string} userId */
  constructor(userId) {
    super(userId, `${userId} has never registered with this server: is the name right?`);
  }
}

/** Our own user has blocked the peer: `NetworkStore.unblock` ends that. */
export class PeerBlocked extends PeerError {
  /** @param {string} userId */
  constructor(userId) {
    super(userId, `you have blocked ${userId}`);
  }
}

/**
 * The peer's key differs from the pinned key: a new device of theirs, or another person. Compare fingerprints with the
 * peer by other means before you call `NetworkStore.acceptKey`.
 */
export class PeerKeyChanged extends PeerError {
  /**
   * @param {string} userId
   * @param {Bytes} pinned The pinned public key, 32 bytes.
   * @param {Bytes} offered The key of the peer now.
   */
  constructor(userId, pinned, offered) {
    super(userId, `the key of ${userId} has changed`);
    /** @readonly */
    this.pinned = pinned;
    /** @readonly */
    this.offered = offered;
  }
}

/** The peer's key is not the expected one, for example from an invitation. Nothing was pinned. */
export class FingerprintMismatch extends PeerError {
  /**
   * @param {string} userId
   * @param {string} expected The expected fingerprint.
   * @param {string} offered The fingerprint of the peer's key.
   */
  constructor(userId, expected, offered) {
    super(userId, `the key of ${userId} is ${offered}, not ${expected}`);
    /** @readonly */
    this.expected = expected;
    /** @readonly */
    this.offered = offered;
  }
}

/** An offer or answer in the peer's name has no valid signature of theirs: it was forged or altered. */
export class ProofInvalid extends PeerError {
  /**
   * @param {string} userId
   * @param {string} problem
   */
  constructor(userId, problem) {
    super(userId, `a message in the name of ${userId} was refused: ${problem}`);
    /** @readonly */
    this.problem = problem;
  }
}

/** The direct connection to the peer has failed. */
export class PeerConnectionFailed extends PeerError {
  /** @override @readonly @type {boolean} */
  temporary = true;

  /**
   * @param {string} userId
   * @param {string} reason In plain words.
   * @param {'' | 'none' | 'unreachable' | 'refused' | 'tried'} [turn]
   * @param {'' | 'none' | 'no-key' | 'refused' | 'tried'} [relay]
   * @param {boolean} [direct] It is a direct connection that has failed, and not the relay.
   */
  constructor(userId, reason, turn = '', relay = turn && 'none', direct = true) {
    super(userId, `no ${direct ? 'direct ' : ''}connection to ${userId}: ${reason}`);
    /** @readonly */
    this.reason = reason;
    /**
     * Where no path was found: what became of our TURN servers. `none` is configured, `unreachable`, `refused` (the
     * credentials), `tried` (one relays, and yet there is no path).
     * @readonly
     */
    this.turn = turn;
    /**
     * Why the relay did not help either then: `none` (the server relays nothing, or we use none), `no-key` (the peer's
     * program offers none), `refused` (by the peer), `tried` (there was no answer through it).
     * @readonly
     */
    this.relay = relay;
  }
}

/** The other side refuses to connect. */
export class PeerRefused extends PeerConnectionFailed {
  /**
   * @param {string} userId
   * @param {string} reason In plain words.
   * @param {string} code See docs/protocol.md, "Refusals".
   * @param {number | null} [retryAfter] Seconds after which another attempt makes sense.
   */
  constructor(userId, reason, code, retryAfter = null) {
    super(userId, reason);
    /** @override @readonly @type {boolean} */
    this.temporary = code !== 'not-accepted';
    /** @readonly */
    this.code = code;
    /** @readonly */
    this.retryAfter = retryAfter;
  }
}

/** A message will not be delivered. `cause` is the underlying error, if there is one. */
export class DeliveryFailed extends PeerError {
  /**
   * Whether the store was closed, and its journal keeps the message for the next store that opens it.
   *
   * @readonly
   * @type {boolean}
   */
  kept = false;

  /**
   * @param {string} userId
   * @param {number} sequence The message's number towards this peer.
   * @param {string} reason
   * @param {ErrorOptions} [options]
   */
  constructor(userId, sequence, reason, options) {
    super(userId, `message ${sequence} to ${userId} was not delivered: ${reason}`, options);
    /** @readonly */
    this.sequence = sequence;
    /** @readonly */
    this.reason = reason;
  }
}

/** A message has waited for longer than `StoreLimits.queueAge`, and was given up. */
export class DeliveryExpired extends DeliveryFailed {}

/** The peer's program does not support the request: it is older, or of another kind. */
export class FeatureMissing extends PeerError {
  /**
   * @param {string} userId
   * @param {string} feature Its name in the peer's HELLO: `files` or `calls`.
   */
  constructor(userId, feature) {
    super(userId, `${userId} has no ${feature}`);
    /** @readonly */
    this.feature = feature;
  }
}

/**
 * A file will not arrive: it was declined or cancelled, or the transfer failed. `cause` is the underlying error, if
 * there is one.
 */
export class TransferFailed extends PeerError {
  /**
   * Whether the journal keeps it: it goes on with the next page that opens the journal, or when the sender is back.
   *
   * @readonly
   * @type {boolean}
   */
  kept = false;
  /**
   * Whether it has waited for longer than `StoreLimits.queueAge`.
   *
   * @readonly
   * @type {boolean}
   */
  expired = false;

  /**
   * @param {string} userId
   * @param {string} file The name of the file.
   * @param {string} reason
   * @param {ErrorOptions} [options]
   */
  constructor(userId, file, reason, options) {
    super(userId, `${file} was not transferred: ${reason}`, options);
    /** @readonly */
    this.file = file;
    /** @readonly */
    this.reason = reason;
  }
}

// Minifiers shorten the names of classes, so set them here; on the prototypes, where the first line of `stack` finds
// them.
for (const [name, type] of Object.entries({
  AldisError,
  UsageError,
  ConfigError,
  InvalidAddress,
  IdentityError,
  StateError,
  MessageTooLarge,
  EngineMissing,
  LimitReached,
  QueueFull,
  JournalFull,
  TooManyPeers,
  JournalError,
  JournalInUse,
  JournalForeign,
  JournalCorrupt,
  JournalTooNew,
  JournalDiskFull,
  JournalReadOnly,
  RemoteError,
  LoadFailed,
  SignalingError,
  ServerUnreachable,
  TokenUnavailable,
  ConnectionLost,
  OverLimits,
  RequestTimeout,
  RequestFailed,
  ConnectionClosed,
  ProtocolViolation,
  PeerError,
  PeerOffline,
  PeerUnknown,
  PeerBlocked,
  PeerKeyChanged,
  FingerprintMismatch,
  ProofInvalid,
  PeerConnectionFailed,
  PeerRefused,
  DeliveryFailed,
  DeliveryExpired,
  FeatureMissing,
  TransferFailed,
})) {
  type.prototype.name = name;
}
