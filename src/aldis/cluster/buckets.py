"""The names of the keys and channels of a cluster in Redis.

Rules:

* A user id has one of `BUCKETS` buckets. All keys and the channel of a bucket have its hash tag `{bN}`, so a Redis
  Cluster has them in one slot, and one script changes a user, the counter and the node's users together. A node can
  subscribe to all buckets, and they spread over the servers of a Cluster.
* All names begin with the prefix of the directory's keys. The number of the database is in the name of a channel,
  because channels are the same in all databases.

It knows no Redis.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from zlib import crc32

from aldis.errors import InvalidAddress

BUCKETS: Final = 1024


def bucket_of(user_id: str) -> int:
    """The bucket of a user. Raises `InvalidAddress` for an id that has no UTF-8."""
    try:
        return crc32(user_id.encode()) % BUCKETS
    except UnicodeEncodeError:
        raise InvalidAddress(user_id, "it contains a lone surrogate") from None


class Names(NamedTuple):
    """The names in one database, by their prefix."""

    prefix: str
    database: int = 0

    def counter(self, bucket: int) -> str:
        """The last order and version of the bucket."""
        return f"{self.prefix}{{b{bucket}}}:last"

    def user(self, user_id: str) -> str:
        """The hash with the devices of a user."""
        return f"{self.users(bucket_of(user_id))}{user_id}"

    def users(self, bucket: int) -> str:
        """What the names of the users' hashes in a bucket begin with."""
        return f"{self.prefix}{{b{bucket}}}:u:"

    def node(self, bucket: int, node_id: str) -> str:
        """The set of the users of the bucket that have a device at the node."""
        return f"{self.nodes(bucket)}{node_id}"

    def nodes(self, bucket: int) -> str:
        """What the names of the sets of a bucket begin with."""
        return f"{self.prefix}{{b{bucket}}}:n:"

    def channel(self, bucket: int) -> str:
        """Where each new state of a user of the bucket is published."""
        return f"{self.prefix}{{b{bucket}}}:states:{self.database}"

    def inbox(self, node_id: str) -> str:
        """The channel of what is sent to one node."""
        return f"{self.prefix}{{n{node_id}}}:messages:{self.database}"

    @property
    def everyone(self) -> str:
        """The channel of what is sent to all nodes."""
        return f"{self.prefix}{{all}}:messages:{self.database}"

    @property
    def bans(self) -> str:
        """The hash of all bans, with the slot of `everyone`: what changes it publishes there."""
        return f"{self.prefix}{{all}}:bans"

    @property
    def ban_ends(self) -> str:
        """The sorted set of the fields of `bans` that end, by their ends."""
        return f"{self.prefix}{{all}}:ban-ends"

    @property
    def ban_versions(self) -> str:
        """The sorted set of the versions that the list of bans has gone through lately."""
        return f"{self.prefix}{{all}}:ban-versions"

    @property
    def released(self) -> str:
        """The sorted set of the names that an operator has released lately, by the time."""
        return f"{self.prefix}released"

    @property
    def leases(self) -> str:
        """The sorted set of the nodes by the end of their leases."""
        return f"{self.prefix}nodes"
