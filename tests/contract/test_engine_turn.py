"""What an engine makes of a TURN server that refuses it, or is slow; without a path over it."""

from __future__ import annotations

import asyncio

import pytest
from aioice import stun

from aldis.peer.engine import EngineConfig, TurnReport
from aldis.protocol.messages import IceServer
from support.peers import EngineEnd, negotiate, nothing_left_behind, open_engines

each = pytest.mark.parametrize("name", ["wrtc", "aiortc"])


class SlowTurnServer(asyncio.DatagramProtocol):
    """A TURN server that has not answered yet."""

    asked = 0

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1


class RefusingTurnServer(asyncio.DatagramProtocol):
    """Answers every request for a relay with 401, whatever the credentials (RFC 8489 section 9.2.4)."""

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport
        self.asked = 0

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        request = stun.parse_message(data)
        response = stun.Message(request.message_method, stun.Class.ERROR, request.transaction_id)
        response.attributes["ERROR-CODE"] = (401, "Unauthorized")
        response.attributes["REALM"] = "test"
        response.attributes["NONCE"] = b"nonce"
        self.transport.sendto(bytes(response), addr)


@each
async def test_a_turn_server_that_refuses_the_credentials_is_logged(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    transport, turn = await loop.create_datagram_endpoint(RefusingTurnServer, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    server = IceServer([f"turn:127.0.0.1:{port}?transport=udp"], "user", "wrong")
    async with nothing_left_behind():
        end = EngineEnd(name, EngineConfig(ice_servers=(server,), allow_loopback=True))
        end.connection.open_channel("aldis.v1")
        await end.connection.offer()
        if end.engine.capabilities.trickle:
            await end.until(lambda: None in end.candidates, "the end of candidates")
        assert turn.asked >= 2
        assert f"no relay candidate from turn:127.0.0.1:{port}" in caplog.text
        if name == "wrtc":  # aiortc does not tell
            assert "the server refuses the credentials (401 Unauthorized)" in caplog.text
        await end.connection.close()
    transport.close()


async def test_a_turn_server_is_not_blamed_when_aiortc_is_closed_while_it_gathers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = asyncio.Event()

    class Turn(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            asked.set()

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Turn, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    config = EngineConfig((IceServer([f"turn:127.0.0.1:{port}?transport=udp"], "user", "right"),), True)
    async with nothing_left_behind():
        end = EngineEnd("aiortc", config)
        end.connection.open_channel("aldis.v1")
        offering = asyncio.ensure_future(end.connection.offer())
        await asked.wait()
        await end.connection.close()
        await asyncio.gather(offering, return_exceptions=True)
        assert "no relay candidate" not in caplog.text
    transport.close()


async def test_a_turn_server_that_refuses_the_credentials_is_logged_though_a_path_is_found(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        RefusingTurnServer, local_addr=("127.0.0.1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    config = EngineConfig((IceServer([f"turn:127.0.0.1:{port}?transport=udp"], "user", "wrong"),), True)
    async with nothing_left_behind():
        offerer, answerer = EngineEnd("wrtc", config), EngineEnd("wrtc")
        offerer.connection.open_channel("aldis.v1")
        offer = await offerer.connection.offer()
        await offerer.until(lambda: None in offerer.candidates, "the end of candidates")
        await offerer.connection.accept(await answerer.connection.answer(offer))
        for candidate in offerer.candidates:
            await answerer.connection.add_candidate(candidate)
        await offerer.until(lambda: bool(offerer.channels), "a channel")
        # Nothing is wrong with this connection. Its state may change a moment after the channel has opened.
        await offerer.until(lambda: offerer.connection.turn == TurnReport(), "no blame")
        assert caplog.text.count("the server refuses the credentials (401 Unauthorized)") == 1
        for end in (offerer, answerer):
            await end.connection.close()
    transport.close()


async def test_a_turn_server_that_is_slower_than_the_direct_path_is_not_blamed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """libwebrtc stops gathering when a path is found, whatever the TURN server would have said."""
    transport, turn = await asyncio.get_running_loop().create_datagram_endpoint(
        SlowTurnServer, local_addr=("127.0.0.1", 0)
    )
    port = transport.get_extra_info("sockname")[1]
    config = EngineConfig((IceServer([f"turn:127.0.0.1:{port}?transport=udp"], "user", "right"),), True)
    async with nothing_left_behind():
        offerer, answerer = EngineEnd("wrtc", config), EngineEnd("wrtc", config)
        offerer.connection.open_channel("aldis.v1")
        await negotiate(offerer, answerer)
        for end in (offerer, answerer):
            await end.until(lambda end=end: bool(end.channels), "a channel")
            await end.until(lambda end=end: None in end.candidates, "the end of candidates")
            assert not any(" typ relay" in candidate.candidate for candidate in end.candidates if candidate)
        assert turn.asked >= 2
        assert "no relay candidate" not in caplog.text
        for end in (offerer, answerer):
            await end.connection.close()
    transport.close()


@pytest.mark.parametrize("who", ["who offers the restart", "who answers it"])
async def test_an_ice_restart_gathers_with_the_servers_of_now(who: str) -> None:
    loop = asyncio.get_running_loop()
    transport, turn = await loop.create_datagram_endpoint(RefusingTurnServer, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    renewed = EngineConfig((IceServer([f"turn:127.0.0.1:{port}?transport=udp"], "user", "of now"),), True)
    async with nothing_left_behind(), open_engines("wrtc", "wrtc") as (offerer, answerer):
        (offerer if who == "who offers the restart" else answerer).connection.renew(renewed)
        assert turn.asked == 0
        await negotiate(offerer, answerer, restart_ice=True)
        assert turn.asked >= 2
        offerer.end.channel.send(b"still here")
        await answerer.until(lambda: answerer.end.received == [b"still here"])
    transport.close()
