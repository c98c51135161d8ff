"""Copies one directory to another, of any two kinds, also while a server uses the first.

Rules:

* It only reads FROM. It writes to TO what differs there, so a copy that was broken off goes on by being made again.
* A pass reads both in the order of code points, a page at a time, and merges them: the memory does not grow with the
  number of names. Each page is of one moment; a pass is not. What changes at FROM behind a pass is found by the next.
* The copy is done when a pass finds no difference. When FROM has not changed since that pass began, TO has what FROM
  has.
* A name that only TO has was released at FROM, or was never there: nobody can tell. TO keeps it, unless the copy is
  `exact`.

It does not know how a directory keeps its names, or what is shown to the operator.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from aldis.backends.base import Binding, Directory, DirectoryUnavailable
from aldis.errors import RemoteError, UsageError

# Names in a page, and writes that are under way at once: as many as SQLite takes into one transaction.
PAGE: Final = 1000
# A server that registers all the time changes something in each pass; the copy is as near as it gets after a few.
MAX_PASSES: Final = 10
# Contacts and blocked names of all users in a page, and in the writes that wait: some 3 MB. A user may have 2,000, and
# a page of such users would take 250 MB. A directory that does not bound its pages itself gives one of them at most.
MAX_PRIVACY_ROWS: Final = 20_000

_Value = TypeVar("_Value")


class CopyFailed(RemoteError):
    """A directory could not be used; a later copy goes on. Attribute: its `side`, "FROM" or "TO"."""

    temporary = True

    def __init__(self, side: str, reason: str) -> None:
        super().__init__(f"{side} cannot be used: {reason}")
        self.side = side


class Source(Protocol):
    """What is read of a directory: every `Directory` is one."""

    async def bindings(self, after: str, most: int) -> list[Binding]:
        """See `Directory.bindings`."""

    async def listed_names(self, after: str, most: int) -> list[str]:
        """See `Directory.listed_names`."""


@dataclass(slots=True)
class Differences:
    """What a pass has found in one kind of rows: names with keys and privacies, or names on the operator's list."""

    names: int = 0
    """At FROM."""
    missing: int = 0
    """At FROM only."""
    changed: int = 0
    """With another key or privacy at TO."""
    extra: int = 0
    """At TO only."""

    def __iadd__(self, other: Differences) -> Differences:
        self.names += other.names
        self.missing += other.missing
        self.changed += other.changed
        self.extra += other.extra
        return self


@dataclass(slots=True)
class Pass:
    """One pass over both directories: the differences that it found, so far."""

    number: int
    bound: Differences = field(default_factory=Differences)
    listed: Differences = field(default_factory=Differences)

    @property
    def to_write(self) -> int:
        """What FROM has and TO has not: names, keys, privacies, and names on the list."""
        return self.bound.missing + self.bound.changed + self.listed.missing

    @property
    def extra(self) -> int:
        """What TO has and FROM has not."""
        return self.bound.extra + self.listed.extra


@dataclass(slots=True)
class Copied:
    """What a copy has done: the sums of its passes."""

    last: Pass
    bound: Differences = field(default_factory=Differences)
    listed: Differences = field(default_factory=Differences)
    complete: bool = False
    """Whether the last pass found nothing to do."""


async def copy(
    source: Source, target: Directory, *, exact: bool = False, told: Callable[[Pass], None] = lambda _: None
) -> Copied:
    """Copy all that `source` has to `target`; `told` is called with the pass under way after each page.

    `exact`: release at `target` what `source` does not have. Raises `CopyFailed` when one of them fails; call it again
    to go on. Raises `UsageError` when the two are one, and for an exact copy of a directory without names, which would
    release all.
    """
    if await _is_one(source, target):
        raise UsageError("FROM and TO are the same directory")
    if exact and not await _first(source, "FROM") and await _first(target, "TO"):
        raise UsageError(
            "FROM has no names, and an exact copy would release all of TO: are the two in the right order?"
        )
    copied = Copied(Pass(0))
    while not copied.complete and copied.last.number < MAX_PASSES:
        found = copied.last = Pass(copied.last.number + 1)
        puts, releases = _Writes(target.put, _privacy_rows), _Writes(target.release, _nothing)
        async for part in _compare(_bindings_of(source, "FROM"), _bindings_of(target, "TO")):
            await puts.add(part.to_write)
            await releases.add(part.extra if exact else [])
            found.bound += part.found
            copied.bound += part.found
            told(found)
        lists, unlists = _Writes(target.list_name, _nothing), _Writes(target.unlist_name, _nothing)
        async for names in _compare(_listed_of(source, "FROM"), _listed_of(target, "TO")):
            await lists.add(names.to_write)
            await unlists.add(names.extra if exact else [])
            found.listed += names.found
            copied.listed += names.found
            told(found)
        for writes in (puts, releases, lists, unlists):
            await writes.flush()
        copied.complete = not found.to_write and not (exact and found.extra)
    return copied


async def compare(source: Source, target: Source, *, told: Callable[[Pass], None] = lambda _: None) -> Pass:
    """Compare the two in one pass, and write nothing. Raises `CopyFailed`."""
    found = Pass(1)
    async for part in _compare(_bindings_of(source, "FROM"), _bindings_of(target, "TO")):
        found.bound += part.found
        told(found)
    async for names in _compare(_listed_of(source, "FROM"), _listed_of(target, "TO")):
        found.listed += names.found
        told(found)
    return found


# --- internal -------------------------------------------------------------------------------------------------------


