"""The users that are online, and their devices.

This module only stores and answers. `hub.lifecycle` adds and removes sessions, and `hub.watchers` tells the watchers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import UNSET

from aldis.hub.sessions import Session
from aldis.protocol import messages as m
from aldis.protocol.addresses import split


class Presence:
    """The users that are online, and their sessions by device."""

    def __init__(self) -> None:
        # Devices in the order of their registration: the newest is last.
        self._users: dict[str, dict[str, Session]] = {}
        # The newest device of each user: most messages go to a bare user id, and one look-up finds their recipient.
        self._newest: dict[str, Session] = {}
        self.newest: Final = self._newest.get
        """The newest session of a user, or None. This is the dict's own method, to save a call."""

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

    def of(self, user_id: str) -> m.PresenceMessage:
        """The presence of a user, as it goes over the wire."""
        sessions = self.devices(user_id)
        if not sessions:
            return m.PresenceMessage(user_id, False)
        devices = [m.Device(s.device, UNSET if s.seal_key is None else s.seal_key) for s in sessions]
        return m.PresenceMessage(user_id, True, sessions[0].key, devices)

    def add(self, session: Session) -> None:
        """Enter a session under its name and device, as the newest, in place of an older one."""
        devices = self._users.setdefault(session.user_id, {})
        devices.pop(session.device, None)
        devices[session.device] = session
        self._newest[session.user_id] = session

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
        return True
