"""What a peer makes of what its connection tells."""

from __future__ import annotations

from aldis.peer.connection import PeerState
from aldis.protocol.channel import Ack, Chunk, Content, Hello
from aldis.store.peers.device import PeerDevice
from aldis.store.store import NetworkStore


def connected(store: NetworkStore) -> PeerDevice:
    """A device that is connected, as far as it was told."""
    store.send("bob", "hello")
    peer = store._manager.peer("bob").device("phone")
    peer.listener.channel_opened(Hello(1, "theirs", 1, ["files"]))
    peer.listener.state_changed(PeerState.CONNECTED, None)
    return peer


async def test_a_connection_in_place_of_another_is_told_at_once() -> None:
    async with NetworkStore() as store:
        peer = connected(store)
        assert store.state.peers["bob"].devices["phone"] == peer.view("phone", online=None)
        peer.listener.channel_closed()
        peer.listener.channel_opened(Hello(1, "theirs", 1, ["files", "calls"]))
        view = store.state.peers["bob"]
        assert (view.connections, view.features) == (2, ("files", "calls"))


async def test_a_peer_that_breaks_the_protocol_loses_the_connection_and_keeps_what_waits() -> None:
    async with NetworkStore() as store:
        for frame in (Ack(7), Chunk(Content.TEXT, 9, 1, True, b"x")):
            peer = connected(store)
            queued = peer.queued
            peer.listener.frame_received(frame)
            view = store.state.peers["bob"]
            assert (view.state, view.queued) == (PeerState.FAILED, queued)
            assert "breaks the protocol" in str(view.error)
