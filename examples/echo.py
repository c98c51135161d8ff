"""Answers every message with the same message. Run it, then examples/ask.py in another shell:

python examples/echo.py ws://127.0.0.1:8080 echo echo.pem

A name belongs to the key that used it first. Without a key file the key is forgotten, and the next run needs another
name.
"""

import argparse
import asyncio
import sys
from contextlib import suppress

from aldis import AldisError, Identity, NetworkStore


async def main(url: str, name: str, key: str | None) -> None:
    async with NetworkStore(Identity.load_or_create(key) if key else None) as store:
        await store.connect_to_signaling(url, name)
        print(f"{name} is here, with the key {store.identity.fingerprint}", flush=True)
        async for message in store.messages():
            print(f"{message.sender}: {message.content!r}", flush=True)
            store.send(message.sender, message.content)


parser = argparse.ArgumentParser(description="Answer every message with the same message.")
parser.add_argument("url", help="the server, such as ws://127.0.0.1:8080")
parser.add_argument("name", help="our name there")
parser.add_argument("key", nargs="?", help="the file that keeps our key; made when it does not exist")
arguments = parser.parse_args()
try:
    with suppress(KeyboardInterrupt):
        asyncio.run(main(arguments.url, arguments.name, arguments.key))
except AldisError as error:
    sys.exit(str(error))
