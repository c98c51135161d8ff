"""`aldis chat` in a pipeline: it sends each input line as a message, and prints each arriving message as a line.

Rules: standard output has messages and nothing else, each written at once, as `NAME: text` or as JSON. Input is read
only as fast as the peer confirms messages. docs/cli.md, "In a pipeline", says which side ends first, and with which
exit code.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import Final

from aldis.cli.exits import ExitCode, complain
from aldis.cli.pipes import LineReader, LineWriter
from aldis.cli.talk import Talk, alongside
from aldis.cli.text import as_json, as_text, safe_line
from aldis.store.messages.delivery import Delivery
from aldis.store.state import Message

# Messages under way: enough for a long, fast path, and few enough to keep in memory while the peer is away.
_WINDOW_MESSAGES: Final = 1000
_WINDOW_SIZE: Final = 4 * 1024 * 1024  # characters
_FLUSH: Final = 2.0  # seconds for writing what has arrived, after a signal


class Pipeline:
    """The conversation of standard input and output with the peer."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._plan = talk.plan
        self._sent = 0
        self._under_way: deque[tuple[Delivery, int]] = deque()  # with the size of each
        self._writer = LineWriter(sys.stdout.fileno()) if sys.stdout else None

    async def run(self) -> ExitCode:
        """Run until the input has ended and is delivered, and, with --listen, until the peer has left."""
        printing = asyncio.create_task(self._print_messages())
        try:
            code = await alongside(
                self._converse(),
                self._talk.meet(self._plan.timeout),
                self._watch(printing),
                self._talk.refused_for_good(),
            )
        except BaseException:
            await self._leave(printing, _FLUSH)
            raise
        await self._leave(printing, None)
        return code

    async def _leave(self, printing: asyncio.Task[None], limit: float | None) -> None:
        """Say goodbye, and write all messages that were confirmed to the peer."""
        self._talk.close()
        await self._talk.store.disconnect()
        done, _ = await asyncio.wait([printing], timeout=limit)
        if not done:
            printing.cancel()
            await asyncio.wait([printing])
        elif limit is None:
            printing.result()

    async def _watch(self, printing: asyncio.Task[None]) -> None:
        """Raise the errors of the output."""
        await asyncio.wait([printing])
        printing.result()

    async def _print_messages(self) -> None:
        async for message in self._talk.store.messages():
            if message.sender == self._plan.peer and self._writer is not None:
                await self._writer.write(self._form(message))

    def _form(self, message: Message) -> str:
        if self._plan.json:
            return as_json(message.sender, message.content)
        return f"{safe_line(message.sender)}: {safe_line(as_text(message.content))}"

    async def _converse(self) -> ExitCode:
        await self._send_lines()
        waiting = self._sent or self._talk.view.queued  # of an earlier time, perhaps
        if waiting and not await self._talk.delivered():
            if not self._talk.met:
                raise self._talk.problem
            return self._not_delivered()
        for delivery, _ in self._under_way:
            await self._talk.confirmed(delivery)  # one may have failed, at a full disk for example
        if not (self._plan.listen or self._plan.keep_listening):
            if not waiting:
                complain("the input was empty, so there was nothing to send; --listen stays to listen")
            return ExitCode.OK
        if self._plan.keep_listening:
            await self._talk.until(lambda: False)
        await self._talk.until_left()
        return ExitCode.OK

    async def _send_lines(self) -> None:
        if sys.stdin is None:
            return  # the parent process has closed it
        lines = LineReader(sys.stdin.fileno())
        under_way = self._under_way
        size = 0
        async for line in lines:
            if lines.replaced:
                complain("the input had bytes that are not UTF-8; they were replaced")
                lines.replaced = False
            while under_way and (len(under_way) >= _WINDOW_MESSAGES or size + len(line) > _WINDOW_SIZE):
                delivery, taken = under_way.popleft()
                await self._talk.confirmed(delivery)
                size -= taken
            under_way.append((self._talk.store.send(self._plan.peer, line), len(line)))
            size += len(line)
            self._sent += 1
            while under_way and under_way[0][0].delivered:
                size -= under_way.popleft()[1]

    def _not_delivered(self) -> ExitCode:
        missing, name = self._talk.view.queued, safe_line(self._plan.peer)
        complain(f"{name} has not confirmed {missing} of {self._sent} messages in time{self._talk.afterwards}")
        return ExitCode.NOT_DELIVERED
