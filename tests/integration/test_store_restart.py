"""The server is restarted under two stores that write to each other: nothing is lost, and nobody goes offline."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import pytest

from aldis.client.events import SignalingState
from aldis.store.store import NetworkStore
from support.server_process import ServerProcess
from support.stores import contents, stores, until

MESSAGES = 50


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "only watching"])
async def test_a_restart_is_nothing_that_peers_notice(tmp_path: Path, connected: bool) -> None:
    """Those that only watch each other twice, because each time another one may be back first."""
    with socket.create_server(("127.0.0.1", 0)) as public:
        port = public.getsockname()[1]
        server = ServerProcess(tmp_path, sockets={"public": public})
        await server.start()
        async with stores(f"ws://127.0.0.1:{port}", "alice", "bob") as (alice, bob):
            pairs = ((alice, "bob"), (bob, "alice"))
            for store, peer in pairs:
                await store.watch(peer)
                await until(store, lambda state, peer=peer: state.peers[peer].online is True)
            if connected:
                await alice.connect_to_peer("bob")
            told: set[tuple[str, bool | None]] = set()

            async def note(store: NetworkStore, peer: str) -> None:
                async for state in store.states():
                    told.add((peer, state.peers[peer].online))

            noting = [asyncio.create_task(note(*pair)) for pair in pairs]
            for _ in range(1 if connected else 2):
                if connected:
                    for number in range(MESSAGES):
                        alice.send("bob", number)
                server.signal(signal.SIGTERM)
                for store, _ in pairs:
                    await until(store, lambda state: state.signaling is SignalingState.CONNECTING)
                assert await server.wait() == 0
                server.assert_clean_log()
                server = ServerProcess(tmp_path, sockets={"public": public})
                await server.start()
                for store, _ in pairs:
                    await until(store, lambda state: state.signaling is SignalingState.CONNECTED)
                if connected:
                    assert await contents(bob, MESSAGES) == list(range(MESSAGES))
            for task in noting:
                task.cancel()
            await asyncio.gather(*noting, return_exceptions=True)
            assert told == {("bob", True), ("alice", True)}
        assert await server.stop() == 0
