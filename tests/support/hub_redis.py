"""Hubs that are the nodes of one cluster over a real Redis, for tests that do not wait.

The hubs and their clients are those of `hub_world`, and are called by the test. The nodes run on an event loop of their
own, in a thread that runs only while the test waits in `settle`. So nothing happens behind the test's back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from aldis.backends.redis_client import RedisServers
from aldis.backends.redis_url import RedisUrl
from aldis.cluster.faults import ClusterUnavailable
from aldis.cluster.messages import Content, Rebound
from aldis.cluster.node import ClusterNode
from aldis.cluster.questions import Responder
from aldis.hub.bans import Ban
from aldis.hub.cluster import ClusterQuestion, Forward, Forwarded, RemoteDevice
from aldis.hub.usage import OpenCounts, Use
from aldis.protocol.privacy import Privacy
from support.hub_world import Client, World
from support.patience import PATIENCE

T = TypeVar("T")


class HeldLink:
    """What a hub says, until its node runs."""

    def __init__(self) -> None:
        self.target: ClusterNode | None = None
        self._calls: list[Callable[[ClusterNode], object]] = []

    @property
    def node(self) -> str:
        assert self.target is not None
        return self.target.node

    @property
    def nodes(self) -> int:
        assert self.target is not None
        return self.target.nodes

    def tell_used(self, uses: Sequence[Use]) -> None:
        self._calls.append(lambda node: node.tell_used(uses))

    def tell_counts(self, counts: OpenCounts) -> None:
        self._calls.append(lambda node: node.tell_counts(counts))

    def flush(self) -> bool:
        """Say it to the node, which runs; False when there is nothing."""
        calls, self._calls = self._calls, []
        assert self.target is not None
        for call in calls:
            call(self.target)
        return bool(calls)

    def ask(self, question: ClusterQuestion) -> None:
        self._calls.append(lambda node: node.ask(question))

    def forget(self, user_ids: Sequence[str]) -> None:
        self._calls.append(lambda node: node.forget(user_ids))

    def leave(self, user_id: str, device: str, entry: str) -> None:
        self._calls.append(lambda node: node.leave(user_id, device, entry))

    def change(self, user_id: str, device: RemoteDevice) -> None:
        self._calls.append(lambda node: node.change(user_id, device))

    def change_privacy(self, user_id: str, privacy: Privacy, known: int) -> None:
        self._calls.append(lambda node: node.change_privacy(user_id, privacy, known))

    def rebound(self, user_id: str) -> None:
        self._calls.append(lambda node: node.rebound(user_id))

    def forward(self, node: str, message: Forward) -> bool:
        def send(ours: ClusterNode) -> None:
            if not ours.forward(node, message):
                ours.unsent(node, message)

        self._calls.append(send)
        return True

    def answer(self, node: str, answer: Forwarded) -> None:
        self._calls.append(lambda ours: ours.answer(node, answer))


class Heard:
    """What one node tells of who comes and goes. `lost`: the user is `lost NODE`."""

    def __init__(self, number: int, told: list[tuple[int, str, bool, int]]) -> None:
        self._number = number
        self._told = told

    def changed(self, user_id: str, online: bool, version: int) -> None:
        self._told.append((self._number, user_id, online, version))

    def lost(self, node_id: str) -> None:
        self._told.append((self._number, f"lost {node_id}", False, 0))


class RedisCluster:
    """Some hubs over one Redis. `close` it."""

    def __init__(self, url: str, count: int, **settings: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = ThreadPoolExecutor(1)
        self._url = url
        self.faults: list[Exception] = []
        self.worlds: list[World] = []
        self.nodes: list[ClusterNode] = []
        self._links: list[HeldLink] = []
        self._servers: list[RedisServers] = []
        self._marks: asyncio.Queue[str] = asyncio.Queue()
        self.ended: list[tuple[int, Ban]] = []
        """The nodes that were told to end the connections of a banned network."""
        self.presence: list[tuple[int, str, bool, int]] = []
        """What nodes have told of who comes and goes: the node, the user, whether it is online, and the version."""
        self.responders: dict[int, Responder] = {}
        """What answers the questions to a node."""
        self._settings = settings
        self._directory: tuple[dict[str, bytes], dict[str, Privacy]] = ({}, {})
        for _ in range(count):
            self._made()
        self._gone: set[int] = set()
        try:
            self.run(self._open())
        except BaseException:
            self.close()
            raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the loop of the nodes, and wait for it."""
        return self._thread.submit(self._loop.run_until_complete, work).result()

    def settle(self) -> None:
        """Return when everything has arrived."""
        self.run(self._settle())

    def call(self, work: Callable[[], object]) -> None:
        """Call something on the loop of the nodes."""

        async def on_loop() -> None:
            work()

        self.run(on_loop())

    def renew(self, number: int) -> None:
        """A node renews its lease now; return when all has come of it."""
        self.run(self.nodes[number]._lease.renew())
        self.settle()

    def kill(self, number: int) -> None:
        """A node dies: it says nothing more, and hears nothing."""
        self._gone.add(number)
        self.run(self._kill(self.nodes[number]))

    def leave(self, number: int) -> None:
        """A node ends as it should."""
        self._gone.add(number)
        self.run(self.nodes[number].close())

    def without_redis(self, client: Client, **message: Any) -> None:
        """Send a message while Redis is away; return when it is answered as far as it can be."""
        client.send(**message)
        self.wait_idle()

    def wait_idle(self) -> None:
        """Return when the questions that are open are answered, or given up."""
        self.run(self._answered())

    def wait_a_turn(self) -> None:
        """Let the nodes hear what their hubs have said."""
        for link in self._links:
            self.call(link.flush)

    def until_unsaid(self, number: int) -> None:
        """Return when a change of this node has failed, because Redis is away."""
        self.run(self._unsaid(number))

    def cut_off(self, number: int) -> None:
        """A node loses its bus, and has not noticed that it is back."""

        def cut() -> None:
            for link in list(self.nodes[number]._bus._links.values()):
                link.end("has ended the connection")

        self.call(cut)

    def until_healthy(self) -> None:
        """Return when Redis is back, and everything has arrived."""
        self.run(self._healthy())
        self.faults.clear()
        self.settle()

    def close(self) -> None:
        """End all nodes."""
        self.run(self._close())
        self._loop.close()
        self._thread.shutdown()

    def start_another(self) -> int:
        """Start one more node over the same directory; return its number."""
        world, link = self._made()
        self.run(self._start(world, link))
        return len(self.nodes) - 1

    def _made(self) -> tuple[World, HeldLink]:
        link = HeldLink()
        world = World(seed=len(self.worlds) + 1, cluster=link, **self._settings)
        world.keys, world.privacies = self._directory
        self.worlds.append(world)
        self._links.append(link)
        return world, link

    async def _open(self) -> None:
        for world, link in zip(self.worlds, self._links, strict=True):
            await self._start(world, link)

    async def _start(self, world: World, link: HeldLink) -> None:
        number = len(self.nodes)
        servers = RedisServers(RedisUrl.parse(self._url))
        heard = Heard(number, self.presence)
        node = ClusterNode(servers, fault=self.faults.append, clock=lambda: world.now, presence=heard)
        link.target = node
        self._servers.append(servers)
        self.nodes.append(node)
        self._listen(node)

        def end(ban: Ban) -> int:
            self.ended.append((number, ban))
            return 1

        def respond(subject: str, content: Content) -> Content | None:
            return self.responders[number](subject, content) if number in self.responders else None

        await node.open(world.hub, end=end, respond=respond)
        assert node._lease._task is not None
        node._lease._task.cancel()  # the test says when a lease is renewed

    def _listen(self, node: ClusterNode) -> None:
        """Marks come through the node's own channel, behind all that was said before."""
        told = node.message

        def message(node_id: str, said: Any) -> None:
            if isinstance(said, Rebound) and said.user_id.startswith("mark "):
                self._marks.put_nowait(said.user_id)
            else:
                self._active = True
                told(node_id, said)

        known = node.state

        def state(found: Any) -> None:
            self._active = True
            known(found)

        node.message = message  # type: ignore[method-assign, assignment]
        node.state = state  # type: ignore[method-assign, assignment]

    async def _kill(self, node: ClusterNode) -> None:
        node._hub = None
        await node._bus.close()

    async def _answered(self) -> None:
        async with asyncio.timeout(PATIENCE):
            for world, link in zip(self.worlds, self._links, strict=True):
                link.flush()
                while world.hub.pending:
                    tasks = [task for node in self.nodes for task in node._tasks]
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                world.settle()

    async def _unsaid(self, number: int) -> None:
        node = self.nodes[number]
        async with asyncio.timeout(PATIENCE):
            self._links[number].flush()
            while node._table.healthy:
                await asyncio.wait(node._tasks, return_when=asyncio.FIRST_COMPLETED)

    async def _healthy(self) -> None:
        async with asyncio.timeout(PATIENCE):
            for node in self.nodes:
                while not node.healthy:
                    await self._try_to_renew(node)

    async def _try_to_renew(self, node: ClusterNode) -> None:
        with suppress(ClusterUnavailable):
            await node._lease.renew()

    async def _settle(self) -> None:
        quiet = marks = 0
        async with asyncio.timeout(PATIENCE):
            while quiet < 2:
                self._active = False
                for world, link in zip(self.worlds, self._links, strict=True):
                    world.settle()
                    self._active |= link.flush()
                nodes = [node for number, node in enumerate(self.nodes) if number not in self._gone]
                while not all(node.idle for node in nodes):
                    self._active = True
                    await asyncio.sleep(0)
                marks += 1
                mark = f"mark {marks} {id(self)}"
                for node in nodes:
                    assert node._bus.send(node.node, Rebound(mark))
                for _ in nodes:
                    assert await self._marks.get() == mark
                quiet = 0 if self._active else quiet + 1
        assert not self.faults, self.faults

    async def _close(self) -> None:
        for number, node in enumerate(self.nodes):
            if number not in self._gone:
                await node.close()
        for servers in self._servers:
            await servers.close()
