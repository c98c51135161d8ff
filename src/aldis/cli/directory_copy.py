"""`aldis directory copy`: moves the names of a server to another directory, of the same kind or another.

Rules: what is shown while it works goes to standard error, the summary to standard output. FROM is opened for reading
only, where its kind has such a thing, and so is TO when nothing is to be written.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from aldis.backends import copying
from aldis.backends.base import Directory, DirectoryUnavailable
from aldis.backends.copying import Copied, CopyFailed, Differences, Pass, Source
from aldis.backends.directory_url import MEMORY, DirectoryOptions, check_url, sqlite_path, without_password
from aldis.backends.memory import MemoryDirectory
from aldis.backends.opening import open_directory
from aldis.backends.sqlite_copies import check_unused
from aldis.backends.sqlite_source import SqliteSource
from aldis.cli.exits import ExitCode, complain
from aldis.cli.signals import until_signal
from aldis.cli.text import safe_line
from aldis.errors import UsageError

# Seconds between two lines of progress; a terminal has one line that changes.
_EACH: Final = 10.0
_EACH_AT_TERMINAL: Final = 0.2
_GOES_ON: Final = "\n  What was copied stays; the same command goes on."

# Of two letters at least: one is a drive of Windows.
_SCHEME: Final = re.compile(r"(?!sqlite:)[A-Za-z][A-Za-z0-9+.-]+:")
_Opened = TypeVar("_Opened")


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """What is asked for. `redis`: what is not in the URL of a Redis, of both sides."""

    redis: DirectoryOptions
    exact: bool = False
    dry_run: bool = False
    verify: bool = False

    @property
    def writes(self) -> bool:
        return not (self.dry_run or self.verify)


def run(source: str, target: str, options: CopyOptions) -> int:
    """Copy, or compare. Returns the exit code; raises `AldisError`."""
    if options.verify and (options.exact or options.dry_run):
        raise UsageError("--verify only compares: give it without --exact and --dry-run")
    return asyncio.run(until_signal(_run(source, target, options)))


async def _run(source_url: str, target_url: str, options: CopyOptions) -> ExitCode:
    _check_two(source_url, target_url)
    began = time.monotonic()
    screen = _Screen()
    try:
        async with _read(source_url, "FROM", options.redis) as source:
            if not options.writes:
                async with _read(target_url, "TO", options.redis, missing=options.dry_run) as there:
                    found = await copying.compare(source, there, told=screen.show)
                screen.clear()
                print(_difference(found, time.monotonic() - began))
                return ExitCode.FAULT if options.verify and (found.to_write or found.extra) else ExitCode.OK
            async with _written(target_url, options.redis) as target:
                copied = await copying.copy(source, target, exact=options.exact, told=screen.show)
    except CopyFailed as error:
        screen.clear()
        complain(safe_line(str(error)) + _GOES_ON * options.writes)
        return ExitCode.FAULT
    except asyncio.CancelledError:  # by a signal
        screen.clear()
        complain("broken off" + _GOES_ON * options.writes)
        raise
    screen.clear()
    print(_summary(copied, time.monotonic() - began, exact=options.exact))
    if not copied.complete:
        complain(
            f"FROM changed in each of {copied.last.number} passes. When the server is to move: stop it, and copy again."
        )
    return ExitCode.OK if copied.complete else ExitCode.FAULT


# --- the two directories --------------------------------------------------------------------------------------------


class _Closing(Protocol):
    async def close(self) -> None: ...


class _ClosingSource(Source, _Closing, Protocol):
    pass


def _check_two(source: str, target: str) -> None:
    if MEMORY in (source, target):
        raise UsageError(f"a directory in {MEMORY} is that of one process, and cannot be copied")
    for side, url in (("FROM", source), ("TO", target)):
        try:
            check_url(url)
        except ValueError as error:
            raise UsageError(f"{side}: {without_password(url)} cannot be used; expected {error}") from None
        if _SCHEME.match(url) and sqlite_path(url) and not os.path.lexists(url):
            # It would make a file with this name, and the password in it.
            raise UsageError(f"{side} begins as a URL does, and has no //; for a file, write ./ before its name")
    # Before anything is opened: a dry run would compare a file with itself. `copy` finds out about the others.
    one, other = sqlite_path(source), sqlite_path(target)
    if source == target or (one and other and one.exists() and other.exists() and one.samefile(other)):
        raise UsageError("FROM and TO are the same directory")


@asynccontextmanager
async def _read(url: str, side: str, redis: DirectoryOptions, *, missing: bool = False) -> AsyncIterator[Source]:
    """The directory, for reading. `missing`: take a file that is not there for an empty directory."""
    path = sqlite_path(url)
    source: _ClosingSource
    if path is None:
        source = await _opened(side, lambda: open_directory(url, redis))
    elif missing and not path.exists():
        source = MemoryDirectory()
    else:
        source = await _opened(side, lambda: SqliteSource.open(path))
    try:
        yield source
    finally:
        await source.close()


@asynccontextmanager
async def _written(url: str, redis: DirectoryOptions) -> AsyncIterator[Directory]:
    if (path := sqlite_path(url)) is not None:
        # A server has told users whose names are whose, and would not notice that they are others now.
        await asyncio.to_thread(check_unused, path)
    target = await _opened("TO", lambda: open_directory(url, redis, warn=lambda text: complain(safe_line(text))))
    try:
        yield target
    finally:
        await target.close()


async def _opened(side: str, opening: Callable[[], Awaitable[_Opened]]) -> _Opened:
    try:
        return await opening()
    except DirectoryUnavailable as error:
        raise CopyFailed(side, str(error)) from error


# --- what is shown --------------------------------------------------------------------------------------------------


class _Screen:
    """The progress on standard error."""

    def __init__(self) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._each = _EACH_AT_TERMINAL if self._terminal else _EACH
        self._shown = time.monotonic()
        self._drawn = False

    def show(self, found: Pass) -> None:
        if time.monotonic() - self._shown < self._each:
            return
        self._shown = time.monotonic()
        text = f"pass {found.number}: {found.bound.names + found.listed.names} names, {found.to_write} of them differ"
        if not self._terminal:
            complain(text)
            return
        self._drawn = True
        with suppress(OSError):
            print(f"\r\x1b[Kaldis: {text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line off the terminal, because another one follows."""
        if self._drawn:
            self._drawn = False
            with suppress(OSError):
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _difference(found: Pass, seconds: float) -> str:
    """What a comparison has found."""
    lines = [f"{_names(found.bound.names)} at FROM, {_parts(found.bound)}"]
    lines += [f"{_names(found.listed.names)} on its list, {_parts(found.listed)}"]
    return "\n".join([*lines, f"{seconds:.1f} s"])


def _parts(found: Differences) -> str:
    changed = f"{found.changed} with another key or privacy, " if found.changed else ""
    return f"{found.missing} not at TO, {changed}{found.extra} at TO only"


def _summary(copied: Copied, seconds: float, *, exact: bool) -> str:
    """What a copy has done."""
    last = copied.last
    lines = [
        f"{_names(last.bound.names)} at FROM: {copied.bound.missing} copied, {copied.bound.changed} changed",
        f"{_names(last.listed.names)} on its list: {copied.listed.missing} copied",
    ]
    extra = (copied if exact else last).bound.extra, (copied if exact else last).listed.extra
    if any(extra):
        said = "removed at TO" if exact else "at TO only, and kept (--exact removes them)"
        lines.append(f"{_names(extra[0])} and {extra[1]} of the list {said}")
    passes = f"{last.number} pass{'' if last.number == 1 else 'es'}"
    return "\n".join([*lines, f"{passes}, {seconds:.1f} s"])


def _names(count: int) -> str:
    return f"{count} name{'' if count == 1 else 's'}"
