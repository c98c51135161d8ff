"""Sends one message and waits for the answer. The other program may come online later.

python examples/ask.py ws://127.0.0.1:8080 me echo "hello there" me.pem

A name belongs to the key that used it first. Without a key file the key is forgotten, and the next run needs another
name.
"""

import argparse
import asyncio
import sys

from aldis import AldisError, Identity, NetworkStore


async def main(url: str, name: str, other: str, text: str, key: str | None) -> None:
    async with NetworkStore(Identity.load_or_create(key) if key else None) as store:
        await store.connect_to_signaling(url, name)
        await store.send(other, text)  # returns when it has arrived
        print(f"delivered to {other}, whose key is {store.state.peers[other].fingerprint}")
        answer = await anext(store.messages())
        print(f"{answer.sender}:", answer.content)


parser = argparse.ArgumentParser(description="Send one message and print the answer.")
parser.add_argument("url", help="the server, such as ws://127.0.0.1:8080")
parser.add_argument("name", help="our name there")
parser.add_argument("other", help="the name of the other program")
parser.add_argument("text", help="what to say")
parser.add_argument("key", nargs="?", help="the file that keeps our key; made when it does not exist")
arguments = parser.parse_args()
try:
    asyncio.run(main(**vars(arguments)))
except AldisError as error:
    sys.exit(str(error))
except KeyboardInterrupt:
    sys.exit(130)
