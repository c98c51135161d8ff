"""Changes of this machine's addresses, from the kernel itself; the tests run in a network namespace of their own."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aldis.client.client import SignalingClient
from aldis.client.events import Connected, Disconnected
from aldis.client.network import DELADDR, NEWADDR, NetworkWatch, changes
from aldis.identity.keys import Identity
from support.patience import PATIENCE
from support.scripted_server import ScriptedServer
from support.server_process import ServerProcess

ADDRESS, OURS = "10.77.9.1", "10.77.9.2"  # tests may run beside each other
PERMANENT, TENTATIVE = 0x80, 0xC0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def attribute(kind: int, data: bytes) -> bytes:
    size = 4 + len(data)
    return struct.pack("=HH", size, kind) + data + bytes(-size % 4)


def told(kind: int, address: str, *, flags: int = PERMANENT, scope: int = 0, wide: int | None = None) -> bytes:
    """A message of rtnetlink, as the kernel writes it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    packed = socket.inet_pton(family, address)
    # IFA_ADDRESS and, for IPv4, IFA_LOCAL; IFA_FLAGS.
    more = attribute(1, packed) + (attribute(2, packed) if family is socket.AF_INET else b"")
    if wide is not None:
        more += attribute(8, struct.pack("=I", wide))
    body = struct.pack("=BBBBI", family, 24, flags, scope, 7) + more
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_addresses_are_read_and_what_reaches_no_other_machine_is_left_out() -> None:
    data = (
        told(NEWADDR, "192.0.2.1")
        + told(NEWADDR, "fe80::1", scope=253)
        + told(NEWADDR, "127.0.0.1", scope=254)
        + told(NEWADDR, "2001:db8::1", flags=TENTATIVE)
        + told(NEWADDR, "2001:db8::2", flags=PERMANENT, wide=0x40)
        + told(DELADDR, "2001:db8::3", flags=TENTATIVE)
    )
    assert list(changes(data)) == [
        (NEWADDR, (7, socket.inet_aton("192.0.2.1"))),
        (DELADDR, (7, socket.inet_pton(socket.AF_INET6, "2001:db8::3"))),
    ]


@pytest.mark.parametrize("cut", [1, 15, 17, 23, 25, 27])
def test_a_broken_message_is_no_address(cut: int) -> None:
    whole = told(NEWADDR, "192.0.2.1")
    assert list(changes(whole + told(NEWADDR, "192.0.2.2")[:cut])) == [(NEWADDR, (7, socket.inet_aton("192.0.2.1")))]
    assert list(changes(struct.pack("=IHHII", 8, NEWADDR, 0, 0, 0))) == []
    assert list(changes(struct.pack("=IHHIIBBBBIHH", 28, NEWADDR, 0, 0, 0, 2, 24, 0, 0, 7, 1, 1))) == []


@asynccontextmanager
async def watching(callback: Callable[[], None]) -> AsyncIterator[NetworkWatch]:
    watch = NetworkWatch.of(asyncio.get_running_loop())
    stop = watch.subscribe(callback)
    try:
        yield watch
    finally:
        stop()
        stop()
        assert not watch.watching


async def test_an_address_that_comes_or_goes_is_told() -> None:
    changed = asyncio.Event()

    def broken() -> None:
        raise RuntimeError("a listener's own fault")

    async with watching(broken) as watch:
        assert watch is NetworkWatch.of(asyncio.get_running_loop())
        stop = watch.subscribe(changed.set)
        for what in ("add", "del"):
            ip("address", what, f"{ADDRESS}/32", "dev", "outside")
            async with asyncio.timeout(PATIENCE):
                await changed.wait()
            changed.clear()
        stop()
        assert watch.watching  # for the other one


async def test_without_netlink_nothing_is_told_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_NETLINK")
    watch = NetworkWatch(asyncio.get_running_loop())
    stop = watch.subscribe(lambda: None)
    assert not watch.watching
    stop()


async def test_a_connection_whose_address_is_gone_is_left_at_once(tmp_path: Path) -> None:
    ip("address", "add", f"{OURS}/32", "dev", "outside")
    try:
        async with (
            ServerProcess(tmp_path, host=OURS, auth="open", close_timeout=0.2) as server,
            SignalingClient(f"ws://{OURS}:{server.port}", "alice") as client,
        ):
            await client.register(Identity.generate())
            client.network_changed()  # the address is there: the server is asked, and answers
            assert await client.ping() < PATIENCE
            events = client.events()
            ip("address", "del", f"{OURS}/32", "dev", "outside")
            client.network_changed()
            async with asyncio.timeout(PATIENCE):
                async for event in events:
                    if isinstance(event, Disconnected):
                        assert event.reason == "the network has changed"
                        break
                ip("address", "add", f"{OURS}/32", "dev", "outside")
                client.hurry()
                async for event in events:
                    if isinstance(event, Connected):
                        break
    finally:
        subprocess.run(["ip", "address", "del", f"{OURS}/32", "dev", "outside"], check=False)


async def test_a_server_that_does_not_answer_a_doubt_is_left_without_its_farewell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aldis.client.machine.SUSPICION", 0.1)
    async with ScriptedServer() as server, SignalingClient(server.url, "alice") as client:
        await server.accept()
        events = client.events()
        client.suspect()
        async with asyncio.timeout(PATIENCE):
            async for event in events:
                if isinstance(event, Disconnected):
                    assert event.reason == "nothing was heard of the server for 0.1 s"
                    break
