"""Sends one message and waits for the answer; the other may come online later.

python examples/ask.py ws://127.0.0.1:8080 me echo "hello there"
"""

import asyncio
import sys

from aldis import NetworkStore


async def main(url: str, name: str, other: str, text: str) -> None:
    async with NetworkStore() as store:
        await store.connect_to_signaling(url, name)
        delivery = await store.send(other, text)
        await delivery
        print(f"delivered to {other}, whose key is {store.state.peers[other].fingerprint}")
        answer = await anext(store.messages())
        print(f"{answer.sender}: {answer.content}")


asyncio.run(main(*sys.argv[1:]))
