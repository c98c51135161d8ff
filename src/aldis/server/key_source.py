"""Where the keys of tokens come from: a JWKS in a file, or at a URL that is fetched again by itself.

Rules:

* Keys that were once there go on to hold while they cannot be read anew. Readiness, a metric and the log tell of it.
* A token with an unknown key makes us look once more, but not more often than each `pause`, however many such tokens
  come: a stranger can make them up. Such clients are told when to try again.
* All that wait for a look wait for the same one.
* Neither the disk nor the network is used on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Final, Literal, TypeAlias

from aldis.errors import ConfigError
from aldis.server.http_calls import CallFailed, HttpCalls
from aldis.server.logs import Log, OutageLog
from aldis.server.tokens import MAX_KEY_SET, KeySet, KeySetUnusable, read_key_set

# Seconds. A person who waits for a token's new key waits this long; an issuer gets one request in this time.
LOOK_PAUSE: Final = 10.0
FETCH_TIMEOUT: Final = 5.0
OUTAGE_LOG: Final = 60.0

Look: TypeAlias = "Literal['done', 'failed'] | float"
"""What became of a look: done, failed, or the seconds until another one is allowed."""
_Mark: TypeAlias = tuple[int, int, int]


class KeySource:
    """The keys of one server. `start` reads them first, `close` ends what runs.

    `location` is a file or a URL; `refresh` is how often it is read anew, in seconds.
    """

    def __init__(
        self,
        location: str | Path,
        calls: HttpCalls,
        log: Log,
        *,
        refresh: float,
        pause: float = LOOK_PAUSE,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._location = location
        self._calls = calls
        self._log = log
        self._outage = OutageLog(log, "reading the keys of tokens", OUTAGE_LOG, clock)
        self._refresh = refresh
        self._pause = pause
        self._clock = clock
        self._looked_at: float | None = None  # when the last look began
        self._looking: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._mark: _Mark | None = None
        self.keys: KeySet | None = None
        """The keys in use; None when there were none yet."""
        self.read_at: float | None = None
        """When they were read last, by the clock."""
        self.failing: str | None = None
        """Why the last look failed; None when it did not."""
        self.looks: Counter[str] = Counter({"read": 0, "failed": 0})

    async def start(self) -> None:
        """Read the keys. Raises `ConfigError` for a file that cannot be used; a URL may answer later."""
        try:
            await self._read()
        except (CallFailed, KeySetUnusable) as error:
            if isinstance(self._location, Path):
                raise ConfigError("jwks", f"{self._location} cannot be used: {error}") from None
            self._failed(error)
        self._keeping = asyncio.create_task(self._keep(), name="aldis-keys")

    async def close(self) -> None:
        """End what runs."""
        for task in (self._keeping, self._looking):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    @property
    def age(self) -> float | None:
        """Seconds since the keys were read; None when there are none yet."""
        return None if self.read_at is None else self._clock() - self.read_at

    async def look(self, *, now: bool = False) -> Look:
        """Read the keys anew. `now`: also if that was done a moment ago, because the operator says so."""
        if self._looking is None:
            left = 0.0 if self._looked_at is None or now else self._looked_at + self._pause - self._clock()
            if left > 0:
                return left
            self._looking = asyncio.create_task(self._look(), name="aldis-keys-look")
        await asyncio.shield(self._looking)
        return "done" if self.failing is None else "failed"

    async def _look(self) -> None:
        try:
            await self._read()
        except Exception as error:  # noqa: BLE001 - also a bug must not keep us from looking again
            self._failed(error)
        finally:
            self._looking = None

    async def _keep(self) -> None:
        while True:
            # After a failure, as soon as a client could make us look.
            await asyncio.sleep(self._refresh if self.failing is None else min(self._pause, self._refresh))
            await self.look(now=True)

    async def _read(self) -> None:
        self._looked_at = self._clock()
        if isinstance(self._location, Path):
            text = await asyncio.to_thread(self._read_file, self._location)
        else:
            text = await self._calls.get(self._location, most=MAX_KEY_SET, seconds=FETCH_TIMEOUT)
        if text is not None:
            keys = read_key_set(text, secrets=isinstance(self._location, Path))
            if keys != self.keys:
                self._log.info("the keys of tokens", keys=[key.kid for key in keys.keys], skipped=list(keys.skipped))
            self.keys = keys
        self.read_at = self._clock()
        self.failing = None
        self.looks["read"] += 1
        self._outage.works()

    def _read_file(self, path: Path) -> bytes | None:
        """The file; None when it is the one that was read last."""
        try:
            found = path.stat()
            mark = found.st_ino, found.st_size, found.st_mtime_ns
            if mark == self._mark:
                return None
            with path.open("rb") as file:
                text = file.read(MAX_KEY_SET + 1)
        except OSError as error:
            raise CallFailed(error.strerror or str(error)) from None
        self._mark = mark
        return text

    def _failed(self, error: Exception) -> None:
        self._mark = None
        self.failing = str(error)
        self.looks["failed"] += 1
        self._outage.failed(error)
