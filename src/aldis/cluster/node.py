"""A node of a cluster: it carries out what the hub asks and tells, and brings the hub what other nodes say.

    hub  <->  ClusterNode  <->  the table of users, the bus, the lease: all in Redis

Rules:

* The hub hears of each change of a user from the first question about the user until it forgets it. The bucket of the
  user is subscribed before its state is read, so nothing is missed; and what is heard before the answer has come is
  newer than the answer, which its version shows.
* What the hub says of its own devices goes to the table in the order of the calls. When a call fails, nobody knows
  whether it took effect. So when Redis is back the node announces its devices, and drops those from the table that it
  does not have (`reconcile`). Then it reads the states of all known users anew.
* While Redis is away, questions fail, and the hub refuses what needs them for the moment. What is local goes on.
* Who comes online and goes offline is told by the node whose call in the table made the change: once in the cluster.
* Messages and answers of other nodes are missed while a subscription is lost. So what they have then counts as
  UNREACHABLE, and when it is back, they are told (`Missed`). An answer that nobody has heard is sent again, until its
  node is lost: in a Redis Cluster each node listens at another server, and one may be back before the other.
* The first node that notices that another one is lost removes its devices. Several may do it at once.

It knows no client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any, Final

from aldis.backends.directory_url import DEFAULT_REDIS_PREFIX
from aldis.backends.portions import in_portions
from aldis.backends.redis_client import RedisServers
from aldis.cluster.buckets import bucket_of
from aldis.cluster.bus import Bus
from aldis.cluster.faults import ClusterProtocolError, ClusterUnavailable, NodeLost
from aldis.cluster.lease import NodeLease
from aldis.cluster.messages import BanChange, BansRestored, Message, Missed, NodeAnswer, NodeQuestion, Rebound, Used
from aldis.cluster.operator_link import OperatorLink
from aldis.cluster.presence_table import AnnouncedDevice, PresenceTable
from aldis.cluster.questions import Responder
from aldis.cluster.status import ClusterPresence, ClusterStatus
from aldis.hub.bans import Ban
from aldis.hub.cluster import (
    ClusterQuestion,
    EnterDevice,
    Entered,
    EntryRefusal,
    FindUsers,
    Forward,
    Forwarded,
    RemoteDevice,
    Unconfirmed,
    UserState,
)
from aldis.hub.cluster_router import ClusterRouter
from aldis.hub.hub import Hub
from aldis.hub.sessions import RelayResult
from aldis.hub.unanswered import MAX_UNANSWERED
from aldis.hub.usage import OpenCounts, Use
from aldis.protocol.privacy import Privacy

# Seconds between two attempts to bring the table up to date, after an outage.
RECONCILE_SECONDS: Final = 1.0
# Users that are looked up at once: half a millisecond for the hub. A client may watch a thousand names in one message.
_FOUND_AT_ONCE: Final = 50
# Users whose states are read at once after an outage; calls of clients go between two of them.
_READ_AT_ONCE: Final = 500
# Seconds until an answer is sent again that nobody has heard.
AGAIN_SECONDS: Final = 1.0
# Answers that are kept until then: of the messages that the other nodes wait for, and some 10 MB.
MAX_UNSENT: Final = MAX_UNANSWERED


class ClusterNode:
    """The node of one hub. Give it to the hub as its `cluster`, then `open` it with the hub.

    `fault` is called with an exception that is a bug, or a fault of Redis for the operator. `in_turn` is given each
    answer to the hub, to be handled when it is its turn. `clock` is that of the hub. `presence` is told who comes
    online and goes offline in the whole cluster. The servers are the caller's, who closes them after the node.
    """

    def __init__(
        self,
        servers: RedisServers,
        *,
        prefix: str = DEFAULT_REDIS_PREFIX,
        fault: Callable[[Exception], None] = lambda error: None,
        clock: Callable[[], float] = monotonic,
        in_turn: Callable[[Callable[[], None]], None] = lambda answer: answer(),
        presence: ClusterPresence | None = None,
    ) -> None:
        self._in_turn = in_turn
        self._lease = NodeLease(servers, self, prefix=prefix, bug=fault)
        self._table = PresenceTable(servers, self._lease.node_id, prefix=prefix)
        self._bus = Bus(servers, self, prefix=prefix, bug=fault)
        self._fault = fault
        self._clock = clock
        self._presence = presence
        self._doubtful: set[str] = set()  # users of whom a device may have left, and nobody may have told it
        self.operator = OperatorLink(
            servers, self._bus, self._lease, prefix=prefix, spawn=self._spawn, fault=fault, clock=clock
        )
        """What an operator asks and does in the whole cluster."""
        self._hub: Hub | None = None
        # The users of each bucket of which the hub wants to hear, and those about which a question is open.
        self._users: dict[int, set[str]] = {}
        self._asked: dict[str, int] = {}
        self._entering: set[str] = set()  # entries that the hub does not have yet, on their way to the table and back
        self._many = asyncio.Lock()  # of a question about many users
        self._tasks: set[asyncio.Task[None]] = set()
        # Answers to messages of other nodes that may not have arrived.
        self._unsent: deque[tuple[str, Forwarded]] = deque(maxlen=MAX_UNSENT)
        self._again: asyncio.TimerHandle | None = None
        self._former: set[str] = set()  # the ids under which this node was lost, until they are removed
        self._stale = False
        self._reconciling = False
        self._closed = False

    @property
    def node(self) -> str:
        """The id of this node."""
        return self._table.node_id

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way to Redis, or to the hub."""
        return not self._tasks and not self._bus.queued

    @property
    def away(self) -> bool:
        """Whether Redis did not answer when the lease was to be renewed: every two seconds."""
        return not self._lease.healthy

    @property
    def healthy(self) -> bool:
        """Whether Redis answers, all that is wanted is subscribed, and the table is up to date."""
        redis = self._lease.healthy and self._bus.healthy and self._table.healthy
        return redis and self.operator.healthy and not self._stale

    def status(self) -> ClusterStatus:
        """How the node is."""
        bus = self._bus
        users = sum(map(len, self._users.values()))
        fault = bus.fault if self._lease.healthy else self._lease.fault or bus.fault
        bus_is = (bus.queued, bus.queued_bytes, bus.unreadable, bus.unknown)
        return ClusterStatus(self.node, self._lease.others, self.healthy, users, *bus_is, self._table.calls, fault)

    async def open(
        self,
        hub: Hub,
        *,
        end: Callable[[Ban], int] = lambda ban: 0,
        respond: Responder = lambda subject, content: None,
    ) -> None:
        """Join the cluster. Raises `ClusterUnavailable`. For `end` and `respond` see `OperatorLink.open`."""
        self._hub = hub
        try:
            await self._bus.open(self.node)
            await self._lease.open()
            await self.operator.open(hub, end=end, respond=respond)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Leave the cluster: the other nodes count this one as lost at once. Say first what the hub has to say."""
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        await self._table.close()
        await self.operator.close()
        await self._lease.close()
        await self._bus.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def is_first(self) -> bool:
        """Whether no other node was there, alive or lost, when this one opened."""
        return self._lease.is_first

    # --- for the hub (`ClusterLink`) ----------------------------------------------------------------------------------

    def ask(self, question: ClusterQuestion) -> None:
        """See `ClusterLink`."""
        self._spawn(self._answer(question), "ask")

    def forget(self, user_ids: Sequence[str]) -> None:
        """See `ClusterLink`."""
        self._unwant(user_ids)

    def leave(self, user_id: str, device: str, entry: str) -> None:
        """See `ClusterLink`."""
        self._say(self._table.leave(user_id, device, entry), leaving=user_id)

    def change(self, user_id: str, device: RemoteDevice) -> None:
        """See `ClusterLink`."""
        self._say(
            self._table.change(
                user_id,
                device.device,
                device.entry,
                seal_key=device.seal_key,
                session=device.session,
                key=device.key,
            )
        )

    def change_privacy(self, user_id: str, privacy: Privacy, known: int) -> None:
        """See `ClusterLink`."""
        self._say(self._table.change_privacy(user_id, privacy, known))

    def rebound(self, user_id: str) -> None:
        """See `ClusterLink`. A node that does not hear of it sees the key at the next registration of the name."""
        self._bus.send_all(Rebound(user_id))

    @property
    def nodes(self) -> int:
        """See `ClusterLink`."""
        return len(self._lease.known)

    def tell_used(self, uses: Sequence[Use]) -> None:
        """See `ClusterLink`."""
        self._bus.send_all(Used(tuple(uses)))

    def tell_counts(self, counts: OpenCounts) -> None:
        """See `ClusterLink`."""
        self._bus.send_all(counts)

    def forward(self, node: str, message: Forward) -> bool:
        """See `ClusterLink`. Nothing goes out whose answer could not come."""
        return self._bus.listens and self._bus.send(node, message)

    def answer(self, node: str, answer: Forwarded) -> None:
        """See `ClusterLink`. Without an answer the other node waits until its time is over."""
        if not self._bus.send(node, answer):
            self._keep(node, answer)

    # --- from the bus (`BusListener`) ---------------------------------------------------------------------------------

    def wants(self, user_id: str, bucket: int) -> bool:
        """See `BusListener`."""
        return self._hub is not None and user_id in self._users.get(bucket, ())

    def state(self, state: UserState) -> None:
        """See `BusListener`."""
        self._learn(state)

    def message(self, node_id: str, message: Message) -> None:
        """See `BusListener`."""
        match message:
            case Forward():
                self._tell(lambda router: router.forwarded(node_id, message, self._clock()))
            case Forwarded():
                self._tell(lambda router: router.answered(message))
            case Rebound():
                self._tell(lambda router: router.doubt(message.user_id))
            case Used():
                self._tell(lambda router: router.used(message.uses, self._clock()))
            case OpenCounts():
                self._tell(lambda router: router.counted(node_id, message))
            case BanChange() | BansRestored() | NodeQuestion() | NodeAnswer():
                self._call(lambda _: self.operator.message(node_id, message))
            case Missed():
                self._tell(lambda router: router.missed(node_id))

    def unsent(self, node_id: str, message: Message) -> None:
        """See `BusListener`."""
        if isinstance(message, Forward):
            self.message(node_id, Forwarded(message.number, RelayResult.UNREACHABLE))
        elif isinstance(message, Forwarded):
            self._keep(node_id, message)

    def interrupted(self) -> None:
        """See `BusListener`."""
        self._tell(lambda router: router.unheard())

    def restored(self, buckets: frozenset[int]) -> None:
        """See `BusListener`."""
        self.operator.catch_up()
        self._send_again()
        self._bus.send_all(Missed())
        users = [user_id for bucket in buckets for user_id in self._users.get(bucket, ())]
        self._spawn(self._read_anew(users), "read anew")

    def _keep(self, node_id: str, answer: Forwarded) -> None:
        self._unsent.append((node_id, answer))
        if self._again is None and not self._closed:
            self._again = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._send_again)

    def _send_again(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        unsent = list(self._unsent)
        self._unsent.clear()
        for node_id, answer in unsent:
            if node_id in self._lease.others:
                self.answer(node_id, answer)

    # --- from the lease (`LeaseListener`) -----------------------------------------------------------------------------

    def joined(self, node_id: str) -> None:
        """See `LeaseListener`."""
        self._tell(lambda router: router.joined_node())

    def lost(self, node_id: str, removed: bool) -> None:
        """See `LeaseListener`."""
        self._tell(lambda router: router.lost_node(node_id))
        self.operator.lost(node_id)
        # A former one of this node: its devices are announced under the new id before they are removed.
        if not removed and node_id not in self._former:
            self._spawn(self._remove(node_id), f"remove {node_id}")

    def moved(self, old: str, new: str) -> None:
        """See `LeaseListener`."""
        self._former.add(old)
        self._table.node_id = new
        self._tell(lambda router: router.was_lost())
        self.operator.catch_up()  # the bans may have gone with the lease (FLUSHALL)
        self._spawn(self._move(new), "move")

    def restarted(self) -> None:
        """See `LeaseListener`."""
        self.operator.catch_up()
        self._mend()

    # --- questions ----------------------------------------------------------------------------------------------------

    async def _answer(self, question: ClusterQuestion) -> None:
        users = question.user_ids if isinstance(question, FindUsers) else (question.user_id,)
        for user_id in users:
            self._asked[user_id] = self._asked.get(user_id, 0) + 1
        answer: list[UserState] | object = None
        try:
            if isinstance(question, FindUsers):
                answer = await self._find(users)
            else:
                self._entering.add(question.device.entry)
                answer = await self._enter_or_later(question)
        except Exception as error:  # noqa: BLE001 - anything but those of Redis is a bug, and told as one
            self._failed(error)
            bring: Callable[[Hub], None] = lambda hub: hub.failed(question, self._clock())  # noqa: E731
        else:
            bring = lambda hub: hub.answered(question, answer, self._clock())  # type: ignore[arg-type]  # noqa: E731

        def bring_it() -> None:
            for user_id in users:
                self._asked[user_id] -= 1
                if not self._asked[user_id]:
                    del self._asked[user_id]
            self._call(bring)
            if isinstance(question, EnterDevice):
                self._entering.discard(question.device.entry)
                # What was announced before its turn came went without this device.
                if isinstance(answer, Unconfirmed) or question.device.node != self.node:
                    self._mend()
            if self._hub is not None and self._hub.cluster is not None:
                known = self._hub.cluster.known
                self._unwant(user_id for user_id in users if user_id not in known)

        self._in_turn(bring_it)

    async def _find(self, users: Sequence[str]) -> list[UserState]:
        """Look users up. The hub hears of many by portions, one question after the other: others have turns between."""
        if len(users) <= _FOUND_AT_ONCE:
            await self._want(users)
            return await self._table.states(users)
        async with self._many:
            for first in range(0, len(users), _FOUND_AT_ONCE):
                portion = users[first : first + _FOUND_AT_ONCE]
                await self._want(portion)
                for state in await self._table.states(portion):
                    self._learn(state)
        return []

    async def _enter_or_later(self, question: EnterDevice) -> object:
        """Enter a device; while Redis is away, leave that for the moment when it is back.

        The directory has said whose name it is. Without a proof it is nobody's: the table has to say that it is free.
        """
        if self.away and question.device.proves:
            return Unconfirmed(self._lease.order())
        try:
            await self._want([question.user_id])
            return await self._enter(question)
        except ClusterUnavailable as error:
            if not question.device.proves:
                raise
            self._failed(error)
            return Unconfirmed(self._lease.order())

    async def _enter(self, question: EnterDevice) -> object:
        try:
            answer = await self._table.enter(question)
            self._tell_of(answer)
            return answer
        except NodeLost:
            self._mend()
            raise

    # --- what is wanted -----------------------------------------------------------------------------------------------

    async def _want(self, user_ids: Iterable[str]) -> None:
        buckets = set()
        for user_id in user_ids:
            bucket = bucket_of(user_id)
            buckets.add(bucket)
            self._users.setdefault(bucket, set()).add(user_id)
        await self._bus.want(buckets)

    def _unwant(self, user_ids: Iterable[str]) -> None:
        dropped = []
        for user_id in user_ids:
            if user_id in self._asked:
                continue
            bucket = bucket_of(user_id)
            users = self._users.get(bucket)
            if users is not None:
                users.discard(user_id)
                if not users:
                    del self._users[bucket]
                    dropped.append(bucket)
        if dropped:
            self._bus.drop(dropped)

    # --- after an outage ----------------------------------------------------------------------------------------------

    def _say(self, change: Coroutine[Any, Any, UserState | None], *, leaving: str = "") -> None:
        if self._closed:
            change.close()
            return

        async def say() -> None:
            try:
                state = await change
                if leaving and state is not None and not state.devices:
                    self._offline(leaving, state.version)
            except Exception as error:  # noqa: BLE001 - as in `_call`
                self._failed(error)
                if leaving and self._presence is not None:
                    self._doubtful.add(leaving)
                self._mend()

        self._spawn(say(), "say")

    def _mend(self) -> None:
        """Bring the table up to date, as soon as Redis answers."""
        self._stale = True
        if not self._reconciling and not self._closed:
            self._reconciling = True
            self._spawn(self._reconcile(), "reconcile")

    async def _reconcile(self) -> None:
        try:
            while self._stale:
                self._stale = False
                try:
                    await self._announce()
                    await self._table.drop_unknown(self._is_ours, self._offline)
                    await self._tell_doubtful()
                    for old in list(self._former):
                        await self._table.reap(old, self._offline)
                        await self._lease.forget(old)
                        self._former.discard(old)
                    await self._restore([user_id for users in self._users.values() for user_id in users])
                except Exception as error:  # noqa: BLE001 - as above
                    self._failed(error)
                    self._stale = True
                    await asyncio.sleep(RECONCILE_SECONDS)
        finally:
            self._reconciling = False

    async def _announce(self) -> None:
        """Enter all devices of this node again, as far as no newer one has their place."""
        assert self._hub is not None  # noqa: S101 - it is open
        router = self._hub.cluster
        assert router is not None  # noqa: S101 - it is the hub's link
        sent: list[AnnouncedDevice] = []

        def still_here() -> Iterator[AnnouncedDevice]:
            # Portions are taken just before they are sent: devices leave meanwhile.
            for user_id, device, privacy in router.own_devices():
                if router.has_entry(user_id, device.entry):
                    sent.append(AnnouncedDevice(user_id, device, privacy))
                    yield sent[-1]

        answers = await self._table.announce(still_here())
        for each, answer in zip(sent, answers, strict=True):
            self._tell_of(answer)
            if isinstance(answer, Entered):
                self._learn(answer.state)
            else:
                router.lost_place(each.user_id, each.device.entry)

    def _is_ours(self, user_id: str, entry: str) -> bool:
        if self._hub is None or self._hub.cluster is None:
            return True
        return entry in self._entering or self._hub.cluster.has_entry(user_id, entry)

    async def _move(self, new: str) -> None:
        while not self._closed:
            try:
                await self._bus.moved(new)
            except ClusterUnavailable as error:
                self._failed(error)
                if self.node != new:
                    return  # it has moved again
                await asyncio.sleep(RECONCILE_SECONDS)
            else:
                break
        self._tell(lambda router: router.unheard())  # answers that go to the old id
        self._mend()

    async def _read_anew(self, user_ids: Sequence[str]) -> None:
        try:
            await self._restore(user_ids)
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(error)
            self._mend()

    async def _restore(self, user_ids: Sequence[str]) -> None:
        await self._read(user_ids)
        released = await self.operator.released.read()
        self._tell(lambda router: router.restored(released))

    async def _read(self, user_ids: Sequence[str]) -> None:
        for first in range(0, len(user_ids), _READ_AT_ONCE):
            async for state in in_portions(await self._table.states(user_ids[first : first + _READ_AT_ONCE])):
                if state.user_id in self._users.get(bucket_of(state.user_id), ()):
                    self._learn(state)

    async def _remove(self, node_id: str) -> None:
        while not self._closed:  # as `NodeLease.close` says: a cancellation may be lost
            try:
                await self._table.reap(node_id, self._offline)
                first = await self._lease.forget(node_id)
            except ClusterUnavailable as error:
                self._failed(error)
                await asyncio.sleep(RECONCILE_SECONDS)
            else:
                if first and self._presence is not None:
                    self._presence.lost(node_id)
                return

    # --- who comes and goes -------------------------------------------------------------------------------------------

    def _tell_of(self, answer: Entered | EntryRefusal) -> None:
        if isinstance(answer, Entered) and answer.came and self._presence is not None:
            self._presence.changed(answer.state.user_id, True, answer.state.version)

    def _offline(self, user_id: str, version: int) -> None:
        if self._presence is not None:
            self._presence.changed(user_id, False, version)

    async def _tell_doubtful(self) -> None:
        """After an outage: tell of those that have left, although another node may have done so."""
        users = list(self._doubtful)
        for first in range(0, len(users), _READ_AT_ONCE):
            some = users[first : first + _READ_AT_ONCE]
            try:
                states = await self._table.states(some)
            except ClusterProtocolError as error:
                self._failed(error)  # of a user that cannot be read, also not the next time
                states = []
            for state in states:
                if not state.devices:
                    self._offline(state.user_id, state.version)
            self._doubtful.difference_update(some)

    # --- internal -----------------------------------------------------------------------------------------------------

    def _learn(self, state: UserState) -> None:
        self._tell(lambda router: router.learn(state))

    def _tell(self, say: Callable[[ClusterRouter], None]) -> None:
        """Tell the hub what other nodes have said."""
        router = None if self._hub is None else self._hub.cluster
        if router is not None:
            self._call(lambda _: say(router))

    def _call(self, bring: Callable[[Hub], None]) -> None:
        if self._hub is not None:
            try:
                bring(self._hub)
            except Exception as error:  # noqa: BLE001 - a bug: it is told, and ends nothing else
                self._fault(error)

    def _failed(self, error: Exception) -> None:
        self._fault(error)
        if isinstance(error, ClusterUnavailable):
            self._stale = self._stale or self._reconciling

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=f"aldis-cluster: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
