"""What happens to a PeerConnection when the path dies, the other side goes silent, or talks nonsense."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from aldis.client.events import AnswerReceived, ByeReceived, OfferReceived
from aldis.errors import PeerConnectionFailed, PeerRefused
from aldis.peer.connection import PeerState, PeerTiming
from aldis.peer.engine import EngineConfig, EngineState
from aldis.peer.engines import wrtc
from aldis.protocol.channel import (
    MAX_FRAME,
    Ack,
    Goodbye,
    Hello,
    Kind,
    Ping,
    decode,
    encode_ack,
    encode_goodbye,
    encode_hello,
    encode_ping,
    encode_pong,
)
from aldis.protocol.messages import IceServer
from support.peers import FakeTimers, Link, Puppet, Side, connected, nothing_left_behind

ENGINES = ("wrtc", "aiortc")
QUICK = PeerTiming(attempt=3.0, heal=1.0, heartbeat=0.1, silence=0.4, probe=0.3, linger=0.3)
HELLO = encode_hello(Hello(1, "puppet", 1))


async def with_puppet(
    engine: str = "wrtc", *, timing: PeerTiming | None = None, timers: FakeTimers | None = None
) -> tuple[Link, Side, Puppet]:
    """Alice, connected to a puppet that has said HELLO and no more."""
    link = Link()
    alice = Side(link, "alice", "bob", engine=engine, timing=timing, timers=timers)
    puppet = Puppet(link, "bob", "alice", engine=engine)
    alice.peer.connect()
    (await puppet.opened()).send(HELLO)
    await connected(alice)
    return link, alice, puppet


def wire_of(side: Side):  # type: ignore[no-untyped-def]
    return side.peer._current


# --- silence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_side_that_falls_silent_is_noticed_by_the_heartbeat(engine: str) -> None:
    """As when the other program is killed or its machine loses the network: no engine tells, for many seconds."""
    async with nothing_left_behind():
        timers = FakeTimers()
        _, alice, puppet = await with_puppet(engine, timers=timers)
        timers.advance(4.9)
        assert alice.peer.state is PeerState.CONNECTED
        timers.advance(0.2)
        await alice.until_state(PeerState.DISCONNECTED)
        assert alice.open  # it may come back
        timers.advance(15)
        await alice.until_state(PeerState.FAILED)
        assert "did not come back within 15 s" in str(alice.told.errors[-1])
        assert not alice.open
        await alice.peer.close()
        await puppet.close()


async def test_any_frame_is_a_sign_of_life_and_brings_a_lost_path_back() -> None:
    async with nothing_left_behind():
        timers = FakeTimers()
        _, alice, puppet = await with_puppet("aiortc", timers=timers)
        channel = puppet.engine.end.channel
        for number in range(1, 5):
            timers.advance(4)
            channel.send(encode_ack(number))
            await alice.until(lambda n=number: alice.told.frames[-1:] == [Ack(n)])
        assert PeerState.DISCONNECTED not in alice.told.states
        timers.advance(6)
        await alice.until_state(PeerState.DISCONNECTED)
        channel.send(encode_pong(1))
        await alice.until_state(PeerState.CONNECTED)
        timers.advance(4)
        assert alice.peer.state is PeerState.CONNECTED
        assert alice.told.closings == 0
        await alice.peer.close()
        await puppet.close()


async def test_pings_are_sent_and_answered_and_give_the_round_trip_time() -> None:
    async with nothing_left_behind():
        timers = FakeTimers()
        _, alice, puppet = await with_puppet(timers=timers)
        end = puppet.engine.end
        timers.advance(1.5)
        tokens = [1_000_000_000, 1_001_500_000]  # alice's clock, in microseconds

        def pinged() -> set[int]:
            return {frame.token for frame in map(_decode, end.received) if isinstance(frame, Ping)}

        await puppet.engine.until(lambda: pinged() == set(tokens))
        end.channel.send(encode_ping(77))
        await puppet.engine.until(lambda: encode_pong(77) in end.received)
        timers.advance(0.25)
        for token in (5, tokens[1], tokens[1]):  # one that is not alice's, and one twice
            end.channel.send(encode_pong(token))
        end.channel.send(encode_ack(1))
        await alice.until(lambda: alice.told.frames == [Ack(1)])
        assert alice.peer.round_trip_time == pytest.approx(0.25)
        await alice.peer.close()
        await puppet.close()


def _decode(data: bytes | str) -> object:
    assert isinstance(data, bytes)
    return decode(data)


# --- healing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("both", [False, True])
async def test_a_lost_path_is_healed_by_an_ice_restart_on_the_same_connection(both: bool) -> None:
    async with nothing_left_behind():
        link = Link()
        alice, bob = Side(link, "alice", "bob"), Side(link, "bob", "alice")
        alice.peer.connect()
        await connected(alice, bob)
        name = link.of(OfferReceived)[0].event.connection
        for side in (alice, bob) if both else (alice,):
            wire_of(side).state_changed(EngineState.DISCONNECTED)
        await alice.until(lambda: PeerState.DISCONNECTED in alice.told.states)
        await link.until_sent(AnswerReceived, times=2)
        alice.peer.send_frame(encode_ack(1))
        bob.peer.send_frame(encode_ack(2))
        await bob.until(lambda: bob.told.frames == [Ack(1)])
        await alice.until(lambda: alice.told.frames == [Ack(2)])
        await connected(alice, bob)
        assert {m.event.connection for m in link.of(OfferReceived)} == {name}
        first, *_, last = link.of(OfferReceived)
        assert isinstance(first.event, OfferReceived)
        assert isinstance(last.event, OfferReceived)
        assert first.event.proof != last.event.proof
        assert alice.told.closings == bob.told.closings == 0
        await alice.peer.close()
        await bob.peer.close()


async def test_both_sides_of_an_ice_restart_use_the_turn_credentials_of_now() -> None:
    async with nothing_left_behind():
        link = Link()
        alice, bob = Side(link, "alice", "bob"), Side(link, "bob", "alice")
        alice.peer.connect()
        await connected(alice, bob)
        for side in (alice, bob):
            # A TURN server on a port where nobody listens.
            turn = IceServer(["turn:127.0.0.1:9?transport=udp"], "user", f"of {side.peer._remote}")
            side.config = EngineConfig(ice_servers=(turn,), allow_loopback=True)
        wire_of(alice).state_changed(EngineState.DISCONNECTED)
        await link.until_sent(AnswerReceived, times=2)
        for side in (alice, bob):
            [used] = wire_of(side)._connection._native.get_configuration().ice_servers
            assert used.credential == f"of {side.peer._remote}"
        await alice.peer.close()
        await bob.peer.close()


@pytest.mark.parametrize(("first", "second"), [("aiortc", "aiortc"), ("wrtc", "aiortc"), ("aiortc", "wrtc")])
async def test_without_ice_restart_connecting_again_replaces_the_connection(first: str, second: str) -> None:
    async with nothing_left_behind():
        link = Link()
        alice, bob = Side(link, "alice", "bob", engine=first), Side(link, "bob", "alice", engine=second)
        alice.peer.connect()
        await connected(alice, bob)
        wire_of(alice).state_changed(EngineState.DISCONNECTED)
        assert alice.peer.state is PeerState.DISCONNECTED
        alice.peer.connect()
        await alice.until(lambda: len(alice.told.hellos) == 2)
        await bob.until(lambda: len(bob.told.hellos) == 2)
        await connected(alice, bob)
        assert len({m.event.connection for m in link.of(OfferReceived)}) == 2
        assert alice.told.closings == bob.told.closings == 1
        await alice.peer.close()
        await bob.peer.close()


async def test_a_refusal_is_told_while_the_connection_before_may_still_come_back() -> None:
    async with nothing_left_behind():
        timers = FakeTimers()
        link, alice, puppet = await with_puppet("aiortc", timers=timers)
        timers.advance(5.2)
        await alice.until_state(PeerState.DISCONNECTED)
        assert alice.told.errors == []
        link.middle = lambda message: []
        alice.peer.connect()
        await link.until_sent(OfferReceived, "alice", 2)
        name = link.of(OfferReceived, "alice")[-1].event.connection
        alice.receive(ByeReceived("bob", name, "not now", "busy", 5.0))
        await alice.until_state(PeerState.DISCONNECTED)
        [error] = alice.told.errors
        assert isinstance(error, PeerRefused)
        assert (error.code, error.retry_after) == ("busy", 5.0)
        await alice.peer.close()
        await puppet.close()


async def test_a_path_that_the_engine_gave_up_and_cannot_restart_is_failed_at_once() -> None:
    async with nothing_left_behind():
        _, alice, puppet = await with_puppet("aiortc")
        wire_of(alice).state_changed(EngineState.FAILED)
        await alice.until_state(PeerState.FAILED)
        await alice.peer.close()
        await puppet.close()


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_new_process_of_the_peer_takes_over_at_once(engine: str) -> None:
    """The old one is still there, silent or not: the new one's offer is answered, and its channel replaces the old."""
    async with nothing_left_behind():
        link = Link()
        alice = Side(link, "alice", "bob", engine=engine)
        bob = Side(link, "bob", "alice", engine=engine)
        alice.peer.connect()
        await connected(alice, bob)
        new = Side(link, "bob", "alice", engine=engine, identity=bob.identity)
        new.peer.connect()
        await connected(new)
        await alice.until(lambda: len(alice.told.hellos) == 2)
        await connected(alice)
        assert alice.told.closings == 1
        new.peer.send_frame(encode_ack(9))
        await alice.until(lambda: alice.told.frames == [Ack(9)])
        await bob.until_state(PeerState.FAILED)  # the old one is told by its engine that the channel is gone
        for side in (alice, bob, new):
            await side.peer.close()


