"""Hubs that are the nodes of one cluster, without Redis: the table is a dictionary, and what nodes say waits in queues.

    cluster = HubCluster(2)
    alice, bob = cluster.worlds[0].client("alice"), cluster.worlds[1].client("bob")
    cluster.settle()        # everything arrives

What one node says arrives at each other node in order. `cluster.kill(node)` is the end of one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aldis.hub.cluster import (
    FULL,
    TAKEN,
    ClusterAnswer,
    ClusterQuestion,
    EnterDevice,
    Entered,
    EntryRefusal,
    FindUsers,
    Forward,
    Forwarded,
    RemoteDevice,
    UserState,
)
from aldis.hub.cluster_router import ClusterRouter
from aldis.hub.usage import OpenCounts, Use
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy
from support.hub_world import World

# A node tells its hub of so many users in an answer, and of more of them one after the other.
FOUND_AT_ONCE = 50


@dataclass
class Table:
    """Who is online, and the rules of `hub.cluster` for it."""

    users: dict[str, UserState] = field(default_factory=dict)
    count: int = 0

    def state(self, user_id: str) -> UserState:
        return self.users.get(user_id, UserState(user_id, 0))

    def put(self, user_id: str, devices: Sequence[RemoteDevice], privacy: Privacy) -> UserState:
        self.count += 1
        newest_first = tuple(sorted(devices, key=lambda each: each.order, reverse=True))
        state = UserState(user_id, self.count, newest_first, privacy if devices else DEFAULT_PRIVACY)
        self.users[user_id] = state
        return state

    def enter(self, question: EnterDevice) -> UserState:
        self.count += 1
        device = question.device._replace(order=self.count)
        state = self.state(question.user_id)
        others = [each for each in state.devices if each.device != device.device]
        # That of a user who is online stays: what the caller has read may be older.
        return self.put(question.user_id, [*others, device], state.privacy if state.devices else question.privacy)

    def refusal(self, question: EnterDevice) -> EntryRefusal | None:
        devices, device = self.state(question.user_id).devices, question.device
        for each in devices:
            if each.proves != device.proves or (not device.proves and each.key != device.key):
                return TAKEN
        others = [each for each in devices if each.device != device.device]
        return FULL if len(others) >= question.most else None


class Link:
    """How the hub of one node reaches the table and the other nodes."""

    def __init__(self, cluster: HubCluster, node: str) -> None:
        self.node = node
        self._cluster = cluster
        self.forgotten: list[str] = []

    def ask(self, question: ClusterQuestion) -> None:
        node = self._cluster.nodes.get(self.node)
        assert node is not None
        node.world.cluster_questions.append(question)

    @property
    def nodes(self) -> int:
        return len(self._cluster.nodes) - len(self._cluster.away)

    def tell_used(self, uses: Sequence[Use]) -> None:
        self._cluster.told += len(uses)
        for node in self._cluster.nodes.values():
            if node.link is not self:
                node.hears(lambda router, now: router.used(uses, now))

    def tell_counts(self, counts: OpenCounts) -> None:
        for node in self._cluster.nodes.values():
            if node.link is not self:
                node.hears(lambda router, now: router.counted(self.node, counts))

    def forget(self, user_ids: Sequence[str]) -> None:
        self.forgotten += user_ids

    def leave(self, user_id: str, device: str, entry: str) -> None:
        state = self._cluster.table.state(user_id)
        left = [each for each in state.devices if (each.device, each.entry) != (device, entry)]
        if len(left) < len(state.devices):
            self._cluster.tell_all(self._cluster.table.put(user_id, left, state.privacy))

    def change(self, user_id: str, device: RemoteDevice) -> None:
        state = self._cluster.table.state(user_id)
        if any(each.entry == device.entry for each in state.devices):
            changed = [
                each if each.entry != device.entry else device._replace(order=each.order) for each in state.devices
            ]
            self._cluster.tell_all(self._cluster.table.put(user_id, changed, state.privacy))

    def change_privacy(self, user_id: str, privacy: Privacy, known: int) -> None:
        state = self._cluster.table.state(user_id)
        if state.devices:
            self._cluster.tell_all(self._cluster.table.put(user_id, state.devices, privacy))

    def rebound(self, user_id: str) -> None:
        for node in self._cluster.nodes.values():
            node.hears(lambda router, now: router.doubt(user_id))

    def forward(self, node: str, message: Forward) -> bool:
        if node in self._cluster.away or self.node in self._cluster.away:
            return False
        self._cluster.nodes[node].hears(lambda router, now: router.forwarded(self.node, message, now))
        return True

    def answer(self, node: str, answer: Forwarded) -> None:
        self._cluster.nodes[node].hears(lambda router, now: router.answered(answer))


class Node:
    """A hub with what it has not heard yet."""

    def __init__(self, cluster: HubCluster, name: str, **settings: Any) -> None:
        self._cluster = cluster
        self.link = Link(cluster, name)
        self.world = ClusterWorld(cluster, cluster=self.link, seed=len(cluster.nodes) + 1, **settings)
        self._queue: deque[Callable[[ClusterRouter, float], None]] = deque()

    def hears(self, call: Callable[[ClusterRouter, float], None]) -> None:
        if self.link.node not in self._cluster.away:
            self._queue.append(call)

    def settle(self) -> bool:
        """Hear all; False when there was nothing."""
        heard = bool(self._queue)
        while self._queue:
            router = self.world.hub.cluster
            assert router is not None
            self._queue.popleft()(router, self.world.now)
            self.world.settle()
        return heard


class ClusterWorld(World):
    """A world whose questions about the cluster are answered by the table."""

    def __init__(self, nodes: HubCluster, **settings: Any) -> None:
        self._nodes = nodes
        super().__init__(**settings)
        self.keys, self.privacies = nodes.keys, nodes.privacies
        self.cluster_questions: deque[ClusterQuestion] = deque()

    def answer(self) -> None:
        super().answer()
        while self.cluster_questions:
            question = self.cluster_questions.popleft()
            if self._nodes.table_fails:
                self.hub.failed(question, self.now)
            else:
                self.hub.answered(question, self._ask_table(question), self.now)
            super().answer()

    def _ask_table(self, question: ClusterQuestion) -> ClusterAnswer:
        match question:
            case FindUsers() if (
                len(question.user_ids) > FOUND_AT_ONCE
            ):  # as a node does it: the hub hears one at a time
                router = self.hub.cluster
                assert router is not None
                for user_id in question.user_ids:
                    router.learn(self._nodes.table.state(user_id))
                return []
            case FindUsers():
                return [self._nodes.table.state(user_id) for user_id in question.user_ids]
            case EnterDevice():
                refusal = self._nodes.table.refusal(question)
                if refusal is not None:
                    return refusal
                state = self._nodes.table.enter(question)
                self._nodes.tell_all(state)
                order = next(each.order for each in state.devices if each.entry == question.device.entry)
                return Entered(order, state)


class HubCluster:
    """Some nodes with one table and one directory."""

    def __init__(self, count: int, **settings: Any) -> None:
        self.table = Table()
        self.keys: dict[str, bytes] = {}
        self.privacies: dict[str, Privacy] = {}
        self.away: set[str] = set()
        self.table_fails = False
        self.told = 0
        """How many uses of limits nodes have told each other."""
        self.nodes: dict[str, Node] = {}
        for number in range(count):
            self.nodes[f"node-{number}"] = Node(self, f"node-{number}", **settings)

    @property
    def worlds(self) -> list[World]:
        return [node.world for node in self.nodes.values()]

    def tell_all(self, state: UserState) -> None:
        for node in self.nodes.values():
            node.hears(lambda router, now: router.learn(state) if state.user_id in router.known else None)

    def settle(self) -> None:
        """Return when everything has arrived."""
        for world in self.worlds:
            world.settle()
        while sum(node.settle() for node in self.nodes.values()):  # each of them
            pass

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        for world in self.worlds:
            world.pass_time(seconds, step)
        self.settle()

    def kill(self, name: str) -> None:
        """A node dies, and the others notice it."""
        self.away.add(name)
        for user_id, state in list(self.table.users.items()):
            if any(each.node == name for each in state.devices):
                left = state.without(name)
                self.tell_all(self.table.put(user_id, left.devices, left.privacy))
        for node in self.nodes.values():
            node.hears(lambda router, now: router.lost_node(name))
