"""A connection of wrtc that was made ahead, while the server looks the peer up."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import webrtc

from aldis.errors import ConfigError
from aldis.peer.engine import EngineConfig, EngineConnection, EngineListener, PreparingEngine
from aldis.peer.engines import wrtc
from aldis.peer.engines.aiortc import AiortcEngine
from aldis.protocol.messages import IceServer

CONFIG = EngineConfig(allow_loopback=True)
PATIENCE = 10.0


class Listener:
    def __getattr__(self, name: str) -> object:
        return lambda *_: None


class Made:
    """Counts the connections that libwebrtc has made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connections: list[webrtc.RTCPeerConnection] = []
        make = wrtc._native

        def count(config: EngineConfig) -> wrtc._PeerConnection:
            made = make(config)
            self.connections.append(made)
            return made

        monkeypatch.setattr(wrtc, "_native", count)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(monkeypatch)


def create(engine: wrtc.WrtcEngine, config: EngineConfig) -> EngineConnection:
    listener: EngineListener = Listener()  # type: ignore[assignment]
    return engine.create(config, listener)


async def test_the_next_connection_is_the_one_made_ahead(made: Made) -> None:
    engine = wrtc.WrtcEngine()
    engine.prepare(CONFIG)
    engine.prepare(CONFIG)
    first = create(engine, CONFIG)
    assert len(made.connections) == 1
    first.open_channel("a channel")
    assert "m=application" in await first.offer()
    second = create(engine, CONFIG)
    assert len(made.connections) == 2
    await first.close()
    await second.close()


async def test_one_made_ahead_gathers_nothing_before_it_is_used(made: Made) -> None:
    engine = wrtc.WrtcEngine()
    engine.prepare(replace(CONFIG, ice_servers=(IceServer(["stun:127.0.0.1:9"]),)))
    (spare,) = made.connections
    assert spare.ice_gathering_state is webrtc.RTCIceGatheringState.new
    assert spare.local_description is None
    engine._drop_spare()


async def test_another_configuration_gets_a_connection_of_its_own(made: Made) -> None:
    engine = wrtc.WrtcEngine()
    engine.prepare(CONFIG)
    connection = create(engine, replace(CONFIG, relay_only=True))
    assert len(made.connections) == 2
    await connection.close()
    engine._drop_spare()


async def test_one_that_nobody_asks_for_is_closed(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrtc, "_SPARE_SECONDS", 0.0)
    wrtc.WrtcEngine().prepare(CONFIG)
    (spare,) = made.connections
    later = asyncio.Event()
    asyncio.get_running_loop().call_later(0.0, later.set)  # timers come in their order
    await asyncio.wait_for(later.wait(), PATIENCE)
    assert spare.signaling_state is webrtc.RTCSignalingState.closed


async def test_what_is_wrong_with_a_server_is_said_by_the_connection_alone(made: Made) -> None:
    engine = wrtc.WrtcEngine()
    wrong = replace(CONFIG, ice_servers=(IceServer(["turn:127.0.0.1:9"]),))
    engine.prepare(wrong)
    assert made.connections == []
    with pytest.raises(ConfigError):
        create(engine, wrong)


def test_an_engine_that_is_quick_need_not_prepare() -> None:
    assert isinstance(wrtc.WrtcEngine(), PreparingEngine)
    assert not isinstance(AiortcEngine(), PreparingEngine)
