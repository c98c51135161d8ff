"""The browser SDK when things die: the server, the page, the path."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from aldis.client.events import SignalingState
from aldis.peer.connection import PeerState
from browser.conftest import IN_BOTH, Arrive
from support.browser import NO_SERVER
from support.patience import PATIENCE
from support.server_process import ServerProcess
from support.stores import contents, stores, until, until_state
from support.tabs import Tab, tabs


@IN_BOTH
async def test_the_server_is_killed_in_mid_chat_and_comes_back(
    arrive: Arrive, server: ServerProcess, tmp_path: Path
) -> None:
    async with stores(f"ws://127.0.0.1:{server.port}", "carol") as (carol,):
        alice, bob = await tabs(arrive, "alice", "bob")
        for tab in (alice, bob):
            tab.person.tolerate(NO_SERVER)  # which the browser says itself
        await alice.run("await store.connectToPeer('bob'); await store.connectToPeer('carol');")
        # Numbers go out all the time, while the server dies and after.
        count = """
            window.number = 0;
            window.counting = setInterval(() => {
              for (const peer of ['bob', 'carol']) store.send(peer, number);
              number++;
              changed();
            }, 5);
        """
        await alice.run(count)
        await alice.until("number > 50")
        server.signal(signal.SIGKILL)
        await server.wait()
        for tab in (alice, bob):
            await tab.until("signaling === 'connecting'")
            assert await tab.get("store.state.signalingError.name") == "ConnectionLost"
        await until(carol, lambda state: state.signaling is SignalingState.CONNECTING, "the loss of the server")
        await alice.run("window.lost = number; store.send('dave', 'when you are there');")
        await alice.until("number > lost + 50")  # peers need no server
        async with ServerProcess(tmp_path, port=server.port) as again:
            for tab in (alice, bob):
                await tab.until("signaling === 'connected'")
                assert await tab.get("store.state.signalingError") is None
            await until(carol, lambda state: state.signaling is SignalingState.CONNECTED, "the server's return")
            await alice.run("window.back = number;")
            await alice.until("number > back + 50")
            total = await alice.run("clearInterval(counting); return number;")
            assert await bob.contents(total) == list(range(total))
            assert await contents(carol, total) == list(range(total))
            await alice.run("await store.drain('bob'); await store.drain('carol');")
            assert await bob.get("got.length") == 0
            assert await alice.get("Object.values(store.state.peers).map((peer) => peer.connections)") == [1, 1, 0]
            (dave,) = await tabs(arrive, "dave")
            assert await dave.contents(1) == ["when you are there"]
            for tab in (alice, bob, dave):
                await tab.run("await store.disconnect();")
            await carol.disconnect()
            assert await again.stop() == 0
            again.assert_clean_log()


@IN_BOTH
@pytest.mark.parametrize("peer", ["tab", "python"])
async def test_a_tab_that_is_reloaded_comes_back_under_its_name_with_its_key(
    arrive: Arrive, server: ServerProcess, peer: str
) -> None:
    async with stores(f"ws://127.0.0.1:{server.port}", "carol") as (carol,):
        (alice,) = await tabs(arrive, "alice", keep=True)
        key = await alice.get("store.state.fingerprint")
        if peer == "tab":
            (bob,) = await tabs(arrive, "bob")
            await bob.sends("alice", 1)
        else:
            await carol.send("alice", 1)
        assert await alice.contents(1) == [1]
        for run in range(2):
            await alice.open()  # which takes away the page that was there
            if peer == "tab":
                await bob.until("peers.alice.state === 'closed'")
                await bob.run("store.send('alice', 2); store.send('alice', 3);")
            else:
                await until_state(carol, "alice", PeerState.CLOSED)
                for number in (2, 3):
                    carol.send("alice", number)
            await alice.start("alice", keep=True)
            assert await alice.get("store.state.fingerprint") == key
            assert await alice.contents(2) == [2, 3]
            name = "bob" if peer == "tab" else "carol"
            await alice.sends(name, f"run {run}")
            assert (await bob.contents(1) if peer == "tab" else await contents(carol, 1)) == [f"run {run}"]


@IN_BOTH
async def test_a_tab_that_goes_without_a_word_comes_back_and_gets_what_was_sent_meanwhile(arrive: Arrive) -> None:
    (alice,) = await tabs(arrive, "alice", quick=True)
    bob = await Tab(await arrive()).open()
    await bob.run("addEventListener('pagehide', (event) => event.stopImmediatePropagation());")  # it never learns
    await bob.start("bob", keep=True)
    await alice.sends("bob", "before")
    assert await bob.contents(1) == ["before"]
    await alice.connected("bob")  # through the server, the end of its session would be word enough
    await bob.open()
    await alice.until("peers.bob.state !== 'connected'")
    assert await alice.get("store.state.peers.bob.state") != "closed"
    await alice.run("for (let number = 0; number < 20; number++) store.send('bob', number);")
    await bob.start("bob", keep=True)
    assert await bob.contents(20) == list(range(20))
    await alice.run("await store.drain('bob');")
    assert await bob.get("got.length") == 0


async def test_nothing_is_lost_or_doubled_while_connections_break_again_and_again(
    arrive: Arrive, server: ServerProcess
) -> None:
    async with stores(f"ws://127.0.0.1:{server.port}", "bob", path="direct") as (bob,):
        (alice,) = await tabs(arrive, "alice", path="direct")
        got_by_bob = asyncio.create_task(contents(bob, 300))
        for start in range(0, 300, 100):
            await alice.run(
                "for (let number = start; number < start + 100; number++) store.send('bob', number);", start=start
            )
            for number in range(start, start + 100):
                bob.send("alice", number)
            await alice.connected("bob")
            await alice.run("wires.at(-1).close();")
        assert await got_by_bob == list(range(300))
        assert await alice.contents(300) == list(range(300))
        await alice.run("await store.drain('bob');")
        await bob.drain(timeout=PATIENCE)
        assert await alice.get("[got.length, store.state.peers.bob.connections > 1]") == [0, True]


async def test_the_browsers_word_that_it_is_online_again_has_the_server_called_at_once(
    arrive: Arrive, server: ServerProcess
) -> None:
    alice = await Tab(await arrive()).open()
    alice.person.tolerate(f"{NO_SERVER}|ERR_INTERNET_DISCONNECTED")
    await alice.run("""
        const { NetworkStore } = sdk;
        window.store = new NetworkStore();
        window.changed = () => dispatchEvent(new Event('changed'));
        store.subscribe(changed);
        // Who waits for this pause has failed.
        await store.connectToSignaling(location.origin, 'alice', { backoff: { first: 600, most: 600 } });
    """)
    server.signal(signal.SIGKILL)
    await server.wait()
    await alice.until("signaling === 'connecting'")
    async with ServerProcess(Path(server.settings["data"]).parent, port=server.port) as again:
        await alice.run("dispatchEvent(new Event('online'));")
        await alice.until("signaling === 'connected'")
        await alice.run("await store.disconnect();")
        assert await again.stop() == 0
