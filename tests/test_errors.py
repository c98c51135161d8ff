"""The exception tree: what a caller can tell apart, and what each exception carries."""

from __future__ import annotations

import inspect

import pytest

from aldis import errors
from aldis.errors import (
    AldisError,
    ConfigError,
    ConnectionClosed,
    ConnectionLost,
    DeliveryFailed,
    EngineMissing,
    FeatureMissing,
    FingerprintMismatch,
    InvalidAddress,
    LimitReached,
    MessageTooLarge,
    OverLimits,
    PeerConnectionFailed,
    PeerError,
    PeerKeyChanged,
    PeerOffline,
    PeerRefused,
    PeerUnknown,
    ProofInvalid,
    ReconnectGaveUp,
    RemoteError,
    RequestFailed,
    RequestTimeout,
    ServerUnreachable,
    SignalingError,
    TokenUnavailable,
    TransferFailed,
    UsageError,
)

TREE = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, AldisError) and value is not AldisError
]


@pytest.mark.parametrize("kind", TREE)
def test_every_exception_is_a_misuse_a_limit_or_a_remote_fault_and_one_of_them_only(kind: type[AldisError]) -> None:
    assert sum(issubclass(kind, branch) for branch in (UsageError, LimitReached, RemoteError)) == 1
    # What is misused stays wrong, and what has no room gets some.
    assert not (kind.temporary and issubclass(kind, UsageError))
    assert kind.temporary or not issubclass(kind, LimitReached)


EXAMPLES: list[tuple[AldisError, str, bool]] = [
    (ConfigError("port", "not a number"), "port: not a number", False),
    (InvalidAddress("a b", "it contains white space"), "'a b' is not a valid address: it contains white space", False),
    (MessageTooLarge(20, 10), "the message has 20 bytes; the limit is 10", False),
    (EngineMissing("aiortc", "install it"), "the WebRTC engine 'aiortc' cannot be used: install it", False),
    (ServerUnreachable("ws://h", "refused"), "cannot reach ws://h: refused", True),
    (ConnectionLost("gone"), "gone", True),
    (TokenUnavailable("it raised OSError"), "there is no token for the server: it raised OSError", True),
    (OverLimits("far too much", 75.0), "the server has ended the connection for 75 s: far too much", True),
    (RequestTimeout("discover", 2.5), "no reply to 'discover' within 2.5 s", True),
    (RequestFailed("not-online", "User bob is not online"), "User bob is not online (not-online)", False),
    (RequestFailed("internal", "later", temporary=True, retry_after=1.0), "later (internal)", True),
    (ConnectionClosed(4501, "no token"), "the server closed the connection: no token (4501)", False),
    (ConnectionClosed(4503, ""), "the server closed the connection: no reason given (4503)", False),
    (ReconnectGaveUp(3, "refused"), "gave up after 3 attempts to reconnect; the last one failed with: refused", False),
    (PeerOffline("bob"), "bob is not online", True),
    (PeerUnknown("bob"), "nobody has registered the name bob with this server", True),
    (PeerKeyChanged("bob", b"p", b"o"), "the key of bob has changed since it was first seen", False),
    (ProofInvalid("bob", "replayed"), "a message in the name of bob was refused: replayed", False),
    (PeerConnectionFailed("bob", "no path"), "no direct connection to bob: no path", True),
    (PeerRefused("bob", "too many peers", "too-many-peers"), "no direct connection to bob: too many peers", True),
    (PeerRefused("bob", "no", "not-accepted", temporary=False), "no direct connection to bob: no", False),
    (
        FingerprintMismatch("bob", "aaaa-aaaa", "bbbb-bbbb"),
        "the key of bob has the fingerprint bbbb-bbbb, not aaaa-aaaa",
        False,
    ),
    (FeatureMissing("bob", "files"), "the program of bob does not know files", False),
    (DeliveryFailed("bob", 7, "closed"), "message 7 to bob was not delivered: closed", False),
    (TransferFailed("bob", "a.txt", "declined"), "the file 'a.txt' was not transferred: declined", False),
]


@pytest.mark.parametrize(("error", "text", "temporary"), EXAMPLES)
def test_an_exception_says_in_words_what_happened_and_whether_to_try_again(
    error: AldisError, text: str, temporary: bool
) -> None:
    assert (str(error), error.temporary) == (text, temporary)


def test_an_exception_carries_its_data() -> None:
    failed = RequestFailed("rate-limited", "slow down", temporary=True, retry_after=2.0)
    assert (failed.code, failed.message, failed.retry_after) == ("rate-limited", "slow down", 2.0)
    assert isinstance(failed, SignalingError)
    changed = PeerKeyChanged("bob", b"p", b"o")
    assert isinstance(changed, PeerError)
    assert (changed.user_id, changed.pinned, changed.offered) == ("bob", b"p", b"o")
    assert DeliveryFailed("bob", 7, "closed").sequence == 7
    refused = PeerRefused("bob", "too many peers", "too-many-peers", retry_after=30)
    assert (refused.code, refused.retry_after, refused.reason) == ("too-many-peers", 30, "too many peers")
    mismatch = FingerprintMismatch("bob", "aaaa", "bbbb")
    assert (mismatch.user_id, mismatch.expected, mismatch.offered) == ("bob", "aaaa", "bbbb")
    assert FeatureMissing("bob", "files").feature == "files"
    failed_transfer = TransferFailed("bob", "a.txt", "declined")
    assert (failed_transfer.file, failed_transfer.reason) == ("a.txt", "declined")
    assert ConnectionClosed(4501, "no").code == 4501
    assert ReconnectGaveUp(3, "refused").attempts == 3
    assert MessageTooLarge(20, 10).limit == 10
