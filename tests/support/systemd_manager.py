"""The end of NOTIFY_SOCKET that is systemd's."""

from __future__ import annotations

import asyncio
import select
import socket

from support.patience import PATIENCE


class Manager:
    """`environ` is for the service; `await told()` is what it says next."""

    def __init__(self, address: str) -> None:
        self.environ = {"NOTIFY_SOCKET": address}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.setblocking(False)

    async def told(self) -> dict[str, str]:
        """The next message that is no sign of life."""
        while (message := await self.next()) == {"WATCHDOG": "1"}:
            pass
        return message

    def hears_nothing(self) -> None:
        """Return after half a second of silence."""
        while select.select([self._socket], [], [], 0.5)[0]:
            self._socket.recv(4096)

    async def next(self) -> dict[str, str]:
        async with asyncio.timeout(PATIENCE):
            data = await asyncio.get_running_loop().sock_recv(self._socket, 4096)
        return dict(line.split("=", 1) for line in data.decode().split("\n"))

    def close(self) -> None:
        self._socket.close()