async def test_a_restart_that_meets_a_new_process_becomes_a_new_connection() -> None:
    """Alice offers to restart a connection that the new process has never heard of; it answers as if it were new."""
    async with nothing_left_behind():
        timers = FakeTimers()
        link, alice, puppet = await with_puppet(timers=timers)
        bob = Side(link, "bob", "alice", identity=puppet.identity)
        timers.advance(6)
        await alice.until(lambda: len(alice.told.hellos) == 2)
        await connected(alice, bob)
        assert len({m.event.connection for m in link.of(OfferReceived, "alice")}) == 2
        await alice.peer.close()
        await bob.peer.close()
        await puppet.close()


# --- a bye from the server's mouth ------------------------------------------------------------------------------------


async def test_a_bye_does_not_end_a_connection_that_works() -> None:
    async with nothing_left_behind():
        link = Link()
        # No shorter: bob and alice share a loop, and a busy machine may keep both from it for a while.
        timing = replace(QUICK, silence=2.0, probe=1.0)
        alice = Side(link, "alice", "bob", timing=timing)
        bob = Side(link, "bob", "alice", timing=timing)
        alice.peer.connect()
        await connected(alice, bob)
        name = link.of(OfferReceived)[0].event.connection
        alice.receive(ByeReceived("bob", name, "I never said this"))
        frames = 0
        for number in range(1, 13):  # longer than a probe takes
            bob.peer.send_frame(encode_ack(number))
            await alice.until(lambda n=number: alice.told.frames[-1:] == [Ack(n)])
            frames = number
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.1)
        assert frames == 12
        assert alice.peer.state is PeerState.CONNECTED
        await alice.peer.close()
        await bob.peer.close()


