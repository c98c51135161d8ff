"""The directory in Redis 7 or Valkey, for servers that share their names.

Rules:

* A name is one hash, `PREFIX{u:NAME}:binding`: the fields `key`, and of a privacy that is not the default `presence`,
  `offers`, `contacts` and `blocked` (names with a line end after each), and `revision`, which is another one after each
  change. The operator's list is one sorted set.
* Each call on a name takes effect by one command or one script on that key, so as a whole, in a Cluster too. A change
  of a privacy reads it first, and starts over if another one has come between.
* The calls of one turn of the event loop go out together. Calls that only read do not wait for those that write.
* A call that writes returns when the append-only file is synced, where the server has WAITAOF (Redis 7.2). Elsewhere
  it returns when the server has answered, and `appendfsync` says what a power cut may cost: `open` warns of that.
* What a call reads may be of another one that still waits for the sync, or has waited in vain. So a claim that finds a
  name that was bound here lately, and not synced since, writes it again and waits, too.
* When the server does not answer, all calls that wait fail together, so no call waits longer than `PATIENCE` for its
  reading and as long for its writing. At most `MAX_WAITING` calls wait.

Each call asks the server: nothing is cached.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

from aldis.backends.base import (
    Binding,
    Claim,
    DatabaseUnavailable,
    DirectoryUnavailable,
    PrivacyRefusal,
    closed_on_failure,
)
from aldis.backends.directory_url import DEFAULT_REDIS_PREFIX
from aldis.backends.redis_client import Command, RedisServers, Script, Word
from aldis.backends.redis_durability import look
from aldis.backends.redis_lane import PATIENCE, Lane, fault
from aldis.backends.redis_url import RedisUrl
from aldis.errors import InvalidAddress
from aldis.protocol.privacy import (
    DEFAULT_PRIVACY,
    Privacy,
    PrivacyChange,
    Visibility,
)

# Milliseconds until the append-only file has to be synced: with `appendfsync everysec` it takes up to a second.
SYNC_MS: Final = 3000
# Batches at a time. A write may wait a second for the sync, and four share that second.
_READS_AT_ONCE: Final = 1
_WRITES_AT_ONCE: Final = 4

_CLAIM: Final = Script("claim")
_ROTATE: Final = Script("rotate")
_PRIVACY: Final = Script("privacy")
_PUT: Final = Script("put")
# Names that one pass over all keys keeps for the next pages of bindings: some 10 MB. There is no order in Redis to read
# them by, and one for all names would be a key that a Cluster cannot write together with theirs.
_AHEAD: Final = 100_000
# Names that are remembered as not synced: some 10 MB.
_MOST_UNSYNCED: Final = 100_000
_ESCAPED: Final = r"\\\1"
_GLOB: Final = re.compile(r"([\\*?\[\]^-])")
# Times that a change of a privacy starts over. Each time, another one has taken effect.
_TRIES: Final = 1000
_FIELDS: Final = ("key", "presence", "offers", "contacts", "blocked")


class RedisDirectory:
    """Bindings in Redis or Valkey; see `base.Directory` for each call. Call `open` to make one."""

    def __init__(self, servers: RedisServers, prefix: str) -> None:
        self._servers = servers
        self._prefix = prefix
        self._reads = Lane(servers, _READS_AT_ONCE, away=DatabaseUnavailable, full=DirectoryUnavailable)
        self._writes = Lane(servers, _WRITES_AT_ONCE, away=DatabaseUnavailable, full=DirectoryUnavailable)
        # The name that the last page of bindings ended with, and those behind it.
        self._ahead: tuple[str, deque[str]] | None = None
        # Where calls wait for the sync: the names whose last change here has not returned, or has failed, with it.
        # Those of other processes are not known here: docs/deploy.md says what that means.
        self._unsynced: dict[str, Command] = {}
        self._calls = 0
        self._closed = False
        self._idle = asyncio.Event()

    @classmethod
    async def open(
        cls, where: RedisUrl, *, prefix: str = DEFAULT_REDIS_PREFIX, warn: Callable[[str], None] = lambda text: None
    ) -> RedisDirectory:
        """Connect to the server, and see that it can be read and written. Raises `DirectoryUnavailable` if not.

        `warn` gets a sentence for each promise that the server's settings do not keep.
        """
        servers = RedisServers(where)
        directory = cls(servers, prefix)
        async with closed_on_failure(directory):
            await directory.check()
            await directory._look(warn)
        return directory

    @classmethod
    async def probe(
        cls, where: RedisUrl, *, prefix: str = DEFAULT_REDIS_PREFIX, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        """As `open` and `close`, but nothing is written."""
        servers = RedisServers(where)
        directory = cls(servers, prefix)
        async with closed_on_failure(directory):
            with directory._calling():
                await directory._reads.ask(Command("HGET", directory._key(""), ("key",)))
            await directory._look(warn)
        await directory.close()

    @property
    def healthy(self) -> bool:
        return not (self._closed or self._reads.failing or self._writes.failing)

    async def claim(self, user_id: str, public_key: bytes) -> Claim:
        with self._calling():
            key = self._key(user_id)
            row = await self._reads.ask(Command("HMGET", key, _FIELDS))
            new = 0
            if row[0] is None or user_id in self._unsynced:
                self._ahead = None
                new, *row = await self._bind(user_id, Command(_CLAIM, key, (public_key,)))
            return Claim(row[0], bool(new), _privacy(row[1:]))

    async def find(self, user_id: str) -> bytes | None:
        with self._calling():
            return cast("bytes | None", await self._reads.ask(Command("HGET", self._key(user_id), ("key",))))

    async def load(self, user_id: str) -> Claim | None:
        with self._calling():
            key, *privacy = await self._reads.ask(Command("HMGET", self._key(user_id), _FIELDS))
            return None if key is None else Claim(key, False, _privacy(privacy))

    async def change_privacy(self, user_id: str, public_key: bytes, change: PrivacyChange) -> Privacy | PrivacyRefusal:
        with self._calling():
            key = self._key(user_id)
            for _ in range(_TRIES):
                bound, *fields, revision = await self._reads.ask(Command("HMGET", key, (*_FIELDS, "revision")))
                if bound != public_key:
                    return PrivacyRefusal.NOT_BOUND
                after = _privacy(fields).changed(change)
                if after is None:
                    return PrivacyRefusal.TOO_LARGE
                presence, offers, contacts, blocked = (field or b"" for field in fields)
                words = (revision or b"", presence, offers, len(contacts), len(blocked), os.urandom(8), *_words(after))
                outcome = await self._writes.ask(Command(_PRIVACY, key, (public_key, *words)))
                if outcome == b"changed":
                    return after
            raise DirectoryUnavailable(f"the privacy of {user_id} is changed all the time")

    async def rotate(self, user_id: str, old_key: bytes, new_key: bytes) -> bool:
        with self._calling():
            return bool(await self._bind(user_id, Command(_ROTATE, self._key(user_id), (old_key, new_key))))

    async def release(self, user_id: str) -> bool:
        with self._calling():
            return bool(await self._writes.ask(Command("DEL", self._key(user_id))))

    async def is_listed(self, user_id: str) -> bool:
        with self._calling():
            return await self._reads.ask(Command("ZSCORE", self._list, (_encoded(user_id),))) is not None

    async def list_name(self, user_id: str) -> bool:
        with self._calling():
            return bool(await self._writes.ask(Command("ZADD", self._list, ("NX", 0, _encoded(user_id)))))

    async def unlist_name(self, user_id: str) -> bool:
        with self._calling():
            return bool(await self._writes.ask(Command("ZREM", self._list, (_encoded(user_id),))))

    async def listed_names(self, after: str, most: int) -> list[str]:
        with self._calling():
            # All scores are 0, so the order is that of bytes, and UTF-8 has the order of code points (RFC 3629).
            words = (b"(" + _encoded(after), "+", "LIMIT", 0, most)
            return [name.decode() for name in await self._reads.ask(Command("ZRANGEBYLEX", self._list, words))]

    async def bindings(self, after: str, most: int) -> list[Binding]:
        _encoded(after)
        found: list[Binding] = []
        with self._calling():
            while len(found) < most and (names := await self._bound(after, most - len(found))):
                after = names[-1]
                commands = [self._reads.ask(Command("HMGET", self._key(name), _FIELDS)) for name in names]
                for name, (key, *privacy) in zip(names, await asyncio.gather(*commands), strict=True):
                    if key is not None:  # it was released meanwhile
                        found.append(Binding(name, key, _privacy(privacy)))
        return found

    async def put(self, binding: Binding) -> None:
        with self._calling():
            self._ahead = None
            words: tuple[Word, ...] = ("key", binding.public_key)
            if binding.privacy != DEFAULT_PRIVACY:
                fields = zip(_FIELDS[1:], _words(binding.privacy), strict=True)
                words = (*words, *(word for field in fields for word in field))
            await self._writes.ask(Command(_PUT, self._key(binding.user_id), words))

    async def check(self) -> None:
        with self._calling():
            await self._reads.ask(Command("HGET", self._key(""), ("key",)))
            await self._writes.ask(Command("SET", f"{self._prefix}probe", ("1",)))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._see_idle()
        await self._idle.wait()
        await self._servers.close()

    # --- internal ---------------------------------------------------------------------------------------------------

    async def _look(self, warn: Callable[[str], None]) -> None:
        """Look at what the server's settings promise."""
        try:
            async with asyncio.timeout(PATIENCE):
                found = await look(self._servers)
        except Exception as error:
            raise fault(self._servers, error, DatabaseUnavailable) from error
        if found.loses is not None:
            raise DirectoryUnavailable(found.loses)
        self._writes.sync_ms = SYNC_MS if found.waits else None
        for text in found.warnings:
            warn(text)

    async def _bind(self, user_id: str, command: Command) -> Any:
        """Send a command that binds a name; return its answer."""
        if self._writes.sync_ms is not None:
            self._unsynced.pop(user_id, None)
            self._unsynced[user_id] = command
            if len(self._unsynced) > _MOST_UNSYNCED:
                del self._unsynced[next(iter(self._unsynced))]
        answer = await self._writes.ask(command)
        if self._unsynced.get(user_id) is command:
            del self._unsynced[user_id]
        return answer

    async def _bound(self, after: str, most: int) -> list[str]:
        """The names behind `after` that are bound, in order, at most `most`; none of them: it was the last."""
        if self._ahead is None or self._ahead[0] != after or not self._ahead[1]:
            self._ahead = (after, deque(await self._scan(after, max(most, _AHEAD))))
        names = self._ahead[1]
        page = [names.popleft() for _ in range(min(most, len(names)))]
        self._ahead = (page[-1], names) if page else None
        return page

    async def _scan(self, after: str, most: int) -> list[str]:
        before, behind = self._key("").split("}")
        pattern = f"{_GLOB.sub(_ESCAPED, before)}*}}{behind}"
        first, last = len(before.encode()), -len(behind.encode()) - 1
        names: set[str] = set()
        try:
            async for key in self._servers.keys(pattern):
                if (name := key[first:last].decode()) > after:
                    names.add(name)
                    if len(names) >= 2 * most:
                        names = set(heapq.nsmallest(most, names))
        except Exception as error:
            raise fault(self._servers, error, DatabaseUnavailable) from error
        return heapq.nsmallest(most, names)

    @contextmanager
    def _calling(self) -> Iterator[None]:
        if self._closed:
            raise DirectoryUnavailable(f"the directory in {self._servers.where} is closed")
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            self._see_idle()

    def _see_idle(self) -> None:
        if self._closed and not self._calls:
            self._idle.set()

    def _key(self, user_id: str) -> str:
        _encoded(user_id)
        return f"{self._prefix}{{u:{user_id}}}:binding"

    @property
    def _list(self) -> str:
        return f"{self._prefix}listed"


def _encoded(user_id: str) -> bytes:
    try:
        return user_id.encode()
    except UnicodeEncodeError:
        raise InvalidAddress(user_id, "it contains a lone surrogate") from None


def _lines(names: Iterable[str]) -> bytes:
    return b"".join(_encoded(name) + b"\n" for name in names)


def _words(privacy: Privacy) -> tuple[Word, ...]:
    """The fields of a hash for a privacy, as `_privacy` reads them; empty for the default."""
    if privacy == DEFAULT_PRIVACY:
        return ("",) * 4
    return privacy.presence, privacy.offers, _lines(privacy.contacts), _lines(privacy.blocked)


def _privacy(fields: list[bytes | None]) -> Privacy:
    """The privacy of the fields of a hash, in the order of `_FIELDS`. All are missing from the default."""
    presence, offers, contacts, blocked = ((field or b"").decode() for field in fields)
    if not presence:
        return DEFAULT_PRIVACY
    lists = (frozenset(contacts.split("\n")[:-1]), frozenset(blocked.split("\n")[:-1]))
    return Privacy(cast(Visibility, presence), cast(Visibility, offers), *lists)
