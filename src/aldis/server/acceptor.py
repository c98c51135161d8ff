"""The connections of the ports beside the public one: one is accepted in each turn of the event loop.

The servers of asyncio and uvloop accept all that wait in one turn. A crowd of them would keep everybody else waiting.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

# Seconds to wait before the next try when no connection can be accepted: mostly too many files are open.
ACCEPT_AGAIN: Final = 0.2


class Acceptor:
    """Accepts connections, and gives each a protocol. `fault` gets what is a bug."""

    def __init__(self, protocol: Callable[[], asyncio.Protocol], fault: Callable[[Exception], None]) -> None:
        self._protocol = protocol
        self._fault = fault
        self._listening: list[socket.socket] = []
        self._resting: dict[socket.socket, asyncio.TimerHandle] = {}
        self._opening: set[asyncio.Task[Any]] = set()

    @property
    def port(self) -> int | None:
        """The port of the first socket; None without one."""
        return int(self._listening[0].getsockname()[1]) if self._listening else None

    def add(self, listening: socket.socket) -> None:
        """Accept from a socket that listens, and close it in the end."""
        listening.setblocking(False)
        self._listening.append(listening)
        self._accept_from(listening)

    def close(self) -> None:
        """Accept nothing more. Connections stay."""
        loop = asyncio.get_running_loop()
        listening, self._listening = self._listening, []
        for each in listening:
            loop.remove_reader(each)
            if (timer := self._resting.pop(each, None)) is not None:
                timer.cancel()
            each.close()

    def _accept_from(self, listening: socket.socket) -> None:
        self._resting.pop(listening, None)
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            accepted, _ = listening.accept()
        except (BlockingIOError, ConnectionError):  # another process was faster; the client is gone already
            return
        except OSError:
            loop.remove_reader(listening)
            self._resting[listening] = loop.call_later(ACCEPT_AGAIN, self._accept_from, listening)
            return
        accepted.setblocking(False)
        task = asyncio.create_task(self._open(accepted))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, accepted: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, accepted)
        except OSError:
            accepted.close()
        except Exception as error:  # noqa: BLE001 - a bug: it is logged, and costs this connection only
            accepted.close()
            self._fault(error)
