"""Calls that may come together in great number: they are made in order, and some of them in each turn of the loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from aldis.server.scheduler import SLICE

# Seconds of each turn of the event loop, for all calls of one kind.
SECONDS: Final = SLICE


class InTurn:
    """The calls of one kind. `fault` gets what one of them raises."""

    def __init__(self, fault: Callable[[Exception], None]) -> None:
        self._fault = fault
        # `_work` is due while there are any.
        self._calls: deque[Callable[[], object]] = deque()
        # `_grant` is due while there are any.
        self._turns: deque[asyncio.Future[None]] = deque()

    def __call__(self, call: Callable[[], object]) -> None:
        """Make a call when it is its turn."""
        self._calls.append(call)
        if len(self._calls) == 1:
            asyncio.get_running_loop().call_soon(self._work)

    async def turn(self) -> None:
        """Return when it is the turn of the caller, which is to do something at once: one in each turn of the loop."""
        turn = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        if len(self._turns) == 1:
            asyncio.get_running_loop().call_soon(self._grant)
        await turn

    def _grant(self) -> None:
        while self._turns and self._turns[0].done():  # given up
            self._turns.popleft()
        if self._turns:
            self._turns[0].set_result(None)
            self._turns.popleft()
        if self._turns:
            asyncio.get_running_loop().call_soon(self._grant)

    def close(self) -> None:
        """Forget the calls that are to come."""
        self._calls.clear()
        while self._turns:
            self._turns.pop().cancel()

    def _work(self) -> None:
        end = monotonic() + SECONDS
        while self._calls:
            try:
                self._calls[0]()
            except Exception as error:  # noqa: BLE001 - a bug: it is logged, and ends nothing else
                self._fault(error)
            if self._calls:
                self._calls.popleft()
            if self._calls and monotonic() >= end:
                asyncio.get_running_loop().call_soon(self._work)
                return
