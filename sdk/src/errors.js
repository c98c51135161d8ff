/**
 * Every error that Aldis throws on purpose, in one tree.
 *
 * Rules:
 * - `UsageError` (the calling program or its configuration is wrong) and `RemoteError` (something elsewhere failed,
 *   refused or misbehaved) are different branches: fix the one, retry the other.
 * - An error carries its data in properties; its text is for people and may change between versions.
 * - `temporary` says whether the same call may succeed later without anybody changing anything.
 * - `name` is the name of the class, also in the minified bundle.
 *
 * @import { Bytes } from './protocol/codec.js'
 */

/** The root of the tree: catch it to catch everything that Aldis throws on purpose. */
export class AldisError extends Error {
  /**
   * Whether the same call may succeed later without anybody changing anything.
   *
   * @readonly
   * @type {boolean}
   */
  temporary = false;
}

// --- local misuse ---------------------------------------------------------------------------------------------------

/** The call cannot work as it was made, whatever the network does. */
export class UsageError extends AldisError {}

/** An option or a setting has a name that there is not, or a value that cannot be used. */
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

/** A name (user id) or the name of a device breaks the rules of an address. */
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

/** An identity key, or the pinned keys of others, cannot be read, written or used. */
export class IdentityError extends UsageError {}

/** The object is not in a state in which this call makes sense (closed, not connected, already registered). */
export class StateError extends UsageError {}

/** A message is larger than what may be sent in one piece. */
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

/** There is no WebRTC here (an old browser, one in which it is switched off, or no browser at all), or no WebSocket. */
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
 * A limit of this program leaves no room for the call now. The call is right and nobody else has failed: it works as soon
 * as there is room. Wait (`drain`), use less, or set a larger limit.
 */
export class LimitReached extends AldisError {
  /** @override @readonly @type {boolean} */
  temporary = true;
}

/** A message cannot be queued: too much is waiting for this peer already. */
export class QueueFull extends LimitReached {
  /**
   * @param {string} userId
   * @param {number} messages How many are waiting.
   * @param {number} size How many bytes they have.
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

/** Another peer would be more than the store may have at a time. */
export class TooManyPeers extends LimitReached {
  /** @param {number} limit */
  constructor(limit) {
    super(`no more than ${limit} peers`);
    /** @readonly */
    this.limit = limit;
  }
}

// --- faults from elsewhere ------------------------------------------------------------------------------------------

/** Something outside this program failed, refused or misbehaved. */
export class RemoteError extends AldisError {}

/**
 * A part of the SDK that is loaded when it is first used did not come. Nothing is lost, and the call may be made again.
 * Where the server was updated since the page was loaded, only a reload of the page helps.
 */
export class LoadFailed extends RemoteError {
  /** @override @readonly @type {boolean} */
  temporary = true;

  /**
   * @param {string} part `files` or `calls`.
   * @param {ErrorOptions} [options]
   */
  constructor(part, options) {
    super(`cannot load the part for ${part}: try again, or reload the page if its server was updated`, options);
    /** @readonly */
    this.part = part;
  }
}

/** Anything that goes wrong between this client and the signaling server. */
export class SignalingError extends RemoteError {}

/** No WebSocket connection to the server could be made. */
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

/** The connection to the server ended while a request was waiting for its reply. */
export class ConnectionLost extends SignalingError {
  /** @override @readonly @type {boolean} */
  temporary = true;
}

/** The server did not reply in time. */
export class RequestTimeout extends SignalingError {
  /** @override @readonly @type {boolean} */
  temporary = true;

