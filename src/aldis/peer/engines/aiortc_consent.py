"""The consent checks of the aiortc engine (RFC 7675), which here also show that the other side is alive.

A check is a STUN request and its response, a sign of life for both sides. In aioice each side sends one every 4 to 6 s.
Here a side sends one only when nothing has come for `_QUIET` seconds, and at the latest after `_OWN` seconds, because
consent is the other side's response to our own check. Two sides with this code take turns. So the pauses are shorter
than the wait for a PING, and there are fewer checks than before.

Only messages that are authenticated by the session's password count: a request that aioice has accepted, and a response
to our own request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

from aioice import ice, stun

_QUIET: Final = 3.0  # seconds; PINGs are due after 3.75
# Seconds for which the other side may check first after our check.
_YIELD: Final = 0.3
_OWN: Final = 8.0  # seconds between checks of ours at most
# Checks in a row without a response, 2.5 s apart, until consent has expired: 30 s (RFC 7675 section 5.1). They count
# checks and not seconds: a machine that wakes up has received nothing for hours, and may still reach the other side.
_FAILURES: Final = 12
# Seconds. Checks are due at multiples of this, rounded down, so that one wake-up serves many connections.
_GRID: Final = 0.5


class Consent:
    """The checks of one agent. `keep` and `check_incoming` replace the agent's methods."""

    def __init__(self, agent: ice.Connection, alive: Callable[[], None]) -> None:
        """`alive` is called at each sign of life."""
        self._agent = agent
        self._alive = alive
        self._check_incoming = agent.check_incoming
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._checked_at = self._loop.time()
        self._yields = False

    def check_incoming(self, message: stun.Message, addr: tuple[str, int], protocol: ice.StunProtocol) -> None:
        """Replaces aioice's method, which gets every authentic request."""
        self._yields = False
        self._heard()
        self._check_incoming(message, addr, protocol)

    def _heard(self) -> None:
        self._heard_at = self._loop.time()
        self._alive()

    def _due_in(self) -> float:
        due = math.floor((self._heard_at + _QUIET) / _GRID) * _GRID + (_YIELD if self._yields else 0.0)
        # While nothing comes, as often as otherwise.
        due = max(due, self._checked_at + _QUIET - _GRID)
        return min(due, self._checked_at + _OWN) - self._loop.time()

    async def keep(self) -> None:
        """Replaces aioice's `query_consent`: check until consent has expired, then close the agent."""
        failures = 0
        while failures < _FAILURES:
            pause = self._due_in()
            if pause > 0:
                await asyncio.sleep(pause)
                continue  # input has come meanwhile, so the check may be later
            self._checked_at = self._loop.time()
            self._yields = True
            if await self._check():
                failures = 0
                self._heard()
            else:
                failures += 1
        self._agent._query_consent_task = None  # `close` would cancel it, and it is this task
        await self._agent.close()

    async def _check(self) -> bool:
        agent = self._agent
        assert agent.remote_password is not None  # aioice starts this after it has connected  # noqa: S101
        key = agent.remote_password.encode()
        for pair in list(agent._nominated.values()):  # only one, because there is one component
            request = agent.build_request(pair, nominate=False)
            try:
                await pair.protocol.request(request, pair.remote_addr, integrity_key=key, retransmissions=0)
            except stun.TransactionError:
                return False
        return True
