"""The sealed sessions with one device of a peer: which one counts, in what order messages come, and when to begin anew.

Rules:

* Calls report what has happened, with the time. `flush` returns what to send. It seals nothing: what is received here
  was opened, and what is to be sent will be sealed by the caller.
* At most one session is current. A handshake of the other side that opens is from its running program, so it replaces
  the current session. Only where two handshakes cross, the one of the impolite side (its user id sorts later) stands:
  it begins once more, since its own may have been lost, and the other side takes that.
* Messages of a session are counted in both directions. A lower counter than the next one is a repetition and is
  dropped; a higher one shows that a message is missing, so the session is lost.
* Frames wait in a queue, and go together. At most `WINDOW_MESSAGES` messages and `WINDOW_BYTES` bytes of a session are
  on their way to the server.
* At most one handshake a second, and growing pauses while none is answered.
* What comes for a session that was left a moment ago is dropped. Anything else that cannot be opened is answered with
  `seal-unknown`, so that the other side begins anew.

It does not know keys, addresses, or what a frame means.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

# On their way to the server, which keeps no more for a recipient that is slow. On a line of 100 ms: 640 KB/s.
WINDOW_MESSAGES: Final = 16
WINDOW_BYTES: Final = 64 * 1024
# A session is renewed after so much. AES-GCM with one key is safe for 2^32 messages; forward secrecy asks for less.
RENEW_MESSAGES: Final = 1 << 20
RENEW_BYTES: Final = 1 << 30
RENEW_SECONDS: Final = 3600.0
# Seconds between two handshakes of ours: at least, and at most while none is answered.
SHORTEST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
# Seconds for which messages of a session that was left may still be on their way.
LEFT_SECONDS: Final = 5.0
MAX_LEFT: Final = 8


class Verdict(Enum):
    """What becomes of something that was received."""

    TAKEN = "taken"
    DROPPED = "dropped"
    UNKNOWN = "unknown"  # answer with `seal-unknown`
    LOST = "lost"  # a message is missing: the session is over, and the answer is `seal-unknown`
    CROSSED = "crossed"  # their handshake crossed ours, which stands: begin once more


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to seal and send. `counter` is None for a handshake. `number` is for `delivered`."""

    number: int
    session: bytes
    counter: int | None
    frames: tuple[bytes, ...]


@dataclass(slots=True)
class _Session:
    name: bytes
    ours: bool  # we have sent the handshake, or will with the first frame
    began_at: float
    started: bool = False  # our handshake has left
    answered: bool = False  # something has come in it
    sent: int = 0  # frames messages of ours; so the next counter
    received: int = 0
    size: int = 0  # bytes of frames, both ways
    flying: dict[int, int] = field(default_factory=dict)  # bytes of messages that the server has not confirmed


