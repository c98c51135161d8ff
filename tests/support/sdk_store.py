"""A store of the browser SDK in a process of Node, for tests that have both languages as peers. It only has the relay.

It has the part of `NetworkStore` that such tests need. Everything in it is real: the WebSocket, the keys, the timers.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from asyncio.subprocess import PIPE, Process
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aldis.identity.keys import Identity
from aldis.peer.connection import PeerTiming
from aldis.store.state import Message

_PROGRAM = Path(__file__).parents[2] / "sdk" / "test" / "support" / "store_process.js"
_NODE = ("node", "--experimental-websocket", "--disable-warning=ExperimentalWarning")


class SdkError(Exception):
    """A call has failed; `name` is the SDK's error class."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


class SdkStore:
    """See the module."""

    def __init__(self, process: Process, identity: Identity) -> None:
        self.identity = identity
        self._process = process
        self._numbers = itertools.count(1)
        self._calls: dict[int, asyncio.Future[None]] = {}
        self._arrived: asyncio.Queue[Message] = asyncio.Queue()

    async def connect_to_signaling(self, url: str, user_id: str, *, device: str = "main") -> None:
        await self._call("connectToSignaling", url, user_id, {"device": device})

    def send(self, to: str, content: Any) -> asyncio.Future[None]:
        """Send a text or a value of JSON; awaited, it returns when that has arrived."""
        return self._call("send", to, content)

    async def connect_to_peer(self, address: str, *, timeout: float) -> None:  # noqa: ASYNC109 - as `NetworkStore` has it
        await self._call("connectToPeer", address, {"timeout": timeout})

    async def disconnect_from_peer(self, address: str) -> None:
        await self._call("disconnectFromPeer", address)

    async def accept_key(self, user_id: str, public_key: bytes) -> None:
        await self._call("acceptKey", user_id, b64encode(public_key).decode())

    async def messages(self) -> AsyncIterator[Message]:
        while True:
            yield await self._arrived.get()

    async def end(self) -> None:
        """Disconnect, and end the process."""
        await self._call("end")

    def _call(self, name: str, *args: Any) -> asyncio.Future[None]:
        number = next(self._numbers)
        done = self._calls[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "call": name, "args": args}).encode() + b"\n")
        return done

    async def listen(self) -> None:
        """Take in what the process says, until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if "message" in said:
                self._arrived.put_nowait(Message(**said["message"]))
                continue
            done = self._calls.pop(said["id"])
            if "error" not in said:
                done.set_result(None)
            else:
                done.set_exception(SdkError(**said["error"]))
                done.exception()  # not every delivery is awaited


@asynccontextmanager
async def sdk_store(timing: PeerTiming, identity: Identity) -> AsyncIterator[SdkStore]:
    """One that is not connected."""
    with TemporaryDirectory() as folder:
        key = Path(folder) / "key.pem"
        identity.save(key)
        program = (*_NODE, str(_PROGRAM), json.dumps(asdict(timing)), str(key))
        process = await asyncio.create_subprocess_exec(*program, stdin=PIPE, stdout=PIPE)
        store = SdkStore(process, identity)
        listening = asyncio.create_task(store.listen())
        try:
            yield store
            await store.end()
        finally:
            listening.cancel()
            if process.returncode is None:
                process.kill()
            await process.wait()
