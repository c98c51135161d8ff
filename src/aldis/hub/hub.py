"""The hub: the server's core, which knows who is connected, who they are, and what may pass between them.

It is called and never waits: it has no socket, no event loop, no thread and no clock. Time comes as an argument
(monotonic seconds), randomness and wall time as functions, the directory's answers as calls. That is why a thousand
clients, a lost connection and an hour's time-out are tested in milliseconds.

What it does not know: WebSocket frames (`server.websocket`), where keys are kept (`backends`), what peers say to each
other (their payloads pass unread).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from aldis.backends.base import DirectoryAnswer, FindBinding, Question
from aldis.hub.dialects import Dialect
from aldis.hub.limits import TokenBucket
from aldis.hub.lookups import PendingLookups
from aldis.hub.outgoing import Outgoing
from aldis.hub.presence import Presence
from aldis.hub.registration import Registrar, devices_of
from aldis.hub.sessions import Connection, Session, Stage
from aldis.hub.settings import HubSettings, IceSource, NoIceServers
from aldis.hub.stats import HubStats
from aldis.hub.timers import TimerQueue
from aldis.protocol import messages as m
from aldis.protocol.addresses import user_id_problem
from aldis.protocol.codec import (
    UNREADABLE,
    DecodeFailed,
    is_object,
    is_object_or_null,
    to_base64,
)
from aldis.protocol.codes import CloseCode, ErrorCode
from aldis.protocol.names import PROTOCOL

# Each handler takes the struct that it is registered for, which a type checker cannot follow through a table.
_Handler: TypeAlias = Callable[[Session, Any, float], None]
_Relay: TypeAlias = Callable[[Session, Any], bool]

# Looked up once: an enum's member costs more to reach than all the rest of a comparison.
_REGISTERED: Final = Stage.REGISTERED

# Decoding says which type a bad frame meant only in words; for counting they are one kind.
_UNREADABLE: Final = "unreadable"


class Hub:
    """The core of one server process.

    `ask` takes the hub's questions to the directory. For each of them exactly one of `answered` and `failed` must be
    called, later. A caller calls `tick` about once a second.
    """

    def __init__(
        self,
        settings: HubSettings,
        *,
        ask: Callable[[Question], None],
        ice: IceSource | None = None,
        random: Callable[[int], bytes] = os.urandom,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.stats = HubStats()
        self._ice = ice or NoIceServers()
        self._random = random
        self._wall = wall
        self._outgoing = Outgoing(self.stats)
        self._lookups = PendingLookups(settings, ask)
        self._presence = Presence()
        self._newest = self._presence.newest
        self._registrar = Registrar(
            settings,
            outgoing=self._outgoing,
            lookups=self._lookups,
            presence=self._presence,
            stats=self.stats,
            random=random,
            wall=wall,
        )
        self._timers: TimerQueue[Session] = TimerQueue()
        self._attached: set[Session] = set()
        self._draining = False
        self._handlers: dict[type[Struct], _Handler] = {
            m.Register: self._registrar.register,
            m.Prove: self._registrar.prove,
            m.Rotate: self._registrar.rotate,
            m.Unregister: self._registrar.unregister,
            m.Discover: self._discover,
            m.Watch: self._watch,
            m.Unwatch: self._unwatch,
            m.IceServersRequest: self._ice_servers,
            m.Received: self._received,
            m.Ping: self._ping,
        }
        self._relays: dict[type[Struct], _Relay] = {
            m.Offer: self._offer,
            m.Answer: self._answer,
            m.IceCandidate: self._candidate,
            m.Bye: self._relay,
            m.Relay: self._relay,
        }
        self._tags = {kind: str(kind.__struct_config__.tag) for kind in (*self._handlers, *self._relays)}
        self._tallies = {kind: self.stats.handled[tag] for kind, tag in self._tags.items()}

    # --- what the transport calls -----------------------------------------------------------------------------------

    def connected(self, connection: Connection, *, dialect: Dialect, host: str, now: float) -> Session:
        """A WebSocket connection has opened. `host` is what the client's registration proof has to name."""
        session = Session(connection, dialect, host, now)
        self._attached.add(session)
        self.stats.connections_now = len(self._attached)
        if self._draining:
            self._registrar.end(session, CloseCode.GOING_AWAY, "this server is going away")
        else:
            self._timers.put(session, self._look_again(session))
        return session

    def received(self, session: Session, text: str, now: float) -> bool:
        """A text message has come, valid UTF-8 and within the size limit. True when it was relayed to somebody."""
        if session.connection is None:
            return False  # the hub has hung up; what was still on its way is void
        session.heard = now
        if session.waiting:
            return self._hold_back(session, text)
        # Relaying ends here, a few lines on: this is the path that decides what a server can carry.
        try:
            message = session.dialect.decode(text)
        except UNREADABLE:
            return self._unreadable(session, session.dialect.why_not(text), now)
        kind = type(message)
        if session.stage is _REGISTERED:
            relay = self._relays.get(kind)
            if relay is not None:
                return relay(session, message)
        return self._request(session, kind, message, now)

    def heard(self, session: Session, now: float) -> None:
        """Something else than a message has come: a ping or a pong."""
        session.heard = now

    def writable(self, session: Session) -> None:
        """The connection, which was full, has sent most of what waited."""
        if session.connection is not None:
            self._registrar.tell_untold(session)

    def lost(self, session: Session, now: float, *, clean: bool) -> None:
        """The transport is gone. `clean`: the client closed it on purpose (1000, 1001), so it will not resume."""
        self._attached.discard(session)
        self.stats.connections_now = len(self._attached)
        if session.connection is None:
            return
        session.connection = None
        if self._resumable(session) and not clean:
            self._detach(session, now)
        else:
            self._registrar.end(session, CloseCode.NORMAL, "")

    def tick(self, now: float) -> None:
        """Time has passed: ping the silent, close the dead and the late, end what cannot be resumed any more."""
        self._registrar.look_up_doubtful()
        due = self._timers.due(now)
        due.reverse()
        try:
            # Sessions whose connections were lost together end together, and watch each other perhaps.
            with self._registrar.holding_back():
                while due:
                    self._look(due.pop(), now)
        finally:
            # A fault in one must not leave the others without a time-out.
            for session in due:
                self._timers.put(session, now)

    def answered(self, question: Question, answer: DirectoryAnswer, now: float) -> None:
        """The directory has answered."""
        asked = self._lookups.take(question)
        if asked is not None:
            session = asked.waiting
            if session is not None:
                session.waiting = False
            try:
                if session is not None or asked.always:
                    asked.then(answer, now)
            finally:
                self._lookups.done(asked)
            if session is not None:
                self._go_on(session, now)

    def failed(self, question: Question, now: float) -> None:
        """The directory could not answer."""
        asked = self._lookups.take(question)
        if asked is not None:
            session = asked.waiting
            if session is not None:
                session.waiting = False
                self._registrar.not_admitted(session)
                text = "the server cannot look up names now; try again in a moment"
                self._outgoing.refuse(session, asked.kind, ErrorCode.INTERNAL, text, asked.re, retry_after=1.0)
            if asked.failed is not None:
                asked.failed()
            self._lookups.done(asked)
            if session is not None:
                self._go_on(session, now)

    def release(self, user_id: str, then: Callable[[bool | None], None]) -> None:
        """End the binding of a name by the operator's word: whoever is registered with it ends (4501).

        `then` is called with whether there was a binding, or with None when the directory could not do it now.
        """
        self._registrar.release(user_id, then)

    def drain(self, now: float) -> None:
        """The server is about to stop: send everybody away, each to come back at a moment of its own."""
        self._draining = True
        # Nobody comes back to a detached session now. Only watchers with a connection are left to be told.
        with self._registrar.holding_back():
            for session in list(self._presence.sessions()):
                if session.stage is Stage.DETACHED:
                    self._registrar.end(session, CloseCode.GOING_AWAY, "")
        for session in list(self._attached):
            if m.GoingAway not in session.dialect.unsaid:
                share = int.from_bytes(self._random(2), "big") / 0xFFFF
                self._outgoing.send(session, m.GoingAway(round(share * self.settings.drain_spread, 3)))
            self._registrar.send_away(session, CloseCode.GOING_AWAY, "this server is going away")

    # --- what others may ask ----------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """How many questions the directory has not answered yet."""
        return len(self._lookups)

    @property
    def users_online(self) -> int:
        """How many users have at least one device online (or within its resume window)."""
        return len(self._presence)

    def online(self, user_id: str) -> bool:
        """Tell whether a user is online."""
        return self._presence.find(user_id) is not None

    # --- one message ------------------------------------------------------------------------------------------------

    def _request(self, session: Session, kind: type[Struct], message: m.ClientMessage, now: float) -> bool:
        """Do what a client asks of the server itself; False, as for all that is not relayed."""
        if session.stage is not _REGISTERED and not self._admitted(session, kind, message):
            return False
        refused = self._outgoing.refused
        self._handlers[kind](session, message, now)
        if self._outgoing.refused == refused:
            self._tallies[kind].count += 1
        return False

    def _hold_back(self, session: Session, text: str) -> bool:
        if not self._lookups.hold_back(session, text):
            self._registrar.end(session, CloseCode.OVER_LIMITS, "too many messages before the reply to an earlier one")
        return False

    def _admitted(self, session: Session, kind: type[Struct], message: m.ClientMessage) -> bool:
        if session.dialect.admits(kind):
            if session.dialect.proves or self.settings.auth == "open":
                return True
            text = f"This server wants proof of every name: connect with the sub-protocol {PROTOCOL}"
            self._outgoing.refuse(session, _UNREADABLE, ErrorCode.UNAUTHORIZED, text)
            self._registrar.end(session, CloseCode.UNAUTHORIZED, f"the sub-protocol {PROTOCOL} is required")
            return False
        tag = self._tags[kind]
        self._outgoing.refuse(session, tag, ErrorCode.NOT_REGISTERED, "Not registered: send register first", message.id)
        return False

    def _unreadable(self, session: Session, failure: DecodeFailed, now: float) -> bool:
        self._outgoing.refuse(session, _UNREADABLE, failure.code, failure.text, failure.re)
        if failure.code == ErrorCode.UNKNOWN_TYPE:
            return False  # perhaps a newer client: never a reason to disconnect
        if session.faults is None:
            session.faults = TokenBucket(self.settings.invalid_burst, self.settings.invalid_per_second, now)
        if not session.faults.spend(now):
            self._registrar.end(session, CloseCode.BAD_PROTOCOL, "too many invalid messages")
        return False

    def _go_on(self, session: Session, now: float) -> None:
        """Handle the frames that waited for an answer, until one of them needs another."""
        while session.connection is not None and (text := self._lookups.next(session)) is not None:
            self.received(session, text, now)

    # --- relaying ---------------------------------------------------------------------------------------------------

    def _offer(self, session: Session, message: m.Offer) -> bool:
        return self._relay(session, message) if is_object(message.offer) else self._empty(session, message, "offer")

    def _answer(self, session: Session, message: m.Answer) -> bool:
        return self._relay(session, message) if is_object(message.answer) else self._empty(session, message, "answer")

    def _candidate(self, session: Session, message: m.IceCandidate) -> bool:
        fits = is_object_or_null(message.candidate)
        return self._relay(session, message) if fits else self._empty(session, message, "candidate")

    def _empty(self, session: Session, message: m.Relayed, field: str) -> bool:
        kind = self._tags[type(message)]
        self._outgoing.refuse(session, kind, ErrorCode.MISSING_FIELDS, f"missing or wrong: {field}", message.id)
        return False

    def _relay(self, session: Session, message: m.Relayed) -> bool:
        """Pass a message on; True when it went out."""
        to = message.to
        target = self._newest(to) or self._presence.find(to)
        re = message.id
        if target is not None:
            message.from_ = session.address
            message.id = UNSET
            if target.connection is not None:
                self._outgoing.send_numbered(target, message)
                if re is not UNSET:
                    self._outgoing.acknowledge(session, re)
                self._tallies[type(message)].count += 1
                return True
            if self._keep(target, message, session, re):
                self._tallies[type(message)].count += 1
                return False
        kind = self._tags[type(message)]
        self._outgoing.refuse(session, kind, ErrorCode.NOT_ONLINE, f"User {message.to} is not online", re)
        return False

    def _keep(self, target: Session, message: m.Relayed, sender: Session, re: m.RequestId | UnsetType) -> bool:
        """Keep a message for a detached session; its `ack` follows when the session is resumed, or an error."""
        if not self._outgoing.send_numbered(target, message):
            self._registrar.end(target, CloseCode.SESSION_LOST, "too much was missed")
            return False
        if re is not UNSET:
            if target.unacknowledged is None:
                target.unacknowledged = []
            target.unacknowledged.append((sender, re))
        return True

    # --- other requests ---------------------------------------------------------------------------------------------

    def _discover(self, session: Session, message: m.Discover, now: float) -> None:
        user_id = message.user_id
        problem = user_id_problem(user_id)
        if problem:
            self._outgoing.refuse(session, "discover", ErrorCode.INVALID_FIELD, f"userId: {problem}", message.id)
            return
        sessions = self._presence.devices(user_id)
        if sessions or not session.dialect.proves:
            key = sessions[0].key if sessions else UNSET
            devices = devices_of(sessions)
            self._outgoing.send(session, m.DiscoverResponse(user_id, bool(sessions), key, devices, message.id))
        else:

            def answered(answer: DirectoryAnswer, now: float) -> None:
                # Somebody may have come online meanwhile, with a newer key perhaps than the directory had then.
                sessions = self._presence.devices(user_id)
                key = sessions[0].key if sessions else to_base64(answer) if isinstance(answer, bytes) else UNSET
                devices = devices_of(sessions)
                self._outgoing.send(session, m.DiscoverResponse(user_id, bool(devices), key, devices, message.id))

            self._lookups.ask(session, "discover", message.id, lambda token: FindBinding(token, user_id), answered)

    def _watch(self, session: Session, message: m.Watch, now: float) -> None:
        user_ids = self._checked(session, message, "watch")
        if user_ids is None:
            return
        watches = session.watches if session.watches is not None else set()
        if len(watches) + sum(user_id not in watches for user_id in user_ids) > self.settings.max_watches:
            text = f"at most {self.settings.max_watches} names can be watched by one session"
            self._outgoing.refuse(session, "watch", ErrorCode.TOO_LARGE, text, message.id)
            return
        session.watches = watches
        for user_id in user_ids:
            watches.add(user_id)
            self._presence.watch(session, user_id)
        # A client may ask for more than it can read at once.
        if not self._registrar.tell_later(session, user_ids, message.id):
            self._registrar.end(session, CloseCode.OVER_LIMITS, "too many watches before the presence of earlier ones")

    def _unwatch(self, session: Session, message: m.Unwatch, now: float) -> None:
        user_ids = self._checked(session, message, "unwatch")
        if user_ids is None:
            return
        for user_id in user_ids:
            if session.watches is not None:
                session.watches.discard(user_id)
            if session.untold is not None:
                session.untold.pop(user_id, None)
            self._presence.unwatch(session, user_id)
        self._outgoing.acknowledge(session, message.id)

    def _checked(self, session: Session, message: m.Watch | m.Unwatch, kind: str) -> list[str] | None:
        """The names of a message, each once and in order, or None after an error reply."""
        problem: str | None = None
        if len(message.user_ids) > m.MAX_WATCHED_PER_MESSAGE:
            problem = f"at most {m.MAX_WATCHED_PER_MESSAGE} names in one message"
        else:
            problem = next(filter(None, map(user_id_problem, message.user_ids)), None)
        if problem is None:
            return list(dict.fromkeys(message.user_ids))
        self._outgoing.refuse(session, kind, ErrorCode.INVALID_FIELD, f"userIds: {problem}", message.id)
        return None

    def _ice_servers(self, session: Session, message: m.IceServersRequest, now: float) -> None:
        servers, ttl = self._ice.servers(session.user_id, self._wall())
        self._outgoing.send(session, m.IceServers(servers, ttl, message.id))

    def _received(self, session: Session, message: m.Received, now: float) -> None:
        if session.replay is not None and not session.replay.confirm(message.count):
            text = f"count: only {session.replay.count} messages have been sent"
            self._outgoing.refuse(session, "received", ErrorCode.INVALID_FIELD, text, message.id)

    def _ping(self, session: Session, message: m.Ping, now: float) -> None:
        self._outgoing.send(session, m.Pong(message.id))

    # --- time -------------------------------------------------------------------------------------------------------

    def _resumable(self, session: Session) -> bool:
        return session.stage is Stage.REGISTERED and session.dialect.proves and self.settings.resume_window > 0

    def _detach(self, session: Session, now: float) -> None:
        self._registrar.detach(session)
        if session.stage is Stage.CLOSED:
            return
        session.heard = now
        self._timers.put(session, now + self.settings.resume_window)

    def _registration_due(self, session: Session) -> float | None:
        """When a session that has no name must have one; None when it need not."""
        if not session.dialect.proves or session.stage is Stage.REGISTERED:
            return None
        return session.connected_at + self.settings.registration_seconds

    def _look_again(self, session: Session) -> float:
        if session.pinged_at:
            when = session.pinged_at + self.settings.pong_timeout
        else:
            when = session.heard + self.settings.ping_interval
        due = self._registration_due(session)
        return when if due is None else min(when, due)

    def _look(self, session: Session, now: float) -> None:
        """See what a session that is due needs. Each attached session is in the timer queue exactly once."""
        if session.stage is Stage.CLOSED:
            return
        if session.stage is Stage.DETACHED:
            if now - session.heard >= self.settings.resume_window:
                self._registrar.end(session, CloseCode.SESSION_LOST, "")
            return
        due = self._registration_due(session)
        if due is not None and now >= due:
            self._registrar.end(session, CloseCode.REGISTRATION_TIMEOUT, "not registered in time")
            return
        if session.heard >= session.pinged_at:
            session.pinged_at = 0.0
        if session.pinged_at:
            if now - session.pinged_at >= self.settings.pong_timeout:
                self._give_up(session, now)
                return
        elif now - session.heard >= self.settings.ping_interval and session.connection is not None:
            session.pinged_at = now
            session.connection.ping()
        self._timers.put(session, self._look_again(session))

    def _give_up(self, session: Session, now: float) -> None:
        """No pong: the line is dead, though perhaps not the client, who may come back and resume."""
        if self._resumable(session):
            self._outgoing.close(session, CloseCode.NO_PONG, "no pong")
            self._detach(session, now)
        else:
            self._registrar.end(session, CloseCode.NO_PONG, "no pong")
