"""Every exception that Aldis raises, in one tree.

Rules of this module:

* Local misuse (`UsageError`), a limit of this program (`LimitReached`) and faults that come from elsewhere
  (`RemoteError`) are different branches: a caller fixes the first, makes room for the second, and can retry the third.
* An exception carries data in attributes; its text is for people and may change between versions.
* `temporary` says whether the same call may succeed later without anybody changing anything.
"""

from __future__ import annotations


class AldisError(Exception):
    """The root of the tree: catch it to catch everything that Aldis raises on purpose."""

    temporary: bool = False


# --- local misuse: the calling program or its configuration is wrong -----------------------------------------------


class UsageError(AldisError):
    """The call cannot work as it was made, whatever the network does."""


class ConfigError(UsageError):
    """A setting has a value that cannot be used."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        self.problem = problem


class InvalidAddress(UsageError):
    """A user id or a device name breaks the rules of an address."""

    def __init__(self, value: str, problem: str) -> None:
        super().__init__(f"{value!r} is not a valid address: {problem}")
        self.value = value
        self.problem = problem


class IdentityError(UsageError):
    """An identity key cannot be read, written or used."""


class StateError(UsageError):
    """The object is not in a state in which this call makes sense (closed, not connected, already registered)."""


class MessageTooLarge(UsageError):
    """A message is larger than what may be sent in one piece.

    Attributes: `size` and `limit`, both in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the message has {size} bytes; the limit is {limit}")
        self.size = size
        self.limit = limit


class EngineMissing(UsageError):
    """The WebRTC engine that was asked for is not installed, or cannot be loaded.

    Attributes: `engine`, its name, and `hint`: what is wrong, and the command that installs it.
    """

    def __init__(self, engine: str, hint: str) -> None:
        super().__init__(f"the WebRTC engine {engine!r} cannot be used: {hint}")
        self.engine = engine
        self.hint = hint


# --- a limit of this program ----------------------------------------------------------------------------------------


class LimitReached(AldisError):
    """A limit of this program leaves no room for the call now.

    The call is right and nobody else has failed: it works as soon as there is room. Wait (`NetworkStore.drain`), use
    less, or set a larger limit.
    """

    temporary = True


class QueueFull(LimitReached):
    """A message cannot be queued: too much is waiting for this peer already.

    Attributes: `user_id`, and what is waiting now: `messages`, and `size` in bytes.
    """

    def __init__(self, user_id: str, messages: int, size: int) -> None:
        super().__init__(f"{messages} messages ({size} bytes) are waiting for {user_id}; no more can be queued")
        self.user_id = user_id
        self.messages = messages
        self.size = size