  /**
   * @param {string} request
   * @param {number} seconds How long was waited.
   */
  constructor(request, seconds) {
    super(`no reply to '${request}' within ${seconds} s`);
    /** @readonly */
    this.request = request;
    /** @readonly */
    this.seconds = seconds;
  }
}

/** The server answered a request with an error; `message` is followed by the `code` (docs/protocol.md). */
export class RequestFailed extends SignalingError {
  /**
   * @param {string} code
   * @param {string} message The server's words.
   * @param {{ temporary?: boolean, retryAfter?: number | null }} [options] `retryAfter` is in seconds.
   */
  constructor(code, message, { temporary = false, retryAfter = null } = {}) {
    super(`${message} (${code})`);
    /** @readonly */
    this.code = code;
    /** @override @readonly */
    this.temporary = temporary;
    /** @readonly */
    this.retryAfter = retryAfter;
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

/** The other side sent something that the protocol does not allow. */
export class ProtocolViolation extends RemoteError {}

/** Anything that goes wrong with one peer. */
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

/** The peer is known to the server, and not online now. */
export class PeerOffline extends PeerError {
  /** @override @readonly @type {boolean} */
  temporary = true;

  /** @param {string} userId */
  constructor(userId) {
    super(userId, `${userId} is not online`);
  }
}

/** Nobody has ever registered this name with the server. */
export class PeerUnknown extends PeerError {
  /** @override @readonly @type {boolean} */
  temporary = true;

  /** @param {string} userId */
  constructor(userId) {
    super(userId, `${userId} has never registered with this server: is the name right?`);
  }
}

/**
 * The peer presents another key than the pinned one: a new device of theirs, or somebody else. Call
 * `NetworkStore.acceptKey` only after comparing fingerprints with the peer by other means.
 */
export class PeerKeyChanged extends PeerError {
  /**
   * @param {string} userId
   * @param {Bytes} pinned The public key that is pinned, 32 bytes.
   * @param {Bytes} offered The one that was presented.
   */
  constructor(userId, pinned, offered) {
    super(userId, `the key of ${userId} has changed`);
    /** @readonly */
    this.pinned = pinned;
    /** @readonly */
    this.offered = offered;
  }
}

/** The peer's key is not the one that was asked for, with the fingerprint of an invitation. Nothing was pinned. */
export class FingerprintMismatch extends PeerError {
  /**
   * @param {string} userId
   * @param {string} expected The fingerprint that was asked for.
   * @param {string} offered That of the key which was presented.
   */
  constructor(userId, expected, offered) {
    super(userId, `the key of ${userId} is ${offered}, not ${expected}`);
    /** @readonly */
    this.expected = expected;
    /** @readonly */
    this.offered = offered;
  }
}

/** An offer or answer in the peer's name carries no valid signature of theirs: it was forged or altered. */
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

/** No direct connection to the peer could be made. */
export class PeerConnectionFailed extends PeerError {
  /** @override @readonly @type {boolean} */
  temporary = true;

  /**
   * @param {string} userId
   * @param {string} reason In plain words.
   */
  constructor(userId, reason) {
    super(userId, `no direct connection to ${userId}: ${reason}`);
    /** @readonly */
    this.reason = reason;
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

/** A message will not be delivered any more; `cause` is the fault behind that, when there is one. */
export class DeliveryFailed extends PeerError {
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

/** The peer's program cannot do this: it is older, or of another kind. */
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
 * A file will not be transferred, or not to its end: declined, cancelled, or cut off for good; `cause` is the fault behind
 * that, when there is one.
 */
export class TransferFailed extends PeerError {
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

// Minifiers shorten the names of classes, so they are told once more; on the prototypes, where the first line of
// `stack` finds them.
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
  TooManyPeers,
  RemoteError,
  LoadFailed,
  SignalingError,
  ServerUnreachable,
  ConnectionLost,
  RequestTimeout,
  RequestFailed,
  ConnectionClosed,
  ProtocolViolation,
  PeerError,
  PeerOffline,
  PeerUnknown,
  PeerKeyChanged,
  FingerprintMismatch,
  ProofInvalid,
  PeerConnectionFailed,
  PeerRefused,
  DeliveryFailed,
  FeatureMissing,
  TransferFailed,
})) {
  type.prototype.name = name;
}
