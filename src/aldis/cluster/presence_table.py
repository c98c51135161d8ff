"""The table of who is online at which node, in Redis 7 or Valkey. `hub.cluster` has its types and rules.

Rules:

* Each call on a user is one script on the keys of the user's bucket, so it takes effect as a whole, in a Cluster too.
  Each script that changes something publishes the user's whole new state on the channel of the bucket (`SPUBLISH` in a
  Cluster, else `PUBLISH`).
* `order` and `version` come from one counter of the bucket, which is never behind the server's clock: they grow also
  after the server has lost its data.
* What names an entry that is not there any more changes nothing. A late word of a node that was removed changes nothing
  either: each bucket remembers such a node for `REMEMBERED`.
* The calls of one turn of the event loop go out together. Those that change something take effect in the order of the
  calls.
* When the server does not answer, all calls that wait fail together with a `ClusterUnavailable`
  (`backends.redis_lane`): it is unknown then whether a change took effect, and to repeat it does no harm. Nothing is
  sent again by itself. `drop_unknown` removes what such a call has entered after all.
* The privacy in the table is a copy. While a user is online, only `change_privacy` changes it. A caller that sees
  another one in an answer than its own reads that of the directory, and says it by `change_privacy`.

What it costs in Redis 7.0, for users with one device (an entry of 234 bytes) and the default privacy:

    call             commands in its one script   bytes to and from Redis   microseconds of Redis's processor
    enter            9                            490, 306                  42
    leave            8                            244, 31                   38
    change           7                            281, 289                  45
    look-up          1, for an offline user 3     127, 312                  10
    reap, per user   8                                                      33, and 25 for each bucket

Each batch of changes has the text of each of its scripts once, some 6 KB. Each change goes once to each subscriber of
the bucket: 281 bytes. A user takes 710 bytes of memory in all.

The ACL of the user in Redis needs, beyond what the directory needs: `+time +publish +spublish &PREFIX*`.

It knows no lease: `cluster.lease` says which nodes are lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias

from msgspec import UNSET, UnsetType

from aldis.backends.directory_url import DEFAULT_REDIS_PREFIX
from aldis.backends.portions import bytes_of, in_portions
from aldis.backends.redis_client import Command, RedisServers, Script, Word
from aldis.backends.redis_lane import Lane
from aldis.cluster.buckets import BUCKETS, Names, bucket_of
from aldis.cluster.faults import ClusterProtocolError, ClusterUnavailable, NodeLost
from aldis.cluster.states import (
    decode_row,
    decode_state,
    encode_device,
    encode_privacy,
    encode_seal_key,
    encode_text,
)
from aldis.cluster.status import RedisCalls
from aldis.hub.cluster import FULL, TAKEN, EnterDevice, Entered, EntryRefusal, RemoteDevice, UserState
from aldis.hub.stats import Histogram
from aldis.protocol.messages import SealKey
from aldis.protocol.privacy import Privacy

REPLACED: Final = EntryRefusal("replaced")
"""A device is not announced: a newer one has its name."""

# Seconds. Far longer than a command of a node that was stopped can be on its way.
REMEMBERED: Final = 3600
# Users that one script removes, and scripts in one batch: a server answers nobody else for some milliseconds.
_REAPED_USERS: Final = 20
_REAPED_BUCKETS: Final = 32
# Users that one script looks up: half a millisecond.
_LOOKED_UP: Final = 50
# Seconds of a batch: beside it in one machine, in another of the same network, and up to `redis_lane.PATIENCE`.
_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# Devices in one batch of an announcement: calls of clients go between two batches.
_ANNOUNCED: Final = 500


def _script(name: str) -> Script:
    return Script(name, "aldis.cluster", shared="shared")


_ENTER: Final = _script("enter")
_ANNOUNCE: Final = _script("announce")
_LEAVE: Final = _script("leave")
_CHANGE: Final = _script("change")
_PRIVACY: Final = _script("privacy")
_STATES: Final = Script("states", "aldis.cluster")
_REAP: Final = _script("reap")
# Their places in an entry (`cluster.states`), from 1.
_KEY_PLACE: Final = 4
_SESSION_PLACE: Final = 7
_SEAL_KEY_PLACE: Final = 8


Offline: TypeAlias = Callable[[str, int], None]
"""Is told a user that has no device any more, and the version of that."""


class AnnouncedDevice(NamedTuple):
    """A device that this node has entered before, with its `order`, and the privacy of its user."""

    user_id: str
    device: RemoteDevice
    privacy: Privacy


class PresenceTable:
    """The table, as one node uses it. All calls but `close` raise `ClusterUnavailable` and `ClusterProtocolError`.

    `node_id`: devices are entered for this node. Set another one when `cluster.lease` gives it. The servers are the
    caller's, who closes them after the table.
    """

    def __init__(self, servers: RedisServers, node_id: str, *, prefix: str = DEFAULT_REDIS_PREFIX) -> None:
        self.node_id = node_id
        self.names = Names(prefix, servers.where.database)
        self._cluster = servers.where.kind == "cluster"
        self._publish = servers.where.publish_command
        self._seconds = {kind: Histogram(_SECONDS) for kind in ("read", "write")}
        self._reads = Lane(servers, away=_away, full=ClusterUnavailable, took=self._seconds["read"].observe)
        self._writes = Lane(
            servers, ordered=True, away=_away, full=ClusterUnavailable, took=self._seconds["write"].observe
        )

    @property
    def healthy(self) -> bool:
        """Whether the last read and the last write succeeded."""
        return not (self._reads.failing or self._writes.failing)

    @property
    def calls(self) -> tuple[RedisCalls, ...]:
        """What the table's calls to Redis have cost."""
        lanes = {"read": self._reads, "write": self._writes}
        return tuple(RedisCalls(kind, self._seconds[kind], lane.failures, lane.open) for kind, lane in lanes.items())

    async def enter(self, question: EnterDevice) -> Entered | EntryRefusal:
        """Enter a device for this node, in place of one of the same name.

        It is refused as taken when just one of it and another device of the user proves, or when none does and their
        keys differ; and as full when a new name would make more than `most`. Raises `NodeLost` when others have removed
        this node.
        """
        device = question.device._replace(node=self.node_id)
        words = (encode_device(device), encode_privacy(question.privacy), question.most)
        answer = await self._writes.send(self._on_device(_ENTER, question.user_id, device.device, *words))
        return _entered(answer, device)

    async def announce(self, devices: Iterable[AnnouncedDevice]) -> list[Entered | EntryRefusal]:
        """Enter devices again that have an order, for this node: after it was lost, or the server has lost data.

        Each is refused when a newer one has its name (`REPLACED`), or when it is taken. The answers are in the order of
        the devices. It does no harm to repeat it. They are taken in portions, each just before it is sent: so a
        generator can leave out those that have left meanwhile. Raises `NodeLost`.
        """
        source = iter(devices)
        answers: list[Entered | EntryRefusal] = []
        while portion := list(islice(source, _ANNOUNCED)):
            announced = [each.device._replace(node=self.node_id) for each in portion]
            commands = [
                self._on_device(
                    _ANNOUNCE,
                    each.user_id,
                    device.device,
                    encode_device(device),
                    encode_privacy(each.privacy),
                    device.order,
                )
                for each, device in zip(portion, announced, strict=True)
            ]
            found = await _all(self._writes, commands)
            answers += [_entered(answer, device) for answer, device in zip(found, announced, strict=True)]
        return answers

    async def leave(self, user_id: str, device: str, entry: str) -> UserState | None:
        """Remove a device; return the new state, or None when this entry is not there any more."""
        return _state(await self._writes.send(self._on_device(_LEAVE, user_id, device, entry)))

    async def change(
        self,
        user_id: str,
        device: str,
        entry: str,
        *,
        seal_key: SealKey | UnsetType | None = UNSET,
        session: str | UnsetType = UNSET,
        key: str | UnsetType = UNSET,
    ) -> UserState | None:
        """Change what is given of a device; return the new state, or None when this entry is not there any more."""
        words: list[Word] = []
        if key is not UNSET:
            words += [_KEY_PLACE, encode_text(key)]
        if session is not UNSET:
            words += [_SESSION_PLACE, encode_text(session)]
        if seal_key is not UNSET:
            words += [_SEAL_KEY_PLACE, encode_seal_key(seal_key)]
        return _state(await self._writes.send(self._on_device(_CHANGE, user_id, device, entry, *words)))

    async def change_privacy(self, user_id: str, privacy: Privacy, known: int = 0) -> UserState | None:
        """Change the privacy of a user; return the new state, or None when the user has no device.

        `known`: the version of the state that the caller knows. Where the server has an older one, it has lost changes,
        and all nodes hear of its privacy, also when that is the one wanted.
        """
        return _state(await self._writes.send(self._on_user(_PRIVACY, user_id, encode_privacy(privacy), str(known))))

    async def states(self, user_ids: Sequence[str]) -> list[UserState]:
        """The states of users, in the same order. The version of an offline one is no less than that of its last."""
        rows: dict[str, list[bytes]] = {}
        portions = list(self._portions(user_ids))
        for portion, found in zip(portions, await _all(self._reads, map(self._looking_up, portions)), strict=True):
            rows.update(zip(portion, found, strict=True))
        users = in_portions(user_ids, lambda user_id: bytes_of(rows[user_id]))
        return [decode_row(user_id, rows[user_id]) async for user_id in users]

    async def reap(self, node_id: str, offline: Offline = lambda user_id, version: None) -> int:
        """Remove all devices of a node; return how many users have had some, of those that this call has removed.

        `offline` is told each user that has no device any more. From then on the node cannot enter devices under this
        id. Several nodes may do it at once, and repeat it.
        """
        removed = 0
        # Nodes that do it at once begin at different buckets.
        start = bucket_of(self.node_id)
        for first in range(0, BUCKETS, _REAPED_BUCKETS):
            left = [(start + number) % BUCKETS for number in range(first, first + _REAPED_BUCKETS)]
            while left:
                answers = await asyncio.gather(
                    *[self._writes.send(self._reaping(bucket, node_id)) for bucket in left], return_exceptions=True
                )
                found = [answer for answer in answers if not isinstance(answer, BaseException)]
                for _, _, gone in found:
                    for user_id, version in zip(gone[::2], gone[1::2], strict=True):
                        offline(user_id.decode(), int(version))
                for answer in answers:
                    if isinstance(answer, BaseException):
                        raise answer
                removed += sum(done for done, _, _ in found)
                left = [bucket for bucket, (_, more, _) in zip(left, found, strict=True) if more]
        return removed

    async def drop_unknown(
        self, known: Callable[[str, str], bool], offline: Offline = lambda user_id, version: None
    ) -> int:
        """Remove the devices of this node that it does not know; return how many.

        For a server that may have lost the last changes, so that a device is there again that has left. `known` is
        asked with a user id and an entry, and has to know also an entry that is on its way. `offline` as for `reap`.
        """
        removed = 0
        for first in range(0, BUCKETS, _REAPED_BUCKETS):
            buckets = range(first, first + _REAPED_BUCKETS)
            sets = [Command("SMEMBERS", self.names.node(bucket, self.node_id)) for bucket in buckets]
            users = [user_id.decode() for found in await _all(self._reads, sets) for user_id in found if user_id]
            unknown = [
                self._on_device(_LEAVE, state.user_id, each.device, each.entry)
                for state in await self.states(users)
                for each in state.devices
                if each.node == self.node_id and not known(state.user_id, each.entry)
            ]
            left = [state for answer in await _all(self._writes, unknown) if (state := _state(answer)) is not None]
            for state in left:
                if not state.devices:
                    offline(state.user_id, state.version)
            removed += len(left)
        return removed

    async def close(self) -> None:
        """Wait for the calls that are on their way."""
        await self._reads.idle()
        await self._writes.idle()

    # --- internal ---------------------------------------------------------------------------------------------------

    def _portions(self, user_ids: Sequence[str]) -> Iterator[Sequence[str]]:
        """Users that one script may look up: in a Cluster those of one bucket."""
        if not self._cluster:
            yield from (user_ids[first : first + _LOOKED_UP] for first in range(0, len(user_ids), _LOOKED_UP))
            return
        of_bucket: dict[int, list[str]] = {}
        for user_id in user_ids:
            of_bucket.setdefault(bucket_of(user_id), []).append(user_id)
        for users in of_bucket.values():
            yield from (users[first : first + _LOOKED_UP] for first in range(0, len(users), _LOOKED_UP))

    def _looking_up(self, user_ids: Sequence[str]) -> Command:
        names = self.names
        counter, *others = [
            key for user_id in user_ids for key in (names.counter(bucket_of(user_id)), names.user(user_id))
        ]
        return Command(_STATES, counter, others=tuple(others))

    def _on_device(self, script: Script, user_id: str, device: str, *words: Word) -> Command:
        return self._on_user(script, user_id, f"d{device}", *words)

    def _on_user(self, script: Script, user_id: str, *words: Word) -> Command:
        bucket = bucket_of(user_id)
        head = (self.names.channel(bucket), self._publish, self.names.nodes(bucket))
        others = (self.names.user(user_id),)
        return Command(script, self.names.counter(bucket), (*head, user_id, *words), others)

    def _reaping(self, bucket: int, node_id: str) -> Command:
        head = (self.names.channel(bucket), self._publish, self.names.nodes(bucket))
        words = (node_id, self.names.users(bucket), _REAPED_USERS, REMEMBERED)
        return Command(_REAP, self.names.counter(bucket), (*head, *words))


async def _all(lane: Lane, commands: Iterable[Command]) -> list[Any]:
    return list(await asyncio.gather(*[lane.send(command) for command in commands]))


def _away(words: str) -> Exception:
    # What a script says about an entry that it cannot read.
    return ClusterProtocolError(words) if "GARBLED" in words else ClusterUnavailable(words)


def _entered(answer: list[Any], device: RemoteDevice) -> Entered | EntryRefusal:
    match answer:
        case [b"entered", state, came]:
            entered = decode_state(state)
            order = next(each.order for each in entered.devices if each.entry == device.entry)
            return Entered(order, entered, bool(came))
        case [b"lost"]:
            raise NodeLost(device.node)
        case [b"full"]:
            return FULL
        case [b"taken"]:
            return TAKEN
        case [b"replaced"]:
            return REPLACED
        case _:
            raise ClusterProtocolError(f"a script has answered {answer!r}")


def _state(answer: bytes | None) -> UserState | None:
    return None if answer is None else decode_state(answer)
