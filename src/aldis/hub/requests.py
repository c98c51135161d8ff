"""The requests of clients to the server itself: who is online, who watches whom, ICE servers, pings.

A request about users of whom the process knows nothing waits until the cluster has told where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from msgspec import UNSET, UnsetType

from aldis.backends.base import DirectoryAnswer, FindBinding
from aldis.hub.cluster import FindUsers, UserState
from aldis.hub.costs import NAMELESS_PENALTY, NAMES_PER_UNIT
from aldis.hub.held_back import HeldBackFrames
from aldis.hub.lifecycle import Lifecycle
from aldis.hub.lookups import PendingLookups
from aldis.hub.memory import MemoryBudget
from aldis.hub.outcomes import DONE, PENDING, RequestOutcome, RequestRefused
from aldis.hub.outgoing import Outgoing
from aldis.hub.router import Router
from aldis.hub.sessions import Session, Settle
from aldis.hub.settings import HubSettings, IceSource
from aldis.hub.watchers import Watchers
from aldis.hub.watches import NewWatch, read_names
from aldis.protocol import messages as m
from aldis.protocol.addresses import user_id_problem
from aldis.protocol.codec import to_base64
from aldis.protocol.codes import CloseCode, ErrorCode

_Again: TypeAlias = "Callable[[], RequestOutcome]"


class Requests:
    """Answers them. `learn`: what the cluster has told of a user. `settle`: what has become of a request."""

    def __init__(
        self,
        settings: HubSettings,
        *,
        outgoing: Outgoing,
        lookups: PendingLookups,
        router: Router,
        lifecycle: Lifecycle,
        watchers: Watchers,
        memory: MemoryBudget,
        held_back: HeldBackFrames,
        ice: IceSource,
        wall: Callable[[], float],
        learn: Callable[[UserState], None],
        settle: Settle,
    ) -> None:
        self._settings = settings
        self._outgoing = outgoing
        self._lookups = lookups
        self._router = router
        self._lifecycle = lifecycle
        self._watchers = watchers
        self._memory = memory
        self._held_back = held_back
        self._ice = ice
        self._wall = wall
        self._learn = learn
        self._settle = settle

    def discover(self, session: Session, message: m.Discover, now: float) -> RequestOutcome:
        user_id = message.user_id
        problem = user_id_problem(user_id)
        if problem:
            return RequestRefused(ErrorCode.INVALID_FIELD, f"userId: {problem}")
        if session.rates is None:
            session.charge_in_vain(NAMELESS_PENALTY)
        unknown = self._router.unknown([user_id])
        if unknown:
            return self._ask_where(
                session, "discover", message.id, unknown, lambda: self.discover(session, message, now)
            )
        presence = self._router.locate(user_id, session)
        if presence.online or not session.dialect.proves:
            self._tell_found(session, presence, presence.public_key, message.id)
            return DONE

        def answered(answer: DirectoryAnswer, now: float) -> RequestOutcome:
            # The user may have come online meanwhile, perhaps with a newer key than the directory had.
            presence = self._router.locate(user_id, session)
            bound = to_base64(answer) if isinstance(answer, bytes) else UNSET
            self._tell_found(session, presence, presence.public_key if presence.online else bound, message.id)
            return DONE

        question = FindBinding(self._lookups.token(), user_id)
        self._lookups.ask(question, answered, session=session, kind="discover", re=message.id)
        return PENDING

    def _ask_where(
        self,
        session: Session,
        kind: str,
        re: m.RequestId | UnsetType,
        unknown: list[str],
        again: _Again,
        failed: Callable[[], None] | None = None,
    ) -> RequestOutcome:
        """Ask where in the cluster some users are, and then go on with the request."""
        session.charged += len(unknown) // NAMES_PER_UNIT  # beyond what the request costs alone

        def answered(states: list[UserState], now: float) -> RequestOutcome:
            for state in states:
                self._learn(state)
            return again()

        question = FindUsers(self._lookups.token(), tuple(unknown))
        self._lookups.ask(question, answered, failed, session=session, kind=kind, re=re)
        return PENDING

    def _tell_found(
        self, session: Session, found: m.PresenceMessage, key: str | UnsetType, re: m.RequestId | UnsetType
    ) -> None:
        devices = [] if found.devices is UNSET else found.devices
        self._outgoing.send(session, m.DiscoverResponse(found.user_id, found.online, key, devices, re))

    def watch(self, session: Session, message: m.Watch, now: float) -> RequestOutcome:
        user_ids = read_names(message.user_ids)
        if isinstance(user_ids, RequestRefused):
            return user_ids
        outcome = self._memory.refusal() or self._watchers.watches.admit(session, user_ids, message.id)
        if outcome is DONE:
            return self._watch(session, self._watchers.watches.new(session))
        if outcome is PENDING:
            session.waiting = True  # its later frames wait until all names are admitted: see `admitted`
        return outcome

    def admitted(self, session: Session, watch: NewWatch, refused: RequestRefused | None) -> None:
        """All names of a large `watch` are admitted, or it is refused."""
        session.waiting = False
        self._settle(session, "watch", watch.re, refused or self._watch(session, watch))
        self._held_back.answered(session, self._watchers.now)

    def _watch(self, session: Session, watch: NewWatch) -> RequestOutcome:
        """Watch the names that are admitted, when the cluster has told of those that nobody here knows."""

        def known() -> RequestOutcome:
            self._watchers.watch(session)
            self._end_if_it_asks_too_much(session)
            return DONE

        unknown = self._router.unknown(watch.names)
        if not unknown:
            return known()
        give_up = self._watchers.watches.give_up
        return self._ask_where(session, "watch", watch.re, unknown, known, lambda: give_up(session))

    def _end_if_it_asks_too_much(self, session: Session) -> None:
        # The reply may be larger than what the client reads at once.
        if self._watchers.asks_too_much(session):
            reason = "too many watches before the presence of earlier ones"
            self._lifecycle.end(session, CloseCode.OVER_LIMITS, reason)

    def unwatch(self, session: Session, message: m.Unwatch, now: float) -> RequestOutcome:
        user_ids = read_names(message.user_ids)
        if isinstance(user_ids, RequestRefused):
            return user_ids
        self._watchers.unwatch(session, user_ids)
        self._outgoing.acknowledge(session, message.id)
        return DONE

    def ice_servers(self, session: Session, message: m.IceServersRequest, now: float) -> RequestOutcome:
        servers, ttl = self._ice.servers(session.user_id, self._wall(), host=session.host, address=session.address)
        self._outgoing.send(session, m.IceServers(servers, ttl, message.id))
        return DONE

    def received(self, session: Session, message: m.Received, now: float) -> RequestOutcome:
        if session.replay is not None and not session.replay.confirm(message.count):
            text = f"count: only {session.replay.count} messages have been sent"
            return RequestRefused(ErrorCode.INVALID_FIELD, text)
        return DONE

    def ping(self, session: Session, message: m.Ping, now: float) -> RequestOutcome:
        self._outgoing.send(session, m.Pong(message.id))
        return DONE
