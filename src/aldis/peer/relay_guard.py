"""What one program takes from those who begin sealed sessions with it, whoever they are.

Rules:

* A session is taken once for each of our seal keys: a server that repeats a handshake achieves nothing. The table of a
  key has room for `MAX_SESSIONS`. When it is `full`, no more handshakes to this key are taken, and a new key is due.
* A sender has `MAX_HANDSHAKES` handshakes in `WINDOW_SECONDS`, as with offers: each costs a key agreement and a check
  of a signature.
* A sender is told at most once in `ANSWER_SECONDS` that a session could not be opened, and so of at most `MAX_ANSWERS`
  sessions. A sender whose handshake crossed another one begins twice at once, and needs to hear of the second one.
* The names of senders come from the server, so at most `MAX_SENDERS` are remembered.
* Messages that wait to be opened have at most `MAX_WAITING_BYTES` in all, and those of one user `MAX_USER_BYTES`. So
  one user leaves room for the others. A larger message waits when nothing else of its user does.

Pure: time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

MAX_SESSIONS: Final = 4096  # of 16 bytes each
MAX_KEYS: Final = 4  # ours, the newest ones
MAX_HANDSHAKES: Final = 10
WINDOW_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 1.0
MAX_ANSWERS: Final = 4
MAX_SENDERS: Final = 1024
MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
MAX_USER_BYTES: Final = 256 * 1024  # what a server lets one user send to another at once
MESSAGE_COST: Final = 1024  # bytes that a waiting message takes beside itself, rounded up


@dataclass(slots=True)
class _Sender:
    handshakes: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_HANDSHAKES))
    answers: list[tuple[float, bytes]] = field(default_factory=list)  # when, for which session


class RelayGuard:
    """See the module."""

    def __init__(self) -> None:
        self._senders: OrderedDict[str, _Sender] = OrderedDict()  # the one heard from last is the last
        self._seen: OrderedDict[bytes, set[bytes]] = OrderedDict()  # sessions, by our seal key
        self._waiting: dict[str, int] = {}  # bytes, by user
        self._waiting_bytes = 0

    def hold(self, user_id: str, size: int) -> bool:
        """Whether a message of `size` bytes may wait to be opened. Counts it until `release`."""
        cost = size + MESSAGE_COST
        mine = self._waiting.get(user_id, 0)
        if self._waiting_bytes + cost > MAX_WAITING_BYTES or (mine and mine + cost > MAX_USER_BYTES):
            return False
        self._waiting[user_id] = mine + cost
        self._waiting_bytes += cost
        return True

    def release(self, user_id: str, size: int) -> None:
        """A message of a user does not wait any more."""
        cost = size + MESSAGE_COST
        self._waiting_bytes -= cost
        self._waiting[user_id] -= cost
        if not self._waiting[user_id]:
            del self._waiting[user_id]

    def pause(self, sender: str, now: float) -> float:
        """Count a handshake of a sender. 0 when it may be opened, else in how many seconds the next one may come."""
        times = self._sender(sender).handshakes
        if len(times) == MAX_HANDSHAKES and now - times[0] < WINDOW_SECONDS:
            return WINDOW_SECONDS - (now - times[0])
        times.append(now)
        return 0.0

    def may_answer(self, sender: str, session: bytes, now: float) -> bool:
        """Whether to tell a sender now that a session could not be opened. Counts the answer."""
        entry = self._sender(sender)
        entry.answers = [(at, of) for at, of in entry.answers if now - at < ANSWER_SECONDS]
        if len(entry.answers) == MAX_ANSWERS or any(of == session for _, of in entry.answers):
            return False
        entry.answers.append((now, session))
        return True

    def seen(self, seal_key: bytes, session: bytes) -> bool:
        """Whether this session has begun before with this key of ours."""
        return session in self._seen.get(seal_key, ())

    def full(self, seal_key: bytes) -> bool:
        """Whether no more sessions can be remembered for this key of ours."""
        return len(self._seen.get(seal_key, ())) >= MAX_SESSIONS

    def take(self, seal_key: bytes, session: bytes) -> None:
        """Remember a session that begins. Only one that its sender has signed, so that nobody else can fill the
        table."""
        self._seen.setdefault(seal_key, set()).add(session)
        if len(self._seen) > MAX_KEYS:
            self._seen.popitem(last=False)

    def _sender(self, sender: str) -> _Sender:
        entry = self._senders.setdefault(sender, _Sender())
        self._senders.move_to_end(sender)
        if len(self._senders) > MAX_SENDERS:
            self._senders.popitem(last=False)
        return entry
