"""What `peer.engine` promises, on both engines and across the two.

Runs where only `lo` is up: both engines are asked to use 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from aldis.errors import ConfigError, EngineMissing, StateError, UsageError
from aldis.peer.engine import MAX_SDP, EngineConfig, EngineRefused, EngineState
from aldis.peer.engines import catalog
from aldis.peer.engines.catalog import load_engine
from aldis.protocol.messages import Candidate, IceServer
from support.patience import PATIENCE
from support.peers import LOOPBACK, EngineEnd, negotiate, nothing_left_behind, open_engines, pass_candidates

ENGINES = ("wrtc", "aiortc")
PAIRS = [(offerer, answerer) for offerer in ENGINES for answerer in ENGINES]
pairs = pytest.mark.parametrize(("offering", "answering"), PAIRS)
each = pytest.mark.parametrize("name", ENGINES)


@pairs
async def test_a_channel_opens_and_carries_binary_messages_both_ways(offering: str, answering: str) -> None:
    async with nothing_left_behind(), open_engines(offering, answering) as (offerer, answerer):
        assert offerer.end.channel.label == answerer.end.channel.label == "aldis.v1"
        offerer.end.channel.send(b"there")
        answerer.end.channel.send(b"and back")
        await answerer.until(lambda: answerer.end.received == [b"there"])
        await offerer.until(lambda: offerer.end.received == [b"and back"])
        # A channel may be quicker than the state of what carries it.
        for side in (offerer, answerer):
            await side.until(lambda side=side: side.states[-1] is EngineState.CONNECTED)


def native_of(part: object) -> Any:
    """What the engine itself has behind the seam."""
    return part._native  # type: ignore[attr-defined]


@pairs
async def test_a_frame_of_64_kib_arrives_whole(offering: str, answering: str) -> None:
    frame = bytes(range(256)) * 256
    async with nothing_left_behind(), open_engines(offering, answering) as (offerer, answerer):
        offerer.end.channel.send(frame)
        answerer.end.channel.send(frame)
        await answerer.until(lambda: answerer.end.received == [frame])
        await offerer.until(lambda: offerer.end.received == [frame])


@pairs
async def test_many_frames_arrive_in_order_when_the_sender_heeds_the_buffer(offering: str, answering: str) -> None:
    high, low, frames = 256 * 1024, 64 * 1024, 200
    async with nothing_left_behind(), open_engines(offering, answering, low=low) as (offerer, answerer):
        channel = offerer.end.channel
        most = 0
        for number in range(frames):
            if channel.buffered_amount > high:
                drained = offerer.end.drained
                await offerer.until(lambda before=drained: offerer.end.drained > before, "room in the buffer")
                assert channel.buffered_amount <= high
            channel.send(number.to_bytes(4, "big") + bytes(16 * 1024))
            most = max(most, channel.buffered_amount)
        await answerer.until(lambda: len(answerer.end.received) == frames, "all frames")
        assert [data[:4] for data in answerer.end.received] == [n.to_bytes(4, "big") for n in range(frames)]
        assert offerer.end.drained > 0
        assert most > high


@pairs
async def test_a_text_message_is_told_from_a_binary_one(offering: str, answering: str) -> None:
    async with nothing_left_behind(), open_engines(offering, answering) as (offerer, answerer):
        native = native_of(offerer.end.channel)  # the seam sends no text; a browser could
        native.send("text")
        offerer.end.channel.send(b"bytes")
        await answerer.until(lambda: answerer.end.received == ["text", b"bytes"])


@pairs
async def test_closing_one_side_closes_the_channel_of_the_other(offering: str, answering: str) -> None:
    async with nothing_left_behind(), open_engines(offering, answering) as (offerer, answerer):
        await offerer.connection.close()
        await answerer.until(lambda: answerer.end.closed, "the channel's end")
        with pytest.raises(StateError):
            answerer.end.channel.send(b"too late")
        assert not offerer.end.closed  # who closes is told nothing


@pairs
async def test_closing_the_channel_delivers_what_was_queued_and_closes_both_ends(offering: str, answering: str) -> None:
    async with nothing_left_behind(), open_engines(offering, answering) as (offerer, answerer):
        for _ in range(20):
            offerer.end.channel.send(bytes(16 * 1024))
        offerer.end.channel.send(b"last words")
        offerer.end.channel.close()
        await answerer.until(lambda: answerer.end.closed and answerer.end.received[-1] == b"last words")
        await offerer.until(lambda: offerer.end.closed)


@each
async def test_the_stats_name_the_path_and_count_bytes(name: str) -> None:
    async with nothing_left_behind(), open_engines(name, name) as (offerer, answerer):
        offerer.end.channel.send(bytes(10_000))
        await answerer.until(lambda: bool(answerer.end.received))
        stats = await offerer.connection.stats()
        assert stats.local is not None
        assert stats.remote is not None
        assert (stats.local.protocol, stats.local.kind) == ("udp", "host")
        assert stats.remote.port > 0
        assert not stats.relayed
        assert stats.bytes_sent is not None
        assert stats.bytes_sent > 10_000


async def test_wrtc_says_when_something_came_last_also_without_a_message() -> None:
    async with nothing_left_behind(), open_engines("wrtc", "wrtc") as (offerer, answerer):
        loop = asyncio.get_running_loop()
        asked = loop.time()
        offerer.end.channel.send(b"?")
        await answerer.until(lambda: bool(answerer.end.received))
        async with asyncio.timeout(PATIENCE):
            while True:  # until SCTP's acknowledgement has come
                quiet = (await offerer.connection.stats()).quiet
                assert quiet is not None
                if quiet < loop.time() - asked:
                    break
        assert not offerer.end.received


async def test_an_ice_restart_keeps_the_channel() -> None:
    async with nothing_left_behind(), open_engines("wrtc", "wrtc") as (offerer, answerer):
        first = await offerer.connection.offer()
        await negotiate(answerer, offerer, restart_ice=True)
        offerer.end.channel.send(b"still here")
        await answerer.until(lambda: answerer.end.received == [b"still here"])
        again = await offerer.connection.offer()
        assert _fragment(first) != _fragment(again)


async def test_the_bytes_of_a_path_that_ice_has_left_stay_counted() -> None:
    # aiortc neither restarts ICE nor leaves a pair that it has nominated.
    async with nothing_left_behind(), open_engines("wrtc", "wrtc") as (offerer, answerer):
        for count in (1, 2):
            offerer.end.channel.send(bytes(50_000))
            await answerer.until(lambda count=count: len(answerer.end.received) == count)
            sent, received = [await end.connection.stats() for end in (offerer, answerer)]
            assert (sent.bytes_sent or 0) > count * 50_000
            assert (received.bytes_received or 0) > count * 50_000
            await negotiate(offerer, answerer, restart_ice=True)


async def test_an_offer_that_crosses_a_restart_offer_rolls_it_back() -> None:
    async with nothing_left_behind(), open_engines("wrtc", "wrtc") as (offerer, answerer):
        await offerer.connection.offer(restart_ice=True)
        await negotiate(answerer, offerer, restart_ice=True)
        offerer.end.channel.send(b"still here")
        await answerer.until(lambda: answerer.end.received == [b"still here"])


def _fragment(sdp: str) -> str:
    return next(line for line in sdp.splitlines() if line.startswith("a=ice-ufrag:"))


async def test_aiortc_says_that_it_cannot_restart() -> None:
    end = EngineEnd("aiortc")
    assert not end.engine.capabilities.restart
    with pytest.raises(StateError):
        await end.connection.offer(restart_ice=True)
    await end.connection.close()


@pytest.mark.parametrize("answering", ENGINES)
async def test_the_candidates_may_come_all_at_once_after_the_description(answering: str) -> None:
    async with nothing_left_behind():
        offerer, answerer = EngineEnd("wrtc"), EngineEnd(answering)
        offerer.connection.open_channel("aldis.v1")
        offer = await offerer.connection.offer()
        await offerer.until(lambda: None in offerer.candidates, "the end of candidates")
        answer = await answerer.connection.answer(offer)
        for candidate in offerer.candidates:
            await answerer.connection.add_candidate(candidate)
        await offerer.connection.accept(answer)
        await pass_candidates(answerer, offerer)
        await offerer.until(lambda: bool(offerer.channels))
        await answerer.until(lambda: bool(answerer.channels))
        await offerer.connection.close()
        await answerer.connection.close()


# --- hostile input ----------------------------------------------------------------------------------------------------

HOSTILE_SDP = {
    "empty": "",
    "garbage": "\x01\x02 nonsense \n\n" * 100,
    "a line without a value": "v=0\r\no=\r\ns=\r\nm=\r\n",
    "no m-line": "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n",
    "huge": "v=0\r\n" + "a=x\r\n" * (MAX_SDP // 5),
    "zero byte": "v=0\r\no=- 1 2 IN IP4 127.0.0.1\x00\r\n",
    "long line": "v=0\r\na=fingerprint:" + "A" * (MAX_SDP // 2),
    "many groups": "v=0\r\na=group:" + "BUNDLE " * 5_000,
    "numbers out of range": "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=application 99999999999 "
    "UDP/DTLS/SCTP webrtc-datachannel\r\na=sctp-port:99999999999999999999\r\n",
    "json": '{"a":' * 1000,
}


@each
@pytest.mark.parametrize("kind", HOSTILE_SDP)
async def test_a_hostile_offer_is_refused_and_leaves_nothing(name: str, kind: str) -> None:
    async with nothing_left_behind():
        end = EngineEnd(name)
        with pytest.raises(EngineRefused):
            await end.connection.answer(HOSTILE_SDP[kind])
        await end.connection.close()


@each
@pytest.mark.parametrize("kind", HOSTILE_SDP)
async def test_a_hostile_answer_is_refused_and_leaves_nothing(name: str, kind: str) -> None:
    async with nothing_left_behind():
        end = EngineEnd(name)
        end.connection.open_channel("aldis.v1")
        await end.connection.offer()
        with pytest.raises(EngineRefused):
            await end.connection.accept(HOSTILE_SDP[kind])
        await end.connection.close()


MUTILATIONS = {
    "no fingerprint": ("a=fingerprint:", "a=nothing:"),
    "another fingerprint": ("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 00:"),
    "an unknown digest": ("a=fingerprint:sha-256", "a=fingerprint:md4"),
    "no credentials": ("a=ice-pwd:", "a=nothing:"),
    "a short password": ("a=ice-pwd:", "a=ice-pwd:x\r\na=nothing:"),
    "no role": ("a=setup:", "a=nothing:"),
    "no media id": ("a=mid:", "a=nothing:"),
    "no port": ("a=sctp-port:", "a=nothing:"),
    "a message size of nonsense": ("a=max-message-size:", "a=max-message-size:-"),
    "media in place of data": ("m=application", "m=audio"),
}


@each
@pytest.mark.parametrize("kind", MUTILATIONS)
async def test_a_mutilated_offer_is_refused_or_leads_nowhere(name: str, kind: str) -> None:
    old, new = MUTILATIONS[kind]
    async with nothing_left_behind():
        offerer, answerer = EngineEnd(name), EngineEnd(name)
        offerer.connection.open_channel("aldis.v1")
        offer = await offerer.connection.offer()
        assert old in offer
        try:
            answer = await answerer.connection.answer(offer.replace(old, new))
            await offerer.connection.accept(answer)
        except EngineRefused:
            pass
        await offerer.connection.close()
        await answerer.connection.close()


@each
async def test_a_wrong_fingerprint_never_opens_a_channel(name: str) -> None:
    """The signature over the description guards this text, and this text guards the channel."""
    async with nothing_left_behind():
        offerer, answerer = EngineEnd(name), EngineEnd(name)
        offerer.connection.open_channel("aldis.v1")
        offer = await offerer.connection.offer()
        answer = await answerer.connection.answer(_another_fingerprint(offer))
        await offerer.connection.accept(answer)
        tasks = [
            asyncio.create_task(pass_candidates(offerer, answerer)),
            asyncio.create_task(pass_candidates(answerer, offerer)),
        ]
        await answerer.until(lambda: EngineState.FAILED in answerer.states, "the failure of the handshake")
        assert not answerer.channels
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await offerer.connection.close()
        await answerer.connection.close()


def _another_fingerprint(sdp: str) -> str:
    lines = sdp.splitlines(keepends=True)
    return "".join(
        line[:-4] + ("00" if line[-4:-2] != "00" else "11") + "\r\n" if line.startswith("a=fingerprint:") else line
        for line in lines
    )


HOSTILE_CANDIDATES = {
    "garbage": "garbage",
    "short": "candidate:1 1 udp",
    "no number": "candidate:1 one udp many 127.0.0.1 port typ host",
    "no section": "candidate:1 1 udp 1 127.0.0.1 9 typ host",
    "huge": "candidate:" + "9" * 100_000,
}


@each
@pytest.mark.parametrize("kind", HOSTILE_CANDIDATES)
async def test_a_hostile_candidate_is_refused_and_harms_nothing(name: str, kind: str) -> None:
    async with nothing_left_behind(), open_engines(name, name) as (offerer, answerer):
        section = None if kind == "no section" else "0"
        with pytest.raises(EngineRefused):
            await answerer.connection.add_candidate(Candidate(HOSTILE_CANDIDATES[kind], section, None))
        offerer.end.channel.send(b"unimpressed")
        await answerer.until(lambda: answerer.end.received == [b"unimpressed"])


@each
async def test_an_offer_with_audio_and_video_beside_the_channel_is_answered(name: str) -> None:
    import aiortc

    async with nothing_left_behind():
        caller = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        caller.addTransceiver("audio")
        caller.addTransceiver("video")
        caller.createDataChannel("aldis.v1")
        await caller.setLocalDescription(await caller.createOffer())
        end = EngineEnd(name)
        answer = await end.connection.answer(caller.localDescription.sdp)
        assert answer.count("a=inactive") == 2
        assert "webrtc-datachannel" in answer
        await end.connection.close()
        await caller.close()


# --- configuration ----------------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize(
    "server",
    [
        IceServer(["http://stun.example"]),
        IceServer(["stun:"]),
        IceServer([]),
        IceServer(["turn:turn.example?transport=pigeon"], "user", "secret"),
        IceServer(["turn:turn.example"]),
        IceServer(["stun:stun.example:99999"]),
    ],
    ids=str,
)
async def test_a_server_that_is_none_is_an_error_of_configuration(name: str, server: IceServer) -> None:
    with pytest.raises(ConfigError):
        EngineEnd(name, EngineConfig(ice_servers=(server,), allow_loopback=True))


@each
async def test_renewing_the_servers_changes_nothing_by_itself(name: str) -> None:
    async with nothing_left_behind(), open_engines(name, "wrtc") as (offerer, answerer):
        before = native_of(answerer.connection).local_description.sdp
        for end in (offerer, answerer):
            end.connection.renew(EngineConfig((IceServer(["stun:127.0.0.1:9"]),), True))
        offerer.end.channel.send(b"still here")
        await answerer.until(lambda: answerer.end.received == [b"still here"])
        assert _fragment(native_of(answerer.connection).local_description.sdp) == _fragment(before)
    offerer.connection.renew(EngineConfig())  # and once it is closed, nothing at all


async def test_servers_that_cannot_be_used_are_not_taken_in_place_of_those_before() -> None:
    before = EngineConfig((IceServer(["stun:127.0.0.1:9"]),), True)
    end = EngineEnd("wrtc", before)
    for wrong in (IceServer(["http://example.com"]), IceServer(["turn:example.com"])):
        with pytest.raises(ConfigError):
            end.connection.renew(EngineConfig((wrong,)))
    [kept] = native_of(end.connection).get_configuration().ice_servers
    assert kept.urls == ["stun:127.0.0.1:9"]
    await end.connection.close()


async def test_no_engine_asks_a_server_that_it_was_not_given() -> None:
    import aiortc
    import webrtc

    ends = [EngineEnd("aiortc", EngineConfig()), EngineEnd("wrtc", EngineConfig())]
    native = native_of(ends[0].connection)
    native.createDataChannel("x")
    agent = native.sctp.transport.transport._connection
    assert agent.stun_server is None
    assert agent.turn_server is None
    assert native_of(ends[1].connection).get_configuration().ice_servers == []
    assert isinstance(native, aiortc.RTCPeerConnection)
    assert isinstance(native_of(ends[1].connection), webrtc.RTCPeerConnection)
    for end in ends:
        await end.connection.close()


@each
async def test_loopback_addresses_are_offered_only_when_asked_for(name: str) -> None:
    for config, wanted in ((LOOPBACK, True), (EngineConfig(), False)):
        end = EngineEnd(name, config)
        end.connection.open_channel("aldis.v1")
        sdp = await end.connection.offer()
        if end.engine.capabilities.trickle:
            await end.until(lambda end=end: None in end.candidates, "the end of candidates")
        lines = [each.candidate for each in end.candidates if each is not None]
        lines += [line for line in sdp.splitlines() if line.startswith("a=candidate:")]
        assert any(" 127.0.0.1 " in line for line in lines) is wanted
        await end.connection.close()


async def test_wrtc_offers_one_loopback_address_where_there_are_two() -> None:
    """Each pair of candidates more is checked as long as the connection lives. What happens where there is only ::1 is
    in `integration/test_only_ipv6.py`."""
    end = EngineEnd("wrtc", LOOPBACK)
    end.connection.open_channel("aldis.v1")
    await end.connection.offer()
    await end.until(lambda: None in end.candidates, "the end of candidates")
    lines = [each.candidate for each in end.candidates if each is not None]
    assert any(" 127.0.0.1 " in line for line in lines)
    assert not [line for line in lines if " ::1 " in line]
    await end.connection.close()


async def test_wrtc_tells_of_no_candidate_that_only_dials() -> None:
    """Nobody can connect to a TCP candidate without a port of its own."""
    end = EngineEnd("wrtc", LOOPBACK)
    end.connection.open_channel("aldis.v1")
    sdp = await end.connection.offer()
    await end.until(lambda: None in end.candidates, "the end of candidates")
    lines = [each.candidate for each in end.candidates if each is not None]
    assert [line for line in lines if " udp " in line]
    assert not [line for line in [sdp, *lines] if "tcptype active" in line]
    await end.connection.close()


# --- the end ----------------------------------------------------------------------------------------------------------


@each
async def test_closing_under_a_running_operation_ends_it(name: str) -> None:
    async with nothing_left_behind():
        end = EngineEnd(name)
        end.connection.open_channel("aldis.v1")
        running = asyncio.create_task(end.connection.offer())
        await asyncio.sleep(0)  # it has begun
        await end.connection.close()
        await asyncio.wait([running], timeout=10)
        assert running.done()
        assert not running.cancelled()
        assert running.exception() is None or isinstance(running.exception(), EngineRefused)
        await end.connection.close()


async def test_an_aiortc_connection_that_waits_for_a_server_is_closed_at_once() -> None:
    """A TURN server that says nothing is waited for 5 s otherwise, with all sockets open."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    class Silent(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            asked.set()

    transport, _ = await loop.create_datagram_endpoint(Silent, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    server = IceServer([f"turn:127.0.0.1:{port}"], "user", "password")
    async with nothing_left_behind():
        end = EngineEnd("aiortc", EngineConfig((server,), allow_loopback=True))
        end.connection.open_channel("aldis.v1")
        offering = asyncio.create_task(end.connection.offer())
        await asked.wait()
        before = loop.time()
        await end.connection.close()
        assert loop.time() - before < 2
        await asyncio.wait([offering])
        assert offering.exception() is None or isinstance(offering.exception(), EngineRefused)
    transport.close()


@each
async def test_closing_an_unused_connection_is_fine(name: str) -> None:
    async with nothing_left_behind():
        end = EngineEnd(name)
        await end.connection.close()
        await end.connection.close()
        assert end.states == []


@pairs
async def test_twenty_connections_leave_no_socket_and_no_task(offering: str, answering: str) -> None:
    import psutil

    process = psutil.Process()
    async with open_engines(offering, answering):
        pass  # whatever is made once for the process is there now
    async with nothing_left_behind():
        files, threads = process.num_fds(), process.num_threads()
        for _ in range(20):
            async with open_engines(offering, answering) as (offerer, answerer):
                offerer.end.channel.send(b"x")
                await answerer.until(lambda end=answerer: bool(end.end.received))
        assert process.num_fds() <= files + 2
        assert process.num_threads() <= threads + 2


# --- loading ----------------------------------------------------------------------------------------------------------


def test_an_engine_of_an_unknown_name_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(UsageError, match="choose one of wrtc, aiortc"):
        load_engine("netscape")


def test_an_engine_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiortc", None)
    monkeypatch.delitem(sys.modules, "aldis.peer.engines.aiortc", raising=False)
    with pytest.raises(EngineMissing, match=r"pip install 'aldis\[aiortc\]'"):
        load_engine("aiortc")


def test_importing_the_peer_layer_loads_no_engine() -> None:
    script = (
        "import sys, aldis.peer.connection; "
        "assert not {'webrtc', 'wrtc', 'aiortc', 'av'} & set(sys.modules), 'an engine is loaded'"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
    assert catalog.ENGINES == ENGINES


@pytest.mark.parametrize("other", ENGINES)
async def test_aiortc_tells_that_an_idle_side_is_alive(other: str) -> None:
    async with nothing_left_behind(), open_engines("aiortc", other) as (offerer, answerer):
        for _ in range(3):  # the first may belong to connecting
            before = offerer.signs_of_life
            await offerer.until(lambda before=before: offerer.signs_of_life > before, "a sign of life")
        if other == "aiortc":
            before = answerer.signs_of_life
            await answerer.until(lambda: answerer.signs_of_life > before, "a sign of life")
        assert offerer.end.received == answerer.end.received == []
