"""`SignalingClient` against a scripted server: what no honest server does, and what must not be left behind."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from aldis.client.backoff import Backoff
from aldis.client.client import SignalingClient
from aldis.client.events import Closed, Connected, Disconnected, GoingAway, Registered, SignalingEvent, SignalingState
from aldis.errors import (
    ConfigError,
    ConnectionClosed,
    ConnectionLost,
    InvalidAddress,
    ReconnectGaveUp,
    RequestFailed,
    RequestTimeout,
    ServerUnreachable,
    StateError,
    UsageError,
)
from aldis.identity.keys import Identity
from support.patience import PATIENCE
from support.scripted_server import BINARY, Line, ScriptedServer, accepted, frame

AT_ONCE = Backoff(first=0.01, most=0.02)
ALICE = Identity.from_seed(b"alice".ljust(32, b"."))


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """Fail when a task outlives the block, or the loop was told of a fault that nobody took."""
    loop = asyncio.get_running_loop()
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    before = asyncio.all_tasks()
    async with asyncio.timeout(PATIENCE):
        yield
    gc.collect()
    await asyncio.sleep(0)
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    assert not left
    assert not faults


async def until(client: SignalingClient, kind: type[SignalingEvent]) -> SignalingEvent:
    """The next event of this kind."""
    stream = client.events()
    async with asyncio.timeout(PATIENCE):
        async for event in stream:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"closed without {kind.__name__}")


@asynccontextmanager
async def joined(server: ScriptedServer, **more: Any) -> AsyncIterator[tuple[SignalingClient, Line]]:
    """A registered client and the server's end of its connection."""
    more.setdefault("backoff", AT_ONCE)
    client = SignalingClient(server.url, "alice", **more)
    try:
        await client.connect()
        line = await server.accept()
        registering = asyncio.create_task(client.register(ALICE))
        await line.admit()
        await registering
        yield client, line
    finally:
        # Half of the tests leave a server that does not answer a CLOSE frame, as it does not read any more.
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        await server.__aexit__()
        await closing


# --- the life of a client -------------------------------------------------------------------------------------------


async def test_the_states_from_the_first_to_the_last() -> None:
    async with nothing_left_behind(), ScriptedServer(upgrade=lambda _: None) as server:
        client = SignalingClient(server.url, "alice")
        assert client.state is SignalingState.DISCONNECTED
        connecting = asyncio.create_task(client.connect())
        line = await server.accept()
        assert client.state is SignalingState.CONNECTING
        line.write(accepted(line.headers))
        await connecting
        assert client.state is SignalingState.CONNECTING
        registering = asyncio.create_task(client.register(ALICE))
        await line.admit()
        await registering
        assert client.state is SignalingState.CONNECTED
        closing = asyncio.create_task(client.close())
        assert await line.read_close() == (1000, "")
        line.close(1000)
        await closing
        assert client.state is SignalingState.DISCONNECTED


