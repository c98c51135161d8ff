"""One transport on an engine of cardboard: what is hard to bring about with a real one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.errors import ConfigError, StateError
from aldis.peer.engine import (
    ChannelListener,
    EngineConfig,
    EngineConnection,
    EngineListener,
    EngineRefused,
    EngineState,
    EngineStats,
    TurnReport,
)
from aldis.peer.transport import BUFFER_HIGH, PeerTiming, PeerTransport
from aldis.protocol.channel import (
    LABEL,
    MAX_BUNDLE,
    Ack,
    Chunk,
    Content,
    Goodbye,
    Hello,
    Ping,
    Pong,
    decode,
    encode_ack,
    encode_hello,
    encode_message,
    encode_ping,
    encode_pong,
    unbundle,
)
from aldis.protocol.messages import Candidate, Capabilities, IceServer
from support.peers import FakeTimers, nothing_left_behind

HELLO = encode_hello(Hello(1, "theirs", 1))
BUNDLING_HELLO = encode_hello(Hello(1, "theirs", 1, ["bundles"]))
BUNDLED_SIZES = ((1, 10), (2, 4000), (3, 20))
RENEWED = EngineConfig(ice_servers=(IceServer(["stun:stun.example"]),))
REFUSED = EngineConfig(ice_servers=(IceServer([]),))


@dataclass
class Cardboard:
    """Engine, connection and channel in one; does what it is told."""

    name: str = "cardboard"
    capabilities: Capabilities = field(default_factory=Capabilities)
    label: str = LABEL
    buffered_amount: int = 0
    sent: list[bytes] = field(default_factory=list)
    closed: int = 0
    channel_closed: int = 0
    broken: bool = False
    quiet: float | None = None  # seconds since it has got something
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    config: EngineConfig = field(default_factory=EngineConfig)  # to be used now
    configs: list[EngineConfig] = field(default_factory=list)  # that were used

    def create(self, config: EngineConfig, listener: EngineListener) -> EngineConnection:
        self.configs.append(config)
        return self

    def open_channel(self, label: str) -> None: ...

    def renew(self, config: EngineConfig) -> None:
        if config == REFUSED:
            raise ConfigError("ice_servers", "refused")
        self.configs.append(config)

    async def offer(self, *, restart_ice: bool = False) -> str:
        await self.gate.wait()
        return "offer"

    async def answer(self, offer_sdp: str) -> str:
        raise EngineRefused("no")

    async def accept(self, answer_sdp: str) -> None:
        raise RuntimeError("a fault of the engine's adapter")

    async def add_candidate(self, candidate: Candidate | None) -> None:
        raise EngineRefused("no")

    async def stats(self) -> EngineStats:
        if self.broken:
            raise EngineRefused("broken")
        return EngineStats(quiet=self.quiet)

    turn = TurnReport()

    async def close(self) -> None:  # of the connection; the channel's is below
        self.closed += 1

    def listen(self, listener: ChannelListener, low_threshold: int) -> None:
        self.listener = listener

    def send(self, data: bytes) -> None:
        if self.broken:
            raise StateError("broken")
        self.sent.append(data)


class CardboardChannel(Cardboard):
    def close(self) -> None:  # type: ignore[override]
        self.channel_closed += 1


@dataclass
class Owner:
    """Notes what it is told."""

    told: list[tuple[object, ...]] = field(default_factory=list)

    def offer_made(self, transport: PeerTransport, serial: int, sdp: str) -> None:
        self.told.append(("offer", serial, sdp))

    def answer_made(self, transport: PeerTransport, serial: int, sdp: str) -> None:
        self.told.append(("answer", serial, sdp))

    def operation_failed(self, transport: PeerTransport, serial: int, reason: str) -> None:
        self.told.append(("failed", serial, reason))

    def candidate_gathered(self, transport: PeerTransport, candidate: Candidate | None) -> None:
        self.told.append(("candidate", candidate))

    def channel_opened(self, transport: PeerTransport) -> Hello:
        self.told.append(("opened",))
        return Hello(1, "ours", 1)

    def hello_received(self, transport: PeerTransport, hello: Hello) -> None:
        self.told.append(("hello", hello.stream))

    def frame_received(self, transport: PeerTransport, frame: Chunk | Ack) -> None:
        self.told.append(("frame", frame))

    def buffer_drained(self, transport: PeerTransport) -> None:
        self.told.append(("drained",))

    def path_lost(self, transport: PeerTransport, *, final: bool) -> None:
        self.told.append(("lost", final))

    def path_restored(self, transport: PeerTransport) -> None:
        self.told.append(("restored",))

    def path_found(self, transport: PeerTransport) -> None:
        self.told.append(("found",))

    def ended(self, transport: PeerTransport, reason: str, *, orderly: bool) -> None:
        self.told.append(("ended", reason, orderly))

    def violated(self, transport: PeerTransport, reason: str) -> None:
        self.told.append(("violated", reason))


def make() -> tuple[PeerTransport, Owner, Cardboard, FakeTimers]:
    engine, owner, timers = Cardboard(), Owner(), FakeTimers()
    return PeerTransport("name", engine, lambda: engine.config, owner, PeerTiming(), timers), owner, engine, timers


def opened(hello: bytes = HELLO) -> tuple[PeerTransport, Owner, CardboardChannel, FakeTimers]:
    transport, owner, _, timers = make()
    channel = CardboardChannel()
    transport.channel_opened(channel)
    transport.message_received(hello)
    assert owner.told == [("opened",), ("hello", "theirs")]
    assert isinstance(decode(channel.sent[0]), Hello)
    owner.told.clear()
    return transport, owner, channel, timers


async def looked(transport: PeerTransport) -> None:
    """The engine has said when it has got something last."""
    assert transport._looking is not None
    await transport._looking


async def test_a_program_that_is_late_is_not_gone_while_its_engine_answers() -> None:
    transport, owner, channel, timers = opened()
    transport.message_received(encode_ack(1))
    owner.told.clear()
    channel.sent.clear()
    for _ in range(49):
        timers.advance(0.1)
    assert channel.sent, "no PING"
    engine = transport._connection
    assert isinstance(engine, Cardboard)
    engine.quiet = 0.01
    timers.advance(0.2)
    await looked(transport)
    assert owner.told == []
    timers.advance(3)
    transport.message_received(encode_pong(0))  # it has only been busy
    timers.advance(3)
    assert owner.told == []
    await transport.close()
    assert timers.waiting == 0


async def test_an_engine_that_answers_no_question_is_not_waited_for() -> None:
    transport, owner, _, timers = opened()
    engine = transport._connection
    assert isinstance(engine, Cardboard)
    engine.broken = True
    timers.advance(5.1)
    await looked(transport)
    assert owner.told == [("lost", False)]
    await transport.close()


async def test_a_transport_that_is_closed_does_not_wait_for_its_engine() -> None:
    transport, owner, _, timers = opened()
    timers.advance(5.1)
    await transport.close()
    assert owner.told == []


async def test_a_sleep_of_our_own_does_not_count_as_the_others_silence() -> None:
    transport, owner, _, timers = opened()
    timers._now += 600  # the machine was asleep: no timer has run
    timers.advance(0)
    assert owner.told == []
    timers._now += 4  # and again, before it has read what has come
    timers.advance(0)
    assert owner.told == []
    timers.advance(1)
    await looked(transport)
    assert owner.told == [("lost", False)]
    await transport.close()
    assert timers.waiting == 0


async def test_signs_of_life_of_the_engine_hold_off_silence_until_a_ping_is_not_answered() -> None:
    transport, owner, channel, timers = opened()
    ping = decode(channel.sent[1])
    assert isinstance(ping, Ping)
    transport.message_received(encode_pong(ping.token))
    del channel.sent[:]
    for _ in range(34):
        assert owner.told == []
        timers.advance(1)
        transport.alive()
    (measuring,) = map(decode, channel.sent)  # after 30 s
    assert isinstance(measuring, Ping)
    timers.advance(1.1)
    await looked(transport)
    assert owner.told == [("lost", False)]
    transport.alive()
    timers.advance(1)
    assert owner.told == [("lost", False)]
    transport.message_received(encode_pong(measuring.token))
    assert owner.told == [("lost", False), ("restored",)]
    await transport.close()
    transport.alive()
    assert timers.waiting == 0


async def test_engine_states_lead_to_their_consequences() -> None:
    transport, owner, channel, _ = opened()
    transport.state_changed(EngineState.NEW)
    transport.state_changed(EngineState.CONNECTING)
    assert owner.told == []
    transport.state_changed(EngineState.DISCONNECTED)
    transport.state_changed(EngineState.FAILED)
    before = len(channel.sent)
    transport.state_changed(EngineState.CONNECTED)
    assert isinstance(decode(channel.sent[before]), Ping)
    transport.message_received(encode_ack(1))
    transport.state_changed(EngineState.CLOSED)
    assert owner.told == [
        ("lost", False),
        ("lost", True),
        ("found",),
        ("restored",),
        ("frame", Ack(1)),
        ("ended", "the other side closed the connection", False),
    ]
    await transport.close()


async def test_the_end_of_candidates_is_told_to_a_side_that_has_no_path() -> None:
    transport, owner, _, timers = make()
    transport.candidate_gathered(None)
    timers.advance(0.9)
    assert owner.told == []
    timers.advance(0.2)
    assert owner.told == [("candidate", None)]
    await transport.close()
    assert timers.waiting == 0


async def test_the_end_of_candidates_is_not_told_where_there_is_a_path_by_then() -> None:
    transport, owner, _, timers = make()
    transport.candidate_gathered(None)
    transport.channel_opened(CardboardChannel())
    transport.message_received(HELLO)
    owner.told.clear()
    timers.advance(1.1)
    assert owner.told == []
    transport.state_changed(EngineState.DISCONNECTED)
    transport.candidate_gathered(None)  # of the restart
    timers.advance(1.1)
    assert owner.told == [("lost", False), ("candidate", None)]
    await transport.close()


async def test_what_is_gathered_anew_has_another_end_of_candidates() -> None:
    transport, owner, _, timers = make()
    transport.candidate_gathered(None)
    timers.advance(0.9)
    transport.answer(1, "their restart")
    timers.advance(0.9)
    assert owner.told == []
    transport.candidate_gathered(None)
    await transport.close()
    assert timers.waiting == 0


async def test_nothing_is_told_after_the_end() -> None:
    transport, owner, channel, timers = opened()
    transport.probe("maybe")
    await transport.close()
    transport.message_received(encode_ack(1))
    transport.state_changed(EngineState.FAILED)
    transport.candidate_gathered(None)
    transport.channel_closed()
    transport.probe("again")
    transport.say_goodbye("late")
    late = CardboardChannel()
    transport.channel_opened(late)
    assert late.channel_closed == 1
    assert not transport.send_frame(b"x")
    timers.advance(60)
    assert owner.told == []
    assert channel.channel_closed == 0


async def test_a_channel_that_takes_no_message_any_more_is_no_crash() -> None:
    transport, owner, channel, timers = opened()
    channel.broken = True
    assert not transport.send_frame(b"x")
    transport.message_received(encode_ping(1))
    timers.advance(1.5)
    transport.say_goodbye("x")
    assert channel.channel_closed == 1
    assert owner.told == []
    await transport.close()  # and does not linger for a goodbye that was never sent


async def test_a_full_buffer_refuses_and_says_once_when_there_is_room() -> None:
    transport, owner, channel, _ = opened()
    transport.buffer_drained()
    assert owner.told == []
    channel.buffered_amount = BUFFER_HIGH
    assert not transport.send_frame(b"x")
    channel.buffered_amount = 0
    transport.buffer_drained()
    transport.buffer_drained()
    assert owner.told == [("drained",)]
    assert transport.send_frame(b"x")
    await transport.close()


async def test_small_frames_of_one_turn_go_together_in_their_order() -> None:
    transport, _, channel, _ = opened(BUNDLING_HELLO)
    channel.sent.clear()
    first, large, last = [encode_message(Content.BYTES, number, bytes(size))[0] for number, size in BUNDLED_SIZES]
    for frame in (first, first, large, last):
        assert transport.send_frame(frame)
    assert [unbundle(data) for data in channel.sent] == [[first, first], [large]]
    await asyncio.sleep(0)
    assert [unbundle(data) for data in channel.sent] == [[first, first], [large], [last]]
    assert channel.sent[2] == last  # one alone is no bundle
    await transport.close()


async def test_a_bundle_is_no_larger_than_it_may_be() -> None:
    transport, _, channel, _ = opened(BUNDLING_HELLO)
    channel.sent.clear()
    frames = [encode_message(Content.BYTES, number, bytes(1000))[0] for number in range(40)]
    assert all(map(transport.send_frame, frames))
    await asyncio.sleep(0)
    assert [frame for data in channel.sent for frame in unbundle(data)] == frames
    assert len(channel.sent) == 3
    assert max(map(len, channel.sent)) <= MAX_BUNDLE + 64
    await transport.close()


async def test_the_goodbye_comes_behind_what_waits_to_go_together() -> None:
    transport, _, channel, _ = opened(BUNDLING_HELLO)
    channel.sent.clear()
    assert transport.send_frame(encode_ack(1))
    transport.say_goodbye("x")
    assert [decode(frame) for data in channel.sent for frame in unbundle(data)] == [Ack(1), Goodbye("x")]
    assert channel.channel_closed == 1
    transport.channel_closed()
    await transport.close()


async def test_frames_go_alone_to_a_program_that_reads_no_bundles() -> None:
    transport, _, channel, _ = opened()
    channel.sent.clear()
    assert transport.send_frame(encode_ack(1))
    assert transport.send_frame(encode_ack(2))
    assert channel.sent == [encode_ack(1), encode_ack(2)]
    await transport.close()


async def test_frames_that_wait_to_go_together_take_their_room() -> None:
    transport, owner, channel, _ = opened(BUNDLING_HELLO)
    channel.buffered_amount = BUFFER_HIGH - 12
    assert transport.send_frame(encode_ack(1))
    assert not transport.send_frame(encode_ack(2))
    channel.buffered_amount = 0
    transport.buffer_drained()
    assert owner.told == [("drained",)]
    await transport.close()


async def test_who_takes_no_answers_gets_none_beyond_the_buffer() -> None:
    transport, owner, channel, _ = opened()
    channel.sent.clear()
    channel.buffered_amount = BUFFER_HIGH
    transport.message_received(encode_ping(1))
    channel.buffered_amount += 1
    transport.message_received(encode_ping(2))
    channel.buffered_amount = 0
    transport.message_received(encode_ping(3))
    assert [decode(frame) for frame in channel.sent] == [Pong(1), Pong(3)]
    assert owner.told == []
    await transport.close()


async def test_closing_lingers_for_the_goodbye_until_the_other_side_has_closed() -> None:
    transport, _, _, _ = opened()
    transport.say_goodbye("x")
    closing = asyncio.create_task(transport.close())
    await asyncio.sleep(0)
    assert not closing.done()
    transport.channel_closed()
    await asyncio.wait_for(closing, 5)


async def test_closing_ends_an_operation_that_hangs() -> None:
    async with nothing_left_behind():
        transport, owner, engine, _ = make()
        transport.offer(1, restart=False)
        transport.accept(1, "never reached")
        await asyncio.sleep(0)
        await transport.close()
        assert engine.closed == 1
        assert owner.told == []


async def test_operations_run_in_order_and_tell_what_came_of_them() -> None:
    async with nothing_left_behind():
        transport, owner, engine, _ = make()
        transport.answer(1, "x")
        transport.add_candidate(None)
        transport.offer(2, restart=False)
        engine.gate.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert owner.told == [("failed", 1, "no"), ("offer", 2, "offer")]
        assert await transport.stats() == EngineStats()
        await transport.close()


@pytest.mark.parametrize("restart", [True, False])
async def test_only_an_ice_restart_of_ours_is_made_with_the_servers_of_now(restart: bool) -> None:
    async with nothing_left_behind():
        transport, owner, engine, _ = make()
        engine.gate.set()
        engine.config = RENEWED
        transport.offer(1, restart=restart)
        transport.offer(2, restart=restart)
        for _ in range(5):
            await asyncio.sleep(0)
        assert engine.configs == ([EngineConfig(), RENEWED] if restart else [EngineConfig()])
        assert owner.told == [("offer", 1, "offer"), ("offer", 2, "offer")]
        await transport.close()


async def test_their_ice_restart_is_answered_with_the_servers_of_now() -> None:
    async with nothing_left_behind():
        transport, _, engine, _ = make()
        engine.config = RENEWED
        transport.answer(1, "x")
        for _ in range(5):
            await asyncio.sleep(0)
        assert engine.configs == [EngineConfig(), RENEWED]
        await transport.close()


async def test_servers_that_cannot_be_used_keep_nobody_from_an_ice_restart(caplog: pytest.LogCaptureFixture) -> None:
    async with nothing_left_behind():
        transport, owner, engine, _ = make()
        engine.gate.set()
        engine.config = REFUSED
        transport.offer(1, restart=True)
        for _ in range(5):
            await asyncio.sleep(0)
        assert engine.configs == [EngineConfig()]
        assert owner.told == [("offer", 1, "offer")]
        assert "goes on with the ICE servers that it has" in caplog.text
        await transport.close()


async def test_a_fault_in_an_adapter_is_reported_and_not_lost() -> None:
    faults: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(str(context["exception"])))
    transport, _, _, _ = make()
    transport.accept(1, "x")
    for _ in range(3):
        await asyncio.sleep(0)
    await transport.close()
    loop.set_exception_handler(None)
    assert faults == ["a fault of the engine's adapter"]


@given(frames=st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=10)), max_size=10), greeted=st.booleans())
async def test_whatever_arrives_is_told_or_a_violation_and_never_a_crash(
    frames: list[bytes | str], greeted: bool
) -> None:
    transport, owner, _, _ = make()
    transport.channel_opened(CardboardChannel())
    if greeted:
        transport.message_received(HELLO)
    for frame in frames:
        transport.message_received(frame)
    assert {told[0] for told in owner.told} <= {"opened", "hello", "frame", "violated", "ended"}
    await transport.close()


@pytest.mark.parametrize("frame", [bytes((kind,)) + bytes(size) for kind in range(8) for size in (0, 7, 8, 13, 20)])
async def test_frames_of_zeros_of_every_kind_and_many_lengths(frame: bytes) -> None:
    transport, owner, _, _ = opened()
    transport.message_received(frame)
    assert {told[0] for told in owner.told} <= {"frame", "violated", "ended", "hello"}
    await transport.close()
