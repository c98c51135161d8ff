"""One engine connection with its channel: the operations in order, the HELLOs, the heartbeat, the goodbye.

Rules:

* Operations on the engine run one after the other in one task, which `close` ends and awaits.
* The first frame of each side is its HELLO, and there is one; anything else breaks the protocol.
* What happens is told to the owner (`PeerConnection`), which decides; after `close` has been called nothing is.

It does not know signaling, proofs, or that there may be other connections to the same peer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from aldis.errors import ConfigError, ProtocolViolation, StateError
from aldis.peer.engine import Engine, EngineChannel, EngineConfig, EngineRefused, EngineState, EngineStats
from aldis.peer.quality import Quality
from aldis.protocol import channel
from aldis.protocol.messages import Candidate, Proof
from aldis.protocol.texts import clean
from aldis.settings import check_seconds

_log = logging.getLogger(__name__)

# How much may wait in the engine. Enough to keep a fast path busy while the loop does something else, little enough
# that a slow one does not hold up PINGs for long; libwebrtc itself refuses beyond 16 MiB.
BUFFER_HIGH: Final = 1024 * 1024
BUFFER_LOW: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class PeerTiming:
    """How long things may take, all in seconds. Raises `ConfigError` for what is no number above 0, or
    more than `settings.LONGEST_SECONDS`.

    `attempt`: from the offer to HELLOs exchanged. `heal`: from the loss of an established path to its return, be it
    by itself or by an ICE restart. `heartbeat`: between PINGs at least, see `quality`. `silence`: without any frame
    or other sign of life of the engine, after which the path counts as lost. `probe`: how soon something has to arrive
    after a `bye` that came through the server, which may be lying. `linger`: how long closing waits for the other side
    to have got the goodbye.
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
    """A call that is due later."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """Time: an asyncio loop is one, a test's fake clock is another."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call `callback` in `delay` seconds."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A description of ours and its proof, or one of theirs and the proof that has been checked; `serial` is that of
    the operation in which an offer of ours was made."""

    sdp: str
    proof: Proof
    serial: int | None = None


class TransportOwner(Protocol):
    """What is told of a transport, always with the transport itself."""

    def offer_made(self, transport: PeerTransport, serial: int, sdp: str) -> None: ...
    def answer_made(self, transport: PeerTransport, serial: int, sdp: str) -> None: ...
    def operation_failed(self, transport: PeerTransport, serial: int, reason: str) -> None: ...
    def candidate_gathered(self, transport: PeerTransport, candidate: Candidate | None) -> None: ...

    def channel_opened(self, transport: PeerTransport) -> channel.Hello | None:
        """The channel is open: what is returned is sent as our HELLO."""

    def hello_received(self, transport: PeerTransport, hello: channel.Hello) -> None: ...
    def frame_received(self, transport: PeerTransport, frame: channel.Chunk | channel.Ack) -> None: ...
    def buffer_drained(self, transport: PeerTransport) -> None: ...

    def path_lost(self, transport: PeerTransport, *, final: bool) -> None:
        """Nothing comes through; `final` when the engine has given up."""

    def path_restored(self, transport: PeerTransport) -> None: ...

    def ended(self, transport: PeerTransport, reason: str, *, orderly: bool) -> None:
        """The other side has gone; `orderly` when it said so."""

    def violated(self, transport: PeerTransport, reason: str) -> None:
        """The other side broke the protocol."""


class PeerTransport:
    """See the module. An `EngineListener` and a `ChannelListener`."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        config: Callable[[], EngineConfig],
        owner: TransportOwner,
        timing: PeerTiming,
        timers: Timers,
    ) -> None:
        """`config` is asked now, and for each ICE restart. Raises `ConfigError` when the engine cannot use the
        configuration."""
        self.name: Final = name
        self.address: str | None = None  # of the device at the other end, once it has said something
        self.our_offer: Signed | None = None
        self.their_offer: Signed | None = None
        self.announced = False  # the owner has told its listener of the channel
        self.blocked = False  # a frame was refused for want of room
        self._owner = owner
        self._timing = timing
        self._timers = timers
        self._config = config
        self._used = config()
        self._connection = engine.create(self._used, self)
        self._operations: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None
        self._channel: EngineChannel | None = None
        self._channel_gone = asyncio.Event()
        self._greeted = False  # their HELLO has come
        self._quality: Quality | None = None
        self._lost = False
        self._lingers = False
        self._beat_timer: Timer | None = None
        self._beat_due: float | None = None
        self._probe_timer: Timer | None = None
        self._closed = False

    # --- the engine's operations ------------------------------------------------------------------------------------

    def open_channel(self) -> None:
        """Make the channel, as the first offerer."""
        self._connection.open_channel(channel.LABEL)

    def offer(self, serial: int, *, restart: bool) -> None:
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
        async def operation() -> None:
            self._renew()  # with an ICE restart of theirs we gather anew as well
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
        """Have what is gathered next gathered with the servers and credentials of now."""
        config = self._config()
        if config == self._used:
            return
        try:
            self._connection.renew(config)
        except ConfigError as error:
            # Those of before may still do, and without a restart there is no hope.
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
        """What the engine tells of the path."""
        return await self._connection.stats()

    @property
    def relay_missing(self) -> str:
        """What the engine says when a path may be missing for want of a relay; empty once there was a path."""
        return self._connection.relay_missing if self._channel is None else ""

    # --- the engine's events ----------------------------------------------------------------------------------------

    def candidate_gathered(self, candidate: Candidate | None) -> None:
        self._tell(lambda: self._owner.candidate_gathered(self, candidate))

    def state_changed(self, state: EngineState) -> None:
        if self._closed:
            return
        match state:
            case EngineState.CONNECTED:
                self._ping()  # if there is a channel, its PONG tells whether it works again
            case EngineState.DISCONNECTED | EngineState.FAILED:
                self._lost = True
                self._owner.path_lost(self, final=state is EngineState.FAILED)
            case EngineState.CLOSED:
                self._owner.ended(self, "the other side closed the connection", orderly=False)
            case EngineState.NEW | EngineState.CONNECTING:
                pass

    def alive(self) -> None:
        if self._quality is not None:
            # A path that is lost needs a frame to come back: the program behind the engine may hang.
            self._quality.alive(self._timers.time())

    def channel_opened(self, channel_: EngineChannel) -> None:
        if self._closed or self._channel is not None or channel_.label != channel.LABEL:
            channel_.close()  # one channel is all there is
            return
        self._channel = channel_
        channel_.listen(self, BUFFER_LOW)
        self._quality = Quality(self._timers.time(), self._timing.silence, self._timing.heartbeat)
        hello = self._owner.channel_opened(self)
        if hello is not None and not self._closed:
            self._send(channel.encode_hello(hello))
            self._beat()

    def buffer_drained(self) -> None:
        if self.blocked:
            self.blocked = False
            self._tell(lambda: self._owner.buffer_drained(self))

    def channel_closed(self) -> None:
        self._channel_gone.set()
        self._tell(lambda: self._owner.ended(self, "the other side closed the channel", orderly=False))

    def message_received(self, data: bytes | str) -> None:
        if self._closed:
            return
        try:
            self._take(_read(data))
        except ProtocolViolation as error:
            self._owner.violated(self, str(error))

    def _take(self, frame: channel.Frame | None) -> None:
        if not self._greeted and not isinstance(frame, channel.Hello | channel.Goodbye):
            raise ProtocolViolation("the first frame is no HELLO")
        self._heard()
        match frame:
            case channel.Chunk() | channel.Ack():
                self._owner.frame_received(self, frame)
            case channel.Ping(token):
                if self._quality is not None:
                    self._quality.pinged(token)
                # Who takes nothing shall not make us keep answers; what is in the way is sign of life enough.
                if self._channel is not None and self._channel.buffered_amount <= BUFFER_HIGH:
                    self._send(channel.encode_pong(token))
            case channel.Pong(token) if self._quality is not None:
                self._quality.ponged(token, self._timers.time())
            case channel.Hello() if self._greeted:
                raise ProtocolViolation("a second HELLO")
            case channel.Hello():
                self._greeted = True
                self._owner.hello_received(self, frame)
            case channel.Goodbye(reason):
                self._owner.ended(self, clean(reason) or "the other side said goodbye", orderly=True)
            case _:
                pass  # a kind of frame from the future

    # --- frames out -------------------------------------------------------------------------------------------------

    def send_frame(self, frame: bytes) -> bool:
        """Send a frame of the store's if there is room for it."""
        if self._channel is None or self._closed:
            return False
        if self._channel.buffered_amount + len(frame) > BUFFER_HIGH:
            self.blocked = True
            return False
        return self._send(frame)

    def _send(self, frame: bytes) -> bool:
        if self._channel is None:
            return False
        try:
            self._channel.send(frame)
        except StateError as error:
            _log.debug("a frame to %s was not sent: %s", self.name, error)  # its closing is on the way
            return False
        return True

    # --- the heartbeat ----------------------------------------------------------------------------------------------

    @property
    def round_trip_time(self) -> float | None:
        """Seconds, or None before the first PONG."""
        return self._quality.round_trip_time if self._quality is not None else None

    def _ping(self) -> None:
        if self._quality is not None:
            self._send(channel.encode_ping(self._quality.ping(self._timers.time())))

    def _beat(self) -> None:
        if self._closed or self._quality is None:
            return
        now = self._timers.time()
        if self._beat_due is not None and now - self._beat_due > self._timing.heartbeat:
            # It was this program that slept, or its machine. What has come meanwhile is about to be read.
            self._quality.heard(now)
        if not self._quality.ping_in(now):
            self._ping()
        delay = self._quality.ping_in(now)
        if not self._quality.silent(now):
            delay = min(delay, self._quality.silent_in(now))
        self._beat_due = now + delay
        self._beat_timer = self._timers.call_later(delay, self._beat)
        if self._quality.silent(now) and not self._lost:
            self._lost = True
            self._owner.path_lost(self, final=False)

    def _heard(self) -> None:
        if self._quality is not None:
            self._quality.heard(self._timers.time())
        if self._probe_timer is not None:
            self._probe_timer.cancel()
            self._probe_timer = None
        if self._lost:
            self._lost = False
            self._owner.path_restored(self)

    def probe(self, reason: str) -> None:
        """Somebody says that this connection is over: believe it if nothing comes through soon."""
        if self._probe_timer is None and not self._closed:
            self._ping()
            self._probe_timer = self._timers.call_later(self._timing.probe, lambda: self._probed(reason))

    def _probed(self, reason: str) -> None:
        # This is a farewell: a tab that is closed often gets no GOODBYE through any more, but its bye.
        self._tell(lambda: self._owner.ended(self, reason or "the other side ended the connection", orderly=True))

    # --- the end ----------------------------------------------------------------------------------------------------

    def say_goodbye(self, reason: str) -> None:
        """Send GOODBYE as the last frame, if there is a channel that works; `close` will wait until it has arrived."""
        if self._channel is None or self._closed or self._lost:
            return
        self._lingers = self._send(channel.encode_goodbye(reason))
        self._channel.close()  # after what is queued; the other side closes its end as soon as it has read it all

    def stop(self) -> None:
        """Nothing is told any more from here on. `close` is still due."""
        self._closed = True
        for timer in (self._beat_timer, self._probe_timer):
            if timer is not None:
                timer.cancel()
        self._beat_timer = self._probe_timer = None

    async def close(self) -> None:
        """Release everything; after a goodbye not before the other side has closed the channel, or a short time."""
        self.stop()
        try:
            if self._worker is not None:
                self._worker.cancel()
                await asyncio.wait([self._worker])
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


def _read(data: bytes | str) -> channel.Frame | None:
    if isinstance(data, str):
        raise ProtocolViolation("a text message in place of a frame")
    if len(data) > channel.MAX_FRAME:
        raise ProtocolViolation(f"a frame of {len(data)} bytes; the limit is {channel.MAX_FRAME}")
    return channel.decode(data)
