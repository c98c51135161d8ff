"""Which nodes of a cluster are alive: each has a lease in Redis, and renews it.

Rules:

* A lease ends `LEASE_SECONDS` after its last renewal, by the clock of Redis. Then the first node that notices counts
  its holder as lost, for good: a node that comes back after that has a new id. All others hear of it at their next
  renewal. So `LEASE_SECONDS + RENEW_SECONDS` and the time of an answer after its last renewal, all know that a node was
  killed.
* Nobody counts another node as lost who has had no answer from Redis for half a lease itself: after an outage of Redis
  the leases of all nodes have ended, and all renew them. The same holds for a lease long when another server answers.
* A lost node stays in Redis until its devices are removed: `PresenceTable.reap`, then `NodeLease.forget`. A node that
  starts hears of those that nobody has removed yet.
* A node that stops gives its lease back, and counts as lost at once.

It knows no device.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

from aldis.backends.directory_url import DEFAULT_REDIS_PREFIX
from aldis.backends.redis_client import Command, RedisServers, Script, Word
from aldis.backends.redis_lane import fault
from aldis.cluster.buckets import Names
from aldis.cluster.faults import ClusterUnavailable

LEASE_SECONDS: Final = 6.0
RENEW_SECONDS: Final = LEASE_SECONDS / 3
"""Between two renewals."""
# For the answer to one: longer than for a connection, so that the next of several Sentinels is asked.
_ANSWER_SECONDS: Final = LEASE_SECONDS / 2
# After a renewal that has failed: servers that are back are used at once.
_RETRY_SECONDS: Final = RENEW_SECONDS / 4
# In milliseconds: without an answer for so long, a node does not know how the others are.
_LEASE_MS: Final = int(1000 * LEASE_SECONDS)
_GAP_MS: Final = _LEASE_MS // 2

_RENEW: Final = Script("renew", "aldis.cluster")
_RELEASE: Final = Script("release", "aldis.cluster")
_FORGET: Final = Script("forget", "aldis.cluster")


class LeaseListener(Protocol):
    """What a node hears of its lease and of the other nodes.

    What takes longer gets a task. An error is a bug: it is told (`NodeLease`), and the renewals go on.
    """

    def joined(self, node_id: str) -> None:
        """There is another node."""

    def lost(self, node_id: str, removed: bool) -> None:
        """Another node is gone. `removed`: others have removed its devices already. If not: `reap`, then `forget`."""

    def moved(self, old: str, new: str) -> None:
        """This node had lost its lease, and has a new id. It announces its devices under that.

        `lost` comes for the old id too: what this node has not announced goes with it.
        """

    def restarted(self) -> None:
        """A server was restarted, another one has its place, or somebody has deleted its data: changes may be lost.

        The node announces its devices, and those that are still there stay as they are. Then it lets the table drop
        those that have left: `PresenceTable.drop_unknown`.
        """


def new_node_id() -> str:
    """A random id for a node."""
    return secrets.token_hex(6)


class NodeLease:
    """The lease of this node. `open` takes it, and renews it until `close`. The servers are the caller's."""

    def __init__(
        self,
        servers: RedisServers,
        listener: LeaseListener,
        *,
        prefix: str = DEFAULT_REDIS_PREFIX,
        new_id: Callable[[], str] = new_node_id,
        bug: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        """`bug` is called with an unexpected exception of a renewal."""
        self._bug = bug
        self._servers = servers
        self._listener = listener
        self._key = Names(prefix).leases
        self._new_id = new_id
        self.node_id = new_id()
        self.healthy = False
        """Whether the last renewal had an answer."""
        self.fault = ""
        """What went wrong last, in words for the operator."""
        self._entered = self._first = False
        # By the clock of the server, in milliseconds; 0: none.
        self._last = 0
        self._since = 0
        self._server = b""  # its run id
        # When it came, by the clock of the event loop; and the last `order`.
        self._last_at = 0.0
        self._order = 0
        self._alive: frozenset[str] = frozenset()
        # Those that are lost and not forgotten yet, and that the listener has heard of.
        self._told: frozenset[str] = frozenset()
        # By the run ids of all servers: how often the data of each was deleted.
        self._runs: dict[str, int] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def others(self) -> frozenset[str]:
        """The other nodes that are alive, by the last answer."""
        return self._alive

    def order(self) -> int:
        """A place for a device among all of the cluster, while Redis cannot give one: its time in microseconds.

        It is as late as the clock here says that it is there, and later than what it has returned before.
        """
        since = asyncio.get_running_loop().time() - self._last_at
        self._order = max(self._order + 1, 1000 * self._last + int(1_000_000 * since))
        return self._order

    async def open(self) -> None:
        """Take the lease. Raises `ClusterUnavailable`."""
        await self.renew()
        self._task = asyncio.create_task(self._keep(), name="aldis-lease")

    async def close(self) -> None:
        """Give the lease back. Where Redis does not answer, it ends by itself."""
        # `wait_for` of Python 3.11, which redis-py uses, may lose a cancellation: so a renewal may still end.
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        try:
            await self._run(_RELEASE, self.node_id)
        except ClusterUnavailable:
            self.healthy = False
        self._task = None

    async def renew(self) -> None:
        """Renew the lease once, and tell the listener what has changed. Raises `ClusterUnavailable`."""
        try:
            await self._renew()
        except BaseException:
            self.healthy = False
            raise
        self.healthy = True

    @property
    def is_first(self) -> bool:
        """Whether no other node was there, alive or lost, when this one took its lease."""
        return self._first

    @property
    def known(self) -> frozenset[str]:
        """The nodes that were alive at the last renewal, this one among them."""
        return self._alive | {self.node_id}

    async def forget(self, node_id: str) -> bool:
        """Forget a lost node whose devices are removed; False when others have. Raises `ClusterUnavailable`."""
        return bool(await self._run(_FORGET, node_id))

    # --- internal ---------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock() + RENEW_SECONDS
        while not self._closing:
            await asyncio.sleep(due - clock())
            due = clock() + RENEW_SECONDS
            try:
                await self.renew()
            except ClusterUnavailable:
                due = clock() + _RETRY_SECONDS
            except Exception as error:  # noqa: BLE001 - a bug: without a lease all users here would be offline
                self._bug(error)
                due = clock() + _RETRY_SECONDS

    async def _renew(self) -> None:
        held, alive, lost = await self._ask(self.node_id, "renew" if self._entered else "enter")
        if not self._entered:
            self._first = not (alive | lost) - {self.node_id}
        self._entered = True
        if not held:
            old, new = self.node_id, self._new_id()
            _, alive, lost = await self._ask(new, "enter")
            self.node_id = new
            self._listener.moved(old, new)
        self._tell(alive - {self.node_id}, lost)
        await self._look()

    async def _ask(self, node_id: str, how: str) -> tuple[bool, frozenset[str], frozenset[str]]:
        """Whether this node holds a lease, and which nodes are alive and lost."""
        times = (_LEASE_MS, self._last, self._since, _GAP_MS)
        held, now, alive, lost, server = await self._run(_RENEW, node_id, how, *times, self._server)
        if not self._last <= now <= self._last + _GAP_MS or server != self._server:
            self._since = now
        self._last, self._server = now, server
        self._last_at = asyncio.get_running_loop().time()
        return bool(held), _names(alive), _names(lost)

    def _tell(self, alive: frozenset[str], lost: frozenset[str]) -> None:
        before, told = self._alive, self._told
        self._alive, self._told = alive, lost
        for node_id in sorted(lost - told):
            self._listener.lost(node_id, removed=False)
        for node_id in sorted(before - alive - lost):
            self._listener.lost(node_id, removed=True)
        for node_id in sorted(alive - before):
            self._listener.joined(node_id)

    async def _look(self) -> None:
        """See whether all servers are the processes that they were, and nobody has deleted their data."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                servers = await self._servers.of_each("INFO", "server", "commandstats")
        except (OSError, RedisError, TimeoutError):
            return  # those that are away are seen when they are back
        runs = {str(server["run_id"]): _deletions(server) for server in servers}
        before, self._runs = self._runs, runs
        if before is not None and any(count > before.get(run, -1) for run, count in runs.items()):
            self._listener.restarted()

    async def _run(self, script: Script, *words: Word) -> Any:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                (answer,) = await self._servers.run([Command(script, self._key, words)])
        except Exception as error:
            raise self._failed(error) from error
        if isinstance(answer, Exception):
            raise self._failed(answer)
        return answer

    def _failed(self, error: Exception) -> Exception:
        failure = fault(self._servers, error, ClusterUnavailable)
        self.fault = str(failure)
        return failure


def _deletions(server: Mapping[str, Any]) -> int:
    """How often, by its own word: in a Cluster, those of a single server do not touch the lease."""
    return sum(int(server.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("flushall", "flushdb"))


def _names(found: list[bytes]) -> frozenset[str]:
    return frozenset(name.decode() for name in found)
