"""Two ends of a peer connection in one test: engines side by side, PeerConnections over a link in memory, a fake clock.

Everything waits on conditions, nothing sleeps. The link between two PeerConnections carries what signaling would carry,
and a test may lose, repeat, reorder or forge on it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, TypeVar

# Before anything makes a wrtc connection; the other way (`allow_loopback`) comes too late once somebody has.
os.environ["WRTC_ALLOW_LOOPBACK"] = "1"

from aldis.client.events import AnswerReceived, ByeReceived, CandidateReceived, OfferReceived
from aldis.errors import IdentityError, PeerError
from aldis.identity.keys import Identity
from aldis.identity.pins import MemoryPins, Pins
from aldis.peer.connection import PeerConnection, PeerState, PeerTiming
from aldis.peer.engine import (
    Engine,
    EngineChannel,
    EngineConfig,
    EngineConnection,
    EngineListener,
    EngineRefused,
    EngineState,
    EngineStats,
)
from aldis.peer.engines.catalog import load_engine
from aldis.peer.slots import AttemptSlots
from aldis.peer.trust import Trust
from aldis.protocol.channel import VERSION, Ack, Chunk, Hello
from aldis.protocol.messages import Candidate, Capabilities, Description, Proof
from support.patience import PATIENCE

LOOPBACK = EngineConfig(allow_loopback=True)
SERVER = "server.test"


class Signal:
    """Something changes; whoever waits looks again."""

    def __init__(self) -> None:
        self._condition = asyncio.Event()

    def changed(self) -> None:
        self._condition.set()

    async def until(self, holds: Callable[[], bool], what: str = "the condition", seconds: float = PATIENCE) -> None:
        """Wait until `holds()` is true."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    self._condition.clear()
                    await self._condition.wait()
        except TimeoutError:
            raise AssertionError(f"{what} did not come true within {seconds:g} s") from None


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """Fail when the loop was told of an exception that nobody took, or a task outlives the block."""
    loop = asyncio.get_running_loop()
    faults: list[dict[str, Any]] = []
    before = asyncio.all_tasks()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    try:
        yield
        # Callbacks of transports that were closed a moment ago.
        for _ in range(5):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - before
        assert not left, f"tasks left behind: {left}"
        import gc

        gc.collect()  # "never retrieved" is told when the task is collected
        assert not faults, f"the loop was told of {faults}"
    finally:
        loop.set_exception_handler(None)


# --- engines ----------------------------------------------------------------------------------------------------------


class ChannelEnd:
    """One end of a channel and what came out of it."""

    def __init__(self, channel: EngineChannel, signal: Signal, low: int) -> None:
        self.channel = channel
        self.received: list[bytes | str] = []
        self.drained = 0
        self.closed = False
        self._signal = signal
        channel.listen(self, low)

    def message_received(self, data: bytes | str) -> None:
        self.received.append(data)
        self._signal.changed()

    def buffer_drained(self) -> None:
        self.drained += 1
        self._signal.changed()

    def channel_closed(self) -> None:
        assert not self.closed, "told twice"
        self.closed = True
        self._signal.changed()


class EngineEnd:
    """One engine connection and all that it has told."""

    def __init__(self, name: str, config: EngineConfig = LOOPBACK, low: int = 64 * 1024) -> None:
        self.engine = load_engine(name)
        self.signal = Signal()
        self.candidates: list[Candidate | None] = []
        self.states: list[EngineState] = []
        self.signs_of_life = 0
        self.channels: list[ChannelEnd] = []
        self._low = low
        self.connection: EngineConnection = self.engine.create(config, self)

    def candidate_gathered(self, candidate: Candidate | None) -> None:
        self.candidates.append(candidate)
        self.signal.changed()

    def alive(self) -> None:
        self.signs_of_life += 1
        self.signal.changed()

    def state_changed(self, state: EngineState) -> None:
        self.states.append(state)
        self.signal.changed()

    def channel_opened(self, channel: EngineChannel) -> None:
        self.channels.append(ChannelEnd(channel, self.signal, self._low))
        self.signal.changed()

    @property
    def end(self) -> ChannelEnd:
        return self.channels[0]

    async def until(self, holds: Callable[[], bool], what: str = "the condition") -> None:
        await self.signal.until(holds, what)


