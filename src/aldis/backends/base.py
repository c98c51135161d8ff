"""The durable part of the hub: the key that each user's name is bound to, and the user's privacy.

The hub never waits. It asks a `Question`. The caller of the hub puts the question to a `Directory`, and brings the
outcome back as a call. A question carries a `token` of the hub, by which the hub finds the waiting session. Nothing
else reads the token.

Rules for a backend, which tests/contract/test_directory.py checks for all of them:

* A name is bound to at most one key at any time, and for ever, until `rotate` or `release`.
* When a call has returned, its effect is durable: it survives any end of the process, for as long as the backend
  promises to keep data (`memory`: the life of the process; `sqlite`: the life of the file).
* The list of names that may register is the operator's, and has nothing to do with which names are bound.
* The privacy of a name belongs to its binding: it survives a rotation, and ends with a release.
* A call takes effect as a whole or not at all. After an exception, it is unknown which. The caller can always ask
  again, because a repeated call gives the same outcome (except `Claim.new`).
* Calls may overlap. Each call sees the effects of every call that returned before it was made.

This module does not check permissions: the hub checks proofs before it asks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar, Final, NamedTuple, Protocol, TypeAlias

from aldis.errors import RemoteError
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy, PrivacyChange

KEY_BYTES: Final = 32  # an Ed25519 public key, RFC 8032 section 5.1.5


class DirectoryUnavailable(RemoteError):
    """The directory cannot answer now: it is locked, unreadable, full or broken. The text is for the operator only."""

    temporary = True


class DirectoryTooNew(DirectoryUnavailable):
    """A newer release has changed the directory, so this one does not touch it."""

    temporary = False


class DatabaseUnavailable(DirectoryUnavailable):
    """The directory is behind another server, which cannot be reached or cannot answer."""


class PostgresUnavailable(DatabaseUnavailable):
    """That server is a PostgreSQL."""


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
class LoadBinding:
    """Looks a name up together with its privacy. The answer is a `Claim`, or None for a free name."""

    kind: ClassVar[str] = "find"
    token: int
    user_id: str


@dataclass(frozen=True, slots=True)
class ChangePrivacy:
    """Changes the privacy of a name that is bound to `public_key`. The answer: the new `Privacy`, or why not."""

    kind: ClassVar[str] = "privacy"
    token: int
    user_id: str
    public_key: bytes
    change: PrivacyChange


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


Question: TypeAlias = ClaimBinding | FindBinding | LoadBinding | RotateBinding | ReleaseBinding | ChangePrivacy


class PrivacyRefusal(Enum):
    """Why a privacy has not changed."""

    NOT_BOUND = auto()  # the name is free, or bound to another key
    TOO_LARGE = auto()  # it would have more names than it may have


class Claim(NamedTuple):
    """The key that a name is bound to after a claim, and its privacy."""

    public_key: bytes
    # Whether this call has bound it. For counting only, because a repeated call says no.
    new: bool
    privacy: Privacy = DEFAULT_PRIVACY


class Binding(NamedTuple):
    """A name with all that belongs to its binding: what a copy of a directory moves."""

    user_id: str
    public_key: bytes
    privacy: Privacy = DEFAULT_PRIVACY


DirectoryAnswer: TypeAlias = Claim | Privacy | PrivacyRefusal | bytes | bool | None


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

    async def load(self, user_id: str) -> Claim | None:
        """Return what a claim would return, without one: None for a free name, and `new` is False."""

    async def change_privacy(self, user_id: str, public_key: bytes, change: PrivacyChange) -> Privacy | PrivacyRefusal:
        """Change the privacy of a name that is bound to `public_key`; return it as it is now, or why not."""

    async def rotate(self, user_id: str, old_key: bytes, new_key: bytes) -> bool:
        """Bind the name to `new_key` if it is bound to `old_key`; return whether it is bound to `new_key` now.

        False when the name is free or bound to a third key. Repeating a successful rotation returns True.
        """

    async def release(self, user_id: str) -> bool:
        """End the binding, for the operator; return whether there was one."""

    async def is_listed(self, user_id: str) -> bool:
        """Whether a name is on the operator's list of names that may register."""

    async def list_name(self, user_id: str) -> bool:
        """Put a name on the operator's list; return whether it was not there before."""

    async def unlist_name(self, user_id: str) -> bool:
        """Take a name off the operator's list; return whether it was there. A binding of it stays."""

    async def listed_names(self, after: str, most: int) -> list[str]:
        """The names on the operator's list that come behind `after`, in the order of their code points."""

    async def bindings(self, after: str, most: int) -> list[Binding]:
        """The bindings of the names that come behind `after`, in the order of their code points, at most `most`.

        They may be fewer, where privacies are large; behind the last name there are none. A page is of one moment; two
        pages are not. A name that is bound from the first call to the last is on one page.
        """

    async def put(self, binding: Binding) -> None:
        """Bind a name as another directory has it, whatever it is bound to here. For copies only: it checks nothing.

        It returns only when the binding and its privacy are durable.
        """

    async def check(self) -> None:
        """Return when the directory can be read and written. Raise `DirectoryUnavailable` with the reason if not."""

    async def close(self) -> None:
        """Answer the calls that were made, then close what is open. Later calls are refused."""


@asynccontextmanager
async def closed_on_failure(directory: Directory) -> AsyncIterator[None]:
    """Close a directory whose opening fails, or is cancelled, within the block."""
    try:
        yield
    except BaseException:
        await directory.close()
        raise


async def answer(directory: Directory, question: Question) -> DirectoryAnswer:
    """Put a question of the hub to a directory."""
    match question:
        case ClaimBinding():
            return await directory.claim(question.user_id, question.public_key)
        case FindBinding():
            return await directory.find(question.user_id)
        case LoadBinding():
            return await directory.load(question.user_id)
        case ChangePrivacy():
            return await directory.change_privacy(question.user_id, question.public_key, question.change)
        case RotateBinding():
            return await directory.rotate(question.user_id, question.old_key, question.new_key)
        case ReleaseBinding():
            return await directory.release(question.user_id)
