"""The durable part of the hub: the key that each user's name is bound to.

The hub never waits. It asks a `Question`. The caller of the hub puts the question to a `Directory`, and brings the
outcome back as a call. A question carries a `token` of the hub, by which the hub finds the waiting session. Nothing
else reads the token.

Rules for a backend, which tests/contract/test_directory.py checks for all of them:

* A name is bound to at most one key at any time, and for ever, until `rotate` or `release`.
* When a call has returned, its effect is durable: it survives any end of the process, for as long as the backend
  promises to keep data (`memory`: the life of the process; `sqlite`: the life of the file).
* A call takes effect as a whole or not at all. After an exception, it is unknown which. The caller can always ask
  again, because a repeated call gives the same outcome (except `Claim.new`).
* Calls may overlap. Each call sees the effects of every call that returned before it was made.

This module does not check permissions: the hub checks proofs before it asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple, Protocol, TypeAlias

from aldis.errors import RemoteError

KEY_BYTES: Final = 32  # an Ed25519 public key, RFC 8032 section 5.1.5


class DirectoryUnavailable(RemoteError):
    """The directory cannot answer now: it is locked, unreadable, full or broken. The text is for the operator only."""

    temporary = True


@dataclass(frozen=True, slots=True)
class ClaimBinding:
    """Binds the name to `public_key` if it is free. The answer is a `Claim`."""

    kind: ClassVar[str] = "claim"
    token: int
    user_id: str
    public_key: bytes


@dataclass(frozen=True, slots=True)
class FindBinding:
    """Looks a name up. The answer is the key that it is bound to, or None."""

    kind: ClassVar[str] = "find"
    token: int
    user_id: str


@dataclass(frozen=True, slots=True)
class RotateBinding:
    """Hands a name over from `old_key` to `new_key`. The answer: whether the name is bound to `new_key` now."""

    kind: ClassVar[str] = "rotate"
    token: int
    user_id: str
    old_key: bytes
    new_key: bytes


@dataclass(frozen=True, slots=True)
class ReleaseBinding:
    """Ends a binding, for the operator. The answer: whether there was one."""

    kind: ClassVar[str] = "release"
    token: int
    user_id: str


Question: TypeAlias = ClaimBinding | FindBinding | RotateBinding | ReleaseBinding


class Claim(NamedTuple):
    """The key that a name is bound to after a claim."""

    public_key: bytes
    # Whether this call has bound it. For counting only, because a repeated call says no.
    new: bool


DirectoryAnswer: TypeAlias = Claim | bytes | bool | None


class Directory(Protocol):
    """The key that each name is bound to. Every call raises `DirectoryUnavailable` when it cannot be answered now."""

    @property
    def healthy(self) -> bool:
        """Whether the last read and the last write succeeded: what an operator wants to know."""

    async def claim(self, user_id: str, public_key: bytes) -> Claim:
        """Bind a free name to `public_key`; return the key that the name is bound to now: this one or another.

        If two calls claim a free name at the same time, one wins, and both return the winner's key. It returns only
        when the binding is durable.
        """

    async def find(self, user_id: str) -> bytes | None:
        """Return the key that the name is bound to, or None."""

    async def rotate(self, user_id: str, old_key: bytes, new_key: bytes) -> bool:
        """Bind the name to `new_key` if it is bound to `old_key`; return whether it is bound to `new_key` now.

        False when the name is free or bound to a third key. Repeating a successful rotation returns True.
        """

    async def release(self, user_id: str) -> bool:
        """End the binding, for the operator; return whether there was one."""

    async def check(self) -> None:
        """Return when the directory can be read and written. Raise `DirectoryUnavailable` with the reason if not."""

    async def close(self) -> None:
        """Answer the calls that were made, then close what is open. Later calls are refused."""


async def answer(directory: Directory, question: Question) -> DirectoryAnswer:
    """Put a question of the hub to a directory."""
    match question:
        case ClaimBinding():
            return await directory.claim(question.user_id, question.public_key)
        case FindBinding():
            return await directory.find(question.user_id)
        case RotateBinding():
            return await directory.rotate(question.user_id, question.old_key, question.new_key)
        case ReleaseBinding():
            return await directory.release(question.user_id)
