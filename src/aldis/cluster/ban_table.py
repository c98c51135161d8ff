"""The bans of a cluster, in Redis: what all nodes share, and how each of them learns of a change.

Rules:

* Each change of the list is one script, gives the list another version, and is published to all nodes with the version
  before (`messages.BanChange`). So all apply the changes in the same order, and see when they have missed one. Then
  they read the whole list.
* A version is a time in microseconds, or later, and later than what the node knows that makes the change: it grows
  also when the server has lost its data, and its clock was set back. What to do then: `cluster.shared_bans`.
* The versions that the list has gone through are kept, the last ones. A node whose version is not among them sees that
  the list was lost, and went on without what the node knows.
* A ban ends at the same wall time everywhere, as far as the clocks of the nodes agree. In Redis it is dropped with the
  next change that comes a minute later.

The user in Redis needs the ACL that the presence table needs, and no more.

It knows no session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct
from msgspec.msgpack import Decoder, Encoder

from aldis.backends.directory_url import DEFAULT_REDIS_PREFIX
from aldis.backends.redis_client import Command, RedisServers, Script, Word
from aldis.backends.redis_lane import Lane
from aldis.cluster.buckets import Names
from aldis.cluster.faults import ClusterProtocolError, ClusterUnavailable
from aldis.cluster.messages import BansRestored, ban_change_parts, encode_message
from aldis.cluster.shared_bans import BanList
from aldis.errors import UsageError
from aldis.hub.bans import KINDS, MAX_BANS, Ban

FORMAT: Final = 1

_BAN: Final = Script("ban", "aldis.cluster")
_RESTORE: Final = Script("restore_bans", "aldis.cluster")
_VERSION_FIELD: Final = b"v"
# Versions that are kept: a node that has missed more changes takes the list as it is.
_MOST_VERSIONS: Final = 100


class _Entry(Struct, array_like=True, gc=False):
    format: Annotated[int, Meta(ge=FORMAT, le=FORMAT)]
    kind: str
    value: str
    reason: str
    until: float | None = None


_ENCODER: Final = Encoder()
_ENTRIES: Final = Decoder(_Entry)


class BanTable:
    """The table. All calls but `close` raise `ClusterUnavailable`. The servers are the caller's."""

    def __init__(self, servers: RedisServers, *, prefix: str = DEFAULT_REDIS_PREFIX) -> None:
        self._names = Names(prefix, servers.where.database)
        self._publish = servers.where.publish_command
        self._others = (self._names.ban_ends, self._names.ban_versions)
        self._lane = Lane(servers, ordered=True, away=ClusterUnavailable, full=ClusterUnavailable)

    async def change(self, ban: Ban, *, lift: bool, origin: str, number: int, known: int = 0) -> bool:
        """Add a ban, in place of one of the same, or take it off; False when there is none to take off.

        All nodes hear of it as a `BanChange` from `origin`, with a version later than `known`, that of the list that
        the node has. Raises `UsageError` when there are too many bans.
        """
        head, tail = ban_change_parts(origin, number, ban, lifted=lift)
        field, entry, end = _row(ban)
        if lift:
            entry = end = b""
        words = (
            self._names.everyone,
            self._publish,
            head,
            tail,
            field,
            entry,
            end,
            MAX_BANS,
            str(known),
            _MOST_VERSIONS,
        )
        answer = await self._lane.send(Command(_BAN, self._names.bans, words, self._others))
        if answer == b"full":
            raise UsageError(f"there are {MAX_BANS} bans, which is all that there may be; ban a network instead")
        return bool(answer == b"done")

    async def read(self) -> BanList:
        """All bans. Raises `ClusterProtocolError` for a list that cannot be read."""
        # Both in one batch, and the versions last: those that came between the two do no harm.
        rows, versions = await asyncio.gather(
            self._lane.send(Command("HGETALL", self._names.bans)),
            self._lane.send(Command("ZRANGE", self._names.ban_versions, (0, -1))),
        )
        fields = dict(rows)
        version = fields.pop(_VERSION_FIELD, b"0")
        if not version.isdigit():
            raise ClusterProtocolError("the version of the bans is damaged")
        return BanList(int(version), tuple(_read(fields.values())), frozenset(map(int, versions)))

    async def restore(self, known: BanList, own: int) -> bool:
        """Put back what a server has lost; False when it has this list, or a later one. `own`: the version whose bans
        are in it."""
        said = encode_message("", BansRestored(known.version))
        words: list[Word] = [self._names.everyone, self._publish, said, str(known.version), str(own), _MOST_VERSIONS]
        for ban in known.bans:
            words += _row(ban)
        command = Command(_RESTORE, self._names.bans, tuple(words), self._others)
        return bool(await self._lane.send(command))

    async def close(self) -> None:
        """Wait for the calls that are on their way."""
        await self._lane.idle()


def _row(ban: Ban) -> tuple[bytes, bytes, bytes]:
    """The field, entry and end of a ban in Redis."""
    entry = _ENCODER.encode((FORMAT, ban.kind, ban.value, ban.reason, ban.until))
    return f"{ban.kind}:{ban.value}".encode(), entry, b"" if ban.until is None else b"%d" % int(ban.until * 1000)


def _read(entries: Iterable[bytes]) -> Iterable[Ban]:
    for entry in entries:
        try:
            read = _ENTRIES.decode(entry)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ClusterProtocolError(f"a ban is damaged, or of a newer release: {error}") from None
        for kind in KINDS:  # a newer release may ban something else
            if kind == read.kind:
                yield Ban(kind, read.value, read.reason, read.until)
