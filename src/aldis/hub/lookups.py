"""The directory's questions that are open, and the order of each session's frames around them.

The rules: a session has at most one question open, and its later frames wait until that is answered. So a client may
send all it has to say without waiting, gets its replies in order, and cannot make the directory do more than one thing
for it at a time. Questions that decide who has a name wait in the queue of that name (`hub.name_queue`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from msgspec import UNSET, UnsetType

from aldis.backends.base import DirectoryAnswer, Question
from aldis.hub.backlog import Backlog
from aldis.hub.name_queue import NameAccess, NameQueues
from aldis.hub.outcomes import RequestOutcome
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.protocol.messages import RequestId

Continuation: TypeAlias = Callable[[DirectoryAnswer, float], RequestOutcome | None]
"""What happens with the directory's answer, at a time; returns what became of the request, None where there is none."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An open question: which request of which session it belongs to, and how that goes on."""

    session: Session | None
    kind: str
    re: RequestId | UnsetType
    then: Continuation
    # For a question that may change a binding: the answer concerns the name, also when nobody waits for it any more.
    always: bool = False
    failed: Callable[[], None] | None = None
    # The name in whose queue it is.
    name: str | None = None

    @property
    def waiting(self) -> Session | None:
        """The session that waits for the answer, if one still does."""
        session = self.session
        return session if session is not None and session.waiting else None


class PendingLookups:
    """Hands questions out through `ask` and finds the session again when the answer comes.

    Whoever gets a question must bring exactly one outcome, `Hub.answered` or `Hub.failed`, and never from within `ask`.
    """

    def __init__(self, settings: HubSettings, ask: Callable[[Question], None]) -> None:
        self._settings = settings
        self._ask = ask
        self._open: dict[int, Asked] = {}
        self._queues = NameQueues()
        self._token = 0

    def __len__(self) -> int:
        """How many questions are open. One that waits in the queue of its name has an open one before it."""
        return len(self._open)

    def ask(
        self,
        question: Callable[[int], Question],
        then: Continuation,
        *,
        session: Session,
        kind: str,
        re: RequestId | UnsetType,
    ) -> None:
        """Ask on behalf of a session's request, at once; `question` makes the question for a token."""
        session.waiting = True
        self._hand_out(question, Asked(session, kind, re, then))

    def ask_in_order(
        self,
        name: str,
        access: NameAccess,
        question: Callable[[int], Question],
        then: Continuation,
        failed: Callable[[], None] | None = None,
        *,
        session: Session | None = None,
        kind: str = "",
        re: RequestId | UnsetType = UNSET,
    ) -> None:
        """Ask about who has a name, when the queue of the name allows it.

        A question that changes a binding (`NameAccess.ALONE`) is asked even when the session has ended. After one that
        may have changed a binding (also a claim) `then` is called even when the session has ended. `failed` is called
        when the directory could not answer.
        """
        asked = Asked(session, kind, re, then, access is not NameAccess.LOOK, failed, name)

        def start() -> bool:
            wanted = access is NameAccess.ALONE or asked.waiting is not None
            if wanted:
                self._hand_out(question, asked)
            return wanted

        if session is not None:
            session.waiting = True
        self._queues.put(name, access, start)

    def _hand_out(self, question: Callable[[int], Question], asked: Asked) -> None:
        self._token += 1
        self._open[self._token] = asked
        self._ask(question(self._token))

    def take(self, question: Question) -> Asked | None:
        """Who asked what; None for a question that was not handed out, or was answered before."""
        return self._open.pop(question.token, None)

    def done(self, asked: Asked) -> None:
        """An answer has been acted on: the next question about the name may be asked."""
        if asked.name is not None:
            self._queues.done(asked.name)

    def hold_back(self, session: Session, text: str) -> None:
        """Keep a frame for later; stop reading the connection when enough of them wait.

        What comes then is what had been read before: TCP holds the rest back, and so the sender.
        """
        backlog = session.backlog
        if backlog is None:
            backlog = session.backlog = Backlog()
        backlog.append(text)
        full = len(backlog) > self._settings.backlog_messages or backlog.size > self._settings.backlog_bytes
        if full and not backlog.paused and session.connection is not None:
            backlog.paused = True
            session.connection.pause_reading()

    def next(self, session: Session) -> str | None:
        """The next frame that was held back; None while a question is open, and when there is no more."""
        backlog = session.backlog
        if backlog is None or session.waiting:
            return None
        text = backlog.pop()
        if text is None:
            session.backlog = None
            if backlog.paused and session.connection is not None:
                session.connection.resume_reading()
        return text

    def forget(self, session: Session) -> None:
        """The session is over: it waits for no answer any more."""
        session.waiting = False
        session.backlog = None
