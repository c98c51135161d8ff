"""Entering a session into the table of the cluster, before it is admitted.

    the directory says whose name it is -> the table takes the device -> admitted

The table gives the session its place among all of the cluster, and says what else the user has. What was entered for a
session that has ended meanwhile is taken back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from aldis.backends.base import Claim
from aldis.hub.cluster import EnterDevice, Entered, EntryRefusal, FindUsers, RemoteDevice, Unconfirmed, UserState
from aldis.hub.cluster_router import ClusterRouter
from aldis.hub.lifecycle import advance
from aldis.hub.lookups import PendingLookups
from aldis.hub.name_queue import NameAccess
from aldis.hub.outcomes import PENDING, RequestOutcome
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.hub.stages import Stage, StageEvent
from aldis.protocol import messages as m
from aldis.protocol.privacy import Privacy

_CLAIMING: Final = (Stage.CLAIMING, Stage.RECLAIMING)

Admit: TypeAlias = Callable[[float], RequestOutcome]
"""Goes on with a registration, at this time."""


class ClusterEntrance:
    """Enters the sessions of one hub."""

    def __init__(self, settings: HubSettings, cluster: ClusterRouter, lookups: PendingLookups) -> None:
        self._settings = settings
        self._cluster = cluster
        self._lookups = lookups

    def is_held_unproven(self, user_id: str) -> bool | None:
        """Whether a client of another node holds a name without a proof; None: ask first (`look`).

        A name is not bound to a key while that is so.
        """
        if self._settings.auth != "open":
            return False
        if self._cluster.unknown([user_id]):
            return None
        return any(not each.proves for each in self._cluster.known.devices(user_id))

    def verified(self, user_id: str, claim: Claim) -> None:
        """The directory has said whose name it is, and the name is registered here."""
        if user_id in self._cluster.known:
            self._cluster.verified.note(user_id, claim)

    def look(self, session: Session, message: m.Prove, user_id: str, then: Admit) -> RequestOutcome:
        """Ask where a user is, and then go on."""

        def answered(states: list[UserState], now: float) -> RequestOutcome:
            for state in states:
                self._cluster.learn(state)
            return then(now)

        question = FindUsers(self._lookups.token(), (user_id,))
        failed = _refused(session)
        self._lookups.ask(question, answered, failed, session=session, kind="prove", re=message.id)
        return PENDING

    def enter(
        self,
        session: Session,
        message: m.Register | m.Prove,
        user_id: str,
        device: RemoteDevice,
        privacy: Privacy,
        admit: Admit,
        refuse: Callable[[EntryRefusal], RequestOutcome],
    ) -> RequestOutcome:
        """Enter a device (`node` is filled in) and then `admit` its session, or `refuse` it."""
        link = self._cluster.link
        device = device._replace(node=link.node)

        def answered(answer: Entered | EntryRefusal | Unconfirmed, now: float) -> RequestOutcome | None:
            if session.stage not in _CLAIMING:
                if not isinstance(answer, EntryRefusal):
                    link.leave(user_id, device.device, device.entry)
                return None  # the session has ended meanwhile
            if isinstance(answer, EntryRefusal):
                advance(session, StageEvent.REFUSED)
                return refuse(answer)
            if session.user_id and session.user_id != user_id:
                link.leave(session.user_id, session.device, session.entry)  # a classic client has another name now
            session.entry, session.order = device.entry, answer.order
            if not isinstance(answer, Entered):
                return admit(now)
            # The device may come from another node. Its watchers hear that it is here, and not that it has left there.
            with self._cluster.news_together():
                self._cluster.learn(answer.state)
                if answer.state.privacy != privacy:
                    self._cluster.doubt(user_id)  # one of them is of an earlier moment
                return admit(now)

        def failed() -> None:
            _refused(session)()
            link.leave(user_id, device.device, device.entry)  # it may have been entered

        question = EnterDevice(self._lookups.token(), user_id, device, privacy, self._settings.max_devices)
        self._lookups.ask(
            question,
            answered,
            failed,
            access=NameAccess.CLAIM,
            session=session,
            kind=str(message.__struct_config__.tag),
            re=message.id,
        )
        return PENDING


def _refused(session: Session) -> Callable[[], None]:
    def refused() -> None:
        if session.stage in _CLAIMING:
            advance(session, StageEvent.REFUSED)

    return refused
