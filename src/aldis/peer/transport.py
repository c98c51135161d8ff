"""One engine connection with its channel, and the session over it.

Rules:

* Operations on the engine run one after the other in one task, which `close` ends and awaits.
* The session handles the channel's input and its times: see `session`.
* Events go to the owner (`PeerConnection`), which decides. After the call of `close` there are none.

It does not know signaling, proofs, or other connections to the same peer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from aldis.errors import ConfigError, StateError
from aldis.peer.engine import Engine, EngineChannel, EngineConfig, EngineRefused, EngineState, EngineStats, TurnReport
from aldis.peer.session import Ended, Measured, PathLost, PathRestored, PeerSession, SessionEvent, Violated
from aldis.protocol import channel
from aldis.protocol.messages import Candidate, Proof
from aldis.settings import check_seconds

_log = logging.getLogger(__name__)

# Bytes that may wait in the engine: enough to keep a fast path busy while the loop is busy, and little enough that a
# slow path does not delay PINGs for long. libwebrtc itself refuses more than 16 MiB.
BUFFER_HIGH: Final = 1024 * 1024
BUFFER_LOW: Final = 256 * 1024
# Seconds for the engine to say when it has got something last.
_LOOK: Final = 1.0
# Seconds after which the other side is told that no more candidates will come, unless there is a path by then. Only a
# side that finds none has a use for it, and each message is work for three programs while they connect.
_END_AFTER: Final = 1.0
_MESSAGE: Final = int(channel.Kind.MESSAGE)


@dataclass(frozen=True, slots=True)
class PeerTiming:
    """How long things may take, all in seconds. Raises `ConfigError` for a value that is not a number above 0, or is
    more than `settings.LONGEST_SECONDS`.

    `attempt`: from the offer to the exchange of HELLOs. `heal`: from the loss of an established path to its return, by
    itself or by an ICE restart. `heartbeat`: the least time between PINGs, see `quality`. `silence`: without any frame
    or other sign of life, after which the path counts as lost. `probe`: how soon something has to arrive after a `bye`
    through the server, which may be false. `linger`: how long closing waits until the other side has the GOODBYE.
    """

    attempt: float = 30.0
    heal: float = 15.0
    heartbeat: float = 1.5
    silence: float = 5.0
    probe: float = 1.5
    linger: float = 1.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            check_seconds(f"timing.{name}", getattr(self, name))


class Timer(Protocol):
    """A call at a later time."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """A source of time: an asyncio loop, or a fake clock in a test."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call `callback` in `delay` seconds."""


@dataclass(frozen=True, slots=True)
class Signed:
    """Our description and its proof, or their description and its checked proof. `serial` is the number of the
    operation that made our offer."""

    sdp: str
    proof: Proof
    serial: int | None = None


class TransportOwner(Protocol):
    """Receives the events of a transport; the first argument is the transport itself."""

    def offer_made(self, transport: PeerTransport, serial: int, sdp: str) -> None: ...
    def answer_made(self, transport: PeerTransport, serial: int, sdp: str) -> None: ...
    def operation_failed(self, transport: PeerTransport, serial: int, reason: str) -> None: ...
    def candidate_gathered(self, transport: PeerTransport, candidate: Candidate | None) -> None: ...

    def channel_opened(self, transport: PeerTransport) -> channel.Hello | None:
        """The channel is open. The result is sent as our HELLO."""

    def hello_received(self, transport: PeerTransport, hello: channel.Hello) -> None: ...
    def frame_received(self, transport: PeerTransport, frame: channel.Chunk | channel.Ack) -> None: ...
    def buffer_drained(self, transport: PeerTransport) -> None: ...

    def path_lost(self, transport: PeerTransport, *, final: bool) -> None:
        """Nothing arrives; `final` when the engine has given up."""

    def path_restored(self, transport: PeerTransport) -> None: ...

    def path_found(self, transport: PeerTransport) -> None:
        """The engine has a path again after the loss of one; no frame has come yet."""

    def ended(self, transport: PeerTransport, reason: str, *, orderly: bool) -> None:
        """The other side has closed the connection; `orderly` after a GOODBYE."""

    def violated(self, transport: PeerTransport, reason: str) -> None:
        """The other side has broken the protocol, or uses another version of it."""


