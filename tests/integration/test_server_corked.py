"""Many small messages for one client go together: over TLS, few records have them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.attack.wire import Target, Wire, text

from aldis.identity.keys import Identity
from aldis.server.app import SignalingServer
from aldis.server.corked_frames import MOST
from support.certificates import make_certificates
from support.patience import PATIENCE
from support.settings import UNLIMITED, config


class Records:
    """Counts the records of TLS in what comes (RFC 8446 section 5.1)."""

    def __init__(self, wire: Wire) -> None:
        assert wire.tls is not None
        self.count = 0
        self._left = b""
        self._open = wire.tls.open
        wire.tls.open = self._look  # type: ignore[method-assign]

    def _look(self, came: bytes) -> bytes:
        self._left += came
        while len(self._left) >= 5 and len(self._left) >= (size := 5 + int.from_bytes(self._left[3:5], "big")):
            self.count += 1
            self._left = self._left[size:]
        return self._open(came)


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    files = make_certificates(tmp_path)
    settings: dict[str, Any] = {"tls_cert": str(files.cert), "tls_key": str(files.key), **UNLIMITED}
    async with SignalingServer(config(**settings)) as server:
        yield Target(server.port, tls=True)


async def receive(wire: Wire, kind: str, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(PATIENCE):
        messages = [await wire.receive() for _ in range(count)]
    assert {message["type"] for message in messages} == {kind}
    return messages


async def test_the_presence_of_a_thousand_names_comes_in_few_records_and_before_the_acknowledgement(
    target: Target,
) -> None:
    wire = await Wire.register(target, "alice", Identity.generate())
    try:
        records = Records(wire)
        names = [f"nobody-{number}" for number in range(1000)]
        await wire.send(text({"type": "watch", "userIds": names, "id": "w"}))
        told = await receive(wire, "presence", 1000)
        assert [message["userId"] for message in told] == names
        assert (await receive(wire, "ack", 1))[0]["re"] == "w"
        # A turn tells 64 of them.
        assert records.count <= 20
        # What follows is sent by itself again.
        await wire.send(text({"type": "ping"}))
        await receive(wire, "pong", 1)
    finally:
        wire.abort()


@pytest.mark.parametrize(("count", "size", "most"), [(50, 10, 3), (3, MOST, 8)])
async def test_what_a_client_has_missed_comes_together_whole_and_in_order(
    target: Target, count: int, size: int, most: int
) -> None:
    alice, bob = Identity.generate(), Identity.generate()
    wire = await Wire.open(target)
    sender = await Wire.register(target, "bob", bob)
    try:
        first = await wire.enter("alice", alice)
        wire.abort()
        for number in range(count):
            body = f"{number:04} " + "x" * size
            await sender.send(text({"type": "bye", "to": "alice", "connection": "c", "reason": body}))
        await sender.send(text({"type": "ping"}))
        await receive(sender, "pong", 1)
        wire = await Wire.open(target)
        await wire.prove("alice", alice, resume={"session": first["session"], "secret": first["secret"], "received": 0})
        records = Records(wire)
        again = (await receive(wire, "registered", 1))[0]
        assert again["resumed"]
        missed = await receive(wire, "bye", count)
        assert [message["reason"][:4] for message in missed] == [f"{number:04}" for number in range(count)]
        assert all(len(message["reason"]) == 5 + size for message in missed)
        assert records.count <= most
    finally:
        wire.abort()
        sender.abort()
