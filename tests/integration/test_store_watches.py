"""A server that comes back with room for fewer watches."""

from __future__ import annotations

import pytest

from aldis.errors import RequestFailed
from aldis.server.app import SignalingServer
from support.settings import config
from support.stores import stores, until


async def test_who_is_not_watched_any_more_leaves_the_state_and_who_is_waited_for_is_asked_about() -> None:
    server = SignalingServer(config())
    await server.start()
    port = server.port
    async with stores(f"ws://127.0.0.1:{port}", "alice") as (alice,):
        await alice.watch("bob", "carol")
        delivery = alice.send("dave", "when you come")
        await until(alice, lambda state: state.peers["dave"].online is False)
        await server.stop()
        server = SignalingServer(config(port=port))
        server.hub.settings.max_watches = 0
        await server.start()
        await until(alice, lambda state: "bob" not in state.peers and "carol" not in state.peers)
        with pytest.raises(RequestFailed) as caught:
            await alice.watch("bob")
        assert caught.value.code == "too-large"
        # The server does not tell that dave has come: he is asked for.
        async with stores(f"ws://127.0.0.1:{port}", "dave") as (dave,):
            await delivery
            assert dave.state.user_id == "dave"
    await server.stop()
