"""One user of the recovery benchmark, as a process: sends a number every `INTERVAL`, and prints what arrives.

Standard input takes words, one a line: `connect`, `talk` (start to send), `hush` (send no more). Standard output has
one JSON list a line: `["registered"]`, `["connected"]`, `["got", number, time]`, `["sent", count]`. Times are
`time.time()`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Final

from aldis.store.store import NetworkStore

INTERVAL: Final = 0.1


def say(*words: object) -> None:
    print(json.dumps(words), flush=True)


async def talk(store: NetworkStore, peer: str, hushed: asyncio.Event) -> None:
    number = 0
    while not hushed.is_set():
        store.send(peer, str(number))
        number += 1
        await asyncio.sleep(INTERVAL)
    say("sent", number)


def make_store(engine: str, path: str) -> NetworkStore:
    """A store that uses these paths. With `direct`, what is measured is how soon the direct path or TURN is back."""
    try:
        return NetworkStore(engine=engine, path=path)
    except TypeError:  # a checkout from before there was another path
        return NetworkStore(engine=engine)


async def main(name: str, peer: str, engine: str, url: str, path: str) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    hushed = asyncio.Event()
    async with make_store(engine, path) as store:
        store.on_message(lambda message: say("got", int(str(message.content)), time.time()))
        await store.connect_to_signaling(url, name)
        say("registered")
        talking: asyncio.Task[None] | None = None
        while line := (await reader.readline()).decode().strip():
            match line:
                case "connect":
                    await store.connect_to_peer(peer)
                    say("connected")
                case "talk":
                    talking = asyncio.create_task(talk(store, peer, hushed))
                case "hush":
                    hushed.set()
        if talking is not None:
            await talking


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
