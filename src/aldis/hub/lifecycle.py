"""The life of a session: it attaches, gets a name, is lost, resumed or replaced, and ends.

`advance` is the only function that changes a session's stage, by the table in `hub.stages`. This module does not know
the rules for names (`hub.registration`) or the meaning of messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Final, TypeVar

from aldis.hub.detached import SHARE_BYTES, DetachedSessions, message_bytes
from aldis.hub.later_turns import Part
from aldis.hub.lookups import PendingLookups
from aldis.hub.networks import group_of
from aldis.hub.outgoing import Outgoing
from aldis.hub.presence import Presence
from aldis.hub.privacy_policies import PrivacyPolicies
from aldis.hub.rates import Rates
from aldis.hub.resume import Replay
from aldis.hub.router import Router
from aldis.hub.sessions import Delivered, Receipt, RelayResult, Session
from aldis.hub.settings import HubSettings
from aldis.hub.shares import Shares
from aldis.hub.stages import TABLE, Stage, StageEvent
from aldis.hub.stats import HubStats
from aldis.hub.timers import TimerQueue
from aldis.hub.use import FRAME_BYTES, MemoryUse
from aldis.hub.watchers import Watchers
from aldis.protocol import messages as m
from aldis.protocol.codes import CloseCode

T = TypeVar("T")

# Sessions that are looked at, or ended, in one go: 0.4 ms at most.
LOOKED_AT_ONCE: Final = 16
# For a client that has lost its connection to a node that was lost itself: long enough to come back at once.
HURRIED_SECONDS: Final = 3.0


def advance(session: Session, event: StageEvent) -> None:
    """Move a session to its next stage. KeyError, which is a bug, when its stage has no such event."""
    session.stage = TABLE[session.stage][event]
    if event is not StageEvent.CLAIMED:
        session.claim = None


def _may_use(
    shares: Shares, session: Session, sender: Session, messages: int, size: int, left: tuple[float, float]
) -> bool:
    """Use room for so many messages to a session, of what is left: messages and bytes. False when that is more than the
    sender's share."""
    return shares.take(
        sender.user_id,
        messages,
        size,
        friend=_is_friend(session, sender),
        network=sender.network or group_of(sender.client_address, sender.user_id),
        messages_left=left[0],
        bytes_left=left[1],
    )


def _is_friend(session: Session, sender: Session) -> bool:
    """Whether the user of a session has chosen somebody: watches them, has them as a contact, or is the same."""
    name, privacy = sender.user_id, session.privacy
    if not sender.dialect.proves:
        return False
    if name == session.user_id or (session.watches and name in session.watches):
        return True
    return privacy is not None and name in privacy.settings.contacts


