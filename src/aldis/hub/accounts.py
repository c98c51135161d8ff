"""The operator's say in a registration: a token, a list of names, or an application may have to agree.

The hub asks an `AccountQuestion` when a client has proved its key, and before a name is bound to it. Who decides, and
by what, is outside (`server.accounts`); the answer is a call of `Hub.account_checked`. A session has one open question
at most, and its later frames wait for the answer, as with the questions to the directory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from msgspec import UNSET, UnsetType

from aldis.hub.networks import network_of
from aldis.hub.outcomes import RequestOutcome
from aldis.hub.sessions import Session
from aldis.protocol.messages import RequestId

# Characters of a reason that an application gives, and that a client is told.
MAX_REASON: Final = 200


@dataclass(frozen=True, slots=True)
class AccountQuestion:
    """May this client register the name? `proved`: it has shown that it has the key; classic clients cannot."""

    number: int
    user_id: str
    device: str
    public_key: str
    proved: bool
    # A secret of the client: it is in no log.
    token: str | None = field(repr=False)
    # Where the client is (`networks.network_of`); None on this machine, where a proxy may be for all.
    network: bytes | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """It may. `expires`: until when, in seconds since 1970; None for as long as it likes."""

    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """It may not. `forged`: it counts like a wrong signature. `retry_after` is in seconds."""

    code: str
    text: str
    retry_after: float | UnsetType = UNSET
    forged: bool = False


AccountVerdict: TypeAlias = Admitted | Rejected
_Then: TypeAlias = Callable[[AccountVerdict, float], RequestOutcome]


@dataclass(frozen=True, slots=True)
class Asked:
    """An open question, of which request it is, and what to call with the verdict."""

    session: Session
    kind: str
    re: RequestId | UnsetType
    then: _Then


class AccountChecks:
    """The open questions. `ask` hands one out; None when every client may register that proves its key."""

    def __init__(self, ask: Callable[[AccountQuestion], None] | None) -> None:
        self._ask = ask
        self._open: dict[int, Asked] = {}
        self._number = 0

    def __len__(self) -> int:
        """The number of open questions."""
        return len(self._open)

    @property
    def wanted(self) -> bool:
        """Whether a registration has to be asked about."""
        return self._ask is not None

    def ask(
        self,
        session: Session,
        kind: str,
        re: RequestId | UnsetType,
        then: _Then,
        *,
        user_id: str,
        device: str,
        public_key: str,
        token: str | None,
    ) -> None:
        """Ask about the request `re` of a session; `then` gets the verdict, unless the session ends before."""
        if self._ask is None:
            raise RuntimeError("nobody is to be asked")
        self._number += 1
        session.waiting = True
        self._open[self._number] = Asked(session, kind, re, then)
        network = network_of(session.client_address, loopback=False)
        proved = session.dialect.proves
        self._ask(AccountQuestion(self._number, user_id, device, public_key, proved, token, network))

    def take(self, question: AccountQuestion) -> Asked | None:
        """Take a question out; None when its session has ended, or it was answered before."""
        asked = self._open.pop(question.number, None)
        return asked if asked is not None and asked.session.waiting else None
