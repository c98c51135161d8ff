"""A peer as a dialer sees it, which a test answers for, with a clock that it moves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from aldis.client.backoff import Backoff
from aldis.errors import AldisError, PeerError, PeerKeyChanged
from aldis.peer.connection import PeerState
from aldis.store.peers.dialer import Dialer
from support.peers import FakeTimers


class DialTarget:
    """What a test says of the peer, and what the dialer has done to it."""

    def __init__(self) -> None:
        self.user_id = "bob"
        self.kept = True
        self.queued = 0
        self.busy = False  # files go on
        self.relayed = False
        self.resting = False
        self.watched = True
        self.registered = True
        self.state = PeerState.NEW
        self.clock_from: float | None = 0.0
        self.found: list[BaseException | None] = []  # what asking for the peer leads to; nothing wrong when empty
        self.asked = 0
        self.needed = 0  # how often the server was said to be needed
        self.dialled = 0
        self.hung_up: list[str] = []
        self.errors: list[AldisError] = []
        self.unaccepted: PeerKeyChanged | None = None
        self.hold: asyncio.Event | None = None
        self.timers = FakeTimers()
        self.tasks: list[asyncio.Task[None]] = []
        # Half of each ceiling: 0.5, 1, 2, 2...
        backoff = Backoff(first=1, factor=2, most=4)
        self.dialer = Dialer(self, backoff=backoff, timers=self.timers, random=lambda: 0.5, spawn=self.spawn)

    @property
    def wanted(self) -> bool:
        return self.kept or self.has_waiting

    @property
    def has_waiting(self) -> bool:
        return self.queued > 0 or self.busy

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self.tasks.append(task)
        return task

    def need_server(self) -> None:
        self.needed += 1

    async def find(self) -> None:
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        if self.found and (error := self.found.pop(0)) is not None:
            raise error

    def dial(self) -> None:
        self.dialled += 1
        if self.state is not PeerState.CONNECTED:
            self.state = PeerState.CONNECTING

    def hang_up(self, reason: str) -> None:
        self.hung_up.append(reason)
        self.state = PeerState.CLOSED

    def failed(self, error: AldisError, *, key_changed: PeerKeyChanged | None = None) -> None:
        self.errors.append(error)
        self.unaccepted = self.unaccepted or key_changed

    async def becomes(self, state: PeerState, error: PeerError | None = None) -> None:
        """The connection comes to another state."""
        self.state = state
        self.dialer.state_changed(state, error)
        await settle()

    async def poked(self) -> DialTarget:
        self.dialer.poke()
        await settle()
        return self

    async def wait(self, seconds: float) -> None:
        self.timers.advance(seconds)
        await settle()

    async def connect(self, seconds: float = 5.0) -> asyncio.Task[None]:
        task = asyncio.create_task(self.dialer.connected(seconds))
        await settle()
        return task


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