class TooManyPeers(LimitReached):
    """Another peer would be more than the store may have at a time. Attribute: `limit`."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the store has {limit} peers in use, and may not have more")
        self.limit = limit


# --- faults from elsewhere ------------------------------------------------------------------------------------------


class RemoteError(AldisError):
    """Something outside this program failed, refused or misbehaved."""


class SignalingError(RemoteError):
    """Anything that goes wrong between this client and the signaling server."""


class ServerUnreachable(SignalingError):
    """No WebSocket connection to the server could be made."""

    temporary = True

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot reach {url}: {reason}")
        self.url = url
        self.reason = reason


class ConnectionLost(SignalingError):
    """The connection to the server ended while a request was waiting for its reply."""

    temporary = True


class RequestTimeout(SignalingError):
    """The server did not reply in time. Attribute: `seconds`, how long was waited."""

    temporary = True

    def __init__(self, request: str, seconds: float) -> None:
        super().__init__(f"no reply to {request!r} within {seconds:g} s")
        self.request = request
        self.seconds = seconds


class RequestFailed(SignalingError):
    """The server answered a request with an error.

    Attributes: `code` (see docs/protocol.md), `message`, `temporary`, `retry_after` (seconds, or None).
    """

    def __init__(self, code: str, message: str, *, temporary: bool = False, retry_after: float | None = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.temporary = temporary
        self.retry_after = retry_after


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
    """The other side sent something that the protocol does not allow."""


class PeerError(RemoteError):
    """Anything that goes wrong with one peer. Attribute: `user_id`."""

    def __init__(self, user_id: str, message: str) -> None:
        super().__init__(message)
        self.user_id = user_id


class PeerOffline(PeerError):
    """The peer is known to the server, and not online now."""

    temporary = True

    def __init__(self, user_id: str) -> None:
        super().__init__(user_id, f"{user_id} is not online")


class PeerUnknown(PeerError):
    """Nobody has ever registered this name with the server."""

    temporary = True

    def __init__(self, user_id: str) -> None:
        super().__init__(user_id, f"nobody has registered the name {user_id} with this server")


class PeerKeyChanged(PeerError):
    """The peer presents another key than the pinned one: a new device of theirs, or somebody else.

    Attributes: `pinned` and `offered`, the two public keys (32 bytes each). Call `NetworkStore.accept_key` only after
    comparing fingerprints with the peer by other means.
    """

    def __init__(self, user_id: str, pinned: bytes, offered: bytes) -> None:
        super().__init__(user_id, f"the key of {user_id} has changed since it was first seen")
        self.pinned = pinned
        self.offered = offered


class FingerprintMismatch(PeerError):
    """The peer's key is not the one that was asked for, by an invitation for instance. Nothing was pinned.

    Attributes: `expected` and `offered`, two fingerprints as people compare them.
    """

    def __init__(self, user_id: str, expected: str, offered: str) -> None:
        super().__init__(user_id, f"the key of {user_id} has the fingerprint {offered}, not {expected}")
        self.expected = expected
        self.offered = offered


class FeatureMissing(PeerError):
    """The program of the peer cannot do what was asked. Attribute: `feature`, such as `files` or `calls`."""

    def __init__(self, user_id: str, feature: str) -> None:
        super().__init__(user_id, f"the program of {user_id} does not know {feature}")
        self.feature = feature


class ProofInvalid(PeerError):
    """An offer or answer in the peer's name carries no valid signature of theirs: it was forged or altered."""

    def __init__(self, user_id: str, problem: str) -> None:
        super().__init__(user_id, f"a message in the name of {user_id} was refused: {problem}")
        self.problem = problem


class PeerConnectionFailed(PeerError):
    """No direct connection to the peer could be made. Attribute: `reason`, in plain words."""

    temporary = True

    def __init__(self, user_id: str, reason: str) -> None:
        super().__init__(user_id, f"no direct connection to {user_id}: {reason}")
        self.reason = reason


class PeerRefused(PeerConnectionFailed):
    """The other side refuses to connect.

    Attributes: `code` (see docs/protocol.md, "Refusals"), `temporary`, and `retry_after`: another attempt makes sense
    after so many seconds, or None.
    """

    def __init__(
        self, user_id: str, reason: str, code: str, *, temporary: bool = True, retry_after: float | None = None
    ) -> None:
        super().__init__(user_id, reason)
        self.code = code
        self.temporary = temporary
        self.retry_after = retry_after


class DeliveryFailed(PeerError):
    """A message will not be delivered any more. Attribute: `sequence`, the message's number towards this peer."""

    def __init__(self, user_id: str, sequence: int, reason: str) -> None:
        super().__init__(user_id, f"message {sequence} to {user_id} was not delivered: {reason}")
        self.sequence = sequence
        self.reason = reason


class TransferFailed(PeerError):
    """A file will not arrive: refused, cancelled by either side, or something went wrong.

    Attributes: `file`, its name, and `reason`, in plain words.
    """

    def __init__(self, user_id: str, file: str, reason: str) -> None:
        super().__init__(user_id, f"the file {file!r} was not transferred: {reason}")
        self.file = file
        self.reason = reason