class ChannelPath:
    """The channel of an engine as the `Path` of a session.

    Small frames of one turn of the loop go together, if the other side can read that (`may_bundle`).
    """

    def __init__(self, channel_: EngineChannel, soon: Callable[[Callable[[], object]], object]) -> None:
        """`soon` calls back in the next turn of the loop."""
        self.closed = False
        self.may_bundle = False
        self._channel = channel_
        self._soon = soon
        self._room = 0
        self._bundle: list[bytes] = []
        self._bundle_bytes = 0

    @property
    def room(self) -> int:
        # To ask the engine costs as much as sending does. Without asking, there is at least as much room as this.
        if self._room < BUFFER_HIGH // 2:
            self._room = BUFFER_HIGH - self._channel.buffered_amount - self._bundle_bytes
        return self._room

    def send(self, frame: bytes) -> bool:
        size = len(frame)
        self._room -= size
        if not self.may_bundle or size > channel.BUNDLED:
            return self.flush() and self._send(frame)
        if self._bundle_bytes + size > channel.MAX_BUNDLE and not self.flush():
            return False
        if not self._bundle:
            self._soon(self.flush)
        self._bundle.append(frame)
        self._bundle_bytes += size
        return True

    def flush(self) -> bool:
        """Send the frames that wait for others; False when the path is about to close."""
        frames, self._bundle, self._bundle_bytes = self._bundle, [], 0
        if not frames:
            return True
        return self._send(frames[0] if len(frames) == 1 else channel.encode_bundle(frames))

    def _send(self, frame: bytes) -> bool:
        try:
            self._channel.send(frame)
        except StateError as error:
            _log.debug("a frame was not sent: %s", error)  # its close event follows
            return False
        return True

    def close(self) -> None:
        """Close the channel after sending what is queued."""
        self.flush()
        self._channel.close()


