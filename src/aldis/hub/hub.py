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

from aldis.backends.base import DirectoryAnswer, FindBinding, Question
from aldis.hub import handover
from aldis.hub.bans import Ban, Bans
from aldis.hub.bindings import Bindings
from aldis.hub.costs import UNREADABLE_COST, cost_of
from aldis.hub.detached import DetachedSessions
from aldis.hub.dialects import Dialect
from aldis.hub.lifecycle import Lifecycle
from aldis.hub.limits import TokenBucket
from aldis.hub.lookups import PendingLookups
from aldis.hub.outcomes import DONE, PENDING, RequestOutcome, RequestRefused
from aldis.hub.outgoing import Outgoing
from aldis.hub.presence import Presence
from aldis.hub.registration import Registrar
from aldis.hub.router import LocalRouter, RouterFactory
from aldis.hub.sessions import Connection, Delivered, Receipt, RelayResult, Session
from aldis.hub.settings import HubSettings, IceSource, NoIceServers
from aldis.hub.stages import Stage
from aldis.hub.stats import HubStats
from aldis.hub.watchers import Watchers
from aldis.protocol import messages as m
from aldis.protocol.addresses import user_id_problem
from aldis.protocol.codec import UNREADABLE, is_object, is_object_or_null, to_base64
from aldis.protocol.codes import TEMPORARY, CloseCode, ErrorCode
from aldis.protocol.names import PROTOCOL

# A type checker cannot follow through a table that each handler takes the struct for which it is registered.
_Handler: TypeAlias = Callable[[Session, Any, float], RequestOutcome]
_Payload: TypeAlias = tuple[str, Callable[[Any], Any], Callable[[Any], bool]]

# Looked up once, because reaching a member of an enum costs more than the rest of a comparison.
_REGISTERED: Final = Stage.REGISTERED
_SENT: Final = RelayResult.SENT

# The relayed messages: a field of each, how to get its value, and whether that value fits. Decoding has checked the
# rest; a `to`, for example, is never empty.
_PAYLOADS: Final[dict[type[Struct], _Payload]] = {
    m.Offer: ("offer", attrgetter("offer"), is_object),
    m.Answer: ("answer", attrgetter("answer"), is_object),
    m.IceCandidate: ("candidate", attrgetter("candidate"), is_object_or_null),
    m.Bye: ("to", attrgetter("to"), bool),
    m.Relay: ("to", attrgetter("to"), bool),
}

# A bad frame has no type to count it by.
_UNREADABLE: Final = "unreadable"
_REGISTERING: Final = ("register", "prove")


