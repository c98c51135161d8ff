"""Which messages wait for a turn, and which are handled as they come. Time stands still unless a test moves it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from time import monotonic, perf_counter
from typing import Any

import pytest
import uvloop

from aldis.hub.sessions import Session
from aldis.hub.watchers import MOST_AT_ONCE
from aldis.identity.keys import Identity
from aldis.protocol.codec import to_base64
from aldis.server import connections, in_turn, websocket
from aldis.server.app import SignalingServer
from aldis.server.connections import AT_ONCE, BURST_SECONDS, CROWD, OTHER, PARKED_UNITS
from aldis.server.scheduler import Flow
from support.patience import PATIENCE
from support.raw_websocket import TEXT, RawClient, encode_frame
from support.settings import UNLIMITED, config

RATE = 100


class Clock:
    """Seconds, as the server's connections have them."""

    def __init__(self) -> None:
        self.now = monotonic()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (connections, websocket):
        monkeypatch.setattr(module, "monotonic", clock)
    # Else even a client that speaks alone waits after so many units, until its turn comes at once.
    monkeypatch.setattr(connections, "TURN", 10_000)
    return clock


def turns(server: SignalingServer, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For each time that a connection has to wait from now on: for how many seconds at least."""
    scheduler = server.connections.scheduler
    waited: list[float] = []
    add = scheduler.add

    def noted(flow: Flow, when: float, now: float) -> None:
        waited.append(max(when - now, 0.0))
        add(flow, when, now)

    monkeypatch.setattr(scheduler, "add", noted)
    return waited


async def ping(client: RawClient, count: int) -> None:
    """So many messages, one after the other."""
    for _ in range(count):
        assert await client.request({"type": "ping"}) == {"type": "pong"}


async def test_a_new_connection_waits_for_its_turn(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SignalingServer(config(messages_per_second=RATE)) as server:
        waited = turns(server, monkeypatch)
        async with await RawClient.connect(server.port) as client:
            await ping(client, 3)
            assert waited == [0.0] * 3  # its turn comes at once, when nobody else has one


async def test_half_of_a_burst_is_handled_as_it_comes_and_the_rest_waits(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = int(BURST_SECONDS * RATE / 2)
    async with (
        SignalingServer(config(messages_per_second=RATE)) as server,
        await RawClient.connect(server.port) as client,
    ):
        await ping(client, 1)
        clock.now += BURST_SECONDS
        waited = turns(server, monkeypatch)
        await ping(client, half + 1)
        assert waited == []
        await ping(client, 5)
        assert waited == [0.0] * 5
        clock.now += BURST_SECONDS
        await ping(client, half)
        assert len(waited) == 5


async def test_one_that_has_used_up_its_rate_gets_some_units_at_a_time(clock: Clock) -> None:
    async with (
        SignalingServer(config(messages_per_second=RATE)) as server,
        await RawClient.connect(server.port) as client,
    ):
        scheduler = server.connections.scheduler
        await ping(client, int(BURST_SECONDS * RATE / 2) - 1)  # what a new one has
        for times in (1, 2, 3):
            assert (len(scheduler), scheduler.throttled) == (1, times)
            # What is left over never comes to a whole unit.
            clock.now += (PARKED_UNITS + 0.25) / RATE
            await ping(client, PARKED_UNITS)


def test_of_costly_messages_that_come_at_the_same_moment_few_are_handled_before_the_others() -> None:
    with asyncio.Runner(loop_factory=uvloop.Loop) as runner:
        runner.run(prove_a_crowd())


def at_the_ping(server: SignalingServer, look: Callable[[], int]) -> list[int]:
    """What `look` finds when the server handles the next ping. Its client has the pong some turns of the loop later,
    and more of them on a busy machine."""
    seen: list[int] = []
    received = server.connections.received

    def handled(session: Session | None, text: str, now: float, *size: int) -> bool:
        if text.replace(" ", "") == '{"type":"ping"}':
            seen.append(look())
        return received(session, text, now, *size)

    server.connections.received = handled
    return seen


async def prove_a_crowd() -> None:
    """A hundred clients prove who they are, and what they have sent is there before the server reads any of it."""
    count = 100
    async with SignalingServer(config(**UNLIMITED)) as server, AsyncExitStack() as stack:
        alice = await stack.enter_async_context(await RawClient.connect(server.port))
        await alice.register("alice")
        crowd = []
        for number in range(count):
            client = await stack.enter_async_context(await RawClient.connect(server.port))
            identity = Identity.generate()
            key = to_base64(identity.public_key)
            challenge = await client.request({"type": "register", "userId": f"user-{number}", "publicKey": key})
            proof = {"type": "prove", "signature": client.sign(identity, challenge, f"user-{number}")}
            crowd.append((client, proof))
        registrations = server.hub.stats.registrations
        before = registrations.total()
        seen = at_the_ping(server, registrations.total)
        for client, proof in crowd:
            client.send(proof)
        alice.send_bytes(encode_frame(TEXT, b'{"type":"ping"}'))
        assert await alice.receive() == {"type": "pong"}
        assert seen[0] - before < count / 2, "all proofs were checked first"
        for client, _ in crowd:
            assert (await client.receive())["success"] is True
    assert 20 * OTHER * count / 2 > AT_ONCE


def test_of_large_messages_that_come_at_the_same_moment_few_are_read_before_the_others() -> None:
    """On uvloop, which reads a connection up to 32 times in a row."""
    with asyncio.Runner(loop_factory=uvloop.Loop) as runner:
        runner.run(read_a_crowd())


async def read_a_crowd() -> None:
    count = 100
    async with SignalingServer(config(**UNLIMITED)) as server, AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(await RawClient.connect(server.port)) for _ in range(count)]
        alice = await stack.enter_async_context(await RawClient.connect(server.port))
        await alice.register("alice")
        await alice.request({"type": "ping"})
        text = b'{"type":"ping","padding":"%s"}' % (b"x" * 40_000)
        frame = encode_frame(TEXT, text)
        seen = at_the_ping(server, lambda: server.hub.memory.use.transports)
        for client in crowd:
            client.send_bytes(frame[:-2])
        alice.send({"type": "ping"})
        assert await alice.receive() == {"type": "pong"}
        assert seen[0] < count / 2 * len(frame), "all of them were read first"
        for client in crowd:
            client.send_bytes(frame[-2:])
            assert await client.receive() == {"type": "pong"}
        assert server.hub.memory.use.transports > count * len(frame)


def test_a_turn_of_the_loop_has_its_bound_however_long_it_takes() -> None:
    """On uvloop, whose clock goes on within a turn."""
    with asyncio.Runner(loop_factory=uvloop.Loop) as runner:
        runner.run(read_slowly())


async def read_slowly() -> None:
    """Large messages come at the same moment to a server that needs half a millisecond for each further read."""
    count = 20
    async with SignalingServer(config(**UNLIMITED)) as server, AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(await RawClient.connect(server.port)) for _ in range(count)]
        alice = await stack.enter_async_context(await RawClient.connect(server.port))
        await alice.register("alice")
        await alice.request({"type": "ping"})
        reads = 0
        further_read = server.connections.further_read

        def slowly() -> None:
            nonlocal reads
            reads += 1
            further_read()
            end = perf_counter() + 0.0005
            while perf_counter() < end:
                pass

        server.connections.further_read = slowly  # type: ignore[method-assign]
        seen = at_the_ping(server, lambda: reads)
        frame = encode_frame(TEXT, b'{"type":"ping","padding":"%s"}' % (b"x" * 30_000))
        for client in crowd:
            client.send_bytes(frame[:-2])
        alice.send({"type": "ping"})
        assert await alice.receive() == {"type": "pong"}
        # As much again may count for earlier turns.
        assert seen[0] <= 2 * CROWD / 4, "more was read before alice"
        for client in crowd:
            client.send_bytes(frame[-2:])
            assert await client.receive() == {"type": "pong"}


def test_of_clients_that_have_sent_large_messages_few_are_looked_at_before_the_others() -> None:
    """On uvloop, which reads a connection up to 32 times in a row."""
    with asyncio.Runner(loop_factory=uvloop.Loop) as runner:
        runner.run(set_a_crowd_aside())


async def set_a_crowd_aside() -> None:
    count = 100
    async with SignalingServer(config(**UNLIMITED)) as server, AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(await RawClient.connect(server.port)) for _ in range(count)]
        alice = await stack.enter_async_context(await RawClient.connect(server.port))
        await alice.register("alice")
        await alice.request({"type": "ping"})
        large = encode_frame(TEXT, b'{"type":"ping","padding":"%s"}' % (b"x" * 40_000))
        for client in crowd:
            client.send_bytes(large)
            assert await client.receive() == {"type": "pong"}
        looked = 0
        is_crowded = server.connections.is_crowded

        def counted() -> bool:
            nonlocal looked
            crowded = is_crowded()
            looked += crowded
            return crowded

        server.connections.is_crowded = counted  # type: ignore[method-assign]
        seen = at_the_ping(server, lambda: looked)
        for client in crowd:
            client.send_bytes(large)
        alice.send({"type": "ping"})
        assert await alice.receive() == {"type": "pong"}
        assert 0 < seen[0] < count / 10, "all of them were looked at first"
        for client in crowd:
            assert await client.receive() == {"type": "pong"}
        # Also those that were set aside with nothing to say are read on.
        for client in crowd[: count // 2]:
            client.send_bytes(large)
        for client in crowd[: count // 2]:
            assert await client.receive() == {"type": "pong"}
        for client in crowd:
            await ping(client, 1)


def test_two_users_that_leave_at_the_same_moment_are_told_of_on_uvloop() -> None:
    """Each has more watchers than are told in one turn of the loop."""
    with asyncio.Runner(loop_factory=uvloop.Loop) as runner:
        runner.run(tell_of_two())


async def tell_of_two() -> None:
    async with SignalingServer(config(**UNLIMITED)) as server, AsyncExitStack() as stack:
        names = ["alice", "bob"]
        users = [await stack.enter_async_context(await RawClient.connect(server.port)) for _ in names]
        for user, name in zip(users, names, strict=True):
            await user.register(name)
        watchers = []
        for number in range(MOST_AT_ONCE + 10):
            watcher = await stack.enter_async_context(await RawClient.connect(server.port))
            await watcher.register(f"watcher{number}")
            watcher.send({"type": "watch", "userIds": names})
            assert [(await watcher.receive())["online"] for _ in names] == [True, True]
            watchers.append(watcher)
        for user in users:
            user.send({"type": "unregister"})
        for watcher in watchers:
            told = [await watcher.receive() for _ in names]
            assert {(one["userId"], one["online"]) for one in told} == {("alice", False), ("bob", False)}
        assert not server.faults.count


async def test_one_that_watches_many_names_is_told_of_all_though_not_in_one_go() -> None:
    count = 5 * MOST_AT_ONCE
    async with SignalingServer(config(**UNLIMITED)) as server, AsyncExitStack() as stack:
        alice, bob = [await stack.enter_async_context(await RawClient.connect(server.port)) for _ in range(2)]
        await alice.register("alice")
        await bob.register("bob")
        alice.send({"type": "watch", "userIds": [f"user{number}" for number in range(count)], "id": 1})
        bob.send({"type": "ping"})
        assert await bob.receive() == {"type": "pong"}
        told = [await alice.receive() for _ in range(count)]
        assert {one["userId"] for one in told} == {f"user{number}" for number in range(count)}
        assert await alice.receive() == {"type": "ack", "re": 1}


async def test_of_connections_that_end_at_the_same_moment_each_turn_handles_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy was restarted, or somebody wants the event loop to stand still."""
    monkeypatch.setattr(in_turn, "SECONDS", 0.0)
    count = 20
    async with SignalingServer(config(**UNLIMITED)) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await RawClient.connect(server.port)) for _ in range(count)]
        for number, client in enumerate(clients):
            await client.register(f"user-{number}")
        turns: list[int] = []
        all_gone = asyncio.Event()
        gone = server.connections.gone

        def note(connection: Any) -> None:
            gone(connection)
            turns.append(server.connections.turn())
            if len(turns) == count:
                all_gone.set()

        server.connections.gone = note  # type: ignore[method-assign]
        for client in clients:
            client.vanish()
        async with asyncio.timeout(PATIENCE):
            await all_gone.wait()
        assert len(set(turns)) == count


async def test_of_clients_that_read_again_at_the_same_moment_each_turn_sends_to_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each may have 256 KB of presence to come."""
    monkeypatch.setattr(in_turn, "SECONDS", 0.0)
    count = 20
    async with SignalingServer(config(**UNLIMITED)) as server, AsyncExitStack() as stack:
        for number in range(count):
            client = await stack.enter_async_context(await RawClient.connect(server.port))
            await client.register(f"user-{number}")
        turns: list[int] = []
        all_told = asyncio.Event()

        def note(session: Session) -> None:
            turns.append(server.connections.turn())
            if len(turns) == count:
                all_told.set()

        monkeypatch.setattr(server.connections.hub, "writable", note)
        for connection in list(server.connections._open):
            assert isinstance(connection, websocket.ClientConnection)
            connection.full = True
            connection.resume_writing()
        async with asyncio.timeout(PATIENCE):
            await all_told.wait()
        assert len(set(turns)) == count
