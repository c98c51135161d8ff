"""What the server says of a user: answers, and changes that are told meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from aldis.client.events import Discovery, PresenceChanged
from aldis.errors import PeerOffline, PeerUnknown, RequestFailed
from aldis.store.peers.presence import PeerPresence

KEY, ANOTHER_KEY = bytes(32), bytes([1]) * 32
ONLINE = Discovery("bob", True, KEY, ("main",))
OFFLINE = Discovery("bob", False, KEY, ())


class Server:
    """A server that answers a question with the next of `answers`, after it has told of what stands before it."""

    def __init__(self, *answers: Discovery | PresenceChanged) -> None:
        self.presence = PeerPresence("bob")
        self.answers = list(answers)
        self.requests: list[str] = []
        self.asked_to_watch = asyncio.Event()
        self.watchable = asyncio.Event()  # the `watch` is answered
        self.told_first: PresenceChanged | None = None  # in answer to the `watch`
        self.tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        return task

    async def watch(self, user_id: str) -> None:
        self.requests.append("watch")
        self.asked_to_watch.set()
        await self.watchable.wait()
        if self.told_first is not None:
            self.presence.changed(self.told_first)

    async def discover(self, user_id: str) -> Discovery:
        self.requests.append("discover")
        while isinstance(self.answers[0], PresenceChanged):
            self.presence.changed(self.answers.pop(0))  # type: ignore[arg-type]
        answer = self.answers.pop(0)
        assert isinstance(answer, Discovery)
        return answer

    def expect(self, user_id: str, public_key: bytes) -> bytes:
        return public_key

    async def find(self) -> None:
        await self.presence.find(self)

    async def end(self) -> None:
        self.watchable.set()
        await asyncio.gather(*self.tasks)


def told(found: Discovery, *, initial: bool = False) -> PresenceChanged:
    return PresenceChanged("bob", found.online, found.public_key, found.devices, initial=initial)


async def test_an_answer_does_not_undo_a_change_that_came_after_it() -> None:
    server = Server(told(ONLINE), OFFLINE, ONLINE, ONLINE)
    await server.find()
    assert (server.presence.online, server.presence.devices) == (True, ("main",))
    assert server.requests.count("discover") == 2
    await server.find()
    assert server.requests.count("discover") == 3
    await server.end()


async def test_whoever_is_online_is_found_before_the_watch_is_answered() -> None:
    server = Server(ONLINE, ONLINE)
    await server.find()
    assert (server.presence.online, server.presence.watched) == (True, False)
    assert server.presence.is_or_will_be_watched
    await server.find()
    await server.end()
    assert server.requests.count("watch") == 1
    assert server.presence.watched


async def test_the_word_that_begins_a_watch_is_no_reason_to_ask_again() -> None:
    server = Server(told(ONLINE, initial=True), ONLINE, told(Discovery("bob", False, None, ())), OFFLINE)
    await server.find()
    server.watchable.set()
    with pytest.raises(PeerOffline):
        await server.find()
    assert server.requests.count("discover") == 2
    await server.end()


@pytest.mark.parametrize(
    "found",
    [OFFLINE, Discovery("bob", True, ANOTHER_KEY, ("main",)), Discovery("bob", True, KEY, ("tablet", "main"))],
)
async def test_an_answer_that_differs_from_what_was_told_meanwhile_is_asked_for_again(found: Discovery) -> None:
    server = Server(told(ONLINE), found, ONLINE)
    await server.find()
    assert server.presence.devices == ("main",)
    assert server.requests.count("discover") == 2
    await server.end()


async def test_whoever_is_offline_is_given_up_when_it_is_known_whether_the_server_will_tell() -> None:
    server = Server(OFFLINE)
    finding = asyncio.create_task(server.find())
    await server.asked_to_watch.wait()
    assert not finding.done()
    server.watchable.set()
    with pytest.raises(PeerOffline):
        await finding
    assert server.presence.watched


async def test_one_who_comes_online_before_the_watch_stands_is_found() -> None:
    server = Server(Discovery("bob", False, None, ()), ONLINE)
    server.told_first = told(ONLINE, initial=True)
    server.watchable.set()
    await server.find()
    assert (server.presence.online, server.presence.watched) == (True, True)


async def test_a_server_that_takes_no_more_watches_is_asked_each_time() -> None:
    class Full(Server):
        async def watch(self, user_id: str) -> None:
            self.requests.append("watch")
            raise RequestFailed("too-many-watches", "no more", temporary=False)

    server = Full(Discovery("bob", False, None, ()), ONLINE)
    with pytest.raises(PeerUnknown):
        await server.find()
    assert not server.presence.is_or_will_be_watched
    await server.find()
    await server.end()
    assert server.requests.count("watch") == 2
    assert not server.presence.watched
