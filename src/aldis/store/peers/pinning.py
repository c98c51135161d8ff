"""Pins, what the directory says while there is no pin yet, and what an invitation says.

At the first contact the server names the peer's key, and the peer then proves one. Both have to be the same: so a
server that only lies once is found out even then. A pin is made by a proof alone, never by the server's word. Where
an invitation has brought a fingerprint, no key with another one is pinned at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aldis.errors import AldisError, FingerprintMismatch, IdentityError
from aldis.identity.keys import PUBLIC_KEY_BYTES, fingerprint
from aldis.identity.pins import Pins
from aldis.protocol.codec import from_base64
from aldis.protocol.messages import Proof


class DirectoryPins:
    """The pins of a store; those of `pins`, which stays open, and expectations.

    What the directory says is noted as long as the peer is known: strangers can make it many. What the application
    requires stands until it accepts a key, or the store ends: nobody else makes it more, or less.

    Whatever `pins` raises is an `IdentityError` here: who asks must not have to know what an application keeps them in.
    """

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self._expected: dict[tuple[str, str], bytes] = {}
        self._required: dict[tuple[str, str], str] = {}

    def require(self, server: str, user_id: str, expected: str) -> None:
        """Refuse every key with another fingerprint from now on. Raises `FingerprintMismatch` when such a one is
        pinned, and changes nothing then."""
        pinned = self.pinned(server, user_id)
        if pinned is not None and fingerprint(pinned) != expected:
            raise FingerprintMismatch(user_id, expected, fingerprint(pinned))
        self._required[server, user_id] = expected

    def _check(self, server: str, user_id: str, public_key: bytes) -> None:
        expected = self._required.get((server, user_id))
        if expected is not None and fingerprint(public_key) != expected:
            raise FingerprintMismatch(user_id, expected, fingerprint(public_key))

    def expect(self, server: str, user_id: str, public_key: bytes) -> bytes:
        """Note what the directory says; return the pinned key, or `public_key` when there is none. Raises
        `FingerprintMismatch`."""
        self._check(server, user_id, public_key)
        pinned = self.pinned(server, user_id)
        if pinned is not None:
            return pinned
        self._expected[server, user_id] = public_key
        return public_key

    def forget(self, server: str, user_id: str) -> None:
        """The peer is not known any more: let go of what the directory said."""
        self._expected.pop((server, user_id), None)

    def pin(self, server: str, user_id: str, public_key: bytes) -> bytes:
        """Pin a proved key, unless another one is pinned or expected; return the key that stands. Raises
        `FingerprintMismatch`."""
        self._check(server, user_id, public_key)
        standing = self.find(server, user_id)
        if standing not in (None, public_key):
            return standing
        with _asking():
            return self._pins.pin(server, user_id, public_key)

    def find(self, server: str, user_id: str) -> bytes | None:
        """The pinned key, else the one that is expected."""
        return self.pinned(server, user_id) or self._expected.get((server, user_id))

    def pinned(self, server: str, user_id: str) -> bytes | None:
        """The pinned key, expectations aside."""
        with _asking():
            return self._pins.find(server, user_id)

    def accept(self, server: str, user_id: str, public_key: bytes) -> None:
        """Pin a key in place of any other: a person has decided."""
        with _asking():
            self._pins.accept(server, user_id, public_key)
        self.forget(server, user_id)
        self._required.pop((server, user_id), None)

    def close(self) -> None:
        """Forget what was expected; the pins belong to who made them."""
        self._expected.clear()
        self._required.clear()


@contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except AldisError:
        raise
    except Exception as error:  # of the application's own pins; it is the cause of what is raised
        raise IdentityError(f"the pinned keys cannot be used: {error}") from error


def claimed_key(proof: Proof | None) -> bytes | None:
    """The key that a proof claims to be made with, unchecked; None when there is none that could be one."""
    try:
        return None if proof is None else from_base64(proof.public_key, PUBLIC_KEY_BYTES)
    except ValueError:
        return None
