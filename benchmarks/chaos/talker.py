"""One user of the chaos run: `python -m benchmarks.chaos.talker NAME PEER URL FOLDER COUNT RATE`.

It sends the numbers from 1 to `COUNT`, `RATE` a second, and writes down what happens, so that it may be killed at any
moment and started again:

* `FOLDER/sent`: `try N` before a number is sent, `ok N` when it is accepted (the journal has it). After a restart a
  number that was tried and not accepted is not sent again: whether it arrives is open.
* `FOLDER/got`: `N TIME ID new` for each number that the application takes. A message that was in its hands when the
  program was killed comes again, with `again` for `new`. An application that wants each once knows it by its id.

Each line is written at once. `FOLDER/journal`, `FOLDER/key` and `FOLDER/pins` are the store's.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from aldis.errors import QueueFull, SignalingError
from aldis.identity.keys import Identity
from aldis.identity.pins import FilePins
from aldis.store.store import NetworkStore


class Log:
    """A file to which lines are added, each whole."""

    def __init__(self, path: Path) -> None:
        self.lines = path.read_text().splitlines() if path.exists() else []
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())


async def send_all(store: NetworkStore, peer: str, log: Log, count: int, rate: float) -> None:
    tried = max((int(line.split()[1]) for line in log.lines), default=0)
    for number in range(tried + 1, count + 1):
        log.add(f"try {number}")
        while True:
            try:
                delivery = store.send(peer, number)
                break
            except QueueFull:
                await asyncio.sleep(0.1)
        await delivery.when_stored()
        log.add(f"ok {number}")
        await asyncio.sleep(1 / rate)


async def take_all(store: NetworkStore, folder: Path) -> None:
    got = Log(folder / "got")
    async for message in store.messages():
        kind = "again" if message.redelivered else "new"
        got.add(f"{message.content!r} {time.time():.3f} {message.id} {kind}")


async def main(name: str, peer: str, url: str, place: str, count: str, rate: str) -> None:
    folder = Path(place)
    identity = Identity.load_or_create(folder / "key")
    async with NetworkStore(identity, pins=FilePins(folder / "pins"), journal=folder / "journal") as store:
        work = [
            asyncio.create_task(take_all(store, folder)),
            asyncio.create_task(send_all(store, peer, Log(folder / "sent"), int(count), float(rate))),
        ]
        while True:
            try:
                await store.connect_to_signaling(url, name)
                break
            except SignalingError:
                await asyncio.sleep(0.5)
        await asyncio.gather(*work)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