async def test_a_bye_ends_a_connection_that_is_dead_sooner_than_the_heartbeat() -> None:
    async with nothing_left_behind():
        timers = FakeTimers()
        link, alice, puppet = await with_puppet(timers=timers)
        alice.receive(ByeReceived("bob", link.of(OfferReceived)[0].event.connection, "bob has left"))
        alice.receive(ByeReceived("bob", "another connection", "no matter"))
        timers.advance(1.6)
        await alice.until_state(PeerState.CLOSED)
        await alice.peer.close()
        await puppet.close()


# --- nonsense on the channel ------------------------------------------------------------------------------------------

VIOLATIONS: dict[str, bytes | str] = {
    "an empty frame": b"",
    "a short frame": bytes((Kind.ACK, 1)),
    "a broken HELLO": bytes((Kind.HELLO,)) + b"{",
    "a second HELLO": HELLO,
    "a text message": "hello",
    "a frame too large": bytes((99,)) + bytes(MAX_FRAME),
    "a message without its size": bytes((Kind.MESSAGE, 0)) + bytes(8),
    "a goodbye that is no text": bytes((Kind.GOODBYE, 0xFF)),
    "nested JSON": bytes((Kind.HELLO,)) + b"[" * 60_000,
}


@pytest.mark.parametrize("kind", VIOLATIONS)
async def test_a_frame_that_breaks_the_protocol_ends_the_connection_with_its_reason(kind: str) -> None:
    async with nothing_left_behind():
        _, alice, puppet = await with_puppet()
        end = puppet.engine.end
        frame = VIOLATIONS[kind]
        if isinstance(frame, str):
            end.channel._native.send(frame)  # type: ignore[attr-defined]
        else:
            end.channel.send(frame)
        await alice.until_state(PeerState.FAILED)
        error = alice.told.errors[-1]
        assert isinstance(error, PeerConnectionFailed)
        assert "broke the protocol" in error.reason
        assert alice.told.closings == 1
        await puppet.engine.until(lambda: end.closed, "the channel's end")
        goodbye = _decode(end.received[-1])
        assert isinstance(goodbye, Goodbye)
        assert "broke the protocol" in goodbye.reason
        await alice.peer.close()
        await puppet.close()


async def failure_of_an_attempt_that_begins_with(frame: bytes) -> str:
    """What alice is told when this is the first thing that a puppet says on the new channel."""
    async with nothing_left_behind():
        link = Link()
        alice = Side(link, "alice", "bob")
        puppet = Puppet(link, "bob", "alice")
        alice.peer.connect()
        (await puppet.opened()).send(frame)
        await alice.until_state(PeerState.FAILED)
        assert alice.told.closings == 0
        await alice.peer.close()
        await puppet.close()
    return str(alice.told.errors[-1])