class PeerTransport:
    """An engine connection and its session, see the module. It is an `EngineListener` and a `ChannelListener`."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        config: Callable[[], EngineConfig],
        owner: TransportOwner,
        timing: PeerTiming,
        timers: Timers,
    ) -> None:
        """`config` is called now, and at each ICE restart. Raises `ConfigError` when the engine cannot use the
        configuration."""
        self.name: Final = name
        self.address: str | None = None  # of the device at the other end, after its first message
        self.our_offer: Signed | None = None
        self.their_offer: Signed | None = None
        self.greeted = False  # HELLOs are exchanged, and the owner knows
        self._owner = owner
        self._timing = timing
        self._timers = timers
        self._config = config
        self._used = config()
        self._connection = engine.create(self._used, self)
        self._operations: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._path: ChannelPath | None = None
        self._session: PeerSession | None = None  # once the channel is open
        self._channel_gone = asyncio.Event()
        self._lost = False  # before there is a session
        self._lingers = False
        self._deadline: float | None = None
        self._timer: Timer | None = None
        self._end_timer: Timer | None = None  # of the end of our candidates
        self._closed = False

    # --- the engine's operations ------------------------------------------------------------------------------------

    def open_channel(self) -> None:
        """Make the channel, as the side that offers first."""
        self._connection.open_channel(channel.LABEL)

    def offer(self, serial: int, *, restart: bool) -> None:
        self._cancel_end()

        async def operation() -> None:
            if restart:
                self._renew()
            try:
                sdp = await self._connection.offer(restart_ice=restart)
            except EngineRefused as error:
                self._failed(serial, error)
            else:
                self._tell(lambda: self._owner.offer_made(self, serial, sdp))

        self._enqueue(operation)

    def answer(self, serial: int, offer_sdp: str) -> None:
        self._cancel_end()

        async def operation() -> None:
            self._renew()  # after their ICE restart we gather again too
            try:
                sdp = await self._connection.answer(offer_sdp)
            except EngineRefused as error:
                self._failed(serial, error)
            else:
                self._tell(lambda: self._owner.answer_made(self, serial, sdp))

        self._enqueue(operation)

    def accept(self, serial: int, answer_sdp: str) -> None:
        async def operation() -> None:
            try:
                await self._connection.accept(answer_sdp)
            except EngineRefused as error:
                self._failed(serial, error)

        self._enqueue(operation)

    def add_candidate(self, candidate: Candidate | None) -> None:
        async def operation() -> None:
            try:
                await self._connection.add_candidate(candidate)
            except EngineRefused as error:
                _log.debug("a candidate of %s was of no use: %s", self.name, error)

        self._enqueue(operation)

    def _renew(self) -> None:
        """Use current servers and credentials for the next gathering."""
        config = self._config()
        if config == self._used:
            return
        try:
            self._connection.renew(config)
        except ConfigError as error:
            # The earlier ones may still work, and without a restart there is no hope.
            _log.warning("%s goes on with the ICE servers that it has: %s", self.name, error)
        else:
            self._used = config

    def _enqueue(self, operation: Callable[[], Awaitable[None]]) -> None:
        self._operations.put_nowait(operation)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work(), name=f"aldis peer {self.name}")
            self._worker.add_done_callback(_report_fault)

    async def _work(self) -> None:
        while True:
            await (await self._operations.get())()

    def _failed(self, serial: int, error: EngineRefused) -> None:
        self._tell(lambda: self._owner.operation_failed(self, serial, str(error)))

    def _tell(self, callback: Callable[[], None]) -> None:
        if not self._closed:
            callback()

    async def stats(self) -> EngineStats:
        """The engine's statistics of the path."""
        return await self._connection.stats()

    @property
    def turn(self) -> TurnReport:
        """What became of the TURN servers; empty once there was a path."""
        return self._connection.turn if self._session is None else TurnReport()

    # --- the engine's events ----------------------------------------------------------------------------------------

    def candidate_gathered(self, candidate: Candidate | None) -> None:
        if candidate is not None:
            self._tell(lambda: self._owner.candidate_gathered(self, candidate))
        elif not self._closed:
            self._cancel_end()
            self._end_timer = self._timers.call_later(_END_AFTER, self._end_candidates)

    def _cancel_end(self) -> None:
        """It is not the end: more is gathered."""
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None

    def _end_candidates(self) -> None:
        self._end_timer = None
        if self._session is None or self._session.lost:
            self._tell(lambda: self._owner.candidate_gathered(self, None))

    def state_changed(self, state: EngineState) -> None:
        if self._closed:
            return
        match state:
            case EngineState.CONNECTED:
                if self._session is not None:
                    self._session.ping(self._timers.time())  # its PONG shows whether the channel works again
                    if self._session.lost:
                        self._owner.path_found(self)
            case EngineState.DISCONNECTED | EngineState.FAILED:
                self._lost = True
                if self._session is not None:
                    self._session.lose()
                self._owner.path_lost(self, final=state is EngineState.FAILED)
            case EngineState.CLOSED:
                self._owner.ended(self, "the other side closed the connection", orderly=False)
            case EngineState.NEW | EngineState.CONNECTING:
                pass

    def alive(self) -> None:
        if self._session is not None:
            self._session.alive(self._timers.time())

    def channel_opened(self, channel_: EngineChannel) -> None:
        if self._closed or self._session is not None or channel_.label != channel.LABEL:
            channel_.close()  # only one channel is allowed
            return
        self._path = ChannelPath(channel_, asyncio.get_running_loop().call_soon)
        self._session = PeerSession(
            self._path,
            self._timers.time(),
            silence=self._timing.silence,
            heartbeat=self._timing.heartbeat,
            probe=self._timing.probe,
        )
        if self._lost:
            self._session.lose()
        channel_.listen(self, BUFFER_LOW)
        hello = self._owner.channel_opened(self)
        if hello is not None and not self._closed:
            self._tell_all(self._session.open(hello, self._timers.time()))

    def buffer_drained(self) -> None:
        if self._session is not None and self._session.drained():
            self._tell(lambda: self._owner.buffer_drained(self))

    def channel_closed(self) -> None:
        self._channel_gone.set()
        self._tell(lambda: self._owner.ended(self, "the other side closed the channel", orderly=False))

    def message_received(self, data: bytes | str) -> None:
        if self._session is not None and not self._closed:
            self._tell_all(self._session.received(data, self._timers.time()))

    # --- the session ------------------------------------------------------------------------------------------------

    @property
    def round_trip_time(self) -> float | None:
        """Seconds, or None before the first PONG."""
        return self._session.round_trip_time if self._session is not None else None

    @property
    def measured(self) -> Measured:
        """What the heartbeat has measured."""
        return Measured() if self._session is None else self._session.measured(self._timers.time())

    def send_frame(self, frame: bytes) -> bool:
        """Send a frame of the store if there is room for it."""
        session = self._session
        if session is None or not session.send(frame):
            return False
        if frame[0] == _MESSAGE and not session.expect_more(len(frame)):
            session.expect(len(frame), self._timers.time())
            self._set_timer()
        return True

    def suspect(self) -> None:
        """There is reason to doubt the path: unless something arrives soon, it is lost."""
        if self._session is not None and not self._closed:
            self._session.suspect(self._timers.time())
            self._set_timer()

    def probe(self, reason: str) -> None:
        """A message says that this connection is over. Believe it if nothing arrives soon."""
        if self._session is not None and not self._closed:
            self._session.probe(reason, self._timers.time())
            self._set_timer()

    def _tell_all(self, events: list[SessionEvent]) -> None:
        self._set_timer()
        for event in events:
            if self._closed:
                return
            match event:
                case channel.Chunk() | channel.Ack():
                    self._owner.frame_received(self, event)
                case channel.Hello():
                    self.greeted = True
                    self._owner.hello_received(self, event)
                case PathLost():
                    self._owner.path_lost(self, final=False)
                case PathRestored():
                    self._owner.path_restored(self)
                case Ended(reason, orderly):
                    self._owner.ended(self, reason, orderly=orderly)
                case Violated(reason):
                    self._owner.violated(self, reason)

    def _set_timer(self) -> None:
        deadline = self._session.deadline if self._session is not None else None
        if deadline == self._deadline or self._closed:
            return
        self._deadline = deadline
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._timers.call_later(max(deadline - self._timers.time(), 0.0), self._tick)

    def _tick(self) -> None:
        self._timer = None
        session = self._session
        if session is None or self._closed:
            return
        if session.silent(self._timers.time()):
            self._looking = asyncio.create_task(self._look(session), name=f"aldis look at {self.name}")
            self._looking.add_done_callback(_report_fault)
            return
        self._deadline = None
        self._tell_all(session.tick(self._timers.time()))

    async def _look(self, session: PeerSession) -> None:
        """Before the path counts as lost: maybe only the program at the other end is late."""
        began = self._timers.time()
        with suppress(EngineRefused, TimeoutError):
            async with asyncio.timeout(_LOOK):
                stats = await self._connection.stats()
            if stats.quiet is not None:
                session.answered(began - stats.quiet)
        self._looking = None
        if not self._closed:
            self._deadline = None
            self._tell_all(session.tick(self._timers.time()))

    # --- the end ----------------------------------------------------------------------------------------------------

    def say_goodbye(self, reason: str) -> None:
        """Send GOODBYE as the last frame if the channel works; `close` waits until it has arrived."""
        if self._session is None or self._path is None or self._closed or self._session.lost:
            return
        self._lingers = self._session.goodbye(reason)
        self._path.close()  # after sending what is queued; the other side closes its end when it has read everything

    def stop(self) -> None:
        """Stop all events. Call `close` later."""
        self._closed = True
        if self._path is not None:
            self._path.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._cancel_end()

    async def close(self) -> None:
        """Release everything. After a GOODBYE, first wait a short time for the other side to close the channel."""
        self.stop()
        try:
            if self._worker is not None:
                self._worker.cancel()
                await asyncio.wait([self._worker])
            if self._looking is not None:
                await asyncio.wait([self._looking])  # for `_LOOK` at most
            if self._lingers:
                async with asyncio.timeout(self._timing.linger):
                    await self._channel_gone.wait()
        except TimeoutError:
            _log.debug("%s: the other side has not taken leave", self.name)
        finally:
            await self._connection.close()


def _report_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": f"in {task.get_name()}", "exception": error, "task": task})
