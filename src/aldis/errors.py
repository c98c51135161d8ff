"""Every exception that Aldis raises, in one tree.

Rules of this module:

* Three branches differ in what a caller does: correct the call after a local misuse (`UsageError`), make room after a
  limit of this program (`LimitReached`), and perhaps try again after a fault from elsewhere (`RemoteError`).
* An exception carries data in attributes. Its text is for people and may change between versions.
* `temporary` says whether the same call may succeed later without any other change.
"""

from __future__ import annotations


class AldisError(Exception):
    """The root of the tree: catch it to catch every exception that Aldis raises on purpose."""

    temporary: bool = False


# --- local misuse: a mistake in the calling program or its configuration --------------------------------------------


class UsageError(AldisError):
    """The call cannot work with these arguments or in this state, whatever the network does."""


class ConfigError(UsageError):
    """A setting has a value that cannot be used. `others`: what else is wrong, where several were looked at."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        self.problem = problem
        self.others: tuple[ConfigError, ...] = ()


class InvalidAddress(UsageError):
    """A user id or a device name is not valid in an address."""

    def __init__(self, value: str, problem: str) -> None:
        super().__init__(f"{value!r} is not a valid address: {problem}")
        self.value = value
        self.problem = problem


class IdentityError(UsageError):
    """An identity key cannot be read, written or used."""


class StateError(UsageError):
    """The object's state does not allow this call (closed, not connected, already registered)."""


class MessageTooLarge(UsageError):
    """A message is too large to send.

    Attributes: `size` and `limit`, both in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the message has {size} bytes; the limit is {limit}")
        self.size = size
        self.limit = limit


class EngineMissing(UsageError):
    """The requested WebRTC engine is not installed, or cannot be loaded.

    Attributes: `engine`, its name, and `hint`: what is wrong, and the command that installs it.
    """

    def __init__(self, engine: str, hint: str) -> None:
        super().__init__(f"the WebRTC engine {engine!r} cannot be used: {hint}")
        self.engine = engine
        self.hint = hint


# --- a limit of this program ----------------------------------------------------------------------------------------


class LimitReached(AldisError):
    """A limit of this program leaves no room for the call now.

    The call is correct, and works as soon as there is room. Wait (`NetworkStore.drain`), use less, or set a larger
    limit.
    """

    temporary = True


class QueueFull(LimitReached):
    """A message cannot be queued, because too much is waiting for this peer.

    Attributes: `user_id`, and what waits now: `messages`, and `size` in bytes.
    """

    def __init__(self, user_id: str, messages: int, size: int) -> None:
        super().__init__(f"{messages} messages ({size} bytes) are waiting for {user_id}; no more can be queued")
        self.user_id = user_id
        self.messages = messages
        self.size = size


class JournalFull(QueueFull):
    """A message cannot be queued, because too much waits in the journal, for all peers together.

    Attributes: as `QueueFull`, counted over all peers.
    """

    def __init__(self, user_id: str, messages: int, size: int) -> None:
        super().__init__(user_id, messages, size)
        self.args = (f"{messages} messages ({size} bytes) are waiting in the journal; no more can be queued",)


class TooManyTransfers(LimitReached):
    """The journal keeps as many transfers of files as it may (`StoreLimits.journal_files`). Attribute: `limit`."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the journal keeps {limit} files that are under way, and may not keep more")
        self.limit = limit


class TooManyPeers(LimitReached):
    """The store has as many peers as it may have at a time. Attribute: `limit`."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the store has {limit} peers in use, and may not have more")
        self.limit = limit


# --- faults from elsewhere ------------------------------------------------------------------------------------------


class RemoteError(AldisError):
    """Something outside this program failed, refused or misbehaved."""


class JournalError(RemoteError):
    """The journal of a store cannot be opened, read or written. What it had accepted before stays in it.

    Attributes: `path`, the file or another name of the journal, and `reason`.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"the journal {path} {reason}")
        self.path = path
        self.reason = reason


class JournalInUse(JournalError):
    """Another program, or another store of this one, has the journal open. Only one may have it at a time."""

    temporary = True


