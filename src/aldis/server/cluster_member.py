"""This server as one of a cluster: its node, its connection to Redis, and what the operator is told of both.

    member = ClusterMember(config, questions.in_turn, faults)  # before the hub, which gets `member.node`
    await member.open(hub)                                     # behind the directory, before clients come
    await member.close()                                       # when they have gone

While Redis is away the server goes on with what it can do alone (`cluster.node`), and counts as ready: the clients that
it has would find no better one. The log, a note of /readyz and a metric say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic, time
from typing import TYPE_CHECKING, Final

from aldis.backends.base import DirectoryUnavailable
from aldis.backends.redis_url import RedisUrl
from aldis.cluster.faults import ClusterProtocolError, ClusterUnavailable, NodeLost
from aldis.errors import ConfigError
from aldis.server.config import ServerConfig
from aldis.server.logs import OUTAGE_SECONDS, FaultLog, OutageLog, get_logger
from aldis.server.node_totals import different_settings
from aldis.version import install_command

if TYPE_CHECKING:
    from aldis.cluster.questions import Responder
    from aldis.cluster.status import ClusterStatus
    from aldis.hub.bans import Ban
    from aldis.hub.hub import Hub
    from aldis.server.presence_hook import PresenceHook

AWAY: Final = "the Redis of the cluster does not answer, or its answers are not all in yet"

# Seconds by which the clock of the machine differs from the time that has passed: NTP corrects less without a step.
CLOCK_SET: Final = 2.0

# Until nodes that have not told their settings are asked again. Those of an earlier release never do.
COMPARE_AGAIN_SECONDS: Final = 60.0

# Faults of Redis or of other servers; all else is a bug here.
_OUTSIDE: Final = (ClusterUnavailable, ClusterProtocolError, NodeLost)

_log = get_logger("aldis.cluster")


class ClusterMember:
    """The node of one server. Raises `ConfigError` for a URL that cannot be used, or without the library."""

    def __init__(
        self,
        config: ServerConfig,
        in_turn: Callable[[Callable[[], None]], None],
        faults: FaultLog,
        presence: PresenceHook | None = None,
    ) -> None:
        """`presence` is told who comes online and goes offline in the whole cluster."""
        try:
            # The library is an extra, and takes a tenth of a second to load.
            from aldis.backends.redis_client import RedisServers
            from aldis.cluster.node import ClusterNode
        except ModuleNotFoundError as error:
            raise ConfigError("redis", f"needs a library: {install_command('redis')} ({error})") from error
        self._faults = faults
        self._outage = OutageLog(_log, "the Redis of the cluster", OUTAGE_SECONDS)
        try:
            where = RedisUrl.parse(config.redis).with_password_of(config.redis_password_file)
            self._servers = RedisServers(where)
        except ConfigError as error:
            raise ConfigError("redis", error.problem) if error.setting == "directory" else error from None
        self._presence = presence
        # The nodes whose settings were compared, when that is to be done anew, and what has come of it.
        self._compared: frozenset[str] | None = None
        self._compare_at = 0.0
        self._different: list[str] = []
        self._comparing: asyncio.Task[None] | None = None
        self._wall = time() - monotonic()  # when the process was started, by the clock of the machine
        self.node = ClusterNode(
            self._servers,
            prefix=config.redis_prefix,
            fault=self._failed,
            clock=monotonic,
            in_turn=in_turn,
            presence=presence,
        )

    async def open(self, hub: Hub, *, end: Callable[[Ban], int], respond: Responder) -> None:
        """Join the cluster. `end` ends the connections of a banned network, `respond` answers other nodes.

        Raises `ConfigError` when Redis cannot be used.
        """
        try:
            await self.node.open(hub, end=end, respond=respond)
        except _OUTSIDE as error:
            await self._servers.close()
            raise ConfigError("redis", f"this server cannot join the cluster: {error}") from None
        if self._presence is not None and self.node.is_first:
            self._presence.started()
        status = self.node.status()
        _log.info("joined the cluster", node=status.node, others=sorted(status.others))

    async def close(self) -> None:
        """Leave the cluster: its devices are gone from the table of users, or the other nodes remove them at once."""
        if self._comparing is not None:
            self._comparing.cancel()
            await asyncio.wait([self._comparing])
        await self.node.close()
        await self._servers.close()

    async def releasing(self, user_id: str) -> None:
        """A name is about to be released: note it for nodes that do not hear of it. Raises `DirectoryUnavailable`."""
        try:
            await self.node.operator.released.note(user_id)
        except ClusterUnavailable as error:
            raise DirectoryUnavailable(str(error)) from error

    def status(self) -> ClusterStatus:
        """What the operator sees of the node."""
        return self.node.status()

    @property
    def note(self) -> str | None:
        """What somebody who asks whether this server is ready should know; None: nothing."""
        return None if self.node.healthy else AWAY

    def compare_settings(self) -> None:
        """The settings of this server have changed."""
        self._compared = None

    def tick(self) -> None:
        """See whether Redis answers, whether the clock was set, and whether the settings of a node that has come are
        those of this one. Call it about once a second."""
        wall = time() - monotonic()
        if abs(wall - self._wall) > CLOCK_SET:
            # Bans that were over by the other clock are forgotten.
            _log.warning("the clock of this machine was set; reading the bans anew", seconds=round(wall - self._wall))
            self.node.operator.catch_up()
        self._wall = wall
        if self.node.healthy:
            self._outage.works()
            self._look_at_settings()
        else:
            self._outage.failed(ClusterUnavailable(self.node.status().fault or AWAY))

    def _look_at_settings(self) -> None:
        others = self.node.status().others
        if self._comparing is not None and not self._comparing.done():
            return
        if others != self._compared or monotonic() >= self._compare_at:
            self._compared, self._compare_at = others, inf
            self._comparing = asyncio.create_task(self._compare(), name="aldis-compare-settings")

    async def _compare(self) -> None:
        try:
            found = await self.node.operator.ask("settings", {})
            different = different_settings({node: answer.get("settings", {}) for node, answer in found.answers.items()})
        except Exception as error:  # noqa: BLE001 - a bug, or another server's
            self._failed(error)
            return
        if found.silent:
            self._compare_at = monotonic() + COMPARE_AGAIN_SECONDS
        if different and different != self._different:
            _log.warning("the servers of this cluster need the same settings", here=found.here, different=different)
        elif self._different and not different and not found.silent:
            _log.info("all servers of this cluster have the same settings")
        if different or not found.silent:
            self._different = different

    def _failed(self, error: Exception) -> None:
        if isinstance(error, _OUTSIDE):
            self._outage.failed(error)
        else:
            self._faults(error)
