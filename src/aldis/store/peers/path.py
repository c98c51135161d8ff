"""The direct path to one device of a peer: the connection that there is, or is in the making, and how it stands.

Rules: a path outlives its connections. The device hears of one at a time, and nothing more of one that was let go of.
It does not know when there should be a connection, nor what is sent on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Protocol

from aldis.peer.connection import PeerConnection, PeerListener, PeerState
from aldis.protocol.channel import Hello
from aldis.store.messages.stream import MessageStream


class PathContext(Protocol):
    """What a path needs of the store."""

    def connection(
        self, user_id: str, device: str | None, listener: PeerListener, hello: Callable[[], Hello]
    ) -> PeerConnection:
        """Make a connection with a device, or whichever one registered last."""

    def prepare(self, user_id: str) -> None:
        """A connection with a user will be made soon: do now what takes time and says nothing to anybody."""

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Start a task that the store owns."""


class PathOwner(Protocol):
    """The device."""

    user_id: str
    name: str | None

    @property
    def listener(self) -> PeerListener:
        """Who hears what the connection tells."""

    @property
    def messages(self) -> MessageStream:
        """What is sent on the path."""


class DirectPath:
    """What connects us with one device."""

    def __init__(
        self, owner: PathOwner, context: PathContext, greeting: Callable[[], Hello], closed: Callable[[], None]
    ) -> None:
        """`greeting` makes our HELLO for each new channel; `closed` is told of the end of a connection."""
        self._owner = owner
        self._context = context
        self._greeting = greeting
        self._closed = closed
        self.connection: PeerConnection | None = None
        self.told = PeerState.NEW  # how it stood when the device was told last

    @property
    def state(self) -> PeerState:
        """How the connection stands now."""
        return self.told if self.connection is None else self.connection.state

    @property
    def connected(self) -> bool:
        """Whether there is a connection, be it broken at the moment: it needs no server."""
        return self.state in (PeerState.CONNECTED, PeerState.DISCONNECTED)

    def open(self) -> PeerConnection:
        """The connection, made if need be."""
        if self.connection is None:
            messages = self._owner.messages

            def hello() -> Hello:
                return self._greeting() if self.connection is connection else messages.greeting()

            owner = self._owner
            connection = self.connection = self._context.connection(owner.user_id, owner.name, owner.listener, hello)
        return self.connection

    def send_frame(self, frame: bytes) -> bool:
        """Take one frame; False when there is no connection, or no room."""
        return self.connection is not None and self.connection.send_frame(frame)

    def detach(self) -> PeerConnection | None:
        """Let go of the connection, which is returned."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.silence()
        self._closed()
        return connection

    def release(self, reason: str, state: PeerState) -> None:
        """End the connection; the path stands at `state` then."""
        connection = self.detach()
        if connection is not None:
            self._context.spawn(connection.close(reason), f"close {self._owner.user_id}")
        self.told = state
