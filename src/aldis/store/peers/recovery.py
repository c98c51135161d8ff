"""What one part of a store knows of the network, told to the others: the client, the devices, their connections.

* A path is lost: the server may be gone too, so it is asked.
* An engine has a path again: the network is back, so the server is dialled at once.
* A peer waits for the server: it is dialled more often.
* This machine has other addresses, or has slept: all that is open is checked, ICE is restarted, and peers without a
  direct connection are called.

It decides nothing about peers, and does no I/O of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from aldis.client.client import SignalingClient
from aldis.client.network import NetworkWatch
from aldis.peer.clock import LoopClock
from aldis.peer.connection import PeerConnection
from aldis.store.peers.dialer import Dialer
from aldis.store.peers.path import DirectPath


class RecoveringDevice(Protocol):
    """A device of a peer."""

    path: DirectPath
    dialer: Dialer


class Recovery:
    """See the module. It belongs to one store."""

    def __init__(
        self, client: Callable[[], SignalingClient | None], devices: Callable[[], Iterable[RecoveringDevice]]
    ) -> None:
        """`client` gives the client that may be used now; `devices` all devices of all peers."""
        self._client = client
        self._devices = devices
        self._unsubscribe: list[Callable[[], None]] = []

    def start(self) -> None:
        """Listen for changes of the network and for sleeps, on the running loop."""
        loop = asyncio.get_running_loop()
        self._unsubscribe = [
            NetworkWatch.of(loop).subscribe(self._network_changed),
            LoopClock.of(loop).on_wake(self._woke),
        ]

    def close(self) -> None:
        """Listen no more."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []

    def need_server(self) -> None:
        """A peer waits for the server."""
        client = self._client()
        if client is not None:
            client.hurry()

    def path_lost(self) -> None:
        """Nothing arrives from a device."""
        client = self._client()
        if client is not None:
            client.suspect()

    def path_found(self) -> None:
        """An engine has a path to a device again."""
        client = self._client()
        if client is not None:
            client.network_changed()

    def signaling_lost(self) -> None:
        """The connection to the server is lost."""
        for device in self._devices():
            device.dialer.signaling_lost()

    def _network_changed(self) -> None:
        self.path_found()
        for connection in self._connections:
            connection.network_changed()
        self._call()

    def _woke(self) -> None:
        self.path_found()
        for connection in self._connections:
            connection.suspect()
        self._call()

    def _call(self) -> None:
        for device in self._devices():
            device.dialer.network_changed()

    @property
    def _connections(self) -> list[PeerConnection]:
        found = [device.path.connection for device in self._devices()]
        return [connection for connection in found if connection is not None]
