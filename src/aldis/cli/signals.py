"""Ends a command by a signal: once in order, twice at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from contextlib import suppress


async def until_signal(work: Coroutine[object, object, int]) -> int:
    """Run `work` until it ends by itself or by a signal, and return the exit code."""
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(work)
    stopped_by: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        if stopped_by:
            os._exit(128 + number)  # the second signal: end at once
        stopped_by.append(number)
        working.cancel()

    with suppress(NotImplementedError, AttributeError):  # Windows: asyncio.run cancels us on Ctrl-C, which is enough
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, stop, number)
    await asyncio.wait([working])
    if stopped_by and working.cancelled():
        return 128 + stopped_by[0]
    return working.result()
