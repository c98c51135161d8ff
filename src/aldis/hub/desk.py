"""The directory's questions and answers, and the order of each session's frames around them.

The rule: a session has at most one question open, and its later frames wait until that is answered. So a client may
send all it has to say without waiting, gets its replies in order, and cannot make the directory do more than one thing
for it at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from msgspec import UnsetType

from aldis.backends.base import Answer, Question
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.protocol.messages import RequestId

Continuation: TypeAlias = Callable[[Answer, float], None]
"""What happens with the directory's answer: called with the answer and the time."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A session's open question: which request it belongs to, and how that goes on."""

    session: Session
    kind: str
    re: RequestId | UnsetType
    then: Continuation


class Desk:
    """Hands questions out through `ask` and finds the session again when the answer comes.

    Whoever gets a question must bring exactly one outcome, `Hub.answered` or `Hub.failed`, and never from within `ask`.
    """

    def __init__(self, settings: HubSettings, ask: Callable[[Question], None]) -> None:
        self._settings = settings
        self._ask = ask
        self._open: dict[int, Asked] = {}
        self._token = 0

    def __len__(self) -> int:
        """How many questions are open."""
        return len(self._open)

    def put(
        self,
        session: Session,
        kind: str,
        re: RequestId | UnsetType,
        question: Callable[[int], Question],
        then: Continuation,
    ) -> None:
        """Ask on behalf of a session's request; `question` makes the question for a token."""
        self._token += 1
        self._open[self._token] = Asked(session, kind, re, then)
        session.waiting = True
        self._ask(question(self._token))

    def take(self, question: Question) -> Asked | None:
        """Who asked what; None when nobody waits for it any more."""
        asked = self._open.pop(question.token, None)
        if asked is None or not asked.session.waiting:
            return None
        asked.session.waiting = False
        return asked

    def hold_back(self, session: Session, text: str) -> bool:
        """Keep a frame for later; False when the session has too many of them.

        It is kept in UTF-8, which has as many bytes as are counted: a str has up to four for each character.
        """
        if session.backlog is None:
            session.backlog = deque()
        frame = text.encode()
        session.backlog.append(frame)
        session.backlog_bytes += len(frame)
        return (
            len(session.backlog) <= self._settings.backlog_messages
            and session.backlog_bytes <= self._settings.backlog_bytes
        )

    def next(self, session: Session) -> str | None:
        """The next frame that was held back; None while a question is open, and when there is no more."""
        if session.backlog is None or session.waiting:
            return None
        if not session.backlog:
            session.backlog = None
            return None
        frame = session.backlog.popleft()
        session.backlog_bytes -= len(frame)
        return frame.decode()

    def forget(self, session: Session) -> None:
        """The session is over: its answer, when it comes, concerns nobody."""
        session.waiting = False
        session.backlog = None
        session.backlog_bytes = 0
