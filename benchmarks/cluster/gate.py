"""A way to Redis that can be closed: a TCP proxy between one server and one port of 127.0.0.1.

Closed, it forwards nothing and says nothing, as a network that drops all packets: connections stay, new ones come
about and get no answer. What was sent meanwhile goes on when it is open again, as TCP would send it again. It can also
be slow: then each piece of data is `late` by so many seconds, and many are on their way.

`rewrites` replaces texts of the same length in the answers: the ports that a Sentinel or a Redis Cluster tells.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

_CHUNK: Final = 65536
# On their way in one direction: beyond, the sender waits, as for a window of TCP.
_PIECES: Final = 1000
_NOT_AT_ALL: Final = struct.pack("ii", 1, 0)


class Gate:
    """Between its own `port` and a `target`. `open` it, and `close` it."""

    def __init__(self, port: int, target: int, rewrites: Mapping[bytes, bytes] | None = None) -> None:
        self.port = port
        self.late = 0.0
        self.rewrites: Mapping[bytes, bytes] = rewrites or {}
        self._target = target
        self._passing = asyncio.Event()
        self._passing.set()
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen."""
        for old, new in self.rewrites.items():
            assert len(old) == len(new), "the length of a text stands before it"
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def close(self) -> None:
        """End, with all connections."""
        assert self._server is not None
        self._server.close()
        self.cut()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def block(self) -> None:
        """Forward nothing."""
        self._passing.clear()

    def release(self) -> None:
        """Forward again."""
        self._passing.set()

    def cut(self) -> None:
        """Reset all connections."""
        for writers in self._connections.values():
            for writer in writers:
                # Without lingering, close(2) sends RST (socket(7)).
                its_socket = writer.get_extra_info("socket")
                if its_socket.fileno() != -1:
                    its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOT_AT_ALL)
                writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        writers = self._connections[task] = [writer]
        try:
            await self._passing.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(back)
            async with asyncio.TaskGroup() as group:
                for source, sink, rewrites in ((reader, back, {}), (there, writer, self.rewrites)):
                    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES)
                    group.create_task(self._read(source, pieces))
                    group.create_task(self._write(pieces, sink, rewrites))
        except* OSError:
            pass  # either side has ended: so does the other
        except* asyncio.CancelledError:
            pass  # by `close`
        finally:
            del self._connections[task]
            for each in writers:
                with suppress(OSError):
                    each.close()

    async def _read(self, reader: asyncio.StreamReader, pieces: asyncio.Queue[tuple[float, bytes]]) -> None:
        clock = asyncio.get_running_loop().time
        while data := await reader.read(_CHUNK):
            await pieces.put((clock() + self.late, data))
        await pieces.put((clock() + self.late, b""))

    async def _write(
        self,
        pieces: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
        rewrites: Mapping[bytes, bytes],
    ) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due, data = await pieces.get()
            if (wait := due - clock()) > 0:
                await asyncio.sleep(wait)
            await self._passing.wait()
            if not data:
                raise ConnectionResetError
            for old, new in rewrites.items():
                data = data.replace(old, new)
            writer.write(data)
            await writer.drain()