async def pass_candidates(source: EngineEnd, target: EngineEnd) -> None:
    """Carry all candidates over, until the source says that there are no more (or has none of its own to tell)."""
    if not source.engine.capabilities.trickle:
        return
    passed: list[Candidate | None] = []
    while None not in passed:
        await source.until(lambda: len(source.candidates) > len(passed), "another candidate")
        candidate = source.candidates[len(passed)]
        passed.append(candidate)
        with suppress(EngineRefused):  # of an offer that was rolled back meanwhile
            await target.connection.add_candidate(candidate)


async def negotiate(offerer: EngineEnd, answerer: EngineEnd, *, restart_ice: bool = False) -> None:
    """One offer, one answer, all candidates."""
    for end in (offerer, answerer):
        end.candidates.clear()
    answer = await answerer.connection.answer(await offerer.connection.offer(restart_ice=restart_ice))
    await offerer.connection.accept(answer)
    await asyncio.gather(pass_candidates(offerer, answerer), pass_candidates(answerer, offerer))


@asynccontextmanager
async def open_engines(
    offering: str, answering: str, *, low: int = 64 * 1024
) -> AsyncIterator[tuple[EngineEnd, EngineEnd]]:
    """Two engine connections with an open channel between them."""
    offerer, answerer = EngineEnd(offering, low=low), EngineEnd(answering, low=low)
    try:
        offerer.connection.open_channel("aldis.v1")
        await negotiate(offerer, answerer)
        await offerer.until(lambda: bool(offerer.channels), "the offerer's channel")
        await answerer.until(lambda: bool(answerer.channels), "the answerer's channel")
        yield offerer, answerer
    finally:
        await offerer.connection.close()
        await answerer.connection.close()


# --- a clock that a test moves ----------------------------------------------------------------------------------------


@dataclass(eq=False)
class FakeTimer:
    due: float
    callback: Callable[[], None] | None

    def cancel(self) -> None:
        self.callback = None


