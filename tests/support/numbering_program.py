"""A program with a journal that sends numbers to another one, and writes down what it gets, for tests that kill it.

In its folder it keeps the `journal`, and three lists. A line is written before the program does anything else, so the
lists survive `kill -9`: `tried` (numbers that it was about to send), `accepted` (numbers that the journal has), and
`got` (numbers that have come, with a `!` behind those that say that they were redelivered).
It says `ready`, `got` for each number, and `drained` when all that it had to send has arrived.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from pathlib import Path

from aldis.store.messages.delivery import Delivery

MOST_WAITING = 50


class Lines:
    """A list on disk."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())


def read(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


async def _main(url: str, name: str, other: str, folder: Path, count: int) -> None:
    from aldis.identity.keys import Identity
    from aldis.identity.pins import FilePins
    from support.stores import new_store

    tried, accepted, got = (Lines(folder / each) for each in ("tried", "accepted", "got"))
    identity = Identity.load_or_create(folder / "key.pem")
    store = new_store(identity=identity, pins=FilePins(folder / "pins"), journal=folder / "journal")
    await store.connect_to_signaling(url, name)

    async def take() -> None:
        async for message in store.messages():
            got.add(f"{message.content!r}{'!' * message.redelivered}")
            print("got", flush=True)

    taking = asyncio.create_task(take())
    print("ready", flush=True)
    first = len(read(folder / "tried"))
    waiting: deque[Delivery] = deque()
    for number in range(first, count):
        tried.add(str(number))
        waiting.append(store.send(other, number))
        await waiting[-1].when_stored()
        accepted.add(str(number))
        if len(waiting) > MOST_WAITING:
            await waiting.popleft()
    await store.drain()
    print("drained", flush=True)
    await taking


if __name__ == "__main__":
    url, name, other, folder, count = sys.argv[1:]
    asyncio.run(_main(url, name, other, Path(folder), int(count)))
