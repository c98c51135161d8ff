"""Who is told that an offer is not taken: all of them, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from aldis.client.events import OfferReceived
from aldis.errors import ConnectionLost
from aldis.protocol.messages import Capabilities, Description
from aldis.store.peers.admission import MAX_REFUSALS, MAX_WAITING, Admission
from aldis.store.peers.peer import Peer


class Server:
    """A `SignalingClient`, as far as refusals go; a test says when the server has taken one."""

    user_id = "alice"

    def __init__(self) -> None:
        self.byes: list[tuple[str, str | None, str | None]] = []
        self.takes = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self.admission = Admission(self, None, self.make, self.spawn)  # type: ignore[arg-type]

    async def send_bye(
        self, to: str, *, connection: str | None, reason: str, code: str | None, retry_after: float | None
    ) -> None:
        self.byes.append((to, connection, code))
        await self.takes.wait()
        raise ConnectionLost("gone")  # which is nobody's business

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
