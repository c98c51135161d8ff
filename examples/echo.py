"""Answers every message with the message. Run it, then examples/ask.py in another shell.

python examples/echo.py ws://127.0.0.1:8080 echo echo.pem

The last argument is the file where its key is kept; it is made when there is none. A name belongs to the key that had
it first: without a file the key is forgotten, and the next run needs another name.
"""

import asyncio
import sys
from contextlib import suppress

from aldis import Identity, NetworkStore


async def main(url: str, name: str, key: str | None = None) -> None:
    async with NetworkStore(Identity.load_or_create(key) if key else None) as store:
        await store.connect_to_signaling(url, name)
        print(f"{name} is here, with the key {store.identity.fingerprint}", flush=True)
        async for message in store.messages():
            print(f"{message.sender}: {message.content!r}", flush=True)
            store.send(message.sender, message.content)


with suppress(KeyboardInterrupt):
    asyncio.run(main(*sys.argv[1:]))