class JournalForeign(JournalError):
    """The journal belongs to another user, device or server than the one that the store connects as."""


class JournalCorrupt(JournalError):
    """The file is damaged, or is none of ours. Restore it from a copy, or move it away to begin a new one."""


class JournalTooNew(JournalError):
    """A newer release of Aldis has written the journal."""


class JournalDiskFull(JournalError):
    """There is no room on the disk."""

    temporary = True


class JournalReadOnly(JournalError):
    """The file, its folder or the file system cannot be written."""


class SignalingError(RemoteError):
    """A failure between this client and the signaling server."""


class ServerUnreachable(SignalingError):
    """The client could not open a WebSocket connection to the server."""

    temporary = True

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot reach {url}: {reason}")
        self.url = url
        self.reason = reason


class TokenUnavailable(SignalingError):
    """The program's own function has given no token for the server. Attribute: `reason`, with no part of a token."""

    temporary = True

    def __init__(self, reason: str) -> None:
        super().__init__(f"there is no token for the server: {reason}")
        self.reason = reason


class ConnectionLost(SignalingError):
    """The connection to the server ended while a request was waiting for its reply."""

    temporary = True


class OverLimits(ConnectionLost):
    """The server has ended the connection, because this program asked far too much of it.

    The client connects again by itself. Attributes: `reason`, the server's words, and `retry_after`, the seconds until
    then.
    """

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(f"the server has ended the connection for {retry_after:.0f} s: {reason}")
        self.reason = reason
        self.retry_after = retry_after


class RequestTimeout(SignalingError):
    """The server did not reply in time. Attribute: `seconds`, the time-out."""

    temporary = True

    def __init__(self, request: str, seconds: float) -> None:
        super().__init__(f"no reply to {request!r} within {seconds:g} s")
        self.request = request
        self.seconds = seconds


class RequestFailed(SignalingError):
    """The server answered a request with an error.

    Attributes: `code` (see docs/protocol.md), `message`, `temporary`, `retry_after` (seconds, or None), and `request`,
    the type of the request in the protocol, such as `discover`.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        temporary: bool = False,
        retry_after: float | None = None,
        request: str | None = None,
    ) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.temporary = temporary
        self.retry_after = retry_after
        self.request = request


class ConnectionClosed(SignalingError):
    """The server closed the connection for good; the client does not reconnect.

    Attributes: `code` (the WebSocket close code) and `reason`.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the server closed the connection: {reason or 'no reason given'} ({code})")
        self.code = code
        self.reason = reason


class ReconnectGaveUp(SignalingError):
    """The configured number of reconnection attempts is used up. Attribute: `attempts`."""

    def __init__(self, attempts: int, last: str) -> None:
        super().__init__(f"gave up after {attempts} attempts to reconnect; the last one failed with: {last}")
        self.attempts = attempts
        self.last = last


class ProtocolViolation(RemoteError):
    """The other side has sent something that the protocol does not allow."""


class PeerError(RemoteError):
    """A failure with one peer. Attribute: `user_id`."""

    def __init__(self, user_id: str, message: str) -> None:
        super().__init__(message)
        self.user_id = user_id


class PeerOffline(PeerError):
    """The server knows the peer, but the peer is not online now."""

    temporary = True

    def __init__(self, user_id: str) -> None:
        super().__init__(user_id, f"{user_id} is not online")


class PeerUnknown(PeerError):
    """No client has ever registered this name with the server."""

    temporary = True

    def __init__(self, user_id: str) -> None:
        super().__init__(user_id, f"nobody has registered the name {user_id} with this server")


class PeerKeyChanged(PeerError):
    """The peer's key differs from the pinned key: a new device of theirs, or another person.

    Attributes: `pinned` and `offered`, the two public keys (32 bytes each). Compare fingerprints with the peer by other
    means before you call `NetworkStore.accept_key`.
    """

    def __init__(self, user_id: str, pinned: bytes, offered: bytes) -> None:
        super().__init__(user_id, f"the key of {user_id} has changed since it was first seen")
        self.pinned = pinned
        self.offered = offered