class Hub:
    """The core of one server process.

    `ask` hands the hub's questions to the directory. For each question, call exactly one of `answered` and `failed`,
    later. Call `tick` about once a second.
    """

    def __init__(
        self,
        settings: HubSettings,
        *,
        ask: Callable[[Question], None],
        random: Callable[[int], bytes],
        wall: Callable[[], float],
        ice: IceSource | None = None,
        router: RouterFactory = LocalRouter,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.stats = HubStats()
        self.bans = bans = Bans()
        """Who may not use the server; add to it by `ban`, which also ends connections."""
        self._ice = ice or NoIceServers()
        self._random = random
        self._wall = wall
        self._outgoing = outgoing = Outgoing(self.stats)
        self._lookups = lookups = PendingLookups(settings, ask)
        self._presence = presence = Presence()
        self._watchers = watchers = Watchers(settings, outgoing, presence_of=presence.of, wake=wake)
        self.router = router(presence, watchers, outgoing, hold=self._hold)
        """The router: which connection has which address."""
        # Kept here because every message uses it.
        self._deliver = self.router.deliver
        self._relayed = self._after_relay
        self._lifecycle = lifecycle = Lifecycle(
            settings,
            outgoing=outgoing,
            lookups=lookups,
            presence=presence,
            watchers=watchers,
            router=self.router,
            stats=self.stats,
        )
        self._bindings = bindings = Bindings(
            settings,
            outgoing=outgoing,
            lookups=lookups,
            presence=presence,
            router=self.router,
            lifecycle=lifecycle,
        )
        registrar = Registrar(
            settings,
            outgoing=outgoing,
            lookups=lookups,
            presence=presence,
            router=self.router,
            lifecycle=lifecycle,
            bindings=bindings,
            bans=bans,
            stats=self.stats,
            random=random,
            wall=wall,
        )
        self._handlers: dict[type[Struct], _Handler] = {
            m.Register: registrar.register,
            m.Prove: registrar.prove,
            m.Rotate: bindings.rotate,
            m.Unregister: self._unregister,
            m.Discover: self._discover,
            m.Watch: self._watch,
            m.Unwatch: self._unwatch,
            m.IceServersRequest: self._ice_servers,
            m.Received: self._received,
            m.Ping: self._ping,
        }
        self._tags = {kind: str(kind.__struct_config__.tag) for kind in (*self._handlers, *_PAYLOADS)}
        self._tallies = {kind: self.stats.handled[tag] for kind, tag in self._tags.items()}

    # --- what the transport calls -----------------------------------------------------------------------------------

    def connected(self, connection: Connection, *, dialect: Dialect, host: str, now: float) -> Session:
        """A WebSocket connection has opened. `host` is what the client's registration proof has to name."""
        session = Session(connection, dialect, host, now)
        self._lifecycle.attach(session)
        self.stats.connections_now = self._lifecycle.connections
        return session

    def received(self, session: Session, text: str, now: float) -> bool:
        """A text message has come, valid UTF-8 and within the size limit. True when the hub has relayed it."""
        if session.connection is None:
            return False  # the hub has closed the connection; ignore frames that were on their way
        session.heard = now
        if session.waiting:
            self._lookups.hold_back(session, text)
            return False
        # Relaying ends a few lines below: the speed of this path decides how many clients a server can carry.
        try:
            message = session.dialect.decode(text)
        except UNREADABLE:
            self._unreadable(session, text, now)
            return False
        kind = type(message)
        if session.stage is _REGISTERED:
            payload = _PAYLOADS.get(kind)
            if payload is not None:
                return self._relay(session, message, kind, payload)  # type: ignore[arg-type]  # by its kind
        self._request(session, kind, message, now)
        return False

    def heard(self, session: Session, now: float) -> None:
        """A WebSocket ping or pong has come."""
        session.heard = now

    def writable(self, session: Session) -> None:
        """A full connection has sent most of its waiting bytes."""
        if session.connection is not None and not session.connection.full:
            session.shares = None
            self._watchers.tell_untold(session)

    def lost(self, session: Session, now: float, *, clean: bool) -> None:
        """The connection is gone. `clean`: the client closed it on purpose (1000, 1001), so it will not resume."""
        self._lifecycle.lost(session, now, clean=clean)
        self.stats.connections_now = self._lifecycle.connections

    def tick(self, now: float) -> None:
        """Time has passed: ping silent clients, close dead or late connections, end sessions that cannot resume."""
        self._bindings.tick()
        self._lifecycle.tick(now)

    def answered(self, question: Question, answer: DirectoryAnswer, now: float) -> None:
        """The directory has answered."""
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
            self._go_on(session, now)

    def failed(self, question: Question, now: float) -> None:
        """The directory could not answer."""
        asked = self._lookups.take(question)
        if asked is None:
            return
        session = asked.waiting
        if asked.failed is not None:
            asked.failed()
        if session is not None:
            session.waiting = False
            text = "the server cannot look up names now; try again in a moment"
            self._settle(session, asked.kind, asked.re, RequestRefused(ErrorCode.INTERNAL, text, retry_after=1.0))
        self._lookups.done(asked)
        if session is not None:
            self._go_on(session, now)

    def work(self) -> bool:
        """Do a part of what was put off. Returns whether there is more; then call again, in a later turn."""
        return self._watchers.tell_more()

    def release(self, user_id: str, then: Callable[[bool | None], None]) -> None:
        """End a binding for the operator, and all sessions of the name (4501).

        `then` is called with whether there was a binding, or with None when the directory cannot do it now.
        """
        self._bindings.release(user_id, then)

    def ban(self, ban: Ban) -> int:
        """Ban a user or a key, and end the sessions that it fits (4503). Return how many there were.

        A network is only noted: the transport knows addresses. Raises `UsageError` when there are too many bans.
        """
        self.bans.add(ban)
        ended: Iterable[Session] = ()
        if ban.kind == "user":
            ended = self._presence.devices(ban.value)
        elif ban.kind == "key":
            ended = (session for session in self._presence.sessions() if session.key == ban.value)
        return self._end_all(ended, CloseCode.BANNED, ban.text)

    def ban_of(self, address: str) -> Ban | None:
        """The ban of the network that an address is in, if there is one."""
        return self.bans.of_address(address, self._wall()) if self.bans else None

    def disconnect(self, user_id: str) -> int:
        """End all sessions of a user (4000): their clients may come back. Return how many there were."""
        return self._end_all(self._presence.devices(user_id), CloseCode.GOING_AWAY, "disconnected by the operator")

    def _end_all(self, sessions: Iterable[Session], code: CloseCode, reason: str) -> int:
        ended = list(sessions)
        with self._watchers.holding_back():
            for session in ended:
                self._lifecycle.end(session, code, reason)
        self.stats.connections_now = self._lifecycle.connections
        return len(ended)

    def save(self) -> handover.Handover:
        """The sessions that clients may resume at the next process of this server; `drain` them next."""
        self._watchers.tell_all()
        return handover.Handover(self._wall(), list(handover.save(self._lifecycle.sessions())))

    def restore(self, saved: handover.Handover, now: float) -> int:
        """Go on with the sessions of an earlier process, and return their number; none that are too old."""
        if not 0 <= self._wall() - saved.saved_at <= self.settings.resume_window:
            return 0
        for one in saved.sessions:
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
        """The number of questions that the directory has not answered yet."""
        return len(self._lookups)

    @property
    def detached(self) -> int:
        """How many sessions have lost their connection and may be resumed."""
        return len(self._lifecycle.detached)

    @property
    def watches_bytes(self) -> int:
        """What all watches cost, in bytes."""
        return self._watchers.bytes

    @property
    def detached_sessions(self) -> DetachedSessions:
        """The sessions that have lost their connection, and what is kept for them."""
        return self._lifecycle.detached

    @property
    def users_online(self) -> int:
        """The number of users with at least one device online (or within its resume window)."""
        return len(self._presence)

    def users(self, prefix: str, after: str, most: int) -> list[str]:
        """The users that are online whose names begin with `prefix`, in order, from the one behind `after` on."""
        found = (name for name in self._presence.users() if name.startswith(prefix) and name > after)
        return heapq.nsmallest(most, found)

    def sessions(self, user_id: str) -> list[Session]:
        """The sessions of a user, the newest first: to look at, not to change."""
        return self._presence.devices(user_id)

    def online(self, user_id: str) -> bool:
        """Whether a user is online."""
        return self.router.locate(user_id).online

    # --- one message ------------------------------------------------------------------------------------------------

    def _request(self, session: Session, kind: type[Struct], message: m.ClientMessage, now: float) -> None:
        """Handle or refuse a request to the server itself."""
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
        session.charged += cost_of(message)
        outcome = self._handlers[kind](session, message, now)
        # Answer a `prove` without an id with the id of its `register`.
        self._settle(session, tag, message.id, outcome)

    def _settle(self, session: Session, kind: str, re: m.RequestId | UnsetType, outcome: RequestOutcome) -> None:
        """Count the outcome of a request, and answer a refused one."""
        if outcome is DONE:
            self.stats.handled[kind].count += 1
        elif isinstance(outcome, RequestRefused):
            if kind in _REGISTERING and outcome.code in TEMPORARY:
                session.put_off = outcome
            self._outgoing.refuse(session, kind, outcome, re)
            if outcome.close is not None:
                self._lifecycle.end(session, *outcome.close)

    def _unreadable(self, session: Session, text: str, now: float) -> None:
        failure = session.dialect.why_not(text)
        session.charged += UNREADABLE_COST
        close = None
        if failure.code == ErrorCode.UNKNOWN_TYPE:
            # A newer client may send an unknown type, so it is never a reason to disconnect.
            if session.unknowns is None:
                session.unknowns = TokenBucket(self.settings.invalid_burst, self.settings.invalid_per_second, now)
            if not session.unknowns.spend(now):
                self.stats.refused[_UNREADABLE, ErrorCode.RATE_LIMITED] += 1  # without a reply for each
                return
        else:
            if session.faults is None:
                session.faults = TokenBucket(self.settings.invalid_burst, self.settings.invalid_per_second, now)
            if not session.faults.spend(now):
                close = (CloseCode.BAD_PROTOCOL, "too many invalid messages")
        self._settle(session, _UNREADABLE, failure.re, RequestRefused(failure.code, failure.text, close=close))

    def _go_on(self, session: Session, now: float) -> None:
        """Handle the frames that waited for an answer, until one of them has a question of its own."""
        while session.connection is not None and (text := self._lookups.next(session)) is not None:
            self.received(session, text, now)

    def _hold(self, session: Session, frame: bytearray, receipt: Receipt, done: Delivered) -> RelayResult:
        return self._lifecycle.hold(session, frame, receipt, done)

    # --- relaying ---------------------------------------------------------------------------------------------------

    def _relay(self, session: Session, message: m.Relayed, kind: type[Struct], payload: _Payload) -> bool:
        """Relay a message to its address; True when it went out."""
        re = message.id
        field, value_of, fits = payload
        if not fits(value_of(message)):
            text = f"missing or wrong: {field}"
            self._settle(session, self._tags[kind], re, RequestRefused(ErrorCode.MISSING_FIELDS, text))
            return False
        to = message.to
        message.from_ = session.address
        message.id = UNSET
        result = self._deliver(message, (session, kind, to, re), self._relayed)
        if result is _SENT:
            if re is not UNSET:
                self._outgoing.acknowledge(session, re)
            self._tallies[kind].count += 1
            return True
        if result is not RelayResult.PENDING:
            self._refuse_relay(session, kind, to, re, result)
        return False

    def _after_relay(self, receipt: Receipt, result: RelayResult) -> None:
        """A message that waited for its recipient has gone out, or the recipient has not come back."""
        session, kind, to, re = receipt
        if result is _SENT:
            self._outgoing.acknowledge(session, re)
            self._settle(session, self._tags[kind], re, DONE)
        else:
            self._refuse_relay(session, kind, to, re, result, late=True)

    def _refuse_relay(
        self,
        session: Session,
        kind: type[Struct],
        to: str,
        re: m.RequestId | UnsetType,
        result: RelayResult,
        *,
        late: bool = False,
    ) -> None:
        """Tell a sender that its message is not passed on. Without an id it is not told `late`, nor of its limit."""
        refused = _absent(to)
        if result is RelayResult.LIMITED:
            text = f"enough from you waits for {to}, whose connection is lost or slow"
            refused = RequestRefused(ErrorCode.RATE_LIMITED, text, retry_after=self.settings.share_pause)
        if re is UNSET and (late or result is RelayResult.LIMITED):
            self.stats.refused[self._tags[kind], refused.code] += 1
            return
        self._settle(session, self._tags[kind], re, refused)

    # --- other requests ---------------------------------------------------------------------------------------------

    def _unregister(self, session: Session, message: m.Unregister, now: float) -> RequestOutcome:
        self._lifecycle.unregister(session, now)
        self._outgoing.send(session, m.Unregistered(message.id))
        return DONE

    def _discover(self, session: Session, message: m.Discover, now: float) -> RequestOutcome:
        user_id = message.user_id
        problem = user_id_problem(user_id)
        if problem:
            return RequestRefused(ErrorCode.INVALID_FIELD, f"userId: {problem}")
        presence = self.router.locate(user_id)
        if presence.online or not session.dialect.proves:
            self._tell_found(session, presence, presence.public_key, message.id)
            return DONE

        def answered(answer: DirectoryAnswer, now: float) -> RequestOutcome:
            # The user may have come online meanwhile, perhaps with a newer key than the directory had.
            presence = self.router.locate(user_id)
            bound = to_base64(answer) if isinstance(answer, bytes) else UNSET
            self._tell_found(session, presence, presence.public_key if presence.online else bound, message.id)
            return DONE

        question = FindBinding(self._lookups.token(), user_id)
        self._lookups.ask(question, answered, session=session, kind="discover", re=message.id)
        return PENDING

    def _tell_found(
        self, session: Session, found: m.PresenceMessage, key: str | UnsetType, re: m.RequestId | UnsetType
    ) -> None:
        devices = [] if found.devices is UNSET else found.devices
        self._outgoing.send(session, m.DiscoverResponse(found.user_id, found.online, key, devices, re))

    def _watch(self, session: Session, message: m.Watch, now: float) -> RequestOutcome:
        user_ids = _names(message.user_ids)
        if isinstance(user_ids, RequestRefused):
            return user_ids
        refused = self._watchers.refusal(session, user_ids, self.settings)
        if refused is not None:
            return refused
        # The reply may be larger than what the client reads at once.
        if not self._watchers.watch(session, user_ids, message.id):
            reason = "too many watches before the presence of earlier ones"
            self._lifecycle.end(session, CloseCode.OVER_LIMITS, reason)
        return DONE

    def _unwatch(self, session: Session, message: m.Unwatch, now: float) -> RequestOutcome:
        user_ids = _names(message.user_ids)
        if isinstance(user_ids, RequestRefused):
            return user_ids
        self._watchers.unwatch(session, user_ids)
        self._outgoing.acknowledge(session, message.id)
        return DONE

    def _ice_servers(self, session: Session, message: m.IceServersRequest, now: float) -> RequestOutcome:
        servers, ttl = self._ice.servers(session.user_id, self._wall())
        self._outgoing.send(session, m.IceServers(servers, ttl, message.id))
        return DONE

    def _received(self, session: Session, message: m.Received, now: float) -> RequestOutcome:
        if session.replay is not None and not session.replay.confirm(message.count):
            text = f"count: only {session.replay.count} messages have been sent"
            return RequestRefused(ErrorCode.INVALID_FIELD, text)
        return DONE

    def _ping(self, session: Session, message: m.Ping, now: float) -> RequestOutcome:
        self._outgoing.send(session, m.Pong(message.id))
        return DONE


def _absent(address: str) -> RequestRefused:
    return RequestRefused(ErrorCode.NOT_ONLINE, f"User {address} is not online")


def _names(user_ids: list[str]) -> list[str] | RequestRefused:
    """The names of a message, without duplicates, in order."""
    problem: str | None = None
    if len(user_ids) > m.MAX_WATCHED_PER_MESSAGE:
        problem = f"at most {m.MAX_WATCHED_PER_MESSAGE} names in one message"
    else:
        problem = next(filter(None, map(user_id_problem, user_ids)), None)
    if problem is None:
        return list(dict.fromkeys(user_ids))
    return RequestRefused(ErrorCode.INVALID_FIELD, f"userIds: {problem}")
