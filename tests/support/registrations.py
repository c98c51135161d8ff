"""A registration by itself, at a server of its own process."""

from __future__ import annotations

from typing import Any

from aldis.identity.keys import Identity
from support.raw_websocket import RawClient
from support.server_process import ServerProcess


async def reply_to_register(server: ServerProcess, name: str, identity: Identity) -> dict[str, Any]:
    """Register once, and leave: what the server has answered."""
    async with await RawClient.connect(server.port) as client:
        reply = await client.register(name, identity)
        await client.leave()
    return reply


async def register(server: ServerProcess, name: str, identity: Identity) -> str:
    """What becomes of a registration: `registered`, or the code of the error."""
    reply = await reply_to_register(server, name, identity)
    return str(reply.get("code", reply["type"]))
