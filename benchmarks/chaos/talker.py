"""One user of the chaos run: `python -m benchmarks.chaos.talker NAME PEER URL FOLDER COUNT RATE`.

It sends the numbers from 1 to `COUNT`, `RATE` a second, `BURST` at a time, and writes down what happens, so that it may
be killed at any moment and started again:

* `FOLDER/sent`: `try N` before a number is sent, `ok N` when it is accepted (the journal has it), `no N TIME ERROR`
  when it is refused, with the name of the journal's error. A refused number is not sent again. Nor is, after a restart,
  one that was tried, and neither accepted nor refused: whether it arrives is open.
* `FOLDER/got`: `N TIME ID new` for each number that the application takes. A message that was in its hands when the
  program was killed comes again, with `again` for `new`. An application that wants each once knows it by its id.

Each line is written at once. `FOLDER/disk` has the store's files, and may be full or fail.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Final

from aldis.errors import DeliveryFailed, JournalError, QueueFull, SignalingError
from aldis.identity.keys import Identity
from aldis.identity.pins import FilePins
from aldis.store.store import NetworkStore

BURST: Final = 5  # messages that are sent at once: the journal writes some of them together


class Log:
    """A file to which lines are added, each whole."""

    def __init__(self, path: Path) -> None:
        self.lines = path.read_text().splitlines() if path.exists() else []
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())


async def send_all(store: NetworkStore, peer: str, log: Log, count: int, rate: float) -> None:
    tried = max((int(line.split()[1]) for line in log.lines), default=0)
    for first in range(tried + 1, count + 1, BURST):
        numbers = range(first, min(first + BURST, count + 1))
        await asyncio.gather(*[send(store, peer, log, number) for number in numbers])
        await asyncio.sleep(len(numbers) / rate)


async def send(store: NetworkStore, peer: str, log: Log, number: int) -> None:
    log.add(f"try {number}")
    while True:
        try:
            delivery = store.send(peer, number)
            break
        except QueueFull:
            await asyncio.sleep(0.1)
    try:
        await delivery.when_stored()
        log.add(f"ok {number}")
    except DeliveryFailed:
        log.add(f"no {number} {time.time():.3f} {type(store.state.journal_error).__name__}")


async def take_all(store: NetworkStore, folder: Path) -> None:
    got = Log(folder / "got")
    async for message in store.messages():
        kind = "again" if message.redelivered else "new"
        got.add(f"{message.content!r} {time.time():.3f} {message.id} {kind}")


async def opened(folder: Path) -> NetworkStore:
    """The store, when its journal can be opened."""
    identity = Identity.load_or_create(folder / "key")
    while True:
        try:
            return NetworkStore(identity, pins=FilePins(folder / "pins"), journal=folder / "journal")
        except JournalError as error:
            print(repr(error), flush=True)
            await asyncio.sleep(0.5)


async def main(name: str, peer: str, url: str, place: str, count: str, rate: str) -> None:
    folder = Path(place)
    async with await opened(folder / "disk") as store:
        work = [
            asyncio.create_task(take_all(store, folder)),
            asyncio.create_task(send_all(store, peer, Log(folder / "sent"), int(count), float(rate))),
        ]
        while True:
            try:
                await store.connect_to_signaling(url, name)
                break
            except (JournalError, SignalingError) as error:
                print(repr(error), flush=True)
                await asyncio.sleep(0.5)
        await asyncio.gather(*work)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
