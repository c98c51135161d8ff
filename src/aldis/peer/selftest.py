"""What a WebRTC engine can do on this machine: get answers from a STUN server, candidates, a channel to itself.

`aldis doctor` uses it to find out why a direct connection fails. It uses the engine only through its seam, so it tests
what a real connection would use, and contacts only the servers that it is given.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from aldis.peer.engine import Engine, EngineChannel, EngineConfig, EngineConnection, EngineRefused, EngineState
from aldis.protocol import stun
from aldis.protocol.messages import Candidate

# RFC 8489 section 6.2.1 doubles from 0.5 s. A person waits here, so this makes fewer attempts.
_STUN_RETRY: Final = 0.5  # seconds
_LABEL: Final = "aldis.selftest"
_PIECE: Final = b"x" * 1024


@dataclass(frozen=True, slots=True)
class Gathered:
    """The candidates of one engine, by kind (`host`, `srflx`, `relay`): `address:port/protocol` each."""

    by_kind: dict[str, list[str]]
    finished: bool  # False: the time ran out before the engine had finished


@dataclass(frozen=True, slots=True)
class LoopedBack:
    """Two connections of one engine have exchanged data. Times in seconds."""

    open_seconds: float
    round_trip: float


async def ask_stun(host: str, port: int, within: float = 3.0) -> str:
    """Send STUN binding requests (RFC 8489) over UDP; return the `address:port` that the server sees.

    Raises `TimeoutError` when no answer comes `within` so many seconds, `OSError` when the network fails.
    """
    loop = asyncio.get_running_loop()
    transaction = os.urandom(12)
    answer: asyncio.Future[str] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: _StunClient(transaction, answer), remote_addr=(host, port)
    )
    try:
        request = stun.write_message(stun.BINDING_REQUEST, transaction)
        async with asyncio.timeout(within):
            while True:
                transport.sendto(request)
                done, _ = await asyncio.wait([answer], timeout=_STUN_RETRY)
                if done:
                    return answer.result()
    finally:
        transport.close()
        answer.cancel()


class Nat(Enum):
    """What is between this machine and others, as far as STUN tells (RFC 4787 section 4.1)."""

    NONE = "none"  # others see the address that this machine has
    EASY = "easy"  # one address for all others: peers connect directly
    SYMMETRIC = "symmetric"  # another one for each other
    UNSURE = "unsure"  # it changes the port, and there is one server alone to ask
    BLOCKED = "blocked"  # no server answers
    UNKNOWN = "unknown"  # there is no server to ask


@dataclass(frozen=True, slots=True)
class NatReport:
    """What STUN servers see of this machine; `address` is empty when none answers."""

    kind: Nat = Nat.UNKNOWN
    address: str = ""


async def look_at_nat(endpoints: Sequence[tuple[str, int]], within: float = 3.0) -> NatReport:
    """Ask STUN servers from one port over IPv4, and compare what they see. `endpoints`: host and port of each."""
    loop = asyncio.get_running_loop()
    places: dict[tuple[str, int], None] = {}
    for host, port in endpoints:
        with suppress(OSError):
            found = await loop.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
            places[str(found[0][4][0]), port] = None
    if not places:
        return NatReport()
    transport, asked = await loop.create_datagram_endpoint(
        lambda: _NatClient(list(places)),
        local_addr=("0.0.0.0", 0),  # noqa: S104 - asks, and serves nobody
    )
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await asked.ask()
    finally:
        transport.close()
    return _nat_of(asked.seen, _own_address(next(iter(places))), transport.get_extra_info("sockname")[1])


def _nat_of(seen: Mapping[tuple[str, int], tuple[str, int]], own: str, port: int) -> NatReport:
    """`seen`: what each server has seen, by the server."""
    if not seen:
        return NatReport(Nat.BLOCKED)
    mapped = set(seen.values())
    address, mapped_port = next(iter(seen.values()))
    if len(mapped) > 1:
        kind = Nat.SYMMETRIC
    elif address == own:
        kind = Nat.NONE
    else:
        # A NAT that keeps the port does so for all others, mostly (RFC 4787 section 4.2.1).
        kind = Nat.EASY if len(seen) > 1 or mapped_port == port else Nat.UNSURE
    return NatReport(kind, address)


def _own_address(place: tuple[str, int]) -> str:
    """The address from which this machine sends there. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(place)
        except OSError:
            return ""
        return str(probe.getsockname()[0])


class _NatClient(asyncio.DatagramProtocol):
    """Asks several servers from one port."""

    def __init__(self, places: list[tuple[str, int]]) -> None:
        self.seen: dict[tuple[str, int], tuple[str, int]] = {}
        self._waiting = {os.urandom(12): place for place in places}
        self._all = asyncio.Event()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    async def ask(self) -> None:
        """Return when all have answered."""
        while self._waiting:
            for transaction, place in self._waiting.items():
                self._transport.sendto(stun.write_message(stun.BINDING_REQUEST, transaction), place)
            with suppress(TimeoutError):
                async with asyncio.timeout(_STUN_RETRY):
                    await self._all.wait()

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        answer = stun.read_message(data)
        if answer is None or answer.kind != stun.BINDING_SUCCESS or answer.transaction not in self._waiting:
            return
        value = answer.value(stun.Attribute.XOR_MAPPED_ADDRESS) or b""
        mapped = stun.read_xor_address(value, answer.transaction)
        if mapped is not None:
            self.seen[self._waiting.pop(answer.transaction)] = (str(mapped[0]), mapped[1])
        if not self._waiting:
            self._all.set()


class _StunClient(asyncio.DatagramProtocol):
    def __init__(self, transaction: bytes, answer: asyncio.Future[str]) -> None:
        self._transaction = transaction
        self._answer = answer

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        mapped = _mapped_address(data, self._transaction)
        if mapped is not None and not self._answer.done():
            self._answer.set_result(mapped)

    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)


