"""A Sentinel that says what a test wants, when it wants it. Real ones differ in what they know for moments only."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeAlias

import hiredis

SERVICE = "names"
KNOWS, DOWN = "master", "master,s_down,o_down"
"""The flags of a master that can be used, and of one that cannot."""

Says: TypeAlias = Callable[[], Awaitable[str]]


def always(flags: str) -> Says:
    async def says() -> str:
        return flags

    return says


class FakeSentinel:
    """`async with FakeSentinel(master_port, says) as sentinel`: `says` gives the flags of the master each time."""

    def __init__(self, master_port: int, says: Says) -> None:
        self.says = says
        self.port = 0
        self._master_port = master_port
        self._server: asyncio.Server | None = None
        self._handlers: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    def reset(self) -> None:
        """Reset all connections (RST)."""
        for writer in self._handlers.values():
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        words = hiredis.Reader()
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers[handler] = writer
        try:
            while data := await reader.read(65536):
                words.feed(data)
                while (command := words.gets()) is not False:
                    writer.write(await self._answer(command))
        except (ConnectionError, asyncio.CancelledError):
            pass  # reset, or the end of the test
        finally:
            writer.close()

    async def _answer(self, command: list[bytes]) -> bytes:
        if command[0] != b"SENTINEL":
            return b"+OK\r\n"
        state: dict[str, Any] = {
            "name": SERVICE,
            "ip": "127.0.0.1",
            "port": self._master_port,
            "flags": await self.says(),
            "num-other-sentinels": 2,
        }
        words = [str(word).encode() for pair in state.items() for word in pair]
        return b"*1\r\n*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers)
        for writer in self._handlers.values():
            with suppress(ConnectionError):
                await writer.wait_closed()
