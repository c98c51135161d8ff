"""Calls on their way to a Redis, in batches: those of one turn of the event loop go out together.

When the server does not answer, all calls that wait fail together, so none waits longer than `PATIENCE`. At most
`MAX_WAITING` calls wait in a lane. A turn of the event loop wakes some callers of a batch, and the next turns the
others: what they do with long answers would keep all clients waiting.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, TypeAlias

from aldis.backends.portions import bytes_of, in_portions
from aldis.backends.redis_client import ANSWER_SECONDS, CONNECT_SECONDS, Command, RedisServers

# Seconds for one batch: a new connection, and its answers.
PATIENCE: Final = CONNECT_SECONDS + ANSWER_SECONDS
# Calls in one batch. A batch may wait a second for the sync, so this bounds the new names in a second, and what is kept
# for answers: a privacy has up to 48 KiB, and most have none.
MAX_BATCH: Final = 2000
# Keys in one batch: a script may look up many users. To pack and read so many takes some milliseconds.
MAX_KEYS: Final = 2000
# Bytes in one batch, and one call more. The server answers nobody else meanwhile, and a script with a long privacy list
# takes it 0.3 ms.
MAX_BYTES: Final = 128 * 1024
# Calls that wait, of each kind. After a restart, all clients of a large server ask at once.
MAX_WAITING: Final = 100_000

Fault: TypeAlias = Callable[[str], Exception]
"""Makes an exception for a caller of the words for an operator."""


class Lane:
    """Calls of one kind. `away` makes the exception for a server that cannot answer, `full` for too many calls.

    `at_once` batches are on their way at a time. With one, and `ordered`, calls for one server take effect in their
    order. `took` is told the seconds of each batch, whatever comes of it.
    """

    def __init__(
        self,
        servers: RedisServers,
        at_once: int = 1,
        *,
        ordered: bool = False,
        away: Fault,
        full: Fault,
        took: Callable[[float], None] | None = None,
    ) -> None:
        self._servers = servers
        self._at_once = at_once
        self._ordered = ordered
        self._away = away
        self._full = full
        self._took = took
        self._waiting: deque[tuple[Command, asyncio.Future[Any]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        # Of the tasks, those that will look for calls again: one that has seen none left has not ended yet.
        self._workers = 0
        self.sync_ms: int | None = None
        """How long a batch waits for the sync of the append-only file; None for not at all."""
        self.failing = False
        """Whether the last batch failed, or a call in it."""
        self.open = 0
        """How many calls have no answer yet."""
        self.failures = 0
        """How many calls have failed."""

    async def ask(self, command: Command) -> Any:
        """Send a command; return its answer."""
        return await self.send(command)

    def send(self, command: Command) -> asyncio.Future[Any]:
        """Send a command, without waiting for its answer."""
        if len(self._waiting) >= MAX_WAITING:
            raise self._full(f"{self._servers.where} is too slow: {MAX_WAITING} calls wait for it")
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, answered))
        self.open += 1
        if self._workers < self._at_once:
            self._workers += 1
            task = asyncio.create_task(self._work(), name="aldis-redis")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return answered

    async def idle(self) -> None:
        """Wait until no call is on its way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _work(self) -> None:
        while self._waiting:
            calls = self._next_batch()
            began = monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    commands = [command for command, _ in calls]
                    answers = await self._servers.run(commands, sync_ms=self.sync_ms, ordered=self._ordered)
            except Exception as error:  # noqa: BLE001 - raised in the callers
                # Those that wait have waited for the same server.
                calls += self._waiting
                self._waiting.clear()
                answers = [error] * len(calls)
            if self._took is not None:
                self._took(monotonic() - began)
            failed = sum(isinstance(answer, Exception) for answer in answers)
            self.failing = failed > 0
            self.failures += failed
            async for (_, answered), answer in in_portions(zip(calls, answers, strict=True), _answer_bytes):
                self.open -= 1
                if answered.done():
                    continue  # the caller was cancelled
                if isinstance(answer, Exception):
                    answered.set_exception(fault(self._servers, answer, self._away))
                else:
                    answered.set_result(answer)
        self._workers -= 1

    def _next_batch(self) -> list[tuple[Command, asyncio.Future[Any]]]:
        calls: list[tuple[Command, asyncio.Future[Any]]] = []
        keys = size = 0
        while self._waiting and len(calls) < MAX_BATCH and keys < MAX_KEYS and size < MAX_BYTES:
            calls.append(self._waiting.popleft())
            command = calls[-1][0]
            keys += 1 + len(command.others)
            size += sum(len(word) for word in command.words if not isinstance(word, int))
        return calls


def _answer_bytes(answered: tuple[object, Any]) -> int:
    return bytes_of(answered[1])


def fault(servers: RedisServers, error: Exception, away: Fault) -> Exception:
    """The exception for one caller: a new one for each, because each gets its own traceback."""
    words = servers.in_words(error)
    return error if words is None else away(words)