def test_what_a_client_is_can_be_asked_before_it_is_connected() -> None:
    client = SignalingClient("http://Signal.Example:8080", "alice", device="phone")
    assert client.url == "ws://signal.example:8080/"
    assert client.server == "signal.example:8080"
    assert (client.user_id, client.device, client.address) == ("alice", "phone", "alice/phone")
    assert client.identity is None


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_works_on_the_event_loops_there_are(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def conversation() -> None:
        async with nothing_left_behind(), ScriptedServer() as server, joined(server) as (client, line):
            pinging = asyncio.create_task(client.ping())
            line.say(type="pong", re=(await line.receive())["id"])
            assert 0 <= await pinging < PATIENCE
            line.hang_up()
            line = await server.accept()
            assert (await line.admit())["resume"] == {"session": "s", "secret": "t", "received": 0}

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(conversation())


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_deadline_that_is_due_already_ends_the_request_and_not_the_client(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def conversation() -> None:
        async with nothing_left_behind(), ScriptedServer() as server:
            # Less than the millisecond in which uvloop counts.
            client = SignalingClient(server.url, "alice", request_timeout=1e-4)
            async with client:
                line = await server.accept()
                events = client.events()
                outcomes = await asyncio.gather(*(client.ping() for _ in range(10)), return_exceptions=True)
                assert [type(outcome) for outcome in outcomes] == [RequestTimeout] * 10
                line.say(type="going-away", reconnectIn=5)
                async with asyncio.timeout(PATIENCE):
                    assert isinstance(await anext(events), GoingAway)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(conversation())


async def test_a_first_attempt_that_fails_is_raised_and_can_be_made_again() -> None:
    async with nothing_left_behind():
        server = ScriptedServer()
        async with server:
            pass
        client = SignalingClient(server.url, "alice")
        with pytest.raises(ServerUnreachable, match="refused"):
            await client.connect()
        assert client.state is SignalingState.DISCONNECTED
        async with server:
            await client.connect()
            line = await server.accept()
            closing = asyncio.create_task(client.close())
            await line.read_close()
            line.hang_up()
            await closing


async def test_a_context_that_cannot_be_entered_leaves_nothing_behind() -> None:
    async with nothing_left_behind():
        with pytest.raises(ServerUnreachable):
            async with SignalingClient("ws://name.invalid", "alice"):
                raise AssertionError("entered")


async def test_connecting_twice_makes_no_sense() -> None:
    async with nothing_left_behind(), ScriptedServer() as server, joined(server) as (client, _):
        with pytest.raises(StateError, match="already"):
            await client.connect()


async def test_closing_while_the_first_connection_is_made_ends_the_attempt() -> None:
    async with nothing_left_behind(), ScriptedServer(upgrade=lambda _: None) as server:
        client = SignalingClient(server.url, "alice")
        connecting = asyncio.create_task(client.connect())
        line = await server.accept()
        await client.close()
        with pytest.raises(StateError, match="closed while"):
            await connecting
        await line.gone()
        with pytest.raises(StateError, match="closed"):
            await client.connect()


async def test_cancelling_the_first_connection_leaves_a_client_that_can_try_again() -> None:
    async with nothing_left_behind(), ScriptedServer(upgrade=lambda _: None) as server:
        client = SignalingClient(server.url, "alice")
        connecting = asyncio.create_task(client.connect())
        line = await server.accept()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await line.gone()
        assert client.state is SignalingState.DISCONNECTED
        await client.close()


async def test_closing_before_anything_and_again_does_no_harm() -> None:
    async with nothing_left_behind():
        client = SignalingClient("ws://signal.example", "alice")
        await client.close()
        await asyncio.gather(client.close(), client.close())
        assert [event async for event in client.events()] == []


async def test_closing_between_two_attempts_ends_the_waiting() -> None:
    async with (
        nothing_left_behind(),
        ScriptedServer() as server,
        joined(server, backoff=Backoff(first=1000.0, most=1000.0)) as (client, line),
    ):
        gone = asyncio.create_task(until(client, Disconnected))
        await asyncio.sleep(0)
        line.hang_up()
        await gone
        held = asyncio.create_task(client.discover("bob"))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(ConnectionLost):
            await held


async def test_closing_during_a_second_attempt_ends_the_attempt() -> None:
    async with nothing_left_behind(), ScriptedServer() as server, joined(server) as (client, line):
        server.upgrade = lambda _: None
        line.hang_up()
        line = await server.accept()
        await client.close()
        await line.gone()


# --- requests -------------------------------------------------------------------------------------------------------


async def test_a_request_without_a_reply_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        nothing_left_behind(),
        ScriptedServer() as server,
        joined(server, request_timeout=20.0) as (client, line),
    ):
        asking = asyncio.create_task(client.discover("bob"))
        number = (await line.receive())["id"]
        loop = asyncio.get_running_loop()
        now = loop.time
        monkeypatch.setattr(loop, "time", lambda: now() + 20)
        with pytest.raises(RequestTimeout) as caught:
            await asking
        assert caught.value.seconds == 20.0
        line.say(type="discover-response", userId="bob", online=True, re=number)
        pinging = asyncio.create_task(client.ping())
        line.say(type="pong", re=(await line.receive())["id"])
        await pinging


async def test_a_request_whose_caller_is_gone_is_forgotten() -> None:
    async with nothing_left_behind(), ScriptedServer() as server, joined(server) as (client, line):
        asking = asyncio.create_task(client.discover("bob"))
        number = (await line.receive())["id"]
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        line.say(type="discover-response", userId="bob", online=True, re=number)
        pinging = asyncio.create_task(client.ping())
        line.say(type="pong", re=(await line.receive())["id"])
        await pinging


async def test_a_request_in_flight_fails_with_the_connection_and_one_made_later_waits() -> None:
    async with nothing_left_behind(), ScriptedServer() as server, joined(server) as (client, line):
        in_flight = asyncio.create_task(client.discover("bob"))
        await line.receive()
        line.hang_up()
        with pytest.raises(ConnectionLost):
            await in_flight
        waiting = asyncio.create_task(client.discover("bob"))
        line = await server.accept()
        await line.admit()
        line.say(type="discover-response", userId="bob", online=True, re=(await line.receive())["id"])
        assert (await waiting).online


async def test_a_watch_in_several_messages_fails_when_one_of_them_does() -> None:
    async with nothing_left_behind(), ScriptedServer() as server, joined(server) as (client, line):
        watching = asyncio.create_task(client.watch(*(f"user-{n}" for n in range(1500))))
        first, second = await line.receive(), await line.receive()
        line.say(type="error", message="too many", code="too-large", re=second["id"])
        line.say(type="ack", re=first["id"])
        with pytest.raises(RequestFailed):
            await watching


async def test_text_that_cannot_be_sent_is_a_usage_error() -> None:
    async with nothing_left_behind(), ScriptedServer() as server, joined(server) as (client, _):
        for send in (client.send_offer, client.send_answer):
            with pytest.raises(UsageError):
                await send("bob", "\ud800")
        with pytest.raises(InvalidAddress):
            await client.send_bye("not a name")


# --- losing the server ----------------------------------------------------------------------------------------------


async def test_a_final_close_code_is_delivered_and_raised_from_every_later_call() -> None:
    async with nothing_left_behind(), ScriptedServer() as server, joined(server) as (client, line):
        events: list[SignalingEvent] = []
        client.subscribe(events.append)
        stream = client.events()
        line.close(4503, "banned")
        async with asyncio.timeout(PATIENCE):
            seen = [event async for event in stream]
        assert seen == events
        assert isinstance(seen[-1], Closed)
        error = seen[-1].error
        assert isinstance(error, ConnectionClosed)
        assert (error.code, error.reason) == (4503, "banned")
        for call in (client.connect(), client.discover("bob"), client.ping(), client.register(ALICE)):
            with pytest.raises(ConnectionClosed):
                await call
        await client.close()


async def test_a_final_refusal_of_the_name_after_a_reconnection_ends_the_client() -> None:
    async with nothing_left_behind(), ScriptedServer() as server, joined(server) as (client, line):
        closed = asyncio.create_task(until(client, Closed))
        await asyncio.sleep(0)
        line.hang_up()
        line = await server.accept()
        register = await line.receive()
        line.say(type="error", message="belongs to another", code="key-mismatch", re=register["id"])
        event = await closed
        assert isinstance(event, Closed)
        assert isinstance(event.error, RequestFailed)
        assert await line.read_close() == (1000, "")
        line.hang_up()
        with pytest.raises(RequestFailed) as caught:
            await client.discover("bob")
        assert caught.value.code == "key-mismatch"


async def test_the_client_gives_up_after_the_attempts_it_may_make() -> None:
    async with (
        nothing_left_behind(),
        ScriptedServer() as server,
        joined(server, backoff=Backoff(first=0.001, most=0.001, attempts=3)) as (client, line),
    ):
        stream = client.events()
        server.upgrade = lambda _: b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        line.hang_up()
        async with asyncio.timeout(PATIENCE):
            events = [event async for event in stream]
        waits = [event.retry_in for event in events if isinstance(event, Disconnected)]
        assert len(waits) == 4
        assert all(wait is not None and 0 <= wait <= 0.001 for wait in waits[:-1])
        assert isinstance(events[-1], Closed)
        assert isinstance(events[-1].error, ReconnectGaveUp)
        assert "503" in events[-1].error.last


async def test_a_server_that_breaks_the_protocol_is_left_and_visited_again() -> None:
    async with nothing_left_behind(), ScriptedServer() as server, joined(server) as (client, line):
        for garbage in (frame(BINARY, b"x"), frame(1, b"no JSON"), frame(1, b"\xff"), frame(1, b"[" * 100_000)):
            line.write(garbage)
            line = await server.accept()
            back = asyncio.create_task(until(client, Registered))
            await line.admit()
            await back
        assert client.state is SignalingState.CONNECTED


async def test_going_away_is_told_and_followed() -> None:
    # Were the backoff asked, the client would be away for minutes.
    async with (
        nothing_left_behind(),
        ScriptedServer() as server,
        joined(server, backoff=Backoff(first=1000.0, most=1000.0)) as (client, line),
    ):
        stream = client.events()
        line.say(type="going-away", reconnectIn=0.02)
        line.close(4000, "restart")
        line = await server.accept()
        await line.admit()
        seen = [await anext(stream) for _ in range(4)]
        assert [type(event) for event in seen] == [GoingAway, Disconnected, Connected, Registered]


async def test_pings_of_the_server_are_answered() -> None:
    async with nothing_left_behind(), ScriptedServer() as server, joined(server) as (_, line):
        line.write(frame(0x9, b"are you there"))
        assert await line.read_frame() == (0xA, b"are you there")


# --- events ---------------------------------------------------------------------------------------------------------


async def test_a_callback_that_raises_is_logged_and_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: SignalingEvent) -> None:
        raise ValueError("a fault of the application")

    async with nothing_left_behind(), ScriptedServer() as server, joined(server) as (client, line):
        events: list[SignalingEvent] = []
        client.subscribe(broken)
        client.subscribe(events.append)
        going = asyncio.create_task(until(client, GoingAway))
        await asyncio.sleep(0)
        line.say(type="going-away", reconnectIn=100)
        await going
        assert events == [GoingAway(100)]
        assert client.state is SignalingState.CONNECTED
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert faults
    assert all("a fault of the application" in (record.exc_text or "") for record in faults)


