"""A signaling server that lies: it speaks the protocol, believes nobody, and says what a test wants it to say.

Names are bound to nothing: whoever registers a name has it, so an attacker can be an ordinary store with a key of its
own. What goes from one user to another passes through `tamper`; what `discover` says comes from `keys`.
"""

from __future__ import annotations

import json
import re
import secrets
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

Message = dict[str, Any]

WEB = Path(__file__).parents[2] / "src" / "aldis" / "web"


def with_another_fingerprint(sdp: str) -> str:
    """A description with the fingerprint of another certificate."""
    # Another digit, whatever it is: a fixed one would be the true one now and then.
    return re.sub(r"(a=fingerprint:\S+ )(.)", lambda found: found[1] + ("1" if found[2] == "0" else "0"), sdp)


class EvilServer:
    """`tamper(message)` gets each relayed message, `from` and `to` filled in, and returns those to deliver instead."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, bytes] = {}
        self.relayed: list[Message] = []
        self.tamper: Callable[[Message], list[Message]] = lambda message: [message]
        self._users: dict[str, web.WebSocketResponse] = {}
        self._registered_keys: dict[str, str] = {}

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["aldis.v1"])
        await socket.prepare(request)
        name = ""
        async for frame in socket:
            if frame.type is WSMsgType.TEXT:
                name = await self._handle(socket, name, json.loads(frame.data))
        if self._users.get(name) is socket:
            del self._users[name]
        return socket

    async def _handle(self, socket: web.WebSocketResponse, name: str, message: Message) -> str:
        re = {"re": message["id"]} if "id" in message else {}
        match message["type"]:
            case "register":
                name = message["userId"]
                self._registered_keys[name] = message["publicKey"]
                nonce = b64encode(secrets.token_bytes(32)).decode()
                await socket.send_json({"type": "challenge", "nonce": nonce, **re})
            case "prove":
                self._users[name] = socket
                session = {"session": secrets.token_hex(8), "secret": secrets.token_hex(8), "resumed": False}
                await socket.send_json(
                    {"type": "registered", "success": True, "userId": name, "device": "main", **session, **re}
                )
            case "discover":
                await socket.send_json({"type": "discover-response", **self._presence(message["userId"]), **re})
            case "watch":
                for user_id in message["userIds"]:
                    await socket.send_json({"type": "presence", **self._presence(user_id)})
                if re:
                    await socket.send_json({"type": "ack", **re})
            case "ice-servers":
                await socket.send_json({"type": "ice-servers", "iceServers": [], "ttl": 3600, **re})
            case "offer" | "answer" | "ice-candidate" | "bye":
                if re:
                    await socket.send_json({"type": "ack", **re})
                sent = {key: value for key, value in message.items() if key != "id"} | {"from": name}
                sent["to"] = sent["to"].partition("/")[0]
                self.relayed.append(sent)
                for changed in self.tamper(sent):
                    await self.deliver(changed)
            case _:
                pass
        return name

    def _presence(self, user_id: str) -> Message:
        presence: Message = {"userId": user_id, "online": user_id in self._users}
        if user_id in self.keys:
            presence["publicKey"] = b64encode(self.keys[user_id]).decode()
        elif user_id in self._registered_keys:
            presence["publicKey"] = self._registered_keys[user_id]
        return presence

    async def deliver(self, message: Message) -> None:
        """Hand a message to whom it is addressed to."""
        socket = self._users.get(message["to"])
        if socket is not None and not socket.closed:
            await socket.send_json(message)

    async def hang_up(self, user_id: str, other: str) -> None:
        """Tell one user that another one gives up whatever was offered so far."""
        for message in [message for message in self.relayed if message["type"] == "offer"]:
            await self.deliver({"type": "bye", "from": user_id, "to": other, "connection": message["connection"]})


async def _page(_: web.Request) -> web.Response:
    """For a browser: an empty page of this origin, and the SDK as it is."""
    return web.Response(text="<!doctype html><link rel=icon href=data:,>", content_type="text/html")


async def _sdk(_: web.Request) -> web.FileResponse:
    return web.FileResponse(WEB / "aldis.js")


@asynccontextmanager
async def evil_server() -> AsyncIterator[EvilServer]:
    """A lying server on a free port of this machine."""
    server = EvilServer()
    application = web.Application()
    application.router.add_get("/", server.serve)
    application.router.add_get("/page", _page)
    application.router.add_get("/aldis.js", _sdk)
    application.router.add_static("/sdk", WEB / "sdk")
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"ws://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
