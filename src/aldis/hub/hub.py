"""The hub: the server's core. It knows the connected clients and their names, and relays their messages.

The hub never waits: it has no socket, no event loop, no thread and no clock. Its callers pass time as an argument (in
monotonic seconds), randomness and wall time as functions, and the directory's answers as calls. So tests run a thousand
clients, a lost connection or an hour's time-out in milliseconds.

It does not know WebSocket frames (`server.websocket`), where keys are kept (`backends`), or what peers say to each
other: it passes their payloads on unread.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Final, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from aldis.backends.base import Claim, ClaimBinding
from aldis.backends.base import Question as DirectoryQuestion
from aldis.hub import handover
from aldis.hub.accounts import AccountChecks, AccountQuestion, AccountVerdict
from aldis.hub.bans import MAX_BANS, Ban, Bans
from aldis.hub.bindings import Bindings
from aldis.hub.cluster import ClusterLink
from aldis.hub.cluster_router import ClusterRouter
from aldis.hub.costs import cost_of
from aldis.hub.dialects import Dialect
from aldis.hub.entering import ClusterEntrance
from aldis.hub.failed_proofs import FailedProofs
from aldis.hub.faults import not_answered, unreadable
from aldis.hub.held_back import HeldBackFrames
from aldis.hub.later_turns import LaterTurns
from aldis.hub.lifecycle import Lifecycle
from aldis.hub.lookups import Answer, PendingLookups, Question
from aldis.hub.memory import MemoryBudget
from aldis.hub.outcomes import DONE, RequestOutcome, RequestRefused
from aldis.hub.outgoing import Outgoing
from aldis.hub.presence import Presence
from aldis.hub.privacy_policies import PrivacyPolicies
from aldis.hub.rates import Rates, utf8_size
from aldis.hub.registration import Registrar
from aldis.hub.relaying import Relaying, blocked
from aldis.hub.remote_users import RemoteUsers
from aldis.hub.requests import Requests
from aldis.hub.router import LocalRouter, Router
from aldis.hub.sessions import Connection, Delivered, Receipt, RelayResult, Session
from aldis.hub.settings import HubSettings, IceSource, NoIceServers
from aldis.hub.stages import Stage, StageEvent
from aldis.hub.stats import HubStats
from aldis.hub.surplus import Surplus
from aldis.hub.use import MemoryUse
from aldis.hub.watchers import Watchers
from aldis.protocol import messages as m
from aldis.protocol.addresses import split
from aldis.protocol.codec import UNREADABLE, is_object, is_object_or_null
from aldis.protocol.codes import TEMPORARY, CloseCode, ErrorCode
from aldis.protocol.names import PROTOCOL
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy

# A type checker cannot follow through a table that each handler takes the struct for which it is registered.
_Handler: TypeAlias = Callable[[Session, Any, float], RequestOutcome]
_Payload: TypeAlias = tuple[str, Callable[[Any], Any], Callable[[Any], bool]]

# Looked up once, because reaching a member of an enum costs more than the rest of a comparison.
_REGISTERED: Final = Stage.REGISTERED
_SENT: Final = RelayResult.SENT
_ON_ITS_WAY: Final = (RelayResult.SENT, RelayResult.PENDING)

# The relayed messages, without the sealed ones: a field of each, how to get its value, and whether that value fits.
# Decoding has checked the rest; a `to`, for example, is never empty.
_PAYLOADS: Final[dict[type[Struct], _Payload]] = {
    m.Offer: ("offer", attrgetter("offer"), is_object),
    m.Answer: ("answer", attrgetter("answer"), is_object),
    m.IceCandidate: ("candidate", attrgetter("candidate"), is_object_or_null),
    m.Bye: ("to", attrgetter("to"), bool),
}

# A bad frame has no type to count it by.
_UNREADABLE: Final = "unreadable"
_REGISTERING: Final = ("register", "prove")


class Hub:
    """The core of one server process.

    `ask` hands the hub's questions to the directory. For each question, call exactly one of `answered` and `failed`,
    later. Call `tick` about once a second, and `work` the given seconds after `wake`. `ask_account` hands out the
    questions that `account_checked` answers, if the operator has a say in registrations. `presence_changed` is told who
    comes online (True) and goes offline; it must not call the hub. `cluster`: how to reach the other nodes; then nobody
    calls `presence_changed`, as the node tells each change once in the cluster.
    """

    def __init__(
        self,
        settings: HubSettings,
        *,
        ask: Callable[[DirectoryQuestion], None],
        random: Callable[[int], bytes],
        wall: Callable[[], float],
        ice: IceSource | None = None,
        wake: Callable[[float], None] = lambda seconds: None,
        ask_account: Callable[[AccountQuestion], None] | None = None,
        presence_changed: Callable[[str, bool], None] | None = None,
        cluster: ClusterLink | None = None,
    ) -> None:
        self.settings = settings
        self.stats = HubStats()
        self.bans = bans = Bans()
        """Who may not use the server; add to it by `ban`, which also ends connections."""
        self._random = random
        self._wall = wall
        self._wake = wake
        use = MemoryUse()
        self._outgoing = outgoing = Outgoing(self.stats, use)
        self._lookups = lookups = PendingLookups(
            settings, ask, use, ask_cluster=None if cluster is None else cluster.ask
        )
        self._accounts = accounts = AccountChecks(ask_account)
        remote = None if cluster is None else RemoteUsers(self._is_needed)
        self._presence = presence = Presence(presence_changed if cluster is None else None, remote=remote)
        self._watchers = watchers = Watchers(
            settings, outgoing, presence=presence, wake=wake, admitted=lambda *what: served.admitted(*what)
        )
        self._policies = policies = PrivacyPolicies(
            settings,
            outgoing=outgoing,
            lookups=lookups,
            presence=presence,
            watchers=watchers,
            changed=lambda user_id, privacy: self.router.privacy_changed(user_id, privacy),
        )
        local = LocalRouter(presence, watchers, outgoing, hold=self._hold, hold_sealed=self._hold_sealed)
        self.router: Router = local
        """The router: which connection has which address."""
        self.cluster: ClusterRouter | None = None
        """The router of a node; the other nodes are heard by it."""
        if cluster is not None and remote is not None:
            self.router = self.cluster = ClusterRouter(
                local,
                cluster,
                remote,
                presence=presence,
                watchers=watchers,
                policies=policies,
                lookups=lookups,
                resume_window=settings.resume_window,
                wake=wake,
                replaced=self._replaced,
                hurry=lambda session: self._lifecycle.hurry(session),
                rebound=lambda user_id, released: self._bindings.doubt(user_id, released=released),
                moved=lambda user_id: self._rates.moved(user_id),
            )
        # Kept here because every message uses it.
        self._deliver = self.router.deliver
        usage = None if self.cluster is None else self.cluster.usage
        nodes_of = (lambda user_id: 1) if remote is None else remote.nodes_of
        self._rates = rates = Rates(settings, usage, nodes_of)
        self._relaying = relaying = Relaying(
            settings, outgoing=outgoing, router=self.router, rates=rates, stats=self.stats, settle=self._settle
        )
        self._relayed = relaying.after
        self._unit_bytes = rates.unit_bytes
        self._lifecycle = lifecycle = Lifecycle(
            settings,
            outgoing=outgoing,
            lookups=lookups,
            presence=presence,
            watchers=watchers,
            policies=policies,
            router=self.router,
            rates=rates,
            use=use,
            stats=self.stats,
        )
        self.detached_sessions = detached = lifecycle.detached
        """The sessions that have lost their connection, and what is kept for them."""
        self.presence_windows = watchers.windows
        """The names whose presence has changed lately."""
        self.memory = memory = MemoryBudget(
            settings,
            use,
            elsewhere={
                "watches": lambda: watchers.watches.bytes,
                "privacy": lambda: policies.bytes,
                "detached": lambda: detached.bytes,
                "elsewhere": lambda: 0 if self.cluster is None else self.cluster.bytes,
            },
        )
        """What is kept for all clients."""
        self._failed_proofs = failed_proofs = FailedProofs(settings, self.stats, usage)
        self._bindings = bindings = Bindings(
            outgoing=outgoing,
            lookups=lookups,
            presence=presence,
            router=self.router,
            lifecycle=lifecycle,
            failed_proofs=failed_proofs,
            verified=None if self.cluster is None else self.cluster.verified.bound,
        )
        self._registrar = registrar = Registrar(
            settings,
            outgoing=outgoing,
            lookups=lookups,
            presence=presence,
            router=self.router,
            lifecycle=lifecycle,
            bindings=bindings,
            failed_proofs=failed_proofs,
            bans=bans,
            accounts=accounts,
            policies=policies,
            memory=memory,
            stats=self.stats,
            random=random,
            wall=wall,
            cluster=None if self.cluster is None else ClusterEntrance(settings, self.cluster, lookups),
            usage=usage,
        )
        self._held_back = held_back = HeldBackFrames(lookups, self.received, wake)
        self._surplus = Surplus(settings, memory, lifecycle=lifecycle, stats=self.stats)
        parts = (*watchers.parts, *lifecycle.parts, self.router.work, self._surplus.work)
        self._later = LaterTurns(lambda: held_back.work(watchers.now), *parts)
        served = Requests(
            settings,
            outgoing=outgoing,
            lookups=lookups,
            router=self.router,
            lifecycle=lifecycle,
            watchers=watchers,
            memory=memory,
            held_back=held_back,
            ice=ice or NoIceServers(),
            wall=wall,
            learn=lambda state: None if self.cluster is None else self.cluster.learn(state),
            settle=self._settle,
        )
        self._handlers: dict[type[Struct], _Handler] = {
            m.Register: registrar.register,
            m.Prove: registrar.prove,
            m.Rotate: bindings.rotate,
            m.Unregister: self._unregister,
            m.Discover: served.discover,
            m.Watch: served.watch,
            m.Unwatch: served.unwatch,
            m.IceServersRequest: served.ice_servers,
            m.PrivacyRequest: policies.request,
            m.SealKeyRequest: registrar.change_seal_key,
            m.Received: served.received,
            m.Ping: served.ping,
        }
        kinds: tuple[type[Struct], ...] = (*self._handlers, *_PAYLOADS, m.Relay)
        self._tags = {kind: str(kind.__struct_config__.tag) for kind in kinds}
        handled = self.stats.handled
        self._relays = {kind: (*payload, handled[self._tags[kind]]) for kind, payload in _PAYLOADS.items()}

    # --- what the transport calls -----------------------------------------------------------------------------------

    def connected(self, connection: Connection, *, dialect: Dialect, host: str, now: float) -> Session:
        """A WebSocket connection has opened. `host` is what the client's registration proof has to name."""
        session = Session(connection, dialect, host, now)
        self._lifecycle.attach(session)
        self.stats.connections_now = self._lifecycle.connections
        return session

    def received(self, session: Session, text: str, now: float, size: int | None = None) -> bool:
        """A text message has come, valid UTF-8 and within the size limit. True when the hub has relayed it.

        `size`: its bytes, where the caller knows them.
        """
        if session.connection is None:
            return False  # the hub has closed the connection; ignore frames that were on their way
        session.heard = now
        if session.waiting:
            self._lookups.hold_back(session, text)
            return False
        # Relaying ends a few lines below: the speed of this path decides how many clients a server can carry. A
        # function in an attribute is taken out before its call, because Python 3.11 would first look for a method.
        decode = session.dialect.decode
        try:
            message = decode(text)
        except UNREADABLE:
            self._unreadable(session, text, now)
            return False
        kind = type(message)
        if session.stage is _REGISTERED:
            relay = self._relays.get(kind)
            if relay is not None:
                left = session.credit - (utf8_size(text) if size is None else size) - self._unit_bytes
                if left >= 0:
                    session.credit = left
                elif (limited := self._rates.relay(session, text, message, now)) is not None:
                    self._settle(session, self._tags[kind], message.id, limited)
                    return False
                # Not in a method of its own, which would cost a hundredth of relaying.
                relayed: m.Relayed = message  # type: ignore[assignment]  # by its kind
                re, to, privacy = relayed.id, relayed.to, session.privacy
                field, value_of, fits, tally = relay
                if not fits(value_of(relayed)):
                    text = f"missing or wrong: {field}"
                    self._settle(session, self._tags[kind], re, RequestRefused(ErrorCode.MISSING_FIELDS, text))
                    return False
                if privacy is not None and privacy.blocks(split(to)[0]):
                    self._settle(session, self._tags[kind], re, blocked(to))
                    return False
                relayed.from_ = session.address
                relayed.id = UNSET
                deliver = self._deliver
                result = deliver(relayed, (session, kind, to, re), self._relayed)
                if privacy is not None and kind is not m.Bye and result in _ON_ITS_WAY:
                    privacy.called(split(to)[0], now)
                if result is _SENT:
                    if re is not UNSET:
                        self._outgoing.acknowledge(session, re)
                    tally.count += 1
                    return True
                if result is not RelayResult.PENDING:
                    self._relaying.refuse(session, kind, to, re, result)
                return False
            if kind is m.Relay:
                return self._relaying.relay_sealed(session, message, text, now)  # type: ignore[arg-type]  # by its kind
        self._request(session, kind, message, now, text)
        return False

    def heard(self, session: Session, now: float, *, pong: bytes = b"") -> None:
        """A WebSocket ping or pong has come. `pong`: the payload of a pong, if all that came before is handled."""
        session.controlled(now, pong)

    def writable(self, session: Session) -> None:
        """A full connection has sent most of its waiting bytes."""
        if session.connection is not None and not session.connection.full:
            session.shares = None
            if session.privacy_untold:
                self._policies.tell_change(session)
            self._watchers.tell_untold(session)

    def lost(self, session: Session, now: float, *, clean: bool) -> None:
        """The connection is gone. `clean`: the client closed it on purpose (1000, 1001), so it will not resume."""
        self._watchers.now = now
        self._lifecycle.lost(session, now, clean=clean)
        self.stats.connections_now = self._lifecycle.connections

    def tick(self, now: float) -> None:
        """Time has passed: ping silent clients, close dead or late connections, end sessions that cannot resume."""
        self._watchers.now = now
        self._bindings.tick()
        self._rates.tick(now)
        searches = self._surplus.tick()
        if self._lifecycle.tick(now) or searches:
            self._wake(0.0)
        self.router.tick(now)

    def answered(self, question: Question, answer: Answer, now: float) -> None:
        """The directory, or the cluster, has answered."""
        self._watchers.now = now
        asked = self._lookups.take(question)
        if asked is None:
            return
        session = asked.waiting
        if session is not None:
            session.waiting = False
        try:
            if session is not None or asked.always:
                outcome = asked.then(answer, now)
                if outcome is not None and asked.session is not None:
                    self._settle(asked.session, asked.kind, asked.re, outcome)
        finally:
            self._lookups.done(asked)
        if session is not None:
            self._held_back.answered(session, now)

    def recall(self, question: Question) -> Claim | None:
        """What a node of a cluster answers a question itself while the directory is away; None: nothing."""
        if self.cluster is None or not isinstance(question, ClaimBinding):
            return None
        return self.cluster.verified.recall(question.user_id, question.public_key)

    def failed(self, question: Question, now: float) -> None:
        """The directory, or the cluster, could not answer."""
        self._watchers.now = now
        asked = self._lookups.take(question)
        if asked is None:
            return
        session = asked.waiting
        if asked.failed is not None:
            asked.failed()
        if session is not None:
            session.waiting = False
            self._settle(session, asked.kind, asked.re, not_answered(question))
        self._lookups.done(asked)
        if session is not None:
            self._held_back.answered(session, now)

    def account_checked(self, question: AccountQuestion, verdict: AccountVerdict, now: float) -> None:
        """The operator's side has decided on a registration."""
        self._watchers.now = now
        asked = self._accounts.take(question)
        if asked is None:
            return
        session = asked.session
        session.waiting = False
        self._settle(session, asked.kind, asked.re, asked.then(verdict, now))
        self._held_back.answered(session, now)

    def work(self, now: float) -> float | None:
        """Do a part of what was put off. Returns after how many seconds to call again, in a later turn; None: not."""
        self._watchers.now = now
        return 0.0 if self._later.next() else self._watchers.due()

    def configure(self, settings: HubSettings) -> None:
        """Use other settings from now on.

        `auth`, `max_message_bytes`, `max_watches` and `resume_window` have to stay: clients have been told of them.
        """
        self.settings.take_over(settings)
        for part in (self._registrar, self._rates, self._failed_proofs):
            part.configure()
        self._unit_bytes = self._rates.unit_bytes

    def release(self, user_id: str, then: Callable[[bool | None], None]) -> None:
        """End a binding for the operator, and all sessions of the name (4501).

        `then` is called with whether there was a binding, or with None when the directory cannot do it now.
        """
        self._bindings.release(user_id, then)

    def ban(self, ban: Ban, now: float) -> int:
        """Ban a user or a key, and end the sessions that it fits (4503). Return how many there were.

        A network is only noted: the transport knows addresses. Raises `UsageError` when there are too many bans.
        """
        if len(self.bans) >= MAX_BANS:
            self.known_bans()
        self.bans.add(ban)
        ended: Iterable[Session] = ()
        if ban.kind == "user":
            ended = self._lifecycle.sessions_with(user_id=ban.value)
        elif ban.kind == "key":
            ended = self._lifecycle.sessions_with(key=ban.value)
        return self._end_all(ended, now, CloseCode.BANNED, ban.text)

    def known_bans(self) -> list[Ban]:
        """Forget the bans that are over, and return the others."""
        self.bans.expire(self._wall())
        return list(self.bans)

    def ban_of(self, address: str) -> Ban | None:
        """The ban of the network that an address is in, if there is one."""
        return self.bans.of_address(address, self._wall()) if self.bans else None

    def disconnect(self, user_id: str, now: float) -> int:
        """End all sessions of a user (4000): their clients may come back. Return how many there were."""
        devices = self._presence.devices(user_id)
        return self._end_all(devices, now, CloseCode.GOING_AWAY, "disconnected by the operator")

    def expel(self, user_id: str, reason: str, now: float) -> int:
        """End all sessions of a user that may not register any more (4501). Return how many there were."""
        return self._end_all(self._lifecycle.sessions_with(user_id=user_id), now, CloseCode.UNAUTHORIZED, reason)

    def _end_all(self, sessions: Iterable[Session], now: float, code: CloseCode, reason: str) -> int:
        self._watchers.now = now
        ended = list(sessions)
        with self._watchers.holding_back():
            for session in ended:
                self._lifecycle.end(session, code, reason)
        self.stats.connections_now = self._lifecycle.connections
        return len(ended)

    def save(self) -> handover.Handover:
        """The sessions that clients may resume at the next process of this server; `drain` them next."""
        while self._watchers.watches.enter_some():
            pass
        self._watchers.tell_all()
        saved = handover.save(self._lifecycle.sessions(), self._presence)
        return handover.Handover(self._wall(), saved, handover.save_privacies(saved, self._presence.privacies))

    def restore(self, saved: handover.Handover, now: float) -> int:
        """Go on with the sessions of an earlier process, and return their number; none that are too old."""
        if not 0 <= self._wall() - saved.saved_at <= self.settings.resume_window:
            return 0
        with self._watchers.holding_back():  # until all watchers are there, too
            for one in saved.sessions:
                # For each session: an earlier one may have ended for want of room, and its user's privacy with it.
                self._policies.load(one.user_id, saved.privacies.get(one.user_id, DEFAULT_PRIVACY))
                self._lifecycle.restore(handover.restore(one, self.settings, now), one.watches, now)
        return len(saved.sessions)

    def drain(self, now: float, *, handed_over: bool = False) -> None:
        """The server is about to stop: close all connections. Each client is told another moment to come back.

        `handed_over`: what `save` returned is where the next process finds it.
        """
        self._lifecycle.drain(self._random, handed_over=handed_over)

    # --- queries ----------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """The number of questions that have no answer yet."""
        return len(self._lookups) + len(self._accounts)

    def privacy(self, user_id: str) -> Privacy:
        """Who may see a user that is online, and who may call; the default for others."""
        return self._policies.of(user_id)

    @property
    def users_online(self) -> int:
        """The number of users with at least one device online (or within its resume window)."""
        return len(self._presence)

    def shared_users(self) -> dict[tuple[str, ...], int]:
        """How many of the users online here are online at other nodes, too, by those nodes in order."""
        return {} if self.cluster is None else self.cluster.known.shared(self._presence.users())

    def users(self, prefix: str, after: str, most: int) -> list[str]:
        """The users that are online whose names begin with `prefix`, in order, from the one behind `after` on."""
        found = (name for name in self._presence.users() if name.startswith(prefix) and name > after)
        return heapq.nsmallest(most, found)

    def sessions(self, user_id: str) -> list[Session]:
        """The sessions of a user, the newest first: to look at, not to change."""
        return self._presence.devices(user_id)

    def online(self, user_id: str) -> bool:
        """Whether a user is online."""
        return self._presence.newest(user_id) is not None

    # --- one message ------------------------------------------------------------------------------------------------

    def _request(self, session: Session, kind: type[Struct], message: m.ClientMessage, now: float, text: str) -> None:
        """Handle or refuse a request to the server itself, which came in this text."""
        self._watchers.now = now
        re, tag = message.id, self._tags[kind]
        if session.stage is not _REGISTERED:
            if not session.dialect.admits(kind):
                # A client that does not wait for the reply to its registration must not take its refusal as final.
                refused = session.put_off or RequestRefused(
                    ErrorCode.NOT_REGISTERED, "Not registered: send register first"
                )
                self._settle(session, tag, re, refused)
                return
            if not session.dialect.proves and self.settings.auth != "open":
                text = f"This server wants proof of every name: connect with the sub-protocol {PROTOCOL}"
                close = (CloseCode.UNAUTHORIZED, f"the sub-protocol {PROTOCOL} is required")
                refused = RequestRefused(ErrorCode.UNAUTHORIZED, text, close=close)
                self._settle(session, _UNREADABLE, re, refused)
                return
        cost = cost_of(message)
        session.charged += cost
        outcome: RequestOutcome | None = self._rates.request(session, text, message, cost, now)
        if outcome is None:
            outcome = self._handlers[kind](session, message, now)
        # Answer a `prove` without an id with the id of its `register`.
        self._settle(session, tag, message.id, outcome)

    def _settle(self, session: Session, kind: str, re: m.RequestId | UnsetType, outcome: RequestOutcome) -> None:
        """Count the outcome of a request, and answer a refused one."""
        if outcome is DONE:
            self.stats.handled[kind].count += 1
        elif isinstance(outcome, RequestRefused):
            if outcome.limit:
                self.stats.limited[outcome.limit] += 1
            if kind in _REGISTERING and outcome.code in TEMPORARY:
                session.put_off = outcome
            if outcome.silent:
                self.stats.refused[kind, outcome.code] += 1
            else:
                self._outgoing.refuse(session, kind, outcome, re)
            if outcome.close is not None:
                self._lifecycle.end(session, *outcome.close)

    def _unreadable(self, session: Session, text: str, now: float) -> None:
        self._watchers.now = now
        self._settle(session, _UNREADABLE, *unreadable(session, text, self.settings, now))

    def _hold(self, session: Session, frame: bytearray, receipt: Receipt, done: Delivered) -> RelayResult:
        self._watchers.now = receipt[0].heard  # now; set here, and not for each message
        return self._lifecycle.hold(session, frame, receipt, done)

    def _hold_sealed(self, session: Session, frame: bytearray, receipt: Receipt, done: Delivered) -> RelayResult:
        self._watchers.now = receipt[0].heard
        return self._lifecycle.hold_sealed(session, frame, receipt, done)

    # --- other requests ---------------------------------------------------------------------------------------------

    def _unregister(self, session: Session, message: m.Unregister, now: float) -> RequestOutcome:
        with self._watchers.charging(session):
            self._lifecycle.unregister(session, now)
        self._outgoing.send(session, m.Unregistered(message.id))
        return DONE

    def _is_needed(self, user_id: str) -> bool:
        return self._presence.newest(user_id) is not None or user_id in self._watchers.watches.table

    def _replaced(self, session: Session) -> None:
        """Another node has the address of a session."""
        reason = "replaced by a newer connection of the same address"
        self._lifecycle.end(session, CloseCode.REPLACED, reason, event=StageEvent.TAKEN_OVER)