class _Side(Generic[_Value]):
    """The rows of one directory that are read and not yet compared."""

    def __init__(
        self,
        side: str,
        read: Callable[[str, int], Awaitable[Iterable[tuple[str, _Value]]]],
        weight: Callable[[_Value], int],
    ) -> None:
        self._side = side
        self._weight = weight
        self._most = PAGE
        self._read = read
        self._names: list[str] = []
        self._values: list[_Value] = []
        self._after = ""
        self._ended = False

    async def fill(self) -> None:
        """Read the next page when all of the one before is compared."""
        if self._names or self._ended:
            return
        with _blamed_on(self._side):
            for name, value in await self._read(self._after, self._most):
                self._names.append(name)
                self._values.append(value)
        if self._names:
            self._after = self._names[-1]
            weight = sum(map(self._weight, self._values))
            self._most = max(1, min(PAGE, len(self._names) * MAX_PRIVACY_ROWS // max(1, weight)))
        else:
            self._ended = True

    @property
    def known_to(self) -> str | None:
        """The last name up to which all rows are here; None when that is the end."""
        return None if self._ended else self._names[-1]

    def take(self, last: str | None) -> dict[str, _Value]:
        """The rows up to the name `last`, or all."""
        count = len(self._names) if last is None else bisect_right(self._names, last)
        taken = dict(zip(self._names[:count], self._values[:count], strict=True))
        del self._names[:count], self._values[:count]
        return taken


@dataclass(slots=True)
class _Part(Generic[_Value]):
    """A stretch of names that was compared: what to write at TO, and the names that only TO has."""

    found: Differences
    to_write: list[_Value]
    extra: list[str]


async def _compare(source: _Side[_Value], target: _Side[_Value]) -> AsyncIterator[_Part[_Value]]:
    while True:
        await asyncio.gather(source.fill(), target.fill())
        ends = [end for end in (source.known_to, target.known_to) if end is not None]
        if not ends:
            return
        last = min(ends)
        wanted, there = source.take(last), target.take(last)
        missing = [value for name, value in wanted.items() if name not in there]
        changed = [value for name, value in wanted.items() if name in there and there[name] != value]
        extra = [name for name in there if name not in wanted]
        # What is written is not read again: it is not behind the last name that was read of TO.
        found = Differences(len(wanted), len(missing), len(changed), len(extra))
        yield _Part(found, missing + changed, extra)


def _bindings_of(directory: Source, side: str) -> _Side[Binding]:
    async def read(after: str, most: int) -> Iterable[tuple[str, Binding]]:
        return [(binding.user_id, binding) for binding in await directory.bindings(after, most)]

    return _Side(side, read, _privacy_rows)


def _listed_of(directory: Source, side: str) -> _Side[str]:
    async def read(after: str, most: int) -> Iterable[tuple[str, str]]:
        names = await directory.listed_names(after, most)
        return zip(names, names, strict=True)

    return _Side(side, read, _nothing)


def _privacy_rows(binding: Binding) -> int:
    return len(binding.privacy.contacts) + len(binding.privacy.blocked)


def _nothing(name: str) -> int:
    return 0


async def _is_one(source: Source, target: Directory) -> bool:
    """Whether both are one directory. Addresses do not tell: a server has several.

    A copy onto itself is no harmless one: it would put back a key that was rotated between its two readings.
    """
    before = f"copy {os.urandom(16).hex()}"  # no name has a blank in it
    mark = f"{before} "
    with _blamed_on("TO"):
        await target.list_name(mark)
        try:
            with _blamed_on("FROM"):
                return await source.listed_names(before, 1) == [mark]
        finally:
            await target.unlist_name(mark)


async def _first(directory: Source, side: str) -> list[Binding]:
    with _blamed_on(side):
        return await directory.bindings("", 1)


class _Writes(Generic[_Value]):
    """Writes of one kind, which wait until a page of them is there: few large batches cost less than many small.

    A directory that is slow, or far away, may take only a part of a page in the time that it gives each call. It gets
    the rest again, in smaller groups from then on. One that takes nothing is away, or full.
    """

    def __init__(self, write: Callable[[_Value], Awaitable[object]], weight: Callable[[_Value], int]) -> None:
        self._write = write
        self._weight = weight
        self._values: list[_Value] = []
        self._waiting = 0
        self._at_once = PAGE

    async def add(self, values: list[_Value]) -> None:
        self._values += values
        self._waiting += sum(map(self._weight, values))
        if len(self._values) >= PAGE or self._waiting >= MAX_PRIVACY_ROWS:
            await self.flush()

    async def flush(self) -> None:
        """Write all that wait. When one fails, those beside it have ended, too."""
        values, self._values, self._waiting = self._values, [], 0
        while values:
            group, values = values[: self._at_once], values[self._at_once :]
            with _blamed_on("TO"):
                refused = await self._refused(group)
            if refused:
                self._at_once = (len(group) + 1) // 2
                values = refused + values

    async def _refused(self, group: list[_Value]) -> list[_Value]:
        """Write a group together; return the part that the directory has not taken. Raises when it is all."""
        outcomes = await asyncio.gather(*map(self._write, group), return_exceptions=True)
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        bugs = [error for error in errors if not isinstance(error, DirectoryUnavailable)]
        if bugs or len(errors) == len(group):
            raise (bugs or errors)[0]
        return [value for value, outcome in zip(group, outcomes, strict=True) if isinstance(outcome, BaseException)]


@contextmanager
def _blamed_on(side: str) -> Iterator[None]:
    try:
        yield
    except DirectoryUnavailable as error:
        raise CopyFailed(side, str(error)) from error