def _mapped_address(data: bytes, transaction: bytes) -> str | None:
    """The XOR-MAPPED-ADDRESS (RFC 8489 section 14.2) of the answer to our request; None for anything else."""
    answer = stun.read_message(data)
    if answer is None or answer.kind != stun.BINDING_SUCCESS or answer.transaction != transaction:
        return None
    mapped = stun.read_xor_address(answer.value(stun.Attribute.XOR_MAPPED_ADDRESS) or b"", transaction)
    if mapped is None:
        return None
    address, port = mapped
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


@dataclass(slots=True)
class _Side:
    """One end of the self-test, the listener of its engine connection."""

    candidates: list[Candidate] = field(default_factory=list)
    gathered: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    echoed: asyncio.Event = field(default_factory=asyncio.Event)
    channel: EngineChannel | None = None
    echoes: bool = False
    pass_on: Callable[[Candidate | None], None] | None = None

    def candidate_gathered(self, candidate: Candidate | None) -> None:
        if candidate is None:
            self.gathered.set()
        else:
            self.candidates.append(candidate)
        if self.pass_on is not None:
            self.pass_on(candidate)

    def alive(self) -> None:
        """Does nothing, because the test is over soon."""

    def state_changed(self, state: EngineState) -> None:
        if state is EngineState.FAILED:
            self.failed.set()

    def channel_opened(self, channel: EngineChannel) -> None:
        self.channel = channel
        channel.listen(self, 0)
        self.opened.set()

    def message_received(self, data: bytes | str) -> None:
        if self.echoes and self.channel is not None and isinstance(data, bytes):
            self.channel.send(data)
        self.echoed.set()

    def buffer_drained(self) -> None:
        pass

    def channel_closed(self) -> None:
        pass


async def gather(engine: Engine, config: EngineConfig, within: float = 10.0) -> Gathered:
    """Gather candidates with the given ICE servers, for at most `within` seconds.

    Raises `EngineRefused` when the engine cannot gather.
    """
    side = _Side()
    connection = engine.create(config, side)
    finished = True
    try:
        connection.open_channel(_LABEL)
        try:
            async with asyncio.timeout(within):
                sdp = await connection.offer()
                lines = [line[2:] for line in sdp.splitlines() if line.startswith("a=candidate:")]
                if engine.capabilities.trickle:
                    await side.gathered.wait()
        except TimeoutError:
            finished, lines = False, []
    finally:
        await connection.close()
    by_kind: dict[str, list[str]] = {}
    for line in [*lines, *(candidate.candidate for candidate in side.candidates)]:
        _sort_in(line, by_kind)
    return Gathered(by_kind, finished)


def _sort_in(line: str, by_kind: dict[str, list[str]]) -> None:
    """Read a candidate (RFC 8839 section 5.1): foundation, component, transport, priority, address, port, typ, kind."""
    words = line.split()
    if len(words) < 8 or words[6] != "typ" or " tcptype active" in line:
        return  # nobody can connect to an active TCP candidate (RFC 6544 section 4.5)
    address = f"[{words[4]}]" if ":" in words[4] else words[4]
    where = f"{address}:{words[5]}/{words[2].lower()}"
    known = by_kind.setdefault(words[7], [])
    if where not in known:
        known.append(where)


async def loop_back(engine: Engine, config: EngineConfig, within: float = 15.0) -> LoopedBack:
    """Connect the engine to itself and send a kilobyte there and back.

    Raises `EngineRefused` when that fails, `TimeoutError` when it takes more than `within` seconds.
    """
    caller, callee = _Side(), _Side(echoes=True)
    start = time.perf_counter()
    near = engine.create(config, caller)
    far = engine.create(config, callee)
    try:
        near.open_channel(_LABEL)
        async with asyncio.timeout(within):
            channel = await _introduce(near, caller, far, callee)
            opened = time.perf_counter()
            channel.send(_PIECE)
            await _first(caller.echoed, caller.failed, callee.failed)
            return LoopedBack(opened - start, time.perf_counter() - opened)
    finally:
        await near.close()
        await far.close()


async def _introduce(near: EngineConnection, caller: _Side, far: EngineConnection, callee: _Side) -> EngineChannel:
    """Exchange offer, answer and candidates without a server; return the caller's open channel."""
    to_far: asyncio.Queue[Candidate | None] = asyncio.Queue()
    to_near: asyncio.Queue[Candidate | None] = asyncio.Queue()
    caller.pass_on, callee.pass_on = to_far.put_nowait, to_near.put_nowait
    await near.accept(await far.answer(await near.offer()))
    try:
        async with asyncio.TaskGroup() as group:
            carriers = [group.create_task(_carry(to_far, far)), group.create_task(_carry(to_near, near))]
            await _first(caller.opened, caller.failed, callee.failed)
            await _first(callee.opened, caller.failed, callee.failed)
            for carrier in carriers:
                carrier.cancel()
    except* EngineRefused as refused:
        raise EngineRefused(str(refused.exceptions[0])) from None
    if caller.channel is None:
        raise EngineRefused("the engine opened no channel to itself")
    return caller.channel


async def _carry(candidates: asyncio.Queue[Candidate | None], connection: EngineConnection) -> None:
    while True:
        await connection.add_candidate(await candidates.get())


async def _first(wanted: asyncio.Event, *unwanted: asyncio.Event) -> None:
    """Wait for one event; raise `EngineRefused` when one of the others comes before it."""
    waiters = [asyncio.ensure_future(event.wait()) for event in (wanted, *unwanted)]
    try:
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
    if not wanted.is_set():
        raise EngineRefused("the engine gave up connecting to itself")
