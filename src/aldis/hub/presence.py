"""The users that are online, and their devices.

This module only stores and answers. `hub.lifecycle` adds and removes sessions, and `hub.watchers` tells the watchers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter, itemgetter
from typing import Final, TypeAlias

from msgspec import UNSET

from aldis.hub.cluster import RemoteDevice
from aldis.hub.privacy import UserPrivacy
from aldis.hub.remote_users import RemoteUsers
from aldis.hub.sessions import Session
from aldis.protocol import messages as m
from aldis.protocol.addresses import split

_order: Final = attrgetter("order")

PresenceState: TypeAlias = "tuple[tuple[str, object, str, m.SealKey | None], ...]"
"""The device, session, key and sealing key of each session of a user, newest first."""


def hides_a_restart(before: PresenceState, now: PresenceState) -> bool:
    """Whether a client that has been told `before` takes `now` for devices that have left and nothing else, although
    one of those that are there has registered anew."""
    rest = iter([device for device, *_ in before])
    only_left = len(now) < len(before) and all(device in rest for device, *_ in now)
    known = {session for _, session, *_ in before}
    return only_left and any(session not in known for _, session, *_ in now)


class Presence:
    """The users that are online, and their sessions by device."""

    def __init__(
        self, changed: Callable[[str, bool], None] | None = None, *, remote: RemoteUsers | None = None
    ) -> None:
        """`changed` is called with a user that comes online (True) or goes offline. `remote`: those of other nodes."""
        self._changed = changed
        # Devices in the order of their registration: the newest is last.
        self._users: dict[str, dict[str, Session]] = {}
        # The newest device of each user: most messages go to a bare user id, and one look-up finds their recipient.
        self._newest: dict[str, Session] = {}
        self.newest: Final = self._newest.get
        """The newest session of a user, or None. This is the dict's own method, to save a call."""
        self.privacies: Final[dict[str, UserPrivacy]] = {}
        """The privacy of each user that is online here, except the default (`hub.privacy_policies`)."""
        self._remote = remote

    def __len__(self) -> int:
        """The number of users that are online."""
        return len(self._users)

    def sessions(self) -> Iterable[Session]:
        """All sessions that have a name, with or without a connection."""
        return [session for devices in self._users.values() for session in devices.values()]

    def users(self) -> Iterable[str]:
        """The names of all users that are online."""
        return self._users

    def find(self, address: str) -> Session | None:
        """The session of an address. For a bare user id: the session of the device that registered last."""
        session = self._newest.get(address)
        if session is not None:
            return session
        user_id, device = split(address)
        return None if device is None else self.at(user_id, device)

    def at(self, user_id: str, device: str) -> Session | None:
        """The session of exactly this device."""
        devices = self._users.get(user_id)
        return devices.get(device) if devices is not None else None

    def devices(self, user_id: str) -> list[Session]:
        """The sessions of a user, newest first; empty when the user is offline."""
        return list(reversed(self._users.get(user_id, {}).values()))

    def sessions_of(self, user_ids: Iterable[str]) -> list[Session]:
        """The sessions of these users, in any order. There may be thousands."""
        users = self._users
        return [session for user_id in user_ids if user_id in users for session in users[user_id].values()]

    def privacy(self, user_id: str) -> UserPrivacy | None:
        """The privacy of a user that is online, here or elsewhere; None is the default.

        One that has just gone from here has it until its watchers are told.
        """
        found = self.privacies.get(user_id)
        if found is not None or self._remote is None or user_id in self._users:
            return found
        return self._remote.privacy(user_id)

    def shows(self, user_id: str, viewer: Session) -> bool:
        """Whether a session may see that a user is online."""
        privacy = self.privacy(user_id)
        return privacy is None or privacy.shows_to(viewer.user_id, proven=viewer.dialect.proves)

    def of(self, user_id: str, viewer: Session) -> m.PresenceMessage:
        """The presence of a user as a session may see it, as it goes over the wire."""
        sessions = self.devices(user_id)
        elsewhere = () if self._remote is None else self._remote.devices(user_id)
        if not (sessions or elsewhere) or not self.shows(user_id, viewer):
            return m.PresenceMessage(user_id, False)
        if elsewhere:
            every: list[Session | RemoteDevice] = [*sessions, *elsewhere]
            every.sort(key=_order, reverse=True)
            shown = [m.Device(each.device, UNSET if each.seal_key is None else each.seal_key) for each in every]
            return m.PresenceMessage(user_id, True, every[0].key, shown)
        devices = [m.Device(s.device, UNSET if s.seal_key is None else s.seal_key) for s in sessions]
        return m.PresenceMessage(user_id, True, sessions[0].key, devices)

    def state(self, user_id: str) -> PresenceState:
        """What differs after any change of a user's presence, and after each new session, even of the same device."""
        # A resumed session keeps its id; a session without a proof has none.
        here = tuple((s.device, s.id or s, s.key, s.seal_key) for s in self.devices(user_id))
        elsewhere = () if self._remote is None else self._remote.devices(user_id)
        if not elsewhere:
            return here
        there = [(each.order, (each.device, each.session or each.entry, each.key, each.seal_key)) for each in elsewhere]
        orders = [session.order for session in self.devices(user_id)]
        every = sorted([*zip(orders, here, strict=True), *there], key=itemgetter(0), reverse=True)
        return tuple(state for _, state in every)

    def add(self, session: Session) -> None:
        """Enter a session under its name and device, as the newest, in place of an older one."""
        if self._changed is not None and session.user_id not in self._users:
            self._changed(session.user_id, True)
        devices = self._users.setdefault(session.user_id, {})
        devices.pop(session.device, None)
        devices[session.device] = session
        self._newest[session.user_id] = session
        session.privacy = self.privacies.get(session.user_id)

    def remove(self, session: Session) -> bool:
        """Remove a session; False, and no change, when another session has its place by now."""
        devices = self._users.get(session.user_id)
        if devices is None or devices.get(session.device) is not session:
            return False
        del devices[session.device]
        if devices:
            self._newest[session.user_id] = next(reversed(devices.values()))
        else:
            del self._users[session.user_id]
            del self._newest[session.user_id]
            if self._changed is not None:
                self._changed(session.user_id, False)
        return True
