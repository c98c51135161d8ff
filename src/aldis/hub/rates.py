"""How fast each user may send, over all of its sessions: messages, relayed bytes, questions about other users.

The budgets of a user are kept for some seconds after its last session, so that coming back does not fill them. The
budgets themselves, and what happens when one is used up: `hub.budgets`. In a cluster, what a user sends at other nodes
is taken from its budgets here too (`hub.usage`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Final

from msgspec import UNSET, UnsetType

from aldis.hub.budgets import (
    DISCOVERS,
    MESSAGES,
    PAUSE,
    RELAYED,
    SEALED,
    SEALED_PAIR,
    Budget,
    Pause,
    RateLimit,
    SealedRates,
    UserRates,
)
from aldis.hub.outcomes import RequestRefused
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.hub.usage import Key, SharedUsage
from aldis.protocol import messages as m
from aldis.protocol.addresses import split
from aldis.protocol.codes import CloseCode, ErrorCode

# When a user without a session has its budgets back, at least: burst, pause, and the debt of a large message.
FORGOTTEN_AFTER: Final = 10.0
# The same in a cluster, where a user may have a debt (`budgets.DEBT_SECONDS`).
FORGOTTEN_AFTER_CLUSTER: Final = 40.0
# Users that are only known because of what other nodes have told: 1 KB each.
MOST_ELSEWHERE: Final = 20_000
# A session takes so many messages' worth of its user's budgets at a time, and never more than this part of what its
# user may send at once. Nearly every message is then paid by a subtraction.
LEASE: Final = 64
LEASE_PART: Final = 1 / 32
# Bytes that a sealed message costs beside its own: many small ones are work, too.
SEALED_UNIT: Final = 256
# Signs of life and confirmations are always welcome; the rate of the connection limits them.
_FREE: Final = (m.Ping, m.Received)


class Rates:
    """The budgets of all users that are online, or were so a moment ago."""

    def __init__(
        self,
        settings: HubSettings,
        usage: SharedUsage | None = None,
        nodes_of: Callable[[str], int] = lambda user_id: 1,
    ) -> None:
        """`usage`: what is used counts at other nodes too. `nodes_of` says at how many nodes a user has devices."""
        self._nodes_of = nodes_of
        self._settings = settings
        self._usage = usage
        self._forgotten_after = FORGOTTEN_AFTER if usage is None else FORGOTTEN_AFTER_CLUSTER
        self._messages = RateLimit(MESSAGES)
        self._relayed = RateLimit(RELAYED)
        self._discovers = RateLimit(DISCOVERS)
        self._sealed = RateLimit(SEALED)
        self._sealed_pair = RateLimit(SEALED_PAIR)
        self._users: dict[str, UserRates] = {}
        # Users without a session: those that have left lately, and those that did so before.
        self._gone: tuple[dict[str, UserRates], dict[str, UserRates]] = ({}, {})
        self._turned_at = 0.0
        self.unit_bytes = 1
        """So many bytes count as one message."""
        self._lease = 1
        self.configure()
        for limit in (self._messages, self._relayed, self._discovers, self._sealed, self._sealed_pair):
            if usage is not None:
                usage.share(limit.name, partial(self._used_elsewhere, limit.name), limit)

    def __len__(self) -> int:
        """The number of users that are known."""
        return len(self._users) + sum(map(len, self._gone))

    def configure(self) -> None:
        """The settings have changed."""
        settings = self._settings
        self._messages.set(settings.user_messages_per_second)
        self._relayed.set(settings.user_relayed_bytes_per_second)
        self._discovers.set(settings.user_discovers_per_second)
        self._sealed.set(settings.user_sealed_bytes_per_second)
        self._sealed_pair.set(settings.pair_sealed_bytes_per_second)
        self.unit_bytes = max(settings.user_bytes_per_second // settings.user_messages_per_second, 1)
        self._lease = self.unit_bytes * int(min(LEASE, max(self._messages.burst * LEASE_PART, 1)))

    def enter(self, session: Session) -> None:
        """A session has got its name."""
        if session.rates is not None:
            return
        user_id = session.user_id
        rates = self._users.get(user_id)
        if rates is None:
            lately, before = self._gone
            rates = lately.pop(user_id, None) or before.pop(user_id, None)
            if rates is None:
                rates = UserRates()
            self._users[user_id] = rates
        rates.sessions += 1
        rates.nodes = self._nodes_of(user_id)
        session.rates = rates

    def moved(self, user_id: str) -> None:
        """A user may have devices at other nodes than before."""
        rates = self._users.get(user_id)
        if rates is not None:
            rates.nodes = self._nodes_of(user_id)

    def leave(self, session: Session) -> None:
        """A session is about to lose its name."""
        rates, session.rates = session.rates, None
        if rates is None:
            return
        rates.sessions -= 1
        if not rates.sessions:
            self._gone[0][session.user_id] = self._users.pop(session.user_id)

    def tick(self, now: float) -> None:
        """Forget users whose budgets are full again."""
        if now - self._turned_at >= self._forgotten_after:
            self._turned_at = now
            self._gone = ({}, self._gone[0])

    # --- messages ---------------------------------------------------------------------------------------------------

    def relay(self, session: Session, text: str, message: m.ClientMessage, now: float) -> RequestRefused | None:
        """Count a message to another user that came in this text; return why it is refused, if it is.

        Each costs its bytes and `unit_bytes`. The hub pays most of them from `Session.credit` without this call.
        """
        rates, cost = session.rates, utf8_size(text) + self.unit_bytes
        if rates is None:
            return None
        if session.credit >= cost:
            session.credit -= cost
            return None
        lease = max(self._lease, cost)
        budget = rates.messages = rates.messages or Budget(self._messages)
        wait = budget.take(lease / self.unit_bytes, now, rates.nodes)
        if not wait:
            self._count(MESSAGES, session.user_id, lease / self.unit_bytes)
            budget = rates.relayed = rates.relayed or Budget(self._relayed)
            wait = budget.take(lease, now, rates.nodes)
        if wait:
            to: str = message.to  # type: ignore[union-attr]  # its caller knows the kind
            return self._refuse(session, budget, wait, to, message.id, now)
        self._count(RELAYED, session.user_id, lease)
        session.credit += lease - cost
        return None

    def sealed(self, session: Session, text: str, message: m.Relay, now: float) -> RequestRefused | None:
        """Count a sealed message that came in this text; return why it is refused, if it is.

        It uses no other budget, so a user that has used up this one still connects to others, and the other way round.
        What is refused for the sake of one recipient has used the user's own: sending on regardless is not free.
        """
        rates, cost = session.rates, utf8_size(text) + SEALED_UNIT
        if rates is None:
            return None
        sealed = rates.sealed = rates.sealed or SealedRates(self._sealed, self._sealed_pair)
        wait = sealed.user.take(cost, now, rates.nodes)
        if wait:
            return self._refuse(session, sealed.user, wait, message.to, message.id, now)
        self._count(SEALED, session.user_id, cost)
        recipient = split(message.to)[0]
        pair = sealed.pair(recipient, now)
        wait = PAUSE if pair is None else pair.take(cost, now, rates.nodes)
        if not wait:
            self._count(SEALED_PAIR, f"{session.user_id} {recipient}", cost)
            return None
        return RequestRefused(
            ErrorCode.RATE_LIMITED,
            f"you send too much to {message.to} through this server",
            ceil(wait * 1000) / 1000,
            silent=message.id is UNSET,
            limit=SEALED_PAIR,
        )

    def pause_sealed(self, session: Session, to: str, now: float, seconds: float) -> None:
        """Refuse sealed messages to this user for so long."""
        rates = session.rates
        pair = None if rates is None or rates.sealed is None else rates.sealed.pair(split(to)[0], now)
        if pair is not None:
            pair.close(now + seconds)

    def request(
        self, session: Session, text: str, message: m.ClientMessage, cost: int, now: float
    ) -> RequestRefused | None:
        """Count a request to the server, which costs as much as so many messages (`hub.costs`) beside its bytes."""
        rates, kind = session.rates, type(message)
        if rates is None or kind in _FREE:
            return None
        budget = rates.messages = rates.messages or Budget(self._messages)
        amount = 1 + cost + utf8_size(text) // self.unit_bytes
        wait = budget.take(amount, now, rates.nodes)
        if not wait:
            self._count(MESSAGES, session.user_id, amount)
        if kind is m.Discover and not wait:
            budget = rates.discovers = rates.discovers or Budget(self._discovers)
            wait = budget.take(1, now, rates.nodes)
            if not wait:
                self._count(DISCOVERS, session.user_id, 1)
        if not wait:
            return None
        line = m.Watch if kind is m.Unwatch else kind
        # No address has a blank.
        return self._refuse(session, budget, wait, f"all {line.__name__}", message.id, now)

    # --- with other nodes -------------------------------------------------------------------------------------------

    def _count(self, limit: str, key: str, amount: float) -> None:
        if self._usage is not None:
            self._usage.count(limit, key, amount)

    def _used_elsewhere(self, limit: str, key: Key, amount: float, now: float) -> None:
        """A user has used some of a limit at another node, and may come here next."""
        user_id, _, recipient = str(key).partition(" ")
        lately, before = self._gone
        rates = self._users.get(user_id) or lately.get(user_id) or before.get(user_id)
        if rates is None:
            if len(lately) >= MOST_ELSEWHERE:
                return
            rates = lately[user_id] = UserRates()
        budget = self._budget(rates, limit, recipient, now)
        if budget is not None:
            budget.used_elsewhere(amount, now)

    def _budget(self, rates: UserRates, limit: str, recipient: str, now: float) -> Budget | None:
        match limit:
            case "user-messages":
                rates.messages = rates.messages or Budget(self._messages)
                return rates.messages
            case "user-relayed-bytes":
                rates.relayed = rates.relayed or Budget(self._relayed)
                return rates.relayed
            case "user-discovers":
                rates.discovers = rates.discovers or Budget(self._discovers)
                return rates.discovers
        sealed = rates.sealed = rates.sealed or SealedRates(self._sealed, self._sealed_pair)
        return sealed.pair(recipient, now) if recipient else sealed.user

    def _refuse(
        self, session: Session, budget: Budget, wait: float, line: str, re: m.RequestId | UnsetType, now: float
    ) -> RequestRefused:
        """Refuse a message of a user that is paused. Without an id, only the first one of a pause gets an answer."""
        limit = budget.limit.name
        pauses = session.pauses
        if pauses is None:
            pauses = session.pauses = {}
        pause = pauses.get(limit)
        if pause is None:
            settings = self._settings
            pause = pauses[limit] = Pause(limit, settings.offence_burst, settings.offences_per_second, now)
        first = now >= pause.until
        if first:
            pause.begin(now + wait, now)
        close = (CloseCode.OVER_LIMITS, "it went on sending when it was told to wait")
        too_many = pause.refuse(line, now)
        token = pause.ping()
        if token is not None and session.connection is not None:
            session.connection.ping(token)
        return RequestRefused(
            ErrorCode.RATE_LIMITED,
            f"the devices of {session.user_id} send too much together",
            ceil(wait * 1000) / 1000,
            close if too_many else None,
            silent=re is UNSET and not first and not too_many,
            limit=limit,
        )


def utf8_size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
