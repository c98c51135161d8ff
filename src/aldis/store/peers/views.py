"""What was told of each peer, and the state that is put together from it.

Rules: a change is told at once. What may change with every message (a number, the device that counts) marks the peer,
and is told once for all that happens in one turn of the event loop. It does not know how any of it comes about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from operator import attrgetter
from types import MappingProxyType
from typing import Final, Protocol

from aldis.store.state import DeviceView, PeerView, StoreState
from aldis.store.subscriptions import StateFeed


class Viewed(Protocol):
    """A peer."""

    user_id: str

    @property
    def view(self) -> PeerView:
        """The peer as the application sees it now."""

    @property
    def round_trip_times(self) -> Mapping[str, float | None]:
        """By device, in seconds."""


class PeerViews:
    """The views of all peers of a store."""

    def __init__(self, feed: StateFeed, server: Callable[[], StoreState]) -> None:
        """`server` says how things stand with the server, in a state without peers."""
        self._feed = feed
        self._server = server
        self._peers: dict[str, Viewed] = {}
        self._told: dict[str, PeerView] = {}
        self._counted: set[str] = set()  # those of whom only a number has changed
        self._publishing_soon = False

    def add(self, peer: Viewed) -> None:
        """Show a peer from now on."""
        self._peers[peer.user_id] = peer
        self.changed(peer)

    def remove(self, peer: Viewed) -> None:
        """Show a peer no more; the next state tells it."""
        del self._peers[peer.user_id]
        self._told.pop(peer.user_id, None)
        self._counted.discard(peer.user_id)

    def measured(self, peer: Viewed) -> None:
        """Round-trip times may have changed. Nearly all are the same as before, so no view is made for it."""
        told = self._told.get(peer.user_id)
        devices = {} if told is None else told.devices
        if any(seconds != _told_time(devices.get(name)) for name, seconds in peer.round_trip_times.items()):
            self.counted(peer)

    def changed(self, peer: Viewed) -> None:
        """Something in the view of a peer may have changed; nobody looks at one that was forgotten."""
        if self._peers.get(peer.user_id) is peer and self._look(peer):
            self.publish()

    def counted(self, peer: Viewed) -> None:
        """Only a number in the view of a peer may have changed, or which device counts."""
        if self._peers.get(peer.user_id) is peer:
            self._counted.add(peer.user_id)
            self._publish_soon()

    def publish(self) -> None:
        """Tell how things stand."""
        counted, self._counted = self._counted, set()
        for user_id in counted:
            self._look(self._peers[user_id])
        self._publishing_soon = False  # only now: what was looked at here needs no other state
        self._feed.publish(replace(self._server(), peers=MappingProxyType(dict(self._told))))

    def _publish_soon(self) -> None:
        if not self._publishing_soon:
            self._publishing_soon = True
            asyncio.get_running_loop().call_soon(self._publish_counted)

    def _publish_counted(self) -> None:
        if self._publishing_soon:  # else another change has told it
            self.publish()

    def _look(self, peer: Viewed) -> bool:
        """Take a view of a peer; whether it has changed in more than a number."""
        before, view = self._told.get(peer.user_id), peer.view
        if view == before:
            return False
        self._told[peer.user_id] = view
        if before is None or _differ(before, view):
            return True
        self._publish_soon()
        return False


def _told_time(view: DeviceView | None) -> float | None:
    return None if view is None else view.round_trip_time


def _without_numbers(kind: type[PeerView] | type[DeviceView]) -> Callable[[object], object]:
    """What reads all fields of a view but its numbers and the views in it: `replace` takes twenty times as long."""
    others = {"queued", "round_trip_time", "devices"}
    return attrgetter(*(field.name for field in fields(kind) if field.name not in others))


_of_peer: Final = _without_numbers(PeerView)
_of_device: Final = _without_numbers(DeviceView)


def _differ(before: PeerView, view: PeerView) -> bool:
    """Whether two views differ in more than numbers."""
    if _of_peer(before) != _of_peer(view) or before.devices.keys() != view.devices.keys():
        return True
    return any(_of_device(before.devices[name]) != _of_device(device) for name, device in view.devices.items())