class RelaySessions:
    """See the module."""

    def __init__(self, *, polite: bool) -> None:
        """`polite`: our user id sorts first, so the other side's handshake stands when two cross."""
        self._polite: Final = polite
        self._current: _Session | None = None
        self._left: OrderedDict[bytes, float] = OrderedDict()  # until when each is dropped silently
        self._frames: deque[bytes] = deque()
        self._waiting = 0  # bytes of `_frames`
        self._numbers = 0
        self._failures = 0  # handshakes of ours in a row without an answer
        self._not_before = 0.0
        self._insisted = False  # we began once more because two handshakes crossed

    # --- queries ----------------------------------------------------------------------------------------------------

    @property
    def session(self) -> bytes | None:
        """The name of the current session."""
        return None if self._current is None else self._current.name

    @property
    def answered(self) -> bool:
        """Whether the other side has said something in the current session."""
        return self._current is not None and self._current.answered

    @property
    def unconfirmed(self) -> bool:
        """Whether the server has not taken all that was sent."""
        return self._current is not None and bool(self._current.flying)

    @property
    def room(self) -> int:
        """How many bytes of frames may be queued now."""
        flying = 0 if self._current is None else sum(self._current.flying.values())
        return WINDOW_BYTES - flying - self._waiting

    def may_begin(self, now: float) -> bool:
        """Whether a handshake may be sent now."""
        return now >= self._not_before

    @property
    def not_before(self) -> float:
        """When the next handshake may be sent."""
        return self._not_before

    def renewal_due(self, now: float) -> bool:
        """Whether the next frame should begin a new session."""
        current = self._current
        return current is not None and (
            current.sent + current.received >= RENEW_MESSAGES
            or current.size >= RENEW_BYTES
            or now - current.began_at >= RENEW_SECONDS
        )

    @property
    def expires(self) -> float | None:
        """When the keys of the current session have to be forgotten, whether there is another one by then or not."""
        return None if self._current is None else self._current.began_at + RENEW_SECONDS

    # --- from this side ---------------------------------------------------------------------------------------------

    def begin(self, session: bytes, now: float) -> None:
        """Make a session of ours the current one. The first `flush` sends its handshake."""
        self._leave(now)
        self._current = _Session(session, True, now)
        self._failures += 1
        self._wait(now, 0.0)

    def queue(self, frame: bytes) -> None:
        """Send a frame of the current session with the next `flush`."""
        self._frames.append(frame)
        self._waiting += len(frame)

    def flush(self, limit: int, per_frame: int = 4) -> list[Outgoing]:
        """What can be sent now. A message has at most `limit` bytes of frames, each with `per_frame` bytes more, or one
        frame."""
        current = self._current
        messages: list[Outgoing] = []
        while current is not None and self._frames and len(current.flying) < WINDOW_MESSAGES:
            frames = [self._frames.popleft()]
            size = len(frames[0]) + per_frame
            while self._frames and size + len(self._frames[0]) + per_frame <= limit:
                frames.append(self._frames.popleft())
                size += len(frames[-1]) + per_frame
            self._waiting -= size - len(frames) * per_frame
            self._numbers += 1
            counter = current.sent if current.started or not current.ours else None
            current.started = True
            current.sent += counter is not None
            current.size += size
            current.flying[self._numbers] = size
            messages.append(Outgoing(self._numbers, current.name, counter, tuple(frames)))
        return messages

    def delivered(self, number: int) -> None:
        """The server has taken a message."""
        if self._current is not None:
            self._current.flying.pop(number, None)

    def undelivered(self, number: int, now: float, pause: float = 0.0) -> bool:
        """The server has not taken a message, or that is not known. True when the session is lost by that: the other
        side would find a gap."""
        if self._current is None or number not in self._current.flying:
            return False
        self.lose(now, pause)
        return True

    def lose(self, now: float, pause: float = 0.0) -> None:
        """The current session is over. The next one may begin in `pause` seconds at the earliest."""
        self._drop()
        self._wait(now, pause)

    def leave(self, now: float) -> None:
        """The current session is not needed any more: there is a direct path."""
        self._leave(now)
        self._failures = 0

    def returned(self) -> None:
        """There is a reason to try again at once: the other side has registered anew, or we have."""
        self._failures = 0
        self._not_before = 0.0

    # --- from the other side ----------------------------------------------------------------------------------------

    def handshake_received(self, session: bytes, now: float) -> Verdict:
        """A handshake has been opened, whose session was not seen before."""
        current = self._current
        if current is not None and current.ours and not current.answered and not self._polite:
            if self._insisted:
                return Verdict.DROPPED
            self._insisted = True
            return Verdict.CROSSED
        self._leave(now)
        self._current = _Session(session, False, now, answered=True)
        self._succeeded()
        return Verdict.TAKEN

    def knows(self, session: bytes) -> bool:
        """Whether a message of this session can be opened."""
        return self._current is not None and self._current.name == session

    def stray(self, session: bytes, now: float) -> Verdict:
        """What becomes of a message of a session that is not current."""
        return Verdict.DROPPED if now < self._left.get(session, now) else Verdict.UNKNOWN

    def frames_received(self, counter: int, size: int, now: float) -> Verdict:
        """A message of the current session has been opened, with `size` bytes of frames."""
        current = self._current
        if current is None or counter < current.received:
            return Verdict.DROPPED
        if counter > current.received:
            self.lose(now)
            return Verdict.LOST
        current.received += 1
        current.size += size
        current.answered = True
        self._succeeded()
        return Verdict.TAKEN

    def refused(self, session: bytes, now: float, pause: float = 0.0) -> bool:
        """The other side says that it cannot open a session, or does not want it now. True when it was the current
        one, which is over."""
        if not self.knows(session):
            return False
        self.lose(now, pause)
        return True

    # --- internal ---------------------------------------------------------------------------------------------------

    def _succeeded(self) -> None:
        self._failures = 0
        self._insisted = False

    def _wait(self, now: float, pause: float) -> None:
        backoff = min(SHORTEST_PAUSE * 2.0 ** max(self._failures - 1, 0), LONGEST_PAUSE)
        self._not_before = max(self._not_before, now + pause, now + backoff if self._failures else 0.0)

    def _leave(self, now: float) -> None:
        """What still comes in the current session was sent before the other side knew of the next one."""
        if self._current is not None:
            self._left[self._current.name] = now + LEFT_SECONDS
            if len(self._left) > MAX_LEFT:
                self._left.popitem(last=False)
        self._drop()

    def _drop(self) -> None:
        self._current = None
        self._frames.clear()
        self._waiting = 0
