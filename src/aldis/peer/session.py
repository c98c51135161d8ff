"""One session with the program at the other end: HELLO, heartbeat and GOODBYE, over any path.

Rules:

* It does no I/O. It sends frames through its `Path`. Calls report what has happened, with the time, and return the
  events, in order. Call `tick` when `deadline` has come.
* The first frame of each side is its only HELLO. Anything else breaks the protocol, and so does a HELLO with another
  version.
* Every frame is a sign of life. Messages and acknowledgements are passed on unread.
* PINGs are sent only after our HELLO.

It does not know what the path is, or whether there are other paths to the same peer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from aldis.errors import ProtocolViolation
from aldis.peer.quality import Quality
from aldis.protocol import channel
from aldis.protocol.channel import Ack, Chunk, Hello
from aldis.protocol.texts import clean


class Path(Protocol):
    """Carries the frames of a session, whole and in order."""

    @property
    def room(self) -> int:
        """How many bytes may be sent now; less than 0 when too much waits already."""

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""

    def send(self, frame: bytes) -> bool:
        """Send a frame; False when the path is about to close."""


@dataclass(frozen=True, slots=True)
class PathLost:
    """Nothing has arrived for too long."""


@dataclass(frozen=True, slots=True)
class PathRestored:
    """Data arrives again."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The other side has closed the session; `orderly` after a GOODBYE."""

    reason: str
    orderly: bool


@dataclass(frozen=True, slots=True)
class Violated:
    """The other side has broken the protocol, or uses another version of it."""

    reason: str


# A HELLO is reported once, before any other frame.
SessionEvent: TypeAlias = Hello | Chunk | Ack | PathLost | PathRestored | Ended | Violated


class PeerSession:
    """See the module."""

    def __init__(self, path: Path, now: float, *, silence: float, heartbeat: float, probe: float) -> None:
        """For `silence`, `heartbeat` and `probe` see `PeerTiming`; in seconds."""
        self.greeted = False  # their HELLO has come, and its version is ours
        self.lost = False  # nothing arrives
        self._path: Final = path
        self._heartbeat: Final = heartbeat
        self._probe_seconds: Final = probe
        self._quality: Final = Quality(now, silence, heartbeat)
        self._open = False  # our HELLO has left
        self._blocked = False  # a frame was refused, because there was no room
        self._beat_at: float | None = None
        self._probe_at: float | None = None
        self._probe_reason = ""

    # --- queries ----------------------------------------------------------------------------------------------------

    @property
    def round_trip_time(self) -> float | None:
        """Seconds, or None before the first PONG."""
        return self._quality.round_trip_time

    @property
    def deadline(self) -> float | None:
        """When `tick` is due; None when nothing is due."""
        if self._probe_at is None or self._beat_at is None:
            return self._beat_at if self._probe_at is None else self._probe_at
        return min(self._beat_at, self._probe_at)

    # --- from this side ---------------------------------------------------------------------------------------------

    def open(self, hello: Hello, now: float) -> list[SessionEvent]:
        """Send HELLO; the heartbeat starts."""
        self._path.send(channel.encode_hello(hello))
        self._open = True
        return self._beat(now)

    def send(self, frame: bytes) -> bool:
        """Send a frame of the store. False before HELLOs are exchanged and when there is no room; then `drained` will
        report when there is."""
        if not (self.greeted and self._open) or self._path.closed:
            return False
        if len(frame) > self._path.room:
            self._blocked = True
            return False
        return self._path.send(frame)

    def goodbye(self, reason: str) -> bool:
        """Send GOODBYE as the last frame, unless the path is lost. Returns whether it was sent."""
        return not (self.lost or self._path.closed) and self._path.send(channel.encode_goodbye(reason))

    def probe(self, reason: str, now: float) -> None:
        """A message says that this session is over. End it for that reason if nothing arrives soon."""
        if self._probe_at is None:
            self.ping(now)
            self._probe_at = now + self._probe_seconds
            self._probe_reason = reason

    # --- from the path ----------------------------------------------------------------------------------------------

    def ping(self, now: float) -> None:
        """Ask for a sign of life, because the path may work again."""
        if self._open:
            self._path.send(channel.encode_ping(self._quality.ping(now)))

    def alive(self, now: float) -> None:
        """The path reports a sign of life of the other side that is no frame. Only a frame ends the state of a lost
        path, because the program at the other end may hang."""
        self._quality.alive(now)

    def lose(self) -> None:
        """The path itself reports that nothing arrives."""
        self.lost = True

    def drained(self) -> bool:
        """There is room again; returns whether a frame was refused before."""
        blocked, self._blocked = self._blocked, False
        return blocked

    def received(self, data: bytes | str, now: float) -> list[SessionEvent]:
        """A message has arrived. Never raises for its content."""
        try:
            frame = self._read(data)
            events = self._heard(now)
            self._take(frame, now, events)
        except ProtocolViolation as error:
            return [Violated(f"the other side broke the protocol: {error}")]
        return events

    def _read(self, data: bytes | str) -> channel.Frame | None:
        if isinstance(data, str):
            raise ProtocolViolation("a text message in place of a frame")
        if len(data) > channel.MAX_FRAME:
            raise ProtocolViolation(f"a frame of {len(data)} bytes; the limit is {channel.MAX_FRAME}")
        frame = channel.decode(data)
        if not self.greeted and not isinstance(frame, Hello | channel.Goodbye):
            raise ProtocolViolation("the first frame is no HELLO")
        return frame

    def _take(self, frame: channel.Frame | None, now: float, events: list[SessionEvent]) -> None:
        match frame:
            case Chunk() | Ack():
                events.append(frame)
            case channel.Ping(token):
                self._quality.pinged(token)
                # Keep no answers for a side that reads nothing; the bytes that wait for it show enough life.
                if self._path.room >= 0:
                    self._path.send(channel.encode_pong(token))
            case channel.Pong(token):
                self._quality.ponged(token, now)
            case Hello() if self.greeted:
                raise ProtocolViolation("a second HELLO")
            case Hello(version=channel.VERSION):
                self.greeted = True
                events.append(frame)
            case Hello(version=version):
                reason = f"it speaks version {version} of the channel protocol, we speak {channel.VERSION}"
                events.append(Violated(reason))
            case channel.Goodbye(reason):
                events.append(Ended(clean(reason) or "the other side said goodbye", orderly=True))
            case _:
                pass  # a frame of a later version

    def _heard(self, now: float) -> list[SessionEvent]:
        self._quality.heard(now)
        self._probe_at = None
        if not self.lost:
            return []
        self.lost = False
        return [PathRestored()]

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[SessionEvent]:
        """Handle the deadlines; call this when `deadline` has come."""
        if self._probe_at is not None and self._probe_at <= now:
            self._probe_at = None
            # This is a farewell: a tab that closes often cannot send its GOODBYE any more, but its bye arrives.
            return [Ended(self._probe_reason or "the other side ended the connection", orderly=True)]
        if self._beat_at is None or self._beat_at > now:
            return []
        if now - self._beat_at > self._heartbeat:
            # This program or its machine slept. What has come meanwhile will be read next.
            self._quality.heard(now)
        return self._beat(now)

    def _beat(self, now: float) -> list[SessionEvent]:
        if not self._quality.ping_in(now):
            self.ping(now)
        silent = self._quality.silent(now)
        delay = self._quality.ping_in(now)
        self._beat_at = now + (delay if silent else min(delay, self._quality.silent_in(now)))
        if not silent or self.lost:
            return []
        self.lost = True
        return [PathLost()]
