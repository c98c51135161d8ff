"""The sealed relay in real browsers: between two of them, and between one and a Python program."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from aldis.store.messages.content import Sendable
from browser.conftest import IN_BOTH, Arrive
from support.browser import BROWSERS
from support.server_process import ServerProcess
from support.stores import contents, stores, until_peer
from support.tabs import Tab

SENT: Final[list[Sendable]] = ["text", "\U0001f441 ü", {"json": [1, 2.5, None]}, "x" * 60_000, *range(20)]


def url(server: ServerProcess) -> str:
    return f"ws://127.0.0.1:{server.port}"


async def tab(arrive: Arrive, name: str, path: str, browser: str | None = None) -> Tab:
    return await (await Tab(await arrive(browser)).open()).start(name, path=path)


@pytest.mark.parametrize("other", BROWSERS)
@pytest.mark.parametrize("one", BROWSERS)
async def test_two_browsers_talk_through_the_server_alone(arrive: Arrive, one: str, other: str) -> None:
    alice, bob = await asyncio.gather(tab(arrive, "alice", "relay", one), tab(arrive, "bob", "relay", other))
    await alice.sends("bob", *SENT)
    assert [message["content"] for message in await bob.read(len(SENT))] == SENT
    await bob.sends("alice", *SENT)
    assert [message["content"] for message in await alice.read(len(SENT))] == SENT
    stats = await alice.get("store.stats('bob')")
    assert (stats["path"], stats["protocol"]) == ("relay", None)
    assert await alice.get("store.state.peers.bob.path") == "relay"
    assert await alice.get("wires.length") == await bob.get("wires.length") == 0


@IN_BOTH
@pytest.mark.parametrize("path", ["relay", "auto"])
async def test_a_browser_and_a_python_program_talk(arrive: Arrive, server: ServerProcess, path: str) -> None:
    alice = await tab(arrive, "alice", path)
    async with stores(url(server), "bob", path=path) as (bob,):
        await alice.sends("bob", *SENT)
        assert await contents(bob, len(SENT)) == SENT
        for value in SENT:
            bob.send("alice", value)
        assert [message["content"] for message in await alice.read(len(SENT))] == SENT
        expected = "relay" if path == "relay" else "direct"
        await alice.until(f"peers.bob?.path === {expected!r}")
        await until_peer(bob, "alice", lambda view: view.path == expected, f"path {expected}")
        await alice.sends("bob", "after all that")
        assert await contents(bob, 1) == ["after all that"]


@IN_BOTH
async def test_messages_go_back_to_the_relay_when_the_direct_path_dies(arrive: Arrive) -> None:
    alice, bob = await asyncio.gather(tab(arrive, "alice", "auto"), tab(arrive, "bob", "auto"))
    await alice.run("await store.connectToPeer('bob');")
    await bob.connected("alice")
    await alice.sends("bob", *range(10))
    # The engines are gone, nobody is told, and no other one comes to anything.
    for end in (alice, bob):
        await end.run(
            "Wire.prototype.setLocalDescription = () => new Promise(() => {}); wires.forEach((wire) => wire.close());"
        )
    await alice.sends("bob", *range(10, 20))
    assert [message["content"] for message in await bob.read(20)] == list(range(20))
    await alice.until("peers.bob?.path === 'relay'")