class Lifecycle:
    """The sessions of one hub, from their connections to their ends."""

    def __init__(
        self,
        settings: HubSettings,
        *,
        outgoing: Outgoing,
        lookups: PendingLookups,
        presence: Presence,
        watchers: Watchers,
        policies: PrivacyPolicies,
        router: Router,
        rates: Rates,
        use: MemoryUse,
        stats: HubStats,
    ) -> None:
        self._use = use
        self._settings = settings
        self._rates = rates
        self._stats = stats
        self._policies = policies
        self._outgoing = outgoing
        self._lookups = lookups
        self._presence = presence
        self._watchers = watchers
        self._router = router
        self._timers: TimerQueue[Session] = TimerQueue()
        # Those whose time has come; and those that are to end, with the reason.
        self._due: deque[Session] = deque()
        self._ending: deque[tuple[Session, CloseCode, str]] = deque()
        # Whether one of them was of a user that not everybody may see: to find who may takes a millisecond at most.
        self._private_ended = False
        self._attached: set[Session] = set()
        self.detached = DetachedSessions(settings)
        """The sessions that may be resumed."""
        self._draining = False
        # Detached sessions that are to end soon: from the next tick on.
        self._hurried: list[Session] = []
        self._hurries_all = False
        self._hurried_until = -inf

    @property
    def connections(self) -> int:
        """The number of sessions with a connection."""
        return len(self._attached)

    # --- connections ------------------------------------------------------------------------------------------------

    def attach(self, session: Session) -> None:
        """A new session has a connection."""
        self._attached.add(session)
        self._use.connections += 1
        if self._draining:
            self.end(session, CloseCode.GOING_AWAY, "this server is going away")
        else:
            self._timers.put(session, self._next_look(session))

    def lost(self, session: Session, now: float, *, clean: bool) -> None:
        """The transport is gone. `clean`: the client closed it on purpose, so it will not resume."""
        self._attached.discard(session)
        if session.connection is None:
            return
        address = session.connection.address
        session.connection = None
        self._use.connections -= 1
        if self._resumable(session) and not clean:
            self._detach(session, now, address)
        else:
            self.end(session, CloseCode.NORMAL, "")

    def sessions_with(self, *, user_id: str | None = None, key: str | None = None) -> list[Session]:
        """The sessions that have a name, or this key, and those that have asked for it and have no answer yet."""
        claims = [(session, session.claim) for session in self._attached if session.claim is not None]
        claiming = [session for session, (name, shown) in claims if user_id == name or key == shown]
        if user_id is not None:
            named = self._presence.devices(user_id)
        else:
            named = [session for session in self._presence.sessions() if session.key == key]
        return list(dict.fromkeys([*named, *claiming]))

    def sessions(self) -> list[Session]:
        """All sessions, those that have lost their connection first."""
        return [*self.detached.all(), *self._attached]

    def restore(self, session: Session, watches: list[str], now: float) -> None:
        """Enter a session of an earlier process, which its client may resume."""
        for event in (StageEvent.CLAIMED, StageEvent.ADMITTED):
            advance(session, event)
        self._rates.enter(session)
        self._presence.add(session)
        self._watchers.watches.restore(session, watches)
        self._detach(session, now)

    def drain(self, random: Callable[[int], bytes], *, handed_over: bool) -> None:
        """Close all connections, and tell each client when to come back.

        `handed_over`: the next process goes on with the sessions. So no watcher is told that anybody is gone.
        """
        self._draining = True
        if handed_over:
            for session in self.detached.all():
                self._settle(session, RelayResult.ABSENT)
        else:
            # No client can resume a detached session any more. Tell the watchers that still have a connection.
            with self._watchers.holding_back():
                for session in self.detached.all():
                    self.end(session, CloseCode.GOING_AWAY, "")
            self._watchers.tell_all()
        for session in list(self._attached):
            if m.GoingAway not in session.dialect.unsaid:
                share = int.from_bytes(random(2), "big") / 0xFFFF
                self._outgoing.send(session, m.GoingAway(round(share * self._settings.drain_spread, 3)))
            # No watcher is told, because all connections close.
            self._outgoing.close(session, CloseCode.GOING_AWAY, "this server is going away")
            self._lookups.forget(session)
            if session.stage is not Stage.CLOSED:
                advance(session, StageEvent.ENDED)

    # --- names ------------------------------------------------------------------------------------------------------

    def enter(self, session: Session) -> None:
        """Enter a session under its name, in place of an older session at that address."""
        advance(session, StageEvent.ADMITTED)
        self._rates.enter(session)
        self._presence.add(session)

    def count(self, replay: Replay) -> None:
        """Count the memory of what a session with a connection has not confirmed."""
        replay.count_in(self._use)

    def resume(self, session: Session, old: Session, received: int) -> None:
        """Continue the session `old` on another connection, whose client has got so many messages; call `take_over`
        next."""
        session.id = old.id
        session.secret = old.secret
        session.replay, old.replay = old.replay, None
        if session.replay is not None:
            self.count(session.replay)
            session.replay.confirm(received)
        self._watchers.take_over(session, old)

    def take_over(self, old: Session, *, resumed_by: Session | None) -> None:
        """End `old`: another connection has its address, and perhaps its session."""
        if resumed_by is not None:
            # The waiting messages have gone out on the new connection.
            self._settle(old, RelayResult.SENT)
            self._watchers.tell_untold(resumed_by)
        self.end(
            old,
            CloseCode.REPLACED,
            "replaced by a newer connection of the same address",
            event=StageEvent.TAKEN_OVER,
        )

    def leave(self, session: Session) -> None:
        """Remove a session's name, its watches and the messages that wait for it."""
        self._watchers.unwatch_all(session)
        if session.replay is not None:
            session.replay.count_in(None)
        session.replay = session.seal_key = session.shares = None
        self._settle(session, RelayResult.ABSENT)
        self._rates.leave(session)
        removed = self._presence.remove(session)
        if removed:
            self._router.left(session, session.user_id)
        user_id, session.user_id = session.user_id, ""
        session.key = ""
        session.token_expires = None
        session.privacy = None
        if removed:
            self._router.publish(user_id)
            if self._presence.newest(user_id) is None:
                self._policies.left(user_id)

    def unregister(self, session: Session, now: float) -> None:
        """Remove a session's name, and keep its connection."""
        self.leave(session)
        advance(session, StageEvent.UNREGISTERED)
        session.connected_at = now  # it has to register in time again

    def end(self, session: Session, code: CloseCode, reason: str, *, event: StageEvent = StageEvent.ENDED) -> None:
        """Close the connection, if there is one, and forget the session: it cannot be resumed."""
        if session.stage is Stage.CLOSED:
            return
        self._outgoing.close(session, code, reason)
        self._lookups.forget(session)
        self.detached.discard(session)
        self._private_ended = self._private_ended or session.privacy is not None
        self.leave(session)
        # The timer queue holds the session until its next time-out, without the client's data.
        session.registering = session.faults = session.unknowns = session.pauses = None
        advance(session, event)

    def _settle(self, session: Session, result: RelayResult) -> None:
        """Report the result of the messages that waited for a session."""
        unsettled, session.unsettled = session.unsettled, None
        for receipt, done in unsettled or ():
            done(receipt, result)

    # --- lost connections -------------------------------------------------------------------------------------------

    def _resumable(self, session: Session) -> bool:
        return session.stage is Stage.REGISTERED and session.replay is not None and self._settings.resume_window > 0

    def _detach(self, session: Session, now: float, address: str = "") -> None:
        """Detach a session whose connection, from this IP address, is lost; it keeps its name for the resume window."""
        advance(session, StageEvent.DETACHED)
        self._watchers.forget_requests(session)
        session.shares = None
        self._lookups.drop_backlog(session)
        if session.replay is not None:
            session.replay.count_in(None)  # the detached sessions count it
        self.detached.add(session, address)
        self._hold_limits(session)
        if session.stage is not Stage.CLOSED:
            session.heard = now
            self._timers.put(session, now + self._settings.resume_window)
            if now < self._hurried_until:
                self._hurried.append(session)

    def hurry(self, session: Session | None) -> None:
        """End a session that is detached soon: its client may have been at another node since, and have left.

        None: all of them, and those whose connections turn out to be lost in `HURRIED_SECONDS` from the next tick on.
        """
        if session is None:
            self._hurries_all = True
        elif session in self.detached:
            self._hurried.append(session)

    def _hurry(self, now: float) -> None:
        sessions, self._hurried = self._hurried, []
        if self._hurries_all:
            self._hurries_all, self._hurried_until = False, now + HURRIED_SECONDS
            sessions = self.detached.all()
        # As if it had lost its connection so long ago that its window ends then.
        lost = now + HURRIED_SECONDS - self._settings.resume_window
        for session in sessions:
            if session in self.detached and session.heard > lost:
                session.heard = lost
                self._timers.put(session, now + HURRIED_SECONDS)

    def hold(self, session: Session, frame: bytearray, receipt: Receipt, done: Delivered) -> RelayResult:
        """Take a message for a session that has lost its connection or does not read, if the sender's share allows.

        After PENDING, `done` is called when the outcome is known.
        """
        sender = receipt[0].user_id
        shares = session.shares
        if shares is None:
            shares = session.shares = Shares()
        # What the session has to be told of the sender comes first: it may say that the sender was restarted.
        news = self._watchers.untold_of(session, sender)
        frames = [frame] if news is None else [news, frame]
        size = sum(map(len, frames))
        if session.connection is not None:
            unsent = inf, self._settings.unsent_bytes - shares.size
            if not _may_use(shares, session, receipt[0], 1, size + FRAME_BYTES, unsent):
                return RelayResult.LIMITED
            self._watchers.forget_untold(session, sender)
            for one in frames:
                self._outgoing.send_numbered_frame(session, one)
            return RelayResult.SENT
        replay, senders = session.replay, len(shares)
        if replay is None or session not in self.detached:
            return RelayResult.ABSENT
        left = replay.messages_left, replay.bytes_left
        if not _may_use(shares, session, receipt[0], len(frames), size, left):
            return RelayResult.LIMITED
        if news is not None:
            self._watchers.forget_untold(session, sender)
            session.late_news = [*(session.late_news or ()), sender]
        for one in frames:
            replay.add(one)
        new_senders = len(shares) - senders
        more = 0 if news is None else len(news) + FRAME_BYTES
        self.detached.grow(session, message_bytes(frame, receipt) + more + new_senders * SHARE_BYTES)
        self._hold_limits(session)
        if session not in self.detached:
            return RelayResult.ABSENT
        if session.unsettled is None:
            session.unsettled = []
        session.unsettled.append((receipt, done))
        return RelayResult.PENDING

    def hold_sealed(self, session: Session, frame: bytearray, receipt: Receipt, done: Delivered) -> RelayResult:
        """Take a sealed message, if its window has room and, where it has to wait, the sender's share allows.

        It ends no session, and drops nothing: what does not fit is LIMITED. After PENDING, `done` is called when the
        outcome is known.
        """
        replay, connection = session.replay, session.connection
        waits = connection is None or connection.full
        if replay is None:  # a classic client, which confirms nothing
            if not waits:
                self._outgoing.resend(session, frame)
            return RelayResult.LIMITED if waits else RelayResult.SENT
        if not replay.takes_sealed(len(frame)):
            return RelayResult.LIMITED
        if waits:
            refused = self._hold_back_sealed(session, replay, frame, receipt, done)
            if refused is not None:
                return refused
        replay.add_sealed(frame)
        self._outgoing.resend(session, frame)
        return RelayResult.PENDING if connection is None else RelayResult.SENT

    def _hold_back_sealed(
        self, session: Session, replay: Replay, frame: bytearray, receipt: Receipt, done: Delivered
    ) -> RelayResult | None:
        """Make room for a sealed message that has to wait. Returns why there is none, if so; then nothing changes."""
        sender, detached = receipt[0].user_id, session.connection is None
        # What the session has to be told of the sender comes first: it may say that the sender was restarted.
        news = self._watchers.untold_of(session, sender)
        news_size = 0 if news is None else len(news) + FRAME_BYTES
        size = message_bytes(frame, receipt) + news_size + SHARE_BYTES
        if detached and session not in self.detached:
            return RelayResult.ABSENT
        if detached and not self.detached.has_room(session, size):
            return RelayResult.LIMITED
        if news is not None and (replay.messages_left < 1 or replay.bytes_left < news_size):
            return RelayResult.LIMITED
        shares = Shares() if session.shares is None else session.shares
        sealed = shares.sealed or Shares()
        left = replay.sealed_left, replay.sealed_bytes_left
        if not _may_use(sealed, session, receipt[0], 1, len(frame), left):
            return RelayResult.LIMITED
        session.shares, shares.sealed = shares, sealed
        if news is not None:
            self._watchers.forget_untold(session, sender)
            self._outgoing.send_numbered_frame(session, news)
        if detached:
            if news is not None:
                session.late_news = [*(session.late_news or ()), sender]
            self.detached.grow(session, size)
            if session.unsettled is None:
                session.unsettled = []
            session.unsettled.append((receipt, done))
        return None

    def _hold_limits(self, changed: Session) -> None:
        """End detached sessions until all that is kept for them is within the limits."""
        while (session := self.detached.surplus(changed)) is not None:
            self._stats.detached_ended += 1
            self.end(session, CloseCode.SESSION_LOST, "")

    # --- time -------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> bool:
        """Ping silent clients, close dead and late connections, end sessions that can no longer resume: a few of those
        that are due in each later turn. Returns whether there are any."""
        if self._hurried or self._hurries_all:
            self._hurry(now)
        self._due.extend(self._timers.due(now))
        return bool(self._due)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The kinds of work that this module puts off."""
        return (
            # Thousands may be due in the same second: after an outage all clients have come back together, or none has.
            lambda: self._some_of(self._due, lambda session: self._look(session, self._watchers.now)),
            lambda: self._some_of(self._ending, lambda ending: self.end(*ending)),
        )

    def _some_of(self, waiting: deque[T], deal_with: Callable[[T], object]) -> bool:
        """Deal with some of those that wait. Returns whether there were any."""
        if not waiting:
            return False
        # The devices of a user may have been lost together.
        with self._watchers.holding_back():
            self._private_ended = False
            for _ in range(min(LOOKED_AT_ONCE, len(waiting))):
                deal_with(waiting.popleft())
                if self._private_ended:
                    break
        return True

    @property
    def ending(self) -> bool:
        """Whether there are sessions to be ended yet."""
        return bool(self._ending)

    def end_later(self, sessions: Iterable[Session], code: CloseCode, reason: str) -> None:
        """End some sessions: a few of them in each later turn."""
        self._ending.extend((session, code, reason) for session in sessions)

    def _registration_due(self, session: Session) -> float | None:
        """The time by which a session without a name must register; None when it need not.

        A classic client needs no name where it may have one. Elsewhere it cannot register, so it goes like the others.
        """
        may_stay = not session.dialect.proves and self._settings.auth == "open"
        if may_stay or session.stage is Stage.REGISTERED:
            return None
        return session.connected_at + self._settings.registration_seconds

    def _next_look(self, session: Session) -> float:
        if session.pinged_at:
            when = session.pinged_at + self._settings.pong_timeout
        else:
            when = session.heard + self._settings.ping_interval
        due = self._registration_due(session)
        when = when if due is None else min(when, due)
        return when if session.token_expires is None else min(when, session.token_expires)

    def _look(self, session: Session, now: float) -> None:
        """Do what a due session needs. Each attached session is in the timer queue exactly once."""
        if session.stage is Stage.CLOSED:
            return
        if session.stage is Stage.DETACHED:
            if now - session.heard >= self._settings.resume_window:
                self.end(session, CloseCode.SESSION_LOST, "")
            return
        if session.backlog is not None and session.backlog.paused:
            session.heard = now  # the server does not read it, so its silence means nothing
        due = self._registration_due(session)
        if due is not None and now >= due:
            self.end(session, CloseCode.REGISTRATION_TIMEOUT, "not registered in time")
            return
        expires = session.token_expires
        if expires is not None and now >= expires and session.stage is Stage.REGISTERED:
            self._give_up(session, now, CloseCode.TOKEN_EXPIRED, "the token has expired")
            return
        if session.heard >= session.pinged_at:
            session.pinged_at = 0.0
        if session.pinged_at:
            if now - session.pinged_at >= self._settings.pong_timeout:
                self._give_up(session, now, CloseCode.NO_PONG, "no pong")
                return
        elif now - session.heard >= self._settings.ping_interval and session.connection is not None:
            session.pinged_at = now
            session.connection.ping()
        self._timers.put(session, self._next_look(session))

    def _give_up(self, session: Session, now: float, code: CloseCode, reason: str) -> None:
        """Close a connection whose client may still resume: it is dead, or its token has expired."""
        if self._resumable(session):
            address = session.client_address  # it has none afterwards
            self._outgoing.close(session, code, reason)
            self._detach(session, now, address)
        else:
            self.end(session, code, reason)
