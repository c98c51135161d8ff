"""What the nodes of a cluster say to each other through Redis 7 or Valkey: its pub/sub, sharded in a Cluster.

Rules:

* Each node listens to its own channel, to that of all nodes, and to those of the buckets that it wants. In a Cluster
  each channel is at the server that has its slot. The bus follows a slot that moves, and the master behind Sentinels.
* Messages to one node arrive in the order of the calls, once or not at all. What may not have arrived is told
  (`unsent`): when the connection is lost, the server refuses it, or no node listens. It may have arrived all the same.
* What is published while a subscription is lost is gone. So after `interrupted` comes `restored`, once all is
  subscribed again, and then the node reads the states of the users of those buckets. It may have missed messages too.
* No call but `open`, `want`, `moved` and `close` waits. A message waits for its answer in a queue that has a bound.
* A server that hangs is given up within `SILENCE + 3 * TICK` (`cluster.bus_link`). After that `send` is False until
  another connection is there. The bus connects again by itself, for ever, with growing pauses.
* Bytes that cannot be read are counted and skipped.
* Of a bucket come the states of all its users. Those of users that the node does not want are not read: in a large
  cluster these are most.

What a message with a frame of 400 bytes costs, in microseconds (Redis 7.0, uvloop; 20,000 messages between two buses in
one process; sending and receiving together):

    messages in one turn    processor of the nodes    of Redis    PUBLISH itself    SPUBLISH, in a Cluster
     1, and waited for      40                        12          0.65              0.86
    10                       9                         2          0.4               0.6

The ACL of the user in Redis needs `+subscribe +unsubscribe +publish` or `+ssubscribe +sunsubscribe +spublish`, and
`+hello +ping &PREFIX*`; a Cluster `+cluster` too.

It knows no table and no lease.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

from aldis.backends.directory_url import DEFAULT_REDIS_PREFIX
from aldis.backends.redis_client import ANSWER_SECONDS, CONNECT_SECONDS, Address, RedisServers
from aldis.cluster.buckets import Names
from aldis.cluster.bus_link import SILENCE, Link, Sent, open_link, packed
from aldis.cluster.faults import ClusterProtocolError, ClusterUnavailable, UnknownMessage
from aldis.cluster.messages import Message, decode_message, encode_message
from aldis.cluster.states import decode_state, user_of_state
from aldis.hub.cluster import UserState

MAX_QUEUED_BYTES: Final = 16 * 1024 * 1024
"""Of messages without an answer from Redis: their bytes on the wire, and what is kept of each for `unsent`."""
MAX_QUEUED: Final = 50_000
# What Python needs for a message that is kept, beyond its frame.
_KEPT_BYTES: Final = 500
# Seconds for `open`, `want` and `moved`: a new connection, and its answer.
PATIENCE: Final = CONNECT_SECONDS + ANSWER_SECONDS
# Seconds between two attempts to connect: up to twice as long with each, as long as one follows another.
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0
_SETTLED: Final = 10.0
# Seconds between two questions to the Sentinels. A master that they have replaced answers on: up to ten seconds long,
# and longer when it is cut off from them.
_CHECK_SECONDS: Final = 1.0
# Nodes and channels that are remembered with their bytes; far more than there are.
_REMEMBERED: Final = 5_000

# Errors of a server that others have replaced.
_MOVED: Final = ("MOVED", "CLUSTERDOWN")


class BusListener(Protocol):
    """What a node hears. No method waits, and none raises."""

    def wants(self, user_id: str, bucket: int) -> bool:
        """Whether the node wants the states of this user of a bucket."""

    def state(self, state: UserState) -> None:
        """The table has a new state of a user that the node wants."""

    def message(self, node_id: str, message: Message) -> None:
        """A node has sent a message to this one, or to all."""

    def unsent(self, node_id: str, message: Message) -> None:
        """A message may not have arrived. `node_id` is empty for one to all nodes."""

    def interrupted(self) -> None:
        """A subscription is lost. What is published now does not come."""

    def restored(self, buckets: frozenset[int]) -> None:
        """All is subscribed again. `buckets` are those whose states may have changed unheard."""


class _Channel:
    """A channel that this node wants. `link`: where it has asked for it. `bucket`: None for messages."""

    __slots__ = ("bucket", "confirmed", "link", "name", "waiting")

    def __init__(self, name: bytes, bucket: int | None) -> None:
        self.name = name
        self.bucket = bucket
        self.link: Link | None = None
        self.confirmed = asyncio.Event()
        self.waiting = 0


class Bus:
    """The bus of one node. The servers are the caller's, who closes them after the bus."""

    def __init__(
        self,
        servers: RedisServers,
        listener: BusListener,
        *,
        prefix: str = DEFAULT_REDIS_PREFIX,
        bug: Callable[[Exception], None] = lambda error: None,
    ) -> None:
        """`bug` is called with an unexpected exception of an attempt to connect: once, also when it comes again."""
        self._bug = bug
        self._last_bug = ""
        self.node_id = ""
        # Its last ids, under which what it has sent to all may come back.
        self._former: deque[str] = deque(maxlen=8)
        self.names = Names(prefix, servers.where.database)
        self.queued = 0
        """Messages without an answer from Redis."""
        self.queued_bytes = 0
        self.unreadable = 0
        """How much has come that could not be read."""
        self.unknown = 0
        """How many messages have come whose kind only newer releases know."""
        self.fault = ""
        """What went wrong last, in words for the operator."""
        self._servers = servers
        self._listener = listener
        self._cluster = servers.where.kind == "cluster"
        self._publish = servers.where.publish_command.encode()
        self._everyone = self.names.everyone.encode()
        self._links: dict[Address, Link] = {}
        self._wanted: dict[bytes, _Channel] = {}
        # Of the wanted ones: those that no server was asked for.
        self._missing: dict[bytes, _Channel] = {}
        # Of the wanted ones: those that were lost, and the buckets that were since `interrupted`.
        self._broken: set[bytes] = set()
        self._gone: set[int] = set()
        self._whole = True
        self._asking = self._connecting = False
        self._routes: dict[bytes, Address] = {}
        self._inboxes: dict[str, bytes] = {}
        self._repair = asyncio.Event()
        # Whether each master has been tried once.
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def healthy(self) -> bool:
        """Whether all that is wanted is subscribed, or is being asked for the first time."""
        open_ = self._task is not None and not self._task.done()
        return open_ and self._whole and all(self._link(name) is not None for name in self._missing)

    @property
    def listens(self) -> bool:
        """Whether what is sent to this node arrives: in a Cluster it may not, where the other servers answer."""
        inbox = self._wanted.get(self._inbox(self.node_id))
        return inbox is not None and inbox.confirmed.is_set()

    async def open(self, node_id: str) -> None:
        """Connect, and listen as this node. Raises `ClusterUnavailable`; then it can be called again."""
        self.node_id = node_id
        self._tried.clear()
        self._repair.set()
        self._task = asyncio.create_task(self._keep(), name="aldis-bus")
        try:
            await self._want([(self._inbox(node_id), None), (self._everyone, None)])
            await self._tried.wait()  # those of other nodes may be at other servers
        except BaseException:
            await self.close()
            raise

    async def moved(self, new_id: str) -> None:
        """Go on as another node. Raises `ClusterUnavailable`; the bus goes on trying to listen as the new node.

        The new id counts from the first moment. Announce devices under it only when this returns.
        """
        self._drop([self._inbox(self.node_id)])
        self._former.append(self.node_id)
        self.node_id = new_id
        inbox = self._inbox(new_id)
        self._add(inbox, None)
        await self._want([(inbox, None)])

    async def close(self) -> None:
        """Wait for the answers to what was sent, at most `SILENCE`, and close the connections."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        try:
            async with asyncio.timeout(SILENCE):
                await asyncio.gather(*[link.settled() for link in self._links.values()], return_exceptions=True)
        except TimeoutError:
            pass
        for each in self._wanted.values():
            each.confirmed.set()  # `_want` sees that the bus is closed
        self._wanted.clear()
        self._missing.clear()
        for link in list(self._links.values()):
            link.end("is not needed any more")
        self._broken.clear()
        self._gone.clear()
        self._whole = True

    async def want(self, buckets: Iterable[int]) -> None:
        """Listen to the states of users of these buckets.

        When this returns, the server has confirmed it: a state that is read now misses no change. Raises
        `ClusterUnavailable`; a bucket that was not wanted before is not wanted then.
        """
        await self._want([(self.names.channel(bucket).encode(), bucket) for bucket in buckets])

    def drop(self, buckets: Iterable[int]) -> None:
        """Listen to these buckets no more."""
        self._drop([self.names.channel(bucket).encode() for bucket in buckets])

    def send(self, node_id: str, message: Message) -> bool:
        """Send a message to a node. False when the queue is full, or Redis cannot be reached."""
        return self._send(self._inbox(node_id), node_id, message)

    def send_all(self, message: Message) -> bool:
        """Send a message to all other nodes; as `send`."""
        return self._send(self._everyone, "", message)

    # --- LinkOwner --------------------------------------------------------------------------------------------------

    def received(self, channel: bytes, data: bytes) -> None:
        wanted = self._wanted.get(channel)
        if wanted is None:
            return
        try:
            if wanted.bucket is not None:
                if not self._listener.wants(user_of_state(data), wanted.bucket):
                    return
                state = decode_state(data)
            else:
                node_id, message = decode_message(data)
        except UnknownMessage:
            self.unknown += 1
            return
        except ClusterProtocolError:
            self.unreadable += 1
            return
        if wanted.bucket is not None:
            self._listener.state(state)
        elif channel != self._everyone or not (node_id == self.node_id or node_id in self._former):
            self._listener.message(node_id, message)

    def answered(self, sent: Sent, receivers: int | Exception) -> None:
        self.queued -= 1
        self.queued_bytes -= sent.size
        if isinstance(receivers, Exception):
            self.fault = str(receivers)
            if str(receivers).startswith(_MOVED):
                self._repair.set()
            self._listener.unsent(sent.node_id, sent.message)
        elif not receivers and sent.node_id:
            self._listener.unsent(sent.node_id, sent.message)

    def left(self, link: Link, channel: bytes) -> None:
        wanted = self._wanted.get(channel)
        if wanted is not None and wanted.link is link and wanted.confirmed.is_set():
            self._lose([wanted])

    def ended(self, link: Link, why: str, unanswered: Sequence[Sent]) -> None:
        if self._links.get(link.address) is not link:
            return
        del self._links[link.address]
        self.fault = f"{self._servers.where} {why}"
        self.queued -= len(unanswered)
        self.queued_bytes -= sum(sent.size for sent in unanswered)
        if self._task is not None:
            self._lose([each for each in self._wanted.values() if each.link is link])
        for sent in unanswered:
            self._listener.unsent(sent.node_id, sent.message)

    # --- subscriptions ----------------------------------------------------------------------------------------------

    async def _want(self, channels: Iterable[tuple[bytes, int | None]]) -> None:
        wanted = [self._add(name, bucket) for name, bucket in channels]
        async with self._waiting(wanted):
            try:
                async with asyncio.timeout(PATIENCE):
                    for each in wanted:
                        await each.confirmed.wait()
                if self._task is None:
                    raise ClusterUnavailable("the bus is closed")
            except TimeoutError:
                raise ClusterUnavailable(f"{self._servers.where} does not answer in time ({self.fault})") from None

    @asynccontextmanager
    async def _waiting(self, channels: Sequence[_Channel]) -> AsyncIterator[None]:
        """Drop those buckets that are new, when nobody waits for them any more in vain."""
        for each in channels:
            each.waiting += 1
        try:
            yield
        finally:
            for each in channels:
                each.waiting -= 1
                vain = each.bucket is not None and not each.waiting and not each.confirmed.is_set()
                if vain and each.name not in self._broken and self._wanted.get(each.name) is each:
                    self._drop([each.name])

    def _add(self, name: bytes, bucket: int | None) -> _Channel:
        wanted = self._wanted.get(name)
        if wanted is None:
            wanted = self._wanted[name] = self._missing[name] = _Channel(name, bucket)
            self._ask_soon()
        return wanted

    def _drop(self, names: Iterable[bytes]) -> None:
        asked: dict[Link, list[bytes]] = {}
        for name in names:
            wanted = self._wanted.pop(name, None)
            if wanted is None:
                continue
            self._missing.pop(name, None)
            self._broken.discard(name)
            if wanted.link is not None:
                asked.setdefault(wanted.link, []).append(name)
            wanted.confirmed.set()  # nobody waits for it any more
        for link, left in asked.items():
            link.unsubscribe(left)
        if not self._whole:
            asyncio.get_running_loop().call_soon(self._mend)

    def _ask_soon(self) -> None:
        if not self._asking:
            self._asking = True
            asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        """Subscribe all that is missing, as far as its server is connected."""
        self._asking = False
        asked: dict[Link, list[_Channel]] = {}
        for each in self._missing.values():
            link = self._link(each.name)
            if link is not None:
                each.link = link
                asked.setdefault(link, []).append(each)
        for link, channels in asked.items():
            for each in channels:
                del self._missing[each.name]
            self._subscribe(link, channels)
        if self._missing and not self._connecting:
            self._repair.set()

    def _subscribe(self, link: Link, channels: Sequence[_Channel]) -> None:
        def done(errors: list[str]) -> None:
            left = []
            for each in channels:
                if self._wanted.get(each.name) is not each or each.link is not link:
                    continue
                if each.name in link.channels:
                    each.confirmed.set()
                    self._broken.discard(each.name)
                else:
                    left.append(each)
            if errors:
                self.fault = errors[-1]
            if left:
                self._lose(left)
            self._mend()

        link.subscribe([each.name for each in channels], done)

    def _lose(self, channels: Iterable[_Channel]) -> None:
        """These have to be subscribed again."""
        for each in channels:
            each.link = None
            self._missing[each.name] = each
            if each.confirmed.is_set():
                each.confirmed.clear()
                self._broken.add(each.name)
                if each.bucket is not None:
                    self._gone.add(each.bucket)
        self._repair.set()
        if self._broken and self._whole:
            self._whole = False
            self._listener.interrupted()

    def _mend(self) -> None:
        if self._whole or self._broken or self._task is None:
            return
        self._whole = True
        wanted = {each.bucket for each in self._wanted.values()}
        buckets = frozenset(bucket for bucket in self._gone if bucket in wanted)
        self._gone.clear()
        self._listener.restored(buckets)

    # --- messages ---------------------------------------------------------------------------------------------------

    def _send(self, channel: bytes, node_id: str, message: Message) -> bool:
        link = self._link(channel)
        if link is None or self._task is None or self.queued >= MAX_QUEUED:
            return False
        data = encode_message(self.node_id, message)
        size = 2 * len(data) + _KEPT_BYTES
        if self.queued_bytes + size > MAX_QUEUED_BYTES:
            return False
        self.queued += 1
        self.queued_bytes += size
        link.publish(packed(self._publish, channel, data), Sent(node_id, message, size))
        return True

    def _inbox(self, node_id: str) -> bytes:
        inbox = self._inboxes.get(node_id)
        if inbox is None:
            if len(self._inboxes) >= _REMEMBERED:
                self._inboxes.clear()
            inbox = self._inboxes[node_id] = self.names.inbox(node_id).encode()
        return inbox

    # --- connections ------------------------------------------------------------------------------------------------

    def _link(self, channel: bytes) -> Link | None:
        """The connection to the server that has a channel."""
        if not self._cluster:
            return next(iter(self._links.values()), None)
        address = self._routes.get(channel)
        if address is None:
            if not self._links:
                return None
            address = self._servers.master_of(channel)
            if address is None:
                return None
            if len(self._routes) >= _REMEMBERED:
                self._routes.clear()
            self._routes[channel] = address
        return self._links.get(address)

    async def _keep(self) -> None:
        clock = asyncio.get_running_loop().time
        check = _CHECK_SECONDS if self._servers.where.kind == "sentinel" else None
        attempts, last = 0, float("-inf")
        # `wait_for` of Python 3.11, which redis-py uses, may lose the cancellation of `close`.
        while self._task is not None:
            try:
                async with asyncio.timeout(check):
                    await self._repair.wait()
            except TimeoutError:
                pass
            else:
                attempts = attempts + 1 if clock() - last < _SETTLED else 0
                if attempts:
                    await asyncio.sleep(_pause(attempts))
                last = clock()
            self._repair.clear()
            self._connecting = True
            try:
                await self._connect()
            except Exception as error:  # noqa: BLE001 - a bug, too: without the bus all other nodes would be offline
                self._failed(error)
            else:
                if not self._repair.is_set():
                    self._last_bug = ""
            finally:
                self._connecting = False
            self._ask_soon()

    async def _connect(self) -> None:
        """Have a connection to each master, and to no other server."""
        masters = await self._servers.masters()
        self._routes.clear()
        for address, link in list(self._links.items()):
            if address not in masters:
                link.end("is no master any more")
        moved = [each for each in self._wanted.values() if each.link not in (None, self._link(each.name))]
        if moved:
            self._lose(moved)
        self._ask_soon()
        await asyncio.gather(*[self._connect_to(address) for address in masters if address not in self._links])
        self._tried.set()

    async def _connect_to(self, address: Address) -> None:
        try:
            link = await open_link(self, self._servers, address)
        except Exception as error:  # noqa: BLE001 - a bug, too: the other servers are waited for all the same
            self._failed(error)
            return
        self._links[address] = link
        self._ask_soon()

    def _failed(self, error: Exception) -> None:
        """An attempt to connect has failed: there is another one."""
        self._repair.set()
        words = self._servers.in_words(error)
        if words is not None or isinstance(error, UnicodeError | ClusterUnavailable):  # UnicodeError: of a host
            self.fault = words or str(error)
            return
        self.fault = f"unexpected fault: {error!r}"
        if self._last_bug != self.fault:
            self._last_bug = self.fault
            self._bug(error)


def _pause(attempts: int) -> float:
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempts, 10))
    return longest * random.uniform(0.5, 1)  # noqa: S311 - a pause, no secret
