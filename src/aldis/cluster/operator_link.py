"""What an operator asks and does in a whole cluster: questions to all nodes, and bans.

Rules:

* Whichever node the operator talks to, all nodes are asked, and those that do not answer are named.
* A ban counts once it is in Redis: each node applies it when it hears of it, and a node that starts or was cut off
  reads the list (`cluster.shared_bans`). A node without Redis goes on with the bans that it knows.

It knows no HTTP: `server.administration` calls it, and answers the questions of other nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeAlias

from aldis.backends.directory_url import DEFAULT_REDIS_PREFIX
from aldis.backends.redis_client import Command, RedisServers
from aldis.backends.redis_lane import Lane
from aldis.cluster import questions
from aldis.cluster.ban_table import BanTable
from aldis.cluster.buckets import Names
from aldis.cluster.bus import Bus
from aldis.cluster.faults import ClusterProtocolError, ClusterUnavailable
from aldis.cluster.lease import NodeLease
from aldis.cluster.messages import BanChange, BansRestored, Content, Message, NodeAnswer, NodeQuestion
from aldis.cluster.questions import NodeAnswers, Questions, Responder
from aldis.cluster.released_names import ReleasedNames
from aldis.cluster.shared_bans import SharedBans
from aldis.hub.bans import Ban
from aldis.hub.hub import Hub

# Seconds between two attempts to read the bans.
RETRY_SECONDS: Final = 1.0

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None], str], None]
"""Runs something as a task of the node."""


class OperatorLink:
    """The part of one `ClusterNode` that the operator uses. It begins with `open`, after the bus and the lease."""

    def __init__(
        self,
        servers: RedisServers,
        bus: Bus,
        lease: NodeLease,
        *,
        prefix: str = DEFAULT_REDIS_PREFIX,
        spawn: Spawn,
        fault: Callable[[Exception], None],
        clock: Callable[[], float],
    ) -> None:
        self._bus = bus
        self._lease = lease
        self._table = BanTable(servers, prefix=prefix)
        self._bans = SharedBans(self._table, self)
        self.released = ReleasedNames(servers, prefix=prefix)
        """The names that were released lately: note one before you release it."""
        self._lane = Lane(servers, away=ClusterUnavailable, full=ClusterUnavailable)
        self._leases = Names(prefix).leases
        self._questions = Questions()
        self._spawn = spawn
        self._fault = fault
        self._clock = clock
        self._hub: Hub | None = None
        self._end: Callable[[Ban], int] = lambda ban: 0
        self._respond: Responder = lambda subject, content: None
        self._behind = self._catching_up = False

    @property
    def node(self) -> str:
        """The id of this node."""
        return self._bus.node_id

    @property
    def healthy(self) -> bool:
        """Whether all bans are known."""
        return not (self._behind or self._catching_up)

    async def open(self, hub: Hub, *, end: Callable[[Ban], int], respond: Responder) -> None:
        """Read the bans. Raises `ClusterUnavailable`, and `ClusterProtocolError`: nobody may come in who is banned.

        `end` ends the connections of a banned network, and `respond` answers the questions of other nodes.
        """
        self._hub, self._end, self._respond = hub, end, respond
        await self._bans.catch_up()

    async def close(self) -> None:
        """Wait for the calls that are on their way."""
        await self._table.close()
        await self.released.close()
        await self._lane.idle()

    # --- for the operator -------------------------------------------------------------------------------------------

    async def ask(self, subject: str, content: Content) -> NodeAnswers:
        """Ask all nodes, this one too. Where Redis does not answer, all other nodes that are known are silent."""
        with self._questions.asking() as asking:
            nodes = await self._alive()
            asking.answered_here(self.node, self._respond(subject, content) or {})
            sent = self._bus.send_all(NodeQuestion(asking.number, subject, content))
            asking.expect(nodes)
            return await asking.answers(wait=sent)

    async def ban(self, ban: Ban) -> NodeAnswers:
        """Ban in the whole cluster. The answers: how many `sessions` each node has ended.

        Raises `ClusterUnavailable`, and then it is unknown whether it counts; and `UsageError` for too many bans.
        """
        answers = await self._change(ban, lift=False)
        assert answers is not None  # noqa: S101 - only a ban that is lifted may not be there
        return answers

    async def unban(self, ban: Ban) -> NodeAnswers | None:
        """End a ban in the whole cluster; None when there is none. Raises as `ban` and `open` do."""
        answers = await self._change(ban, lift=True)
        if answers is None and any((each.kind, each.value) == (ban.kind, ban.value) for each in self.known_bans()):
            # It holds here: Redis has lost the list, and gets it back, or this node has missed that the ban has ended.
            await self._bans.catch_up()
            answers = await self._change(ban, lift=True)
        return answers

    async def _change(self, ban: Ban, *, lift: bool) -> NodeAnswers | None:
        with self._questions.asking() as asking:
            nodes = await self._alive()
            known = self._bans.version
            if not await self._table.change(ban, lift=lift, origin=self.node, number=asking.number, known=known):
                return None
            asking.expect(nodes)
            answers = await asking.answers()
        if self.node in answers.silent:
            self.catch_up()
        return answers

    async def _alive(self) -> frozenset[str]:
        """The nodes that nobody has counted as lost yet."""
        try:
            async with asyncio.timeout(questions.ANSWER_SECONDS):
                found = await self._lane.send(Command("ZRANGEBYSCORE", self._leases, ("(0", "+inf")))
        except TimeoutError:
            return self._lease.known
        except ClusterUnavailable as error:
            self._fault(error)
            return self._lease.known
        return frozenset(name.decode() for name in found)

    # --- for the node -------------------------------------------------------------------------------------------------

    def message(self, node_id: str, message: Message) -> None:
        """A node has sent something that is for this part."""
        match message:
            case BanChange():
                if not self._bans.heard(message):
                    self.catch_up()
            case BansRestored():
                if self._bans.is_behind(message):
                    self.catch_up()
            case NodeQuestion():
                answer = self._respond(message.subject, message.content)
                if answer is not None:
                    self._bus.send(node_id, NodeAnswer(message.number, answer))
            case NodeAnswer():
                self._questions.answered(node_id, message.number, message.content)

    def catch_up(self) -> None:
        """Changes of the bans may have been missed."""
        self._behind = True
        if not self._catching_up and self._hub is not None:
            self._catching_up = True
            self._spawn(self._catch_up(), "read the bans")

    def lost(self, node_id: str) -> None:
        """A node is no more."""
        self._questions.lost(node_id)

    async def _catch_up(self) -> None:
        try:
            while self._behind:
                self._behind = False
                try:
                    await self._bans.catch_up()
                except (ClusterUnavailable, ClusterProtocolError) as error:
                    self._fault(error)
                    self._behind = True
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._catching_up = False

    # --- for the bans (`BanWatcher`) ----------------------------------------------------------------------------------

    def known_bans(self) -> Sequence[Ban]:
        """See `BanWatcher`."""
        assert self._hub is not None  # noqa: S101 - it is open
        return self._hub.known_bans()

    def banned(self, ban: Ban) -> int:
        """See `BanWatcher`."""
        assert self._hub is not None  # noqa: S101 - it is open
        ended = self._hub.ban(ban, self._clock())
        return self._end(ban) if ban.kind == "network" else ended

    def lifted(self, ban: Ban) -> None:
        """See `BanWatcher`."""
        assert self._hub is not None  # noqa: S101 - it is open
        self._hub.bans.remove(ban.kind, ban.value)

    def answer_ban(self, change: BanChange, sessions: int) -> None:
        """See `BanWatcher`."""
        content: Content = {"sessions": sessions}
        if change.origin == self.node:
            self._questions.answered(self.node, change.number, content)
        else:
            self._bus.send(change.origin, NodeAnswer(change.number, content))