class FakeTimers:
    """Time stands still until `advance`."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._timers: list[FakeTimer] = []

    def time(self) -> float:
        return self._now

    def call_later(self, delay: float, callback: Callable[[], None], /) -> FakeTimer:
        timer = FakeTimer(self._now + delay, callback)
        self._timers.append(timer)
        return timer

    @property
    def waiting(self) -> int:
        return sum(timer.callback is not None for timer in self._timers)

    def advance(self, seconds: float) -> None:
        """Let time pass; what is due is called on the way, at its own time."""
        end = self._now + seconds
        while True:
            due = [timer for timer in self._timers if timer.callback is not None and timer.due <= end]
            if not due:
                break
            timer = min(due, key=lambda each: each.due)
            self._now = max(self._now, timer.due)
            callback, timer.callback = timer.callback, None
            assert callback is not None
            callback()
        self._now = end
        self._timers = [timer for timer in self._timers if timer.callback is not None]


# --- PeerConnections over a link in memory ----------------------------------------------------------------------------

Message = OfferReceived | AnswerReceived | CandidateReceived | ByeReceived
OneKind = TypeVar("OneKind", OfferReceived, AnswerReceived, CandidateReceived, ByeReceived)


@dataclass(frozen=True)
class Passed:
    """A message on its way: who sent it, to whom, and what the other side would get."""

    sender: str
    to: str
    event: Message


class Link:
    """Signaling between sides in one process. `middle` decides what arrives of each message: the server, in short."""

    def __init__(self) -> None:
        self.sides: dict[str, Side | Puppet] = {}
        self.passed: list[Passed] = []
        self.middle: Callable[[Passed], list[Passed]] = lambda message: [message]
        self.down: Exception | None = None
        self.signal = Signal()

    def send(self, message: Passed) -> None:
        if self.down is not None:
            raise self.down
        self.passed.append(message)
        self.signal.changed()
        for each in self.middle(message):
            self.deliver(each)

    def deliver(self, message: Passed) -> None:
        side = self.sides.get(message.to.partition("/")[0])
        if side is not None:
            asyncio.get_running_loop().call_soon(side.receive, message.event)

    async def until_sent(self, kind: type[Message], sender: str | None = None, times: int = 1) -> None:
        """Wait until so many messages of a kind have been sent."""
        await self.signal.until(lambda: len(self.of(kind, sender)) >= times, f"{times} x {kind.__name__}")

    def of(self, kind: type[Message], sender: str | None = None) -> list[Passed]:
        """What has been sent of a kind."""
        return [m for m in self.passed if isinstance(m.event, kind) and sender in (None, m.sender)]

    def events(self, kind: type[OneKind], sender: str | None = None) -> list[OneKind]:
        """What has been sent of a kind, as the other side would get it."""
        return [m.event for m in self.passed if isinstance(m.event, kind) and sender in (None, m.sender)]


class Sender:
    """The `SignalSender` of one side."""

    def __init__(self, link: Link, sender: str) -> None:
        self._link = link
        self._sender = sender

    async def send_offer(
        self,
        to: str,
        sdp: str,
        *,
        connection: str | None = None,
        proof: Proof | None = None,
        capabilities: Capabilities | None = None,
    ) -> None:
        event = OfferReceived(
            self._sender, Description("offer", sdp), connection, proof, capabilities or Capabilities()
        )
        self._link.send(Passed(self._sender, to, event))

    async def send_answer(
        self,
        to: str,
        sdp: str,
        *,
        connection: str | None = None,
        proof: Proof | None = None,
        capabilities: Capabilities | None = None,
    ) -> None:
        event = AnswerReceived(
            self._sender, Description("answer", sdp), connection, proof, capabilities or Capabilities()
        )
        self._link.send(Passed(self._sender, to, event))

    async def send_ice_candidate(self, to: str, candidate: Candidate | None, *, connection: str | None = None) -> None:
        self._link.send(Passed(self._sender, to, CandidateReceived(self._sender, candidate, connection)))

    async def send_bye(
        self,
        to: str,
        *,
        connection: str | None = None,
        reason: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        self._link.send(Passed(self._sender, to, ByeReceived(self._sender, connection, reason, code, retry_after)))


@dataclass
class Told:
    """What a `PeerListener` was told, in order."""

    states: list[PeerState] = field(default_factory=list)
    errors: list[PeerError | IdentityError] = field(default_factory=list)
    refusals: list[PeerError | IdentityError] = field(default_factory=list)
    hellos: list[Hello] = field(default_factory=list)
    frames: list[Chunk | Ack] = field(default_factory=list)
    writable: int = 0
    closings: int = 0


class TimelessEngine:
    """A real engine that does not say when something has come last: it does not know the time of the test."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name = engine.name
        self.capabilities = engine.capabilities

    def create(self, config: EngineConfig, listener: EngineListener) -> EngineConnection:
        connection = self._engine.create(config, listener)
        stats = connection.stats

        async def timeless() -> EngineStats:
            return replace(await stats(), quiet=None)

        connection.stats = timeless  # type: ignore[method-assign]
        return connection


