"""A signaling server that lies: it speaks the protocol, believes nobody, and says what a test wants it to say.

Names are bound to nothing: whoever registers a name has it, so an attacker can be an ordinary store with a key of its
own. What goes from one user to another passes through `tamper`; what `discover` says comes from `keys`.
"""

from __future__ import annotations

import asyncio
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


def _address(user_id: str, device: str) -> str:
    """As the server writes it in `from`."""
    return user_id if device in ("", "main") else f"{user_id}/{device}"


class EvilServer:
    """`tamper(message)` gets each relayed message, `from` and `to` filled in, and returns those to deliver instead.

    With `relay` it says that it relays sealed messages, and shows `seal_keys` in place of the true ones. Both are by
    address, without the device if that is `main`."""

    def __init__(self, *, relay: bool = False) -> None:
        self.url = ""
        self.relay = relay
        self.seal_keys: dict[str, Message] = {}
        self.registered_seal_keys: dict[str, Message] = {}
        self.keys: dict[str, bytes] = {}
        self.relayed: list[Message] = []
        self.tamper: Callable[[Message], list[Message]] = lambda message: [message]
        # For how many seconds a sealed message is refused; 0 when it is taken.
        self.refuse: Callable[[Message], float] = lambda message: 0
        # While it is clear, nobody is told of ICE servers, so no store is ready.
        self.ready = asyncio.Event()
        self.ready.set()
        self._users: dict[str, web.WebSocketResponse] = {}  # by address, the newest last
        self._registered_keys: dict[str, str] = {}
        self._came = asyncio.Event()

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["aldis.v1"])
        await socket.prepare(request)
        name = ""
        async for frame in socket:
            if frame.type is WSMsgType.TEXT:
                name = await self._handle(socket, name, json.loads(frame.data))
        if self._users.get(name) is socket:  # not one that has registered anew
            del self._users[name]
        return socket

    async def _handle(self, socket: web.WebSocketResponse, name: str, message: Message) -> str:
        re = {"re": message["id"]} if "id" in message else {}
        match message["type"]:
            case "register":
                name = _address(message["userId"], message.get("device", "main"))
                self._registered_keys[message["userId"]] = message["publicKey"]
                self.registered_seal_keys[name] = message.get("sealKey", {})
                nonce = b64encode(secrets.token_bytes(32)).decode()
                await socket.send_json({"type": "challenge", "nonce": nonce, **re})
            case "prove":
                self._users.pop(name, None)
                self._users[name] = socket
                self._came.set()
                session = {"session": secrets.token_hex(8), "secret": secrets.token_hex(8), "resumed": False}
                limits = {"maxMessageBytes": 65536, "maxWatches": 1000, "resumeWindow": 30.0}
                relay: Message = {"relay": True, "maxRelayFileBytes": 2**20}
                told: Message = {"limits": {**limits, **relay}} if self.relay else {}
                user_id, _, device = name.partition("/")
                who = {"userId": user_id, "device": device or "main"}
                await socket.send_json({"type": "registered", "success": True, **who, **session, **told, **re})
            case "seal-key":
                self.registered_seal_keys[name] = message["sealKey"]
                await socket.send_json({"type": "ack", **re})
            case "discover":
                await socket.send_json({"type": "discover-response", **self.presence(message["userId"]), **re})
            case "watch":
                for user_id in message["userIds"]:
                    await socket.send_json({"type": "presence", **self.presence(user_id)})
                if re:
                    await socket.send_json({"type": "ack", **re})
            case "ice-servers":
                await self.ready.wait()
                await socket.send_json({"type": "ice-servers", "iceServers": [], "ttl": 3600, **re})
            case "relay" if pause := self.refuse(message):
                limited = {"type": "error", "code": "rate-limited", "message": "too much", "temporary": True}
                await socket.send_json({**limited, "retryAfter": pause, **re})
            case "relay" if _address(*message["to"].partition("/")[::2]) not in self._users:
                absent = {"type": "error", "code": "not-online", "message": "not online", "temporary": False}
                await socket.send_json({**absent, **re})
            case "offer" | "answer" | "ice-candidate" | "bye" | "relay":
                if re:
                    await socket.send_json({"type": "ack", **re})
                sent = {key: value for key, value in message.items() if key != "id"} | {"from": name}
                sent["to"] = _address(*sent["to"].partition("/")[::2])
                self.relayed.append(sent)
                for changed in self.tamper(sent):
                    await self.deliver(changed)
            case _:
                pass
        return name

    def presence(self, user_id: str) -> Message:
        """What it says of a user."""
        found = [name for name in reversed(self._users) if name.partition("/")[0] == user_id]
        presence: Message = {"userId": user_id, "online": bool(found)}
        if self.relay and found:
            presence["devices"] = [self._device(name) for name in found]
        if user_id in self.keys:
            presence["publicKey"] = b64encode(self.keys[user_id]).decode()
        elif user_id in self._registered_keys:
            presence["publicKey"] = self._registered_keys[user_id]
        return presence

    def _device(self, address: str) -> Message:
        seal_key = self.seal_keys.get(address) or self.registered_seal_keys.get(address)
        device: Message = {"device": address.partition("/")[2] or "main"}
        return {**device, "sealKey": seal_key} if seal_key else device

    async def has(self, address: str) -> None:
        """Wait until a device is registered."""
        while address not in self._users:
            self._came.clear()
            await self._came.wait()

    async def deliver(self, message: Message) -> None:
        """Hand a message to whom it is addressed to."""
        socket = self._users.get(message["to"])  # a bare name is the device `main` here
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
async def evil_server(*, relay: bool = False) -> AsyncIterator[EvilServer]:
    """A lying server on a free port of this machine."""
    server = EvilServer(relay=relay)
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