class PeerBlocked(PeerError):
    """Our own user has blocked the peer: `NetworkStore.unblock` ends that."""

    def __init__(self, user_id: str) -> None:
        super().__init__(user_id, f"you have blocked {user_id}")


class FingerprintMismatch(PeerError):
    """The peer's key is not the expected one, for example from an invitation. Nothing was pinned.

    Attributes: `expected` and `offered`, two fingerprints as people compare them.
    """

    def __init__(self, user_id: str, expected: str, offered: str) -> None:
        super().__init__(user_id, f"the key of {user_id} has the fingerprint {offered}, not {expected}")
        self.expected = expected
        self.offered = offered


class FeatureMissing(PeerError):
    """The peer's program does not support the request. Attribute: `feature`, such as `files` or `calls`."""

    def __init__(self, user_id: str, feature: str) -> None:
        super().__init__(user_id, f"the program of {user_id} does not know {feature}")
        self.feature = feature


class ProofInvalid(PeerError):
    """An offer or answer in the peer's name has no valid signature of theirs: it was forged or altered."""

    def __init__(self, user_id: str, problem: str) -> None:
        super().__init__(user_id, f"a message in the name of {user_id} was refused: {problem}")
        self.problem = problem


class PeerConnectionFailed(PeerError):
    """The connection to the peer has failed. Attributes: `reason`, in plain words, `turn` and `relay`.

    `turn`, when no path was found, says what became of our TURN servers: `none` (none is configured), `unreachable`,
    `refused` (the credentials, or the request), `tried` (one relays, and yet there is no path). Otherwise it is empty.

    `relay` says then why the relay did not help either: `none` (the server relays nothing, or we use none), `no-key`
    (the peer's program offers none), `refused` (it uses none, or not with us), `tried` (no answer came through it).
    """

    temporary = True

    def __init__(self, user_id: str, reason: str, *, turn: str = "", relay: str = "", direct: bool = True) -> None:
        """`direct`: it is a direct connection that has failed, and not the relay."""
        super().__init__(user_id, f"no {'direct ' if direct else ''}connection to {user_id}: {reason}")
        self.reason = reason
        self.turn = turn
        self.relay = relay


class PeerRefused(PeerConnectionFailed):
    """The other side refuses to connect; or the server takes no more messages to it for now (`rate-limited`).

    Attributes: `code` (see docs/protocol.md, "Refusals"), `temporary`, and `retry_after`: the seconds after which
    another attempt makes sense, or None.
    """

    def __init__(
        self, user_id: str, reason: str, code: str, *, temporary: bool = True, retry_after: float | None = None
    ) -> None:
        super().__init__(user_id, reason)
        self.code = code
        self.temporary = temporary
        self.retry_after = retry_after


class DeliveryFailed(PeerError):
    """A message will not be delivered.

    Attributes: `sequence`, the message's number towards this peer; `reason`; and `kept`: the store was closed, and its
    journal keeps the message for the next store that opens it.
    """

    def __init__(self, user_id: str, sequence: int, reason: str, *, kept: bool = False) -> None:
        super().__init__(user_id, f"message {sequence} to {user_id} was not delivered: {reason}")
        self.sequence = sequence
        self.reason = reason
        self.kept = kept


class DeliveryExpired(DeliveryFailed):
    """A message has waited for longer than `StoreLimits.queue_age`, and was given up."""


class TransferFailed(PeerError):
    """A file will not arrive: it was refused or cancelled, or the transfer failed.

    Attributes: `file`, its name; `reason`, in plain words; and `kept`: the journal keeps it. It goes on with the next
    store that opens the journal, or when the sender is back.
    """

    def __init__(self, user_id: str, file: str, reason: str, *, kept: bool = False) -> None:
        super().__init__(user_id, f"the file {file!r} was not transferred: {reason}")
        self.file = file
        self.reason = reason
        self.kept = kept


class TransferExpired(TransferFailed):
    """A file has waited for longer than `StoreLimits.queue_age`, and was given up."""
