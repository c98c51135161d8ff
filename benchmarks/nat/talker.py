"""One user of the NAT matrix, as a process: `python -m benchmarks.nat.talker NAME PEER URL PATH`.

Standard output has one JSON list a line: `["registered"]`, `["sent", seconds]` once the peer has acknowledged the first
message, `["path", path, seconds]` whenever the path to the peer is another one, `["got", text]`. Standard input takes
`send`, and the seconds count from it; the end of input ends the program.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from aldis.store.state import StoreState
from aldis.store.store import NetworkStore


def say(*words: object) -> None:
    print(json.dumps(words), flush=True)


async def main(name: str, peer: str, url: str, path: str) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    began, known = time.monotonic(), None

    def changed(state: StoreState) -> None:
        nonlocal known
        view = state.peers.get(peer)
        if view is not None and view.path not in (known, None):
            known = view.path
            say("path", known, time.monotonic() - began)

    async with NetworkStore(path=path) as store:
        store.on_message(lambda message: say("got", message.content))
        store.subscribe(changed)
        await store.connect_to_signaling(url, name)
        say("registered")
        while await reader.readline():
            began = time.monotonic()
            await store.send(peer, f"hello from {name}")
            say("sent", time.monotonic() - began)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
