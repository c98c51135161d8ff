"""What the server says of one user: whether they are online, with which devices, and which key belongs to the name.

It outlives the peer: a user whom the application watches is watched also when there is nothing else with them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Protocol

from aldis.client.events import Discovery, PresenceChanged
from aldis.errors import PeerKeyChanged, PeerOffline, PeerUnknown, SignalingError, StateError
from aldis.identity.seal_keys import PublishedSealKey
from aldis.protocol.addresses import DEFAULT_DEVICE
from aldis.store.peers.dialer import registered_anew

_log = logging.getLogger(__name__)


class Directory(Protocol):
    """The server, and the keys that count."""

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Start a task that the store owns."""

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
        self._told: PresenceChanged | None = None  # what the server has told last unasked
        self._watching: asyncio.Task[None] | None = None  # while the server is asked to tell of each change

    @property
    def is_or_will_be_watched(self) -> bool:
        """Whether the server tells of each change, or is being asked to."""
        return self.watched or self._watching is not None

    def changed(self, event: PresenceChanged) -> bool:
        """The server has told of a change. Return whether a device has just registered."""
        before = self.devices
        self._told = event
        self._note(event)
        return not event.initial and registered_anew(before, self.devices)

    def _note(self, told: Discovery | PresenceChanged) -> None:
        self.online, self.devices, self.seal_keys = told.online, _devices(told), told.seal_keys
        self.is_current = True

    def watch_ended(self) -> None:
        """The server does not tell of changes any more."""
        self.watched = self.is_current = False
        self.online, self.devices, self.seal_keys = None, (), {}

    async def find(self, directory: Directory) -> None:
        """Ask the server for the user, and have presence told from now on. Raises `SignalingError`, `PeerOffline`,
        `PeerUnknown`, `PeerKeyChanged`, `FingerprintMismatch`, `IdentityError`."""
        if not self.is_or_will_be_watched:
            # It goes out behind the question, and whoever is online is called without waiting for it.
            self._watching = directory.spawn(self._watch(directory), f"watch {self.user_id}")
        found = await self._ask(directory)
        if not found.online and self._watching is not None:
            # The dialer waits for a word of the server if there will be one, and else asks again.
            await asyncio.wait([self._watching])
            if self.online:
                found = await self._ask(directory)
        if found.public_key is not None:
            standing = directory.expect(self.user_id, found.public_key)
            if standing != found.public_key:
                raise PeerKeyChanged(self.user_id, standing, found.public_key)
        if not found.online:
            raise PeerOffline(self.user_id) if found.public_key is not None else PeerUnknown(self.user_id)

    async def _ask(self, directory: Directory) -> Discovery:
        """What the server says now. Raises `SignalingError`."""
        while True:
            before = self._told
            found = await directory.discover(self.user_id)
            told = self._told
            if told is None or told is before:
                self._note(found)
                return found
            # The server has told of the user since it was asked. That may have been before its answer or after it, and
            # was handled at once.
            if _agree(told, found):
                return found

    async def _watch(self, directory: Directory) -> None:
        try:
            await directory.watch(self.user_id)
            self.watched = True
        except (SignalingError, StateError) as error:
            # The server allows no more watches, or is gone: it is asked at each attempt.
            _log.debug("the presence of %s cannot be watched: %s", self.user_id, error)
        finally:
            self._watching = None


def _devices(told: Discovery | PresenceChanged) -> tuple[str, ...]:
    """The devices that are online, newest first."""
    # A server that lists no device of somebody who is online knows of one only, which is called so.
    return told.devices or ((DEFAULT_DEVICE,) if told.online else ())


def _agree(told: PresenceChanged, found: Discovery) -> bool:
    """Whether both say the same. The server tells the key of nobody who is offline."""
    if not (told.online and found.online):
        return told.online == found.online
    return (told.public_key, _devices(told), told.seal_keys) == (found.public_key, _devices(found), found.seal_keys)
