"""What a node of a cluster tells its operator, and the operator's application.

Pure types: it knows no Redis.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from aldis.hub.stats import Histogram


class RedisCalls(NamedTuple):
    """The calls of one kind to the table of presence."""

    kind: str
    seconds: Histogram  # of each batch of calls
    failures: int
    open: int  # without an answer yet


class ClusterStatus(NamedTuple):
    """A node, as its operator sees it."""

    node: str
    others: frozenset[str]  # the other nodes that are alive, as far as this one knows
    healthy: bool
    users: int  # of which the hub wants to hear
    queued: int  # messages to other nodes that Redis has not confirmed
    queued_bytes: int
    unreadable: int  # how much has come that could not be read
    unknown: int  # messages of a newer release
    calls: tuple[RedisCalls, ...]
    fault: str  # what went wrong last, in words; empty: nothing has


class ClusterPresence(Protocol):
    """Who comes online and goes offline in the whole cluster. No method waits, and none raises.

    One node tells each change, once: the one whose call in Redis made it. After an outage of Redis it may be told
    twice. `version` grows with each change of a user.
    """

    def changed(self, user_id: str, online: bool, version: int) -> None:
        """A user has got its first device, or has lost the last one."""

    def lost(self, node_id: str) -> None:
        """A node is gone, and its users are told. What it had to tell itself may be lost."""