async def test_a_callback_can_end_its_own_subscription_and_others() -> None:
    async with nothing_left_behind(), ScriptedServer() as server, joined(server) as (client, line):
        seen: list[str] = []

        def first(_: SignalingEvent) -> None:
            seen.append("first")
            end_first()
            end_second()

        end_first = client.subscribe(first)
        end_second = client.subscribe(lambda _: seen.append("second"))
        client.subscribe(lambda _: seen.append("third"))
        for seconds in (100, 200):
            going = asyncio.create_task(until(client, GoingAway))
            await asyncio.sleep(0)
            line.say(type="going-away", reconnectIn=seconds)
            await going
        assert seen == ["first", "third", "third"]
        end_first()


async def test_a_stream_that_nobody_holds_is_not_fed() -> None:
    async with nothing_left_behind(), ScriptedServer() as server, joined(server) as (client, _):
        stream = client.events()
        assert len(client._streams) == 1
        del stream
        gc.collect()
        assert len(client._streams) == 0


# --- settings -------------------------------------------------------------------------------------------------------


def test_a_token_that_no_server_takes_is_refused_at_once() -> None:
    for token in ("x" * 4096, "ä" * 2048):
        SignalingClient("ws://signal.example", "alice", token=token)
        with pytest.raises(ConfigError, match="token"):
            SignalingClient("ws://signal.example", "alice", token=token + "x")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["request_timeout", "connect_timeout"])
def test_a_time_out_that_is_none_is_refused(name: str, seconds: float) -> None:
    with pytest.raises(ConfigError) as caught:
        SignalingClient("ws://signal.example", "alice", **{name: seconds})  # type: ignore[arg-type]
    assert caught.value.setting == name


def test_certificates_that_cannot_be_read_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        SignalingClient("wss://signal.example", "alice", ca_file=tmp_path / "missing.pem")
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate")
    with pytest.raises(ConfigError, match="no certificate"):
        SignalingClient("ws://signal.example", "alice", ca_file=empty)


def test_a_name_or_an_address_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(InvalidAddress):
        SignalingClient("ws://signal.example", "not a name")
    with pytest.raises(UsageError):
        SignalingClient("gopher://signal.example", "alice")
