"""Sends one message and waits for the answer; the other may come online later.

python examples/ask.py ws://127.0.0.1:8080 me echo "hello there" me.pem

The last argument is the file where your key is kept; it is made when there is none. A name belongs to the key that had
it first: without a file the key is forgotten, and the next run needs another name.
"""

import asyncio
import sys

from aldis import Identity, NetworkStore


async def main(url: str, name: str, other: str, text: str, key: str | None = None) -> None:
    async with NetworkStore(Identity.load_or_create(key) if key else None) as store:
        await store.connect_to_signaling(url, name)
        await store.send(other, text)  # returns when it has arrived
        print(f"delivered to {other}, whose key is {store.state.peers[other].fingerprint}")
        answer = await anext(store.messages())
        print(f"{answer.sender}: {answer.content!r}")


asyncio.run(main(*sys.argv[1:]))
