"""Servers of one cluster, in processes of their own, and their users."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from aldis.identity.keys import Identity
from support.patience import PATIENCE
from support.raw_websocket import RawClient, http_get
from support.server_process import ServerProcess

OFFER = {"type": "offer", "offer": {"type": "offer", "sdp": "v=0"}}


async def person(server: ServerProcess, name: str, identity: Identity | None = None) -> RawClient:
    client = await RawClient.connect(server.port)
    reply = await client.register(name, identity)
    assert reply.get("success"), reply
    return client


async def page(server: ServerProcess, path: str) -> tuple[int, str]:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    status, _, body = await http_get(server.admin_port, request)
    return status, body.decode()


async def metric(server: ServerProcess, name: str) -> float:
    _, text = await page(server, "/metrics")
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


async def until(server: ServerProcess, name: str, value: float) -> None:
    """Wait until a metric has this value."""
    async with asyncio.timeout(PATIENCE):
        while await metric(server, name) != value:
            pass


async def operator(server: ServerProcess, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """A request to the admin API."""
    token = (Path(server.settings["data"]) / "admin-token").read_text().strip()
    content = "" if body is None else json.dumps(body)
    fields = f"Host: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    request = f"{method} {path} HTTP/1.1\r\n{fields}Content-Length: {len(content)}\r\n\r\n{content}"
    status, _, answer = await http_get(server.admin_port, request.encode())
    assert status == 200, answer
    found: dict[str, Any] = json.loads(answer)
    return found
