"""Answers every message with the message. Run it, then examples/ask.py in another shell.

python examples/echo.py ws://127.0.0.1:8080 echo
"""

import asyncio
import sys
from contextlib import suppress

from aldis import NetworkStore


async def main(url: str, name: str) -> None:
    async with NetworkStore() as store:
        await store.connect_to_signaling(url, name)
        print(f"{name} is here, with the key {store.identity.fingerprint}", flush=True)
        async for message in store.messages():
            print(f"{message.sender}: {message.content!r}", flush=True)
            await store.send(message.sender, message.content)


with suppress(KeyboardInterrupt):
    asyncio.run(main(*sys.argv[1:]))