class Side:
    """A user with one PeerConnection, and all that it has told."""

    _streams = count(1)

    def __init__(
        self,
        link: Link,
        local: str,
        remote: str,
        *,
        engine: str = "wrtc",
        identity: Identity | None = None,
        pins: Pins | None = None,
        timing: PeerTiming | None = None,
        timers: FakeTimers | None = None,
        slots: AttemptSlots | None = None,
        version: int = VERSION,
    ) -> None:
        self.identity = identity or Identity.generate()
        self.pins = pins or MemoryPins()
        self.trust = Trust(self.identity, local, SERVER, self.pins)
        self.config = LOOPBACK  # for what is made from now on
        self.told = Told()
        self.signal = Signal()
        self.open = False
        self._version = version
        self._stream = f"{local}-{next(self._streams)}"
        link.sides[local] = self
        self.peer = PeerConnection(
            local=local,
            remote=remote,
            engine=load_engine(engine) if timers is None else TimelessEngine(load_engine(engine)),
            config=lambda: self.config,
            trust=self.trust,
            signaling=Sender(link, local),
            listener=self,
            hello=lambda: Hello(self._version, self._stream, 1),
            timing=timing,
            timers=timers,
            slots=slots,
        )

    def receive(self, event: Message) -> None:
        self.peer.receive(event)

    def state_changed(self, state: PeerState, error: PeerError | IdentityError | None) -> None:
        assert state is not PeerState.CONNECTED or self.open, "connected without a channel"
        self.told.states.append(state)
        if error is not None:
            self.told.errors.append(error)
        self.signal.changed()

    def channel_opened(self, hello: Hello) -> None:
        assert not self.open, "a channel opened while one is open"
        self.open = True
        self.told.hellos.append(hello)
        self.signal.changed()

    def frame_received(self, frame: Chunk | Ack) -> None:
        assert self.open, "a frame without a channel"
        self.told.frames.append(frame)
        self.signal.changed()

    def channel_closed(self) -> None:
        assert self.open, "a channel closed that was not open"
        self.open = False
        self.told.closings += 1
        self.signal.changed()

    def path_found(self) -> None:
        pass

    def writable(self) -> None:
        self.told.writable += 1
        self.signal.changed()

    def refused(self, error: PeerError | IdentityError) -> None:
        self.told.refusals.append(error)
        self.signal.changed()

    async def until(self, holds: Callable[[], bool], what: str = "the condition") -> None:
        await self.signal.until(holds, what)

    async def until_state(self, state: PeerState) -> None:
        await self.until(lambda: self.peer.state is state and self.told.states[-1:] == [state], f"state {state.value}")


async def connected(*sides: Side) -> None:
    """Wait until all are connected."""
    for side in sides:
        await side.until_state(PeerState.CONNECTED)


class Puppet:
    """A user whose every frame a test decides: a real engine and real proofs, no PeerConnection behind them.

    Answers offers; what comes out of the channel is in `end.received`. Sends nothing by itself, not even a HELLO.
    """

    def __init__(self, link: Link, local: str, remote: str, *, engine: str = "wrtc") -> None:
        self.identity = Identity.generate()
        self.trust = Trust(self.identity, local, SERVER, MemoryPins())
        self.engine = EngineEnd(engine)
        self.remote = remote
        self._sender = Sender(link, local)
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._work())]
        link.sides[local] = self

    def receive(self, event: Message) -> None:
        self._events.put_nowait(event)

    async def _work(self) -> None:
        while True:
            match event := await self._events.get():
                case OfferReceived():
                    assert event.connection is not None
                    self._tasks.append(asyncio.create_task(self._answer(event, event.connection)))
                    await asyncio.wait(self._tasks[-1:])
                case CandidateReceived():
                    await self.engine.connection.add_candidate(event.candidate)
                case _:
                    pass

    async def _answer(self, event: OfferReceived, name: str) -> None:
        assert event.proof is not None
        sdp = await self.engine.connection.answer(event.description.sdp)
        proof = self.trust.sign_answer(self.remote, name, sdp, offer_sdp=event.description.sdp, nonce=event.proof.nonce)
        await self._sender.send_answer(
            self.remote, sdp, connection=name, proof=proof, capabilities=self.engine.engine.capabilities
        )
        self._tasks.append(asyncio.create_task(self._pass_candidates(name)))

    async def _pass_candidates(self, name: str) -> None:
        passed: list[Candidate | None] = []
        while None not in passed and self.engine.engine.capabilities.trickle:
            await self.engine.until(lambda: len(self.engine.candidates) > len(passed))
            candidate = self.engine.candidates[len(passed)]
            passed.append(candidate)
            await self._sender.send_ice_candidate(self.remote, candidate, connection=name)

    async def opened(self) -> EngineChannel:
        """Wait for the channel."""
        await self.engine.until(lambda: bool(self.engine.channels), "the puppet's channel")
        return self.engine.end.channel

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self.engine.connection.close()
