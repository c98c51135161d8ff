"""One session with the program at the other end: HELLO, heartbeat and GOODBYE, over any path.

Rules:

* It does no I/O. It sends frames through its `Path`. Calls report what has happened, with the time, and return the
  events, in order. Call `tick` when `deadline` has come.
* The first frame of each side is its only HELLO. Anything else breaks the protocol, and so does a HELLO with another
  version.
* Every frame is a sign of life. Messages and acknowledgements are passed on unread.
* PINGs are sent only after our HELLO.
* On a path that is `early`, frames of the store may be sent behind our HELLO, before theirs has come.

It does not know what the path is, or whether there are other paths to the same peer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from aldis.errors import ProtocolViolation
from aldis.peer.quality import Quality
from aldis.protocol import channel
from aldis.protocol.channel import Ack, Chunk, Hello
from aldis.protocol.names import BUNDLES
from aldis.protocol.texts import clean


class Path(Protocol):
    """Carries the frames of a session, whole and in order."""

    @property
    def room(self) -> int:
        """How many bytes may be sent now; less than 0 when too much waits already."""

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""

    may_bundle: bool
    """Whether the other side reads BUNDLE frames: small frames may go together."""

    def send(self, frame: bytes) -> bool:
        """Send a frame; False when the path is about to close."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the heartbeat has measured. Times in seconds, None before they are known; `lost_heartbeats` of the last
    `heartbeats` got no answer in time."""

    round_trip_time: float | None = None
    jitter: float | None = None
    lost_heartbeats: int = 0
    heartbeats: int = 0


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

    def __init__(
        self, path: Path, now: float, *, silence: float, heartbeat: float, probe: float, early: bool = False
    ) -> None:
        """For `silence`, `heartbeat` and `probe` see `PeerTiming`; in seconds."""
        self.greeted = False  # their HELLO has come, and its version is ours
        self.lost = False  # nothing arrives
        self._path: Final = path
        self._early: Final = early
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

    def measured(self, now: float) -> Measured:
        """What the heartbeat has measured until now."""
        quality = self._quality
        return Measured(quality.round_trip_time, quality.jitter, quality.lost_heartbeats(now), quality.heartbeats)

    @property
    def deadline(self) -> float | None:
        """When `tick` is due; None when nothing is due."""
        if self._probe_at is None or self._beat_at is None:
            return self._beat_at if self._probe_at is None else self._probe_at
        return min(self._beat_at, self._probe_at)

    def silent(self, now: float) -> bool:
        """Whether `tick` is about to report that the path is lost. Ask the engine first (`answered`)."""
        due = self._beat_at is not None and 0 <= now - self._beat_at <= self._heartbeat
        return due and not self.lost and self._quality.silent(now)

    # --- from this side ---------------------------------------------------------------------------------------------

    def open(self, hello: Hello, now: float) -> list[SessionEvent]:
        """Send HELLO; the heartbeat starts."""
        self._path.send(channel.encode_hello(hello))
        self._open = True
        return self._beat(now)

    def send(self, frame: bytes) -> bool:
        """Send a frame of the store. False before HELLOs are exchanged (`early`: before ours is sent) and when there is
        no room; then `drained` will report when there is."""
        path = self._path
        if not (self._open and (self.greeted or self._early)) or path.closed:
            return False
        if len(frame) > path.room:
            self._blocked = True
            return False
        return path.send(frame)

    def expect(self, size: int, now: float) -> bool:
        """A frame of so many bytes was sent that gets an acknowledgement. Without one a PING asks soon, and nothing in
        answer to that means a lost path. Returns whether `deadline` may be earlier now."""
        first = self._quality.sent(size, now)
        if first and self._beat_at is not None:
            self._beat_at = min(self._beat_at, now + self._quality.ping_in(now))
        return first

    def expect_more(self, size: int) -> bool:
        """As `expect`, for which no time has to be known: when an answer is expected already. False otherwise."""
        return self._quality.sent_more(size)

    def goodbye(self, reason: str) -> bool:
        """Send GOODBYE as the last frame, unless the path is lost. Returns whether it was sent."""
        return not (self.lost or self._path.closed) and self._path.send(channel.encode_goodbye(reason))

    def rest(self) -> None:
        """Stop the heartbeat: nothing waits on this path, and something else tells whether the other side is there."""
        self._beat_at = None

    def wake(self, now: float) -> list[SessionEvent]:
        """Start the heartbeat again after `rest`; does nothing otherwise."""
        if self._beat_at is not None or not self._open:
            return []
        self._quality.heard(now)
        return self._beat(now)

    def excuse(self, now: float) -> list[SessionEvent]:
        """The silence that was reported has another cause than the other side: it counts from now on."""
        self.lost = False
        self._quality.heard(now)
        return self._beat(now)

    def probe(self, reason: str, now: float) -> None:
        """A message says that this session is over. End it for that reason if nothing arrives soon."""
        if self._probe_at is None:
            self.ping(now)
            self._probe_at = now + self._probe_seconds
            self._probe_reason = reason

    def suspect(self, now: float) -> None:
        """There is reason to doubt the path: the network has changed, or this machine has slept. Unless something
        arrives within `quality.SUSPICION`, it is lost."""
        if self._open and not self.lost and self._beat_at is not None:
            self._quality.suspect(now)
            self.ping(now)
            self._beat_at = min(self._beat_at, now + self._quality.silent_in(now))

    # --- from the path ----------------------------------------------------------------------------------------------

    def ping(self, now: float) -> None:
        """Ask for a sign of life, because the path may work again."""
        if self._open:
            self._path.send(channel.encode_ping(self._quality.ping(now)))

    def alive(self, now: float) -> None:
        """The path reports a sign of life of the other side that is no frame. Only a frame ends the state of a lost
        path, because the program at the other end may hang."""
        self._quality.alive(now)

    def answered(self, at: float) -> None:
        """The engine has got something from the other side at that time, be it no frame. Call it before the `tick` that
        would report that the path is lost."""
        self._quality.answered(at)

    def lose(self) -> None:
        """The path itself reports that nothing arrives."""
        self.lost = True

    def drained(self) -> bool:
        """There is room again; returns whether a frame was refused before."""
        blocked, self._blocked = self._blocked, False
        return blocked

    def received(self, data: bytes | str, now: float) -> list[SessionEvent]:
        """A message has arrived. Never raises for its content."""
        events: list[SessionEvent] = []
        try:
            for frame in map(self._decode, _frames_of(data)):
                if not events:
                    events = self._heard(now)
                if isinstance(frame, Chunk):
                    events.append(frame)
                else:
                    self._take(frame, now, events)
        except ProtocolViolation as error:
            events.append(Violated(f"the other side broke the protocol: {error}"))
        return events

    def _decode(self, data: bytes) -> channel.Frame | None:
        frame = channel.decode(data)
        if not (self.greeted or isinstance(frame, Hello | channel.Goodbye)):
            raise ProtocolViolation("the first frame is no HELLO")
        return frame

    def _take(self, frame: channel.Frame | None, now: float, events: list[SessionEvent]) -> None:
        match frame:
            case Ack():
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
                self._path.may_bundle = BUNDLES in frame.features
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
            # This program or its machine slept. What has come meanwhile will be read next, or nothing has.
            self._quality.doubt(now)
            self.ping(now)
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


def _frames_of(data: bytes | str) -> list[bytes]:
    """The frames in a message of the path. Raises `ProtocolViolation`."""
    if isinstance(data, str):
        raise ProtocolViolation("a text message in place of a frame")
    if len(data) > channel.MAX_FRAME:
        raise ProtocolViolation(f"a frame of {len(data)} bytes; the limit is {channel.MAX_FRAME}")
    return channel.unbundle(data)
