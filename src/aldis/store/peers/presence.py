"""What the server says of one user: whether they are online, with which devices, and which key belongs to the name.

It outlives the peer: a user whom the application watches is watched also when there is nothing else with them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from aldis.client.events import Discovery, PresenceChanged
from aldis.errors import PeerKeyChanged, PeerOffline, PeerUnknown, RequestFailed
from aldis.identity.seal_keys import PublishedSealKey
from aldis.protocol.addresses import DEFAULT_DEVICE
from aldis.store.peers.dialer import registered_anew

_log = logging.getLogger(__name__)


class Directory(Protocol):
    """The server, and the keys that count."""

    async def watch(self, user_id: str) -> None:
        """Have presence told. Raises `SignalingError`."""

    async def discover(self, user_id: str) -> Discovery:
        """Ask the server for a user. Raises `SignalingError`."""

    def expect(self, user_id: str, public_key: bytes) -> bytes:
        """Note what the directory says; return the key that stands, which is the pinned one where there is one. Raises
        `FingerprintMismatch`, `IdentityError`."""


class PeerPresence:
    """The presence of one user."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.shown = False  # the application watches the user
        self.watched = False  # the server tells of each change
        self.online: bool | None = None  # what the server says; None when it has not been asked or has not said
        self.devices: tuple[str, ...] = ()  # those that are online, newest first
        self.seal_keys: Mapping[str, PublishedSealKey] = {}  # of those that have one; nobody has checked them
        self.is_current = False  # the server has said so since we have registered
        self._changes = 0  # that were told, apart from answers

    def changed(self, event: PresenceChanged) -> bool:
        """The server has told of a change. Return whether a device has just registered."""
        before = self.devices
        self._changes += not event.initial
        self._told(event.online, event.devices, event.seal_keys)
        return not event.initial and registered_anew(before, self.devices)

    def _told(self, online: bool, devices: tuple[str, ...], seal_keys: Mapping[str, PublishedSealKey]) -> None:
        self.seal_keys = seal_keys
        # A server that lists no device of somebody who is online knows of one only, which is called so.
        self.online, self.devices = online, devices or ((DEFAULT_DEVICE,) if online else ())
        self.is_current = True

    def watch_ended(self) -> None:
        """The server does not tell of changes any more."""
        self.watched = self.is_current = False
        self.online, self.devices, self.seal_keys = None, (), {}

    async def find(self, directory: Directory) -> None:
        """Ask the server for the user, and have presence told from now on. Raises `SignalingError`, `PeerOffline`,
        `PeerUnknown`, `PeerKeyChanged`, `FingerprintMismatch`, `IdentityError`."""
        user_id, changes = self.user_id, self._changes
        if self.watched:
            found = await directory.discover(user_id)
        else:
            # Both at once: the first message waits for the answer.
            self.watched, found = await asyncio.gather(self._watch(directory), directory.discover(user_id))
        while self._changes != changes:
            # An answer and a change that the server told after it may have been read together. The change was handled
            # at once, and the answer is older.
            changes = self._changes
            found = await directory.discover(user_id)
        self._told(found.online, found.devices, found.seal_keys)
        if found.public_key is not None:
            standing = directory.expect(user_id, found.public_key)
            if standing != found.public_key:
                raise PeerKeyChanged(user_id, standing, found.public_key)
        if not found.online:
            raise PeerOffline(user_id) if found.public_key is not None else PeerUnknown(user_id)

    async def _watch(self, directory: Directory) -> bool:
        try:
            await directory.watch(self.user_id)
        except RequestFailed as error:
            # The server allows no more watches: it is asked at each attempt then.
            _log.debug("the presence of %s cannot be watched: %s", self.user_id, error)
            return False
        return True
