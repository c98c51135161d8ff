"""Clients for the storm, in a process of their own: `python -m benchmarks.storm.clients URL FIRST COUNT WATCHES [CA]`.

They are `SignalingClient`s of the library with default settings, so their time-outs and backoff are what is measured.
Each watches the next `WATCHES` users. It says `ready` when all are registered, and answers each line with `done`. At
the line `again` it forgets what it has seen; `back` waits until all are registered again. At the end of its standard
input it says what it has seen, as JSON with times of the monotonic clock, which all processes share.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import time
from collections import Counter
from time import monotonic
from typing import Any, Final

import uvloop

from aldis.client.client import SignalingClient
from aldis.client.events import Disconnected, Registered, SignalingEvent
from aldis.identity.keys import Identity

AT_ONCE: Final = 50


class Crowd:
    """The clients of one process, and what they have seen since they were last told to forget."""

    def __init__(self, url: str, first: int, count: int, watches: int, ca: str | None) -> None:
        self._clients = [
            SignalingClient(url, f"storm-{first + number}", ca_file=ca, request_timeout=60.0) for number in range(count)
        ]
        self._first, self._watches = first, watches
        self._all_back = asyncio.Event()
        self.forget()
        for number, client in enumerate(self._clients):
            client.subscribe(lambda event, number=number: self._note(number, event))  # type: ignore[misc]

    def forget(self) -> None:
        """Begin anew."""
        self.back: dict[int, float] = {}
        self._cpu = time.process_time()
        self.tries: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()
        self._all_back.clear()

    def _note(self, number: int, event: SignalingEvent) -> None:
        match event:
            case Registered():
                self.back[number] = monotonic()
                if len(self.back) == len(self._clients):
                    self._all_back.set()
            case Disconnected(reason=reason, code=code):
                self.tries[number] += 1
                self.back.pop(number, None)
                self._all_back.clear()
                self.reasons[f"{code} {reason[:60]}"] += 1

    async def enter(self) -> None:
        """Register all."""
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(number: int, client: SignalingClient) -> None:
            async with slots:
                await client.connect()
                await client.register(Identity.generate())
                if self._watches:
                    here = self._first + number
                    await client.watch(*(f"storm-{here + step}" for step in range(1, self._watches + 1)))

        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(self._clients):
                group.create_task(one(number, client))
        self.forget()

    async def wait(self) -> None:
        """Return when all are back."""
        await self._all_back.wait()

    async def leave(self) -> None:
        """End all."""
        await asyncio.gather(*(client.close() for client in self._clients))

    def seen(self) -> dict[str, Any]:
        """What has been seen, for JSON."""
        return {
            "back": sorted(self.back.values()),
            "tries": [self.tries[number] for number in range(len(self._clients))],
            "reasons": self.reasons,
            "cpu": time.process_time() - self._cpu,
        }


async def obey(url: str, first: int, count: int, watches: int, ca: str | None) -> None:
    """Do as the lines say."""
    loop = asyncio.get_running_loop()
    crowd = Crowd(url, first, count, watches, ca)
    await crowd.enter()
    gc.collect()
    gc.freeze()
    print("ready", flush=True)
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        if line == "back":
            await crowd.wait()
        else:
            crowd.forget()
        print("done", flush=True)
    print(json.dumps(crowd.seen()), flush=True)
    await crowd.leave()


def main() -> None:
    """The command."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    url, first, count, watches, *ca = sys.argv[1:]
    uvloop.run(obey(url, int(first), int(count), int(watches), ca[0] if ca else None))


if __name__ == "__main__":
    main()
