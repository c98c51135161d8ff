"""Who is told that an offer is not taken: all of them, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from aldis.client.events import OfferReceived
from aldis.errors import ConnectionLost
from aldis.protocol.messages import Capabilities, Description
from aldis.store.peers.admission import MAX_REFUSALS, MAX_WAITING, REFUSALS_PER_SECOND, Admission
from aldis.store.peers.peer import Peer


class Server:
    """A `SignalingClient`, as far as refusals go; a test says when the server has taken one."""

    user_id = "alice"

    def __init__(self) -> None:
        self.byes: list[tuple[str, str | None, str | None]] = []
        self.takes = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.now = 0.0
        self.sleeping: list[tuple[float, asyncio.Future[None]]] = []
        self.admission = Admission(
            self,  # type: ignore[arg-type]
            None,
            self.make,
            self.spawn,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    async def send_bye(
        self, to: str, *, connection: str | None, reason: str, code: str | None, retry_after: float | None
    ) -> None:
        self.byes.append((to, connection, code))
        await self.takes.wait()
        raise ConnectionLost("gone")  # which is nobody's business

    async def sleep(self, seconds: float) -> None:
        waking = asyncio.get_running_loop().create_future()
        self.sleeping.append((self.now + seconds, waking))
        await waking

    async def pass_time(self, seconds: float) -> None:
        """Wake those whose time has come, one after the other."""
        end = self.now + seconds
        for _ in range(5):
            await asyncio.sleep(0)
        while self.sleeping and min(due for due, _ in self.sleeping) <= end:
            waking = min(self.sleeping, key=lambda one: one[0])
            self.sleeping.remove(waking)
            self.now = waking[0]
            waking[1].set_result(None)
            for _ in range(5):
                await asyncio.sleep(0)
        self.now = end

    def make(self, user_id: str) -> Peer:
        raise AssertionError(f"{user_id} is only refused here")

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self.tasks.add(task)
        return task

    def refuse(self, sender: str, connection: str) -> None:
        offer = OfferReceived(sender, Description("offer", ""), connection, None, Capabilities())
        self.admission.refuse(offer, "busy", "busy", 5)

    async def settle(self) -> None:
        self.takes.set()
        await self.pass_time(MAX_WAITING / REFUSALS_PER_SECOND + 1)
        await asyncio.gather(*self.tasks)


async def test_callers_who_come_all_at_once_are_all_told_as_far_as_there_is_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    for number in range(MAX_WAITING + 1):
        server.refuse(f"caller{number}", "c")
    assert f"caller{MAX_WAITING}" in caplog.text
    await asyncio.sleep(0)
    assert len(server.byes) == MAX_REFUSALS
    await server.settle()
    assert server.byes == [(f"caller{number}", "c", "busy") for number in range(MAX_WAITING)]
    server.refuse("bob", "c")  # there is room again
    await server.settle()
    assert server.byes[-1] == ("bob", "c", "busy")


async def test_a_flood_of_one_sender_is_answered_once_the_newest_first() -> None:
    server = Server()
    for number in range(10_000):
        server.refuse("mallory", str(number))
    server.refuse("bob", "c")
    await server.settle()
    assert server.byes == [("mallory", "9999", "busy"), ("bob", "c", "busy")]


async def test_refusals_leave_a_user_most_of_what_it_may_send() -> None:
    """The server reads 200 messages of a client in a second, and strangers may send thousands of offers."""
    server = Server()
    server.takes.set()
    for second in range(1, 5):
        for number in range(1000):
            server.refuse(f"mallory{number}", "c")
        await server.pass_time(1)
        assert len(server.byes) <= MAX_REFUSALS + second * REFUSALS_PER_SECOND
    await server.settle()
    await server.pass_time(2 * MAX_REFUSALS / REFUSALS_PER_SECOND)
    told = len(server.byes)
    for number in range(MAX_REFUSALS):
        server.refuse(f"caller{number}", "c")
    await server.pass_time(0)
    assert len(server.byes) == told + MAX_REFUSALS, "at once, after a rest"
    await server.settle()
