"""Relays sealed messages, and answers the senders of all messages that go from one user to another.

Sealed messages (`relay`) carry what users say to each other, and not how they connect. So they have budgets and a
window of their own (`hub.rates`, `hub.resume`), and an operator may switch them off: nothing of the one kind is lost
because the other is used up. The others take a shorter way (`Hub.received`), whose speed decides how many clients a
server can carry.

It does not know where the recipient is (`hub.router`), nor what is in a message.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from msgspec import UNSET, Struct, UnsetType

from aldis.hub.costs import NO_ROOM_PENALTY, PAUSED_PENALTY
from aldis.hub.outcomes import DONE, RequestRefused
from aldis.hub.outgoing import Outgoing
from aldis.hub.rates import Rates
from aldis.hub.router import Router
from aldis.hub.sessions import Receipt, RelayResult, Session, Settle
from aldis.hub.settings import HubSettings
from aldis.hub.stats import HubStats
from aldis.protocol import messages as m
from aldis.protocol.addresses import split
from aldis.protocol.codes import ErrorCode

_SEALED: Final = str(m.Relay.__struct_config__.tag)


class Relaying:
    """The messages between the users of one hub."""

    def __init__(
        self,
        settings: HubSettings,
        *,
        outgoing: Outgoing,
        router: Router,
        rates: Rates,
        stats: HubStats,
        settle: Settle,
    ) -> None:
        self._settings = settings
        self._outgoing = outgoing
        self._deliver = router.deliver_sealed
        self._rates = rates
        self._stats = stats
        self._settle = settle
        self._done = self.after

    def relay_sealed(self, session: Session, message: m.Relay, text: str, now: float) -> bool:
        """Relay a sealed message that came in this text, if the budgets of its sender allow. True when it went out."""
        re, to = message.id, message.to
        refused = self._sealed_refusal(session, message, text, now)
        if refused is not None:
            if refused.code == ErrorCode.RATE_LIMITED:
                session.charge_in_vain(PAUSED_PENALTY)
            self._settle(session, _SEALED, re, refused)
            return False
        message.from_ = session.address
        message.id = UNSET
        result = self._deliver(message, (session, m.Relay, to, re), self._done)
        if result is RelayResult.LIMITED:
            # What comes behind it must not overtake it, although it may be smaller.
            self._rates.pause_sealed(session, to, now, self._settings.share_pause)
        elif result is not RelayResult.ABSENT:
            self._stats.sealed_bytes += len(message.sealed)
            if session.privacy is not None:
                session.privacy.called(split(to)[0], now)
        if result is RelayResult.SENT:
            self._outgoing.acknowledge(session, re)
            self._settle(session, _SEALED, re, DONE)
            return True
        if result is not RelayResult.PENDING:
            self.refuse(session, m.Relay, to, re, result)
        return False

    def _sealed_refusal(self, session: Session, message: m.Relay, text: str, now: float) -> RequestRefused | None:
        if not self._settings.relay:
            return RequestRefused(ErrorCode.RELAY_DISABLED, "this server relays no sealed messages")
        if session.privacy is not None and session.privacy.blocks(split(message.to)[0]):
            return blocked(message.to)
        return self._rates.sealed(session, text, message, now)

    def after(self, receipt: Receipt, result: RelayResult) -> None:
        """A message that waited for its recipient has gone out, or the recipient has not come back."""
        session, kind, to, re = receipt
        if result is RelayResult.SENT:
            self._outgoing.acknowledge(session, re)
            self._settle(session, _tag(kind), re, DONE)
        else:
            self.refuse(session, kind, to, re, result, late=True)

    def refuse(
        self,
        session: Session,
        kind: type[Struct],
        to: str,
        re: m.RequestId | UnsetType,
        result: RelayResult,
        *,
        late: bool = False,
    ) -> None:
        """Tell a sender that its message is not passed on. Without an id it is not told `late`, nor of its limit."""
        refused = RequestRefused(ErrorCode.NOT_ONLINE, f"User {to} is not online")
        if result is RelayResult.LIMITED:
            session.charge_in_vain(NO_ROOM_PENALTY)
            text = f"enough from you waits for {to}, whose connection is lost or slow"
            pause, limit = self._settings.share_pause, "share-of-recipient"
            if kind is m.Relay:
                text, limit = f"enough sealed messages wait for {to}", "sealed-window"
            refused = RequestRefused(ErrorCode.RATE_LIMITED, text, retry_after=pause, limit=limit)
        elif result is RelayResult.UNREACHABLE:
            text = f"the server that {to} is connected to cannot be reached now; try again in a moment"
            refused = RequestRefused(ErrorCode.OVER_CAPACITY, text, retry_after=1.0, limit="cluster")
        refused = replace(refused, silent=re is UNSET and (late or result is RelayResult.LIMITED))
        self._settle(session, _tag(kind), re, refused)


def blocked(to: str) -> RequestRefused:
    """The refusal of a message to a user that the sender has blocked."""
    return RequestRefused(ErrorCode.BLOCKED, f"you have blocked {to}: unblock them first")


def _tag(kind: type[Struct]) -> str:
    return str(kind.__struct_config__.tag)