@pytest.mark.parametrize("frame", [encode_ack(1), encode_ping(1), bytes((99,))])
async def test_a_first_frame_that_is_no_hello_fails_the_attempt(frame: bytes) -> None:
    assert "HELLO" in await failure_of_an_attempt_that_begins_with(frame)


async def test_a_goodbye_in_place_of_a_hello_is_a_refusal_with_its_reason() -> None:
    assert "not today" in await failure_of_an_attempt_that_begins_with(encode_goodbye("not today"))


async def test_the_reason_of_a_goodbye_is_a_line_for_people() -> None:
    reason = "\x1b[2J\u202egnihsihp\n" * 200
    text = await failure_of_an_attempt_that_begins_with(bytes((Kind.GOODBYE,)) + reason.encode())
    assert "gnihsihp" in text
    assert len(text) < 300
    assert text.isprintable()


async def test_a_kind_of_frame_from_the_future_is_skipped() -> None:
    async with nothing_left_behind():
        _, alice, puppet = await with_puppet()
        puppet.engine.end.channel.send(bytes((99, 1, 2, 3)))
        puppet.engine.end.channel.send(encode_ack(1))
        await alice.until(lambda: alice.told.frames == [Ack(1)])
        await alice.peer.close()
        await puppet.close()


async def test_another_version_of_the_channel_is_refused_in_plain_words() -> None:
    async with nothing_left_behind():
        link = Link()
        alice, bob = Side(link, "alice", "bob"), Side(link, "bob", "alice", version=2)
        alice.peer.connect()
        await alice.until_state(PeerState.FAILED)
        assert "version 2" in str(alice.told.errors[-1])
        await bob.until(lambda: bob.peer.state in (PeerState.FAILED, PeerState.CLOSED))
        assert alice.told.hellos == []
        await alice.peer.close()
        await bob.peer.close()


async def test_a_side_that_never_says_hello_runs_into_the_time_out() -> None:
    async with nothing_left_behind():
        timers = FakeTimers()
        link = Link()
        alice = Side(link, "alice", "bob", timers=timers)
        puppet = Puppet(link, "bob", "alice")
        alice.peer.connect()
        await puppet.opened()
        await puppet.engine.until(lambda: bool(puppet.engine.end.received), "alice's HELLO")
        timers.advance(31)
        await alice.until_state(PeerState.FAILED)
        assert "no HELLO" in str(alice.told.errors[-1])
        await alice.peer.close()
        await puppet.close()


async def test_channels_beside_the_one_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    really_close = wrtc._Channel.close

    def close(channel: wrtc._Channel) -> None:
        closed.append(channel.label)
        really_close(channel)
        alice.signal.changed()

    async with nothing_left_behind():
        _, alice, puppet = await with_puppet()
        monkeypatch.setattr(wrtc._Channel, "close", close)
        puppet.engine.connection.open_channel("another")
        puppet.engine.connection.open_channel("aldis.v1")
        # Not by what the puppet is told: of a channel that is closed before it knows it open, wrtc tells it nothing.
        await alice.until(lambda: sorted(closed) == ["aldis.v1", "another"])
        puppet.engine.end.channel.send(encode_ack(1))
        await alice.until(lambda: alice.told.frames == [Ack(1)])
        await alice.peer.close()
        await puppet.close()


async def test_a_listener_that_raises_harms_nobody_else() -> None:
    link = Link()
    alice, bob = Side(link, "alice", "bob"), Side(link, "bob", "alice")
    faults: list[object] = []

    def note(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        faults.append(context["exception"])
        bob.signal.changed()

    asyncio.get_running_loop().set_exception_handler(note)
    try:
        alice.peer.connect()
        await connected(alice, bob)
        bob.told.frames = None  # type: ignore[assignment]
        alice.peer.send_frame(encode_ack(1))
        await bob.until(lambda: bool(faults), "the fault")
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    bob.told.frames = []
    alice.peer.send_frame(encode_ack(2))
    await bob.until(lambda: bob.told.frames == [Ack(2)])
    await alice.peer.close()
    await bob.peer.close()


async def test_late_messages_of_signaling_cannot_bring_a_dropped_connection_back() -> None:
    async with nothing_left_behind():
        link = Link()
        alice, bob = Side(link, "alice", "bob"), Side(link, "bob", "alice")
        alice.peer.connect()
        await connected(alice, bob)
        transports = dict(alice.peer._transports)
        await bob.peer.close()
        await alice.until_state(PeerState.CLOSED)
        late = [message for message in link.passed if message.to == "alice"]
        for message in late:
            alice.receive(message.event)
        await asyncio.sleep(0)
        assert alice.peer.state is PeerState.CLOSED
        assert not set(alice.peer._transports) & set(transports)
        assert alice.told.refusals == []
        await alice.peer.close()
