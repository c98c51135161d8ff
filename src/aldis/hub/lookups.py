"""The open questions to the directory and the cluster, and the order of each session's frames around them.

The rules: a session has at most one open question, and its later frames wait for the answer. So a client may send
requests without waiting, gets its replies in order, and cannot make the directory do more than one thing for it at a
time. Questions that decide the owner of a name wait in the queue of that name (`hub.name_queue`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from msgspec import UNSET, UnsetType

from aldis.backends.base import DirectoryAnswer
from aldis.backends.base import Question as DirectoryQuestion
from aldis.hub.backlog import Backlog
from aldis.hub.cluster import ClusterAnswer, ClusterQuestion, EnterDevice, FindUsers
from aldis.hub.name_queue import NameAccess, NameQueues
from aldis.hub.outcomes import RequestOutcome
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.hub.use import MemoryUse
from aldis.protocol.messages import RequestId

Question: TypeAlias = DirectoryQuestion | ClusterQuestion
Answer: TypeAlias = "DirectoryAnswer | ClusterAnswer"
Continuation: TypeAlias = Callable[[Any, float], RequestOutcome | None]
"""Called with the answer to its question and the time; returns the outcome of the request, or None without one."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An open question: the session and request that it belongs to, and what to call with its answer."""

    question: Question
    then: Continuation
    # Called when the directory could not answer.
    failed: Callable[[], None] | None
    session: Session | None
    kind: str
    re: RequestId | UnsetType
    # How the question uses the binding of its name; None when it need not wait for other questions.
    access: NameAccess | None

    @property
    def waiting(self) -> Session | None:
        """The session that waits for the answer, if it still does."""
        session = self.session
        return session if session is not None and session.waiting else None

    @property
    def always(self) -> bool:
        """Whether the answer matters though no session waits for it: none has asked, or a binding may have changed."""
        return self.session is None or self.access in (NameAccess.CLAIM, NameAccess.ALONE)


class PendingLookups:
    """Hands questions out through `ask`, and finds the session when the answer comes.

    For each question, call exactly one of `Hub.answered` and `Hub.failed`, and never from within `ask`.
    """

    def __init__(
        self,
        settings: HubSettings,
        ask: Callable[[DirectoryQuestion], None],
        use: MemoryUse,
        *,
        ask_cluster: Callable[[ClusterQuestion], None] | None = None,
    ) -> None:
        self._settings = settings
        self._use = use
        self._ask = ask
        self._ask_cluster = ask_cluster
        self._open: dict[int, Asked] = {}
        self._queues: NameQueues[Asked] = NameQueues(self._start)
        self._token = 0

    def __len__(self) -> int:
        """The number of open questions, without those that wait in the queue of their name."""
        return len(self._open)

    def token(self) -> int:
        """A token for a new question."""
        self._token += 1
        return self._token

    def ask(
        self,
        question: Question,
        then: Continuation,
        failed: Callable[[], None] | None = None,
        *,
        access: NameAccess | None = None,
        session: Session | None = None,
        kind: str = "",
        re: RequestId | UnsetType = UNSET,
    ) -> None:
        """Ask the directory, for the request `re` of a session, or for no session.

        A question with an `access` waits in the queue of its name. A question that changes a binding
        (`NameAccess.ALONE`) is asked even if the session ends meanwhile. After a question that may have changed one
        (also a claim), `then` is called even so. `failed` is called when the directory could not answer.
        """
        if session is not None:
            session.waiting = True
        asked = Asked(question, then, failed, session, kind, re, access)
        if access is None or isinstance(question, FindUsers):
            self._start(asked)
        else:
            self._queues.put(question.user_id, access, asked)

    def _start(self, asked: Asked) -> bool:
        if asked.access is not NameAccess.ALONE and asked.session is not None and asked.waiting is None:
            return False
        self._open[asked.question.token] = asked
        if not isinstance(asked.question, FindUsers | EnterDevice):
            self._ask(asked.question)
        elif self._ask_cluster is not None:
            self._ask_cluster(asked.question)
        return True

    def take(self, question: Question) -> Asked | None:
        """Take a question out; None when it is not open: it was answered before, or never asked."""
        return self._open.pop(question.token, None)

    def done(self, asked: Asked) -> None:
        """The answer has been handled: start the next question about the name."""
        if asked.access is not None and not isinstance(asked.question, FindUsers):
            self._queues.done(asked.question.user_id)

    def hold_back(self, session: Session, text: str) -> None:
        """Keep a frame for later, and stop reading the connection when enough frames wait.

        Frames that were read before still come. TCP holds back the rest, and so the client.
        """
        backlog = session.backlog
        if backlog is None:
            backlog = session.backlog = Backlog()
        before = backlog.size
        backlog.append(text)
        self._use.backlogs += backlog.size - before
        full = len(backlog) > self._settings.backlog_messages or backlog.size > self._settings.backlog_bytes
        if full and not backlog.paused and session.connection is not None:
            backlog.paused = True
            session.connection.pause_reading()

    def next(self, session: Session) -> str | None:
        """The next frame that was held back; None while the session has to wait, and when no frame is left."""
        backlog = session.backlog
        if session.waiting:
            return None
        if backlog is None:
            if session.pongs:
                session.caught_up()
            return None
        before = backlog.size
        text = backlog.pop()
        self._use.backlogs += backlog.size - before
        if text is None:
            session.backlog = None
            if session.pongs:
                session.caught_up()
            if backlog.paused and session.connection is not None:
                session.connection.resume_reading()
        return text

    def forget(self, session: Session) -> None:
        """The session has ended: it no longer waits for an answer."""
        session.waiting = False
        self.drop_backlog(session)

    def drop_backlog(self, session: Session) -> None:
        """The session has lost its connection: what it has sent behind an open question is not handled."""
        if session.backlog is not None:
            self._use.backlogs -= session.backlog.size
            session.backlog = None
