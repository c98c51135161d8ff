"""Asks TURN servers that run by themselves for a relay, again and again: the setting `turn_check`.

It asks as a client would, with credentials made with `turn_secret`, and says in metrics and in the log what came of it.
It changes nothing else: whether clients reach a TURN server cannot be told from here, so they are told of it as before.
The TURN server that this server runs is watched by `turn_server`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from aldis.protocol.ice import read_url
from aldis.server.logs import Log
from aldis.server.turn_check import RelayAnswer, ask_for_relay, credentials

# As often as our own TURN server is asked whether it answers. A relay takes a port for some milliseconds.
CHECK_SECONDS: Final = 20.0
# In the name of nobody: `/` is in no user's name.
_OWN_USER: Final = "/check"


class TurnWatch:
    """The TURN servers at these URLs. `secret` gives the one that they know now, which a reload may change."""

    def __init__(self, urls: Sequence[str], secret: Callable[[], str], log: Log) -> None:
        self.found: dict[str, RelayAnswer] = {}
        """What came of the last check, by host and port. Empty before the first one."""
        self._addresses = sorted({read_url(url).address for url in urls})
        self._secret = secret
        self._log = log
        self._checking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Check now, and from then on. Call `close` afterwards."""
        if self._addresses:
            self._checking = asyncio.create_task(self._check_on(), name="aldis-turn-check")

    async def close(self) -> None:
        """End it."""
        if self._checking is not None:
            self._checking.cancel()
            with suppress(asyncio.CancelledError):
                await self._checking

    async def check(self) -> None:
        """Ask each of them once."""
        await asyncio.gather(*(self._check(host, port) for host, port in self._addresses))

    async def _check_on(self) -> None:
        while True:
            await self.check()
            await asyncio.sleep(CHECK_SECONDS)

    async def _check(self, host: str, port: int) -> None:
        name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        username, password = credentials(self._secret(), _OWN_USER, int(time.time()) + 60)
        before = self.found.get(name)
        self.found[name] = now = await ask_for_relay(host, port, username, password)
        if now.problem and (before is None or not before.problem):
            self._log.error("a TURN server does not relay", server=name, reason=now.problem)
        elif before is not None and before.problem and not now.problem:
            self._log.info("a TURN server relays again", server=name)
