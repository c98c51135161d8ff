"""What the hub needs kept outside itself: which key a user's name is bound to.

The hub never waits. It asks a `Question`, and whoever runs the hub puts the question to a `Directory` and brings the
outcome back as a call. A question carries a `token` of the hub's own, by which the hub finds the session that is
waiting; nobody else looks at it.

Rules for a backend, checked for all of them by tests/contract/test_directory.py:

* A name is bound to at most one key at any time, and for ever, until `rotate` or `release`.
* What a call has returned is durable: it survives the end of the process in whatever way, for as long as the backend
  promises to keep anything at all (`memory` promises the life of the process, `sqlite` the file).
* A call either takes effect as a whole or not at all. One that raises has taken effect or not, nobody knows; asking
  again is always safe, since every call gives the same outcome when it is repeated.
* Calls may overlap. Each sees the effect of every call that had returned before it was made.

This module does not know who may ask what: proofs are checked by the hub before it asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Protocol, TypeAlias

from aldis.errors import RemoteError

KEY_BYTES: Final = 32  # an Ed25519 public key, RFC 8032 section 5.1.5


class DirectoryUnavailable(RemoteError):
    """The directory cannot answer now: locked, unreadable, full or broken. Its text is for the operator only."""

    temporary = True


@dataclass(frozen=True, slots=True)
class ClaimBinding:
    """Whose name is this? Answered with the key that the name is bound to; binds it to `public_key` if it was free."""

    kind: ClassVar[str] = "claim"
    token: int
    user_id: str
    public_key: bytes


@dataclass(frozen=True, slots=True)
class FindBinding:
    """Which key is the name bound to? Answered with the key, or None."""

    kind: ClassVar[str] = "find"
    token: int
    user_id: str


@dataclass(frozen=True, slots=True)
class RotateBinding:
    """Hand the name over from `old_key` to `new_key`. Answered with whether the name is bound to `new_key` now."""

    kind: ClassVar[str] = "rotate"
    token: int
    user_id: str
    old_key: bytes
    new_key: bytes


@dataclass(frozen=True, slots=True)
class ReleaseBinding:
    """End the binding, by the operator's word. Answered with whether there was one."""

    kind: ClassVar[str] = "release"
    token: int
    user_id: str


Question: TypeAlias = ClaimBinding | FindBinding | RotateBinding | ReleaseBinding
DirectoryAnswer: TypeAlias = bytes | bool | None


class Directory(Protocol):
    """Which key a name is bound to. Every call raises `DirectoryUnavailable` when it cannot be answered now."""

    async def claim(self, user_id: str, public_key: bytes) -> bytes:
        """Bind a free name to `public_key`; return the key that the name is bound to now, the caller's or another.

        Of two claims for one free name at once, one wins, and both get the winner's key. Returns after the binding is
        durable, never before.
        """

    async def find(self, user_id: str) -> bytes | None:
        """The key that the name is bound to, or None. Binds nothing."""

    async def rotate(self, user_id: str, old_key: bytes, new_key: bytes) -> bool:
        """Bind the name to `new_key` if it is bound to `old_key`; tell whether it is bound to `new_key` now.

        False when the name is free or bound to a third key. Repeating a rotation that took effect gives True.
        """

    async def release(self, user_id: str) -> bool:
        """End the binding by the operator's word; tell whether there was one."""

    async def check(self) -> None:
        """Return when the directory can be read and written; raise `DirectoryUnavailable` with the reason if not."""

    async def close(self) -> None:
        """DirectoryAnswer the calls that were made, let go of what is open. Calls made afterwards are refused."""


async def answer(directory: Directory, question: Question) -> DirectoryAnswer:
    """Put a hub's question to a directory."""
    match question:
        case ClaimBinding():
            return await directory.claim(question.user_id, question.public_key)
        case FindBinding():
            return await directory.find(question.user_id)
        case RotateBinding():
            return await directory.rotate(question.user_id, question.old_key, question.new_key)
        case ReleaseBinding():
            return await directory.release(question.user_id)
