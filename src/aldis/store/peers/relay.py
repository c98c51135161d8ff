"""The relay as the second path to one device of a peer: one sealed session at a time, and its frames.

Rules: a session is begun when something waits and there is no direct connection, and is left when there is one. Its end
loses nothing: the next one begins with HELLO, and says what has arrived. None is begun while HELLOs are exchanged on a
direct connection: the other side would hear our HELLO for it last, and take it, while we hear theirs on the connection
last, and take that. The keys of a session are forgotten after an hour. If it rests, it is asleep then: it goes on
without keys, and the next frame of either side begins another one in its place.

It does not know when something waits, nor what frames mean.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Final, Protocol

from aldis.client.events import ByeReceived
from aldis.client.timers import earliest
from aldis.errors import AldisError, PeerConnectionFailed, PeerRefused, ProtocolViolation, RequestFailed
from aldis.peer import sealing
from aldis.peer.connection import Failure
from aldis.peer.relay import Outgoing, RelaySessions, Verdict
from aldis.peer.sealing import Sealed, SessionKeys, Unopened
from aldis.peer.session import Ended, Measured, PathLost, PeerSession, SessionEvent, Violated
from aldis.peer.transport import PeerTiming, Timer, Timers
from aldis.protocol.channel import Ack, Chunk, Frame, Hello, decode
from aldis.protocol.codec import to_base64url
from aldis.protocol.codes import FINAL_REFUSALS, LONGEST_PAUSE, ErrorCode, RefusalCode
from aldis.store.peers.relay_login import Began, RelayLogin

_log = logging.getLogger(__name__)

# Seconds without a message after which the heartbeat stops: presence tells who is there, and costs nothing.
QUIET_SECONDS: Final = 60.0
# Seconds for which a call waits for a direct connection before it begins a session of the relay, while nothing waits to
# be sent. On a good path the connection is there by then. The session would have been in vain, and have cost both sides
# two key agreements and the server four messages, just when the engines need the processor.
RELAY_AFTER: Final = 0.3
# How many times as long as on a direct path nothing may arrive. The server delays what exceeds its limits, and says
# itself when the other side is gone; a new session is no remedy for either. So a session is not given up while the
# server has not taken what we have said (which has a time of its own), nor while nothing of ours waits for an answer.
_PATIENCE: Final = 3
# After these nothing is sent there before the other side has registered anew, or begins a session itself.
_FINAL: Final = (RefusalCode.NO_RELAY, *FINAL_REFUSALS)


class RelayPathContext(Protocol):
    """What the relay needs of the store."""

    @property
    def relay(self) -> RelayLogin | None:
        """The sealed relay of this login; None while the server cannot be asked, or relays nothing."""

    @property
    def timers(self) -> Timers:
        """Time."""

    @property
    def timing(self) -> PeerTiming:
        """How long things may take."""

    def polite(self, user_id: str) -> bool:
        """Whether our user id sorts before another one."""

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Start a task that the store owns."""


class RelayPathOwner(Protocol):
    """The device."""

    @property
    def user_id(self) -> str:
        """The user."""

    @property
    def name(self) -> str | None:
        """The name of the device; None until it is known."""

    @property
    def address(self) -> str:
        """As messages are addressed."""

    @property
    def has_unacknowledged(self) -> bool:
        """Whether something waits for the device."""

    @property
    def direct_opens(self) -> bool:
        """Whether HELLOs are being exchanged on a direct connection."""

    def seal_key(self) -> tuple[bytes, bytes] | None:
        """The seal key that the device has published, and the identity key that has signed it; None without one that
        can be used."""

    def relay_hello(self, *, early: bool) -> Hello:
        """A session begins, and carries the messages from now on. `early`: messages may follow at once."""

    def relay_is_late(self, hello: Hello) -> bool:
        """Whether the other side has begun a session with this HELLO before the direct connection, which was
        faster."""

    def relay_opened(self, hello: Hello) -> None:
        """The session is open; `hello` is the other side's."""

    def relay_frame(self, frame: Chunk | Ack) -> None:
        """A piece of a message, or an acknowledgement, has arrived."""

    def relay_pump(self) -> None:
        """There is room."""

    def relay_closed(self, error: PeerConnectionFailed, *, by_them: bool) -> None:
        """The session is over. `by_them`: the other side has taken leave."""

    def relay_gone(self) -> None:
        """The server says that the other side, with which there was a session, is not online any more."""

    async def relay_find(self) -> None:
        """Ask the server for the device; `RelayPath.want` follows. Does not raise."""

    def relay_due(self) -> None:
        """A session may be begun again."""

    def relay_violated(self, reason: str) -> None:
        """The other side breaks the protocol."""

    def relay_untrusted(self, error: Failure) -> None:
        """The key of who answers is not the pinned one."""


class RelayPath:
    """See the module. It is the `Path` of its session."""

    def __init__(self, owner: RelayPathOwner, context: RelayPathContext) -> None:
        self.may_bundle = False  # for the session; all frames that wait go together here anyway
        self._owner = owner
        self._context = context
        self._made: RelaySessions | None = None
        self._session: PeerSession | None = None
        self._keys: SessionKeys | None = None
        self._asleep = False  # the session has no keys any more
        self._login: RelayLogin | None = None  # of the session; it sends the last words while the store closes, too
        self._their_keys: tuple[bytes, bytes] | None = None  # of a session of ours: seal key, identity key
        self.refusal: PeerRefused | None = None  # the other side wants no session of ours before it registers again
        self.failure: PeerConnectionFailed | None = None  # why the last session has ended; None since one is open
        self._stale: bytes | None = None  # a seal key that the other side does not know any more
        self._said_at = 0.0
        self._flushing = False
        self._blocked = False
        self._deadline: float | None = None
        self._timer: Timer | None = None
        self._retry: Timer | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._waiters: dict[asyncio.Future[bool], float] = {}  # until when each of them waits
        self._asking: asyncio.Task[None] | None = None

    # --- queries ----------------------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        """Whether there is a session, be it without an answer yet."""
        return self._session is not None

    @property
    def open(self) -> bool:
        """Whether both sides have said HELLO."""
        return self._session is not None and self._session.greeted

    @property
    def round_trip_time(self) -> float | None:
        """Seconds, or None before the first PONG."""
        return None if self._session is None else self._session.round_trip_time

    @property
    def measured(self) -> Measured:
        """What the heartbeat has measured."""
        return Measured() if self._session is None else self._session.measured(self._context.timers.time())

    @property
    def resting(self) -> bool:
        """Whether nothing was said for a while, so that nothing tells whether the other side is still there."""
        return self._session is not None and self._session.deadline is None

    @property
    def refused(self) -> bool:
        """Whether the other side has refused the last session, or wants none at all."""
        return self.refusal is not None or isinstance(self.failure, PeerRefused)

    @property
    def has_key(self) -> bool:
        """Whether the device has a key that was checked, and that it still knows, as far as we know."""
        return self._seal_key() is not None

    @property
    def usable(self) -> bool:
        """Whether a session can be begun: the server relays, and the device has a key that was checked."""
        return self.refusal is None and self._context.relay is not None and self.has_key

    @property
    def _sessions(self) -> RelaySessions:
        # Not before it is needed: a device may be known before our own name is.
        if self._made is None:
            self._made = RelaySessions(polite=self._context.polite(self._owner.user_id))
        return self._made

    def _seal_key(self) -> tuple[bytes, bytes] | None:
        found = self._owner.seal_key()
        return None if found is None or found[0] == self._stale else found

    # --- the path of the session ------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        return self._sessions.room

    @property
    def closed(self) -> bool:
        return self._session is None

    def send(self, frame: bytes) -> bool:
        self._sessions.queue(frame)
        self._flush_soon()
        return True

    # --- from this side ---------------------------------------------------------------------------------------------

    def want(self) -> bool:
        """Something waits for the device: see that there is a session. False when none can be begun now."""
        now = self._context.timers.time()
        if self._session is not None and not (self._asleep or self._sessions.renewal_due(now)):
            return True
        if self._owner.direct_opens:
            self._try_in(RELAY_AFTER)  # it may fail yet
            return self._session is not None
        if not self._sessions.may_begin(now):
            self._try_later()
            return self._session is not None
        if not self.usable:
            if (self._stale or self._asleep) and self.refusal is None and self._context.relay is not None:
                self._ask_anew()
            return False
        self._begin(now)
        return True

    def _ask_anew(self) -> None:
        """The device does not know the seal key any more: ask the server for its newest one."""
        if self._asking is None or self._asking.done():
            self._asking = self._context.spawn(self._find(), f"find {self._owner.address}")

    async def _find(self) -> None:
        await self._owner.relay_find()
        if self._asleep:
            self.want()  # for a frame that nothing else waits for

    def key_told(self) -> None:
        """The server has said which seal key the device has now, be it the one of before."""
        self._stale = None

    def _begin(self, now: float) -> None:
        login = self._context.relay
        keys = self._seal_key()
        if login is None or keys is None or self._owner.name is None:
            return
        self._end_session()
        self._login = login
        self._their_keys = keys
        self._sessions.begin(login.new_session(), now)
        self._open_session(now, early=True)

    def _open_session(self, now: float, *, early: bool) -> None:
        timing = self._context.timing
        session = self._session = PeerSession(
            self, now, silence=timing.silence * _PATIENCE, heartbeat=timing.heartbeat, probe=timing.probe, early=early
        )
        self._said_at = now
        hello = self._owner.relay_hello(early=early)
        self._tell(session, session.open(hello, now))
        if early and self._session is session:
            self._owner.relay_pump()
            self.flush()

    def send_frame(self, frame: bytes) -> bool:
        """Take one frame of the stream; False when there is no session, or no room."""
        session = self._session
        if session is None or not session.send(frame):
            return False
        self._spoke(session)
        return True

    def _spoke(self, session: PeerSession) -> None:
        self._said_at = now = self._context.timers.time()
        self._tell(session, session.wake(now))

    def leave(self) -> None:
        """There is a direct connection: end the session without a word."""
        self._sessions.leave(self._context.timers.time())
        self._end_session()

    def drop(self) -> None:
        """End the session without a word: the device has gone, or the server has."""
        if self._session is not None:
            self._sessions.lose(self._context.timers.time())
            self._end_session()
        self._cancel_retry()
        self._tell_waiters(False)

    def goodbye(self, reason: str) -> None:
        """Say GOODBYE, and end the session."""
        if self._asleep:
            self._begin(self._context.timers.time())
        if self._session is not None and self._session.goodbye(reason):
            self.flush()
            # What still comes was sent before they heard it: it is no session that we do not know.
            self._sessions.leave(self._context.timers.time())
        self.drop()

    async def finish(self) -> None:
        """Wait until the last messages have left."""
        if self._sending:
            await asyncio.wait(set(self._sending), timeout=self._context.timing.linger)

    def returned(self) -> None:
        """There is a reason to try again at once."""
        self.refusal = self.failure = None
        self._stale = None
        self._sessions.returned()

    async def opened(self, seconds: float) -> bool:
        """Wait until the session is open; False when it will not be, or not within so many seconds."""
        if self.open or self._session is None:
            return self.open
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = self._context.timers.time() + seconds
        timer = self._context.timers.call_later(seconds, lambda: _resolve(waiter, False))
        try:
            return await waiter
        finally:
            timer.cancel()
            del self._waiters[waiter]

    # --- sending ----------------------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        # Once for all that is said in one turn of the loop: several frames go in one message.
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Seal and send what is queued."""
        self._flushing = False
        login = self._login
        if self._asleep:
            self.want()
        if login is None:
            return
        for message in self._sessions.flush(login.room, sealing.FRAME_OVERHEAD):
            sealed = self._seal(login, message)
            if sealed is None:
                self._lose("the device's seal key cannot be used")
                return
            task = self._context.spawn(self._send(login, message.number, sealed), f"relay to {self._owner.address}")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    def _seal(self, login: RelayLogin, message: Outgoing) -> bytes | None:
        if message.counter is not None:
            assert self._keys is not None  # a session has keys from its handshake on  # noqa: S101
            return self._keys.seal(message.counter, message.frames)
        assert self._their_keys is not None and self._owner.name is not None  # noqa: S101, PT018 - see `_begin`
        made = login.start(self._owner.user_id, self._owner.name, message.session, message.frames, self._their_keys[0])
        if made is None:
            return None
        sealed, self._keys = made
        return sealed

    async def _send(self, login: RelayLogin, number: int, sealed: bytes) -> None:
        try:
            await login.send(self._owner.address, sealed)
        except AldisError as error:
            pause = min(error.retry_after or 0.0, LONGEST_PAUSE) if isinstance(error, RequestFailed) else 0.0
            if self._sessions.undelivered(number, self._context.timers.time(), pause):
                if self.open and isinstance(error, RequestFailed) and error.code == ErrorCode.NOT_ONLINE:
                    self._owner.relay_gone()  # its goodbye may be on its way still, or there was none
                self._lose(f"the server did not take a message: {error}", noted=True)
        else:
            self._sessions.delivered(number)
            self.flush()
            if self._session is not None and self._session.drained():
                self._owner.relay_pump()

    # --- from the other side ----------------------------------------------------------------------------------------

    def received(self, sealed: Sealed) -> Verdict:
        """A message of a session has come."""
        now = self._context.timers.time()
        if not self._sessions.knows(sealed.session) or self._keys is None:
            return self._sessions.stray(sealed.session, now)
        try:
            frames = self._keys.open(sealed)
        except Unopened as error:
            _log.debug("a sealed message of %s is dropped: %s", self._owner.address, error)
            return Verdict.DROPPED
        first = not self._sessions.answered
        verdict = self._sessions.frames_received(sealed.counter, sum(map(len, frames)), now)
        if verdict is Verdict.LOST:
            self._lose("a message is missing", noted=True)
        elif verdict is Verdict.TAKEN and (not first or self._proved()):
            self._take(frames, now)
        return verdict

    def _proved(self) -> bool:
        """The other side has answered for the first time in a session of ours, so it has the key."""
        login = self._login
        if self._their_keys is None or login is None:
            return True
        error = login.proved(self._owner.user_id, self._their_keys[1])
        if error is not None:
            self._lose(str(error))
            self._owner.relay_untrusted(error)
        return error is None

    def began(self, began: Began) -> None:
        """The device has begun a session."""
        hello = _first_of(began.opened.frames)
        if isinstance(hello, Hello) and self._owner.relay_is_late(hello):
            return
        now = self._context.timers.time()
        verdict = self._sessions.handshake_received(began.session, now)
        if verdict is Verdict.CROSSED and not self._owner.direct_opens:
            self._begin(now)
        if verdict is not Verdict.TAKEN:
            return
        self.refusal = None
        self._end_session()
        self._login = self._context.relay
        self._keys = began.opened.keys
        self._open_session(now, early=False)
        self._take(began.opened.frames, now)

    def untrusted(self, error: Failure) -> None:
        """A handshake in the device's name was made with another key."""
        self._owner.relay_untrusted(error)

    def _take(self, frames: list[bytes], now: float) -> None:
        session = self._session
        for frame in frames:
            if session is None or self._session is not session:
                return
            self._tell(session, session.received(frame, now))

    def bye(self, event: ByeReceived) -> bool:
        """The other side ends a session, or refuses one; False when it is none of this device's."""
        name = self._sessions.session
        if name is None or event.connection != to_base64url(name):
            return False
        now = self._context.timers.time()
        if event.code == RefusalCode.SEAL_UNKNOWN and self._their_keys is not None and not self._sessions.answered:
            self._stale = self._their_keys[0]  # it has another by now, which the server has to be asked for
        pause = min(event.retry_after or 0.0, LONGEST_PAUSE)
        reason = event.reason or event.code or "it has ended the session"
        error = PeerConnectionFailed(self._owner.user_id, reason, direct=False)
        if event.code not in (None, RefusalCode.SEAL_UNKNOWN):
            final = event.code in _FINAL
            told = f"the other side refuses: {reason}"
            error = PeerRefused(self._owner.user_id, told, event.code, temporary=not final, retry_after=pause or None)
            self.refusal = error if final else None
        self._sessions.refused(name, now, pause)
        self._lose(reason, error, noted=True)
        if isinstance(error, PeerRefused):
            self._tell_waiters(False)  # as for a direct connection, at once
        return True

    # --- events -----------------------------------------------------------------------------------------------------

    def _tell(self, session: PeerSession, events: list[SessionEvent]) -> None:
        for event in events:
            if self._session is not session:
                return
            match event:
                case Hello():
                    self.failure = None
                    self._owner.relay_opened(event)
                    self._tell_waiters(True)
                case Chunk() | Ack():
                    self._spoke(session)
                    self._owner.relay_frame(event)
                case PathLost() if self._sessions.unconfirmed or (
                    session.greeted and not self._owner.has_unacknowledged
                ):
                    self._tell(session, session.excuse(self._context.timers.time()))
                case PathLost():
                    self._lose("nothing arrives through the relay")
                case Ended(reason):
                    self._sessions.leave(self._context.timers.time())
                    self._end_session()
                    self._owner.relay_closed(PeerConnectionFailed(self._owner.user_id, reason), by_them=True)
                    self._tell_waiters(False)
                case Violated(reason):
                    session.goodbye(reason)
                    self.flush()
                    self._lose(reason)
                    self._owner.relay_violated(reason)
                case _:
                    pass
        self._set_timer()

    def _lose(self, reason: str, error: PeerConnectionFailed | None = None, *, noted: bool = False) -> None:
        """The session is over, and what was on its way is sent again in the next one. `noted`: `_sessions` knows."""
        if not noted:
            self._sessions.lose(self._context.timers.time())
        if self._session is None:
            return
        _log.debug("the relay session with %s is over: %s", self._owner.address, reason)
        self._end_session()
        self.failure = error or PeerConnectionFailed(self._owner.user_id, reason, direct=False)
        self._owner.relay_closed(self.failure, by_them=False)
        if not self.active:
            self._try_later()
            for waiter, until in self._waiters.items():
                if until <= self._sessions.not_before:
                    _resolve(waiter, False)  # the next one comes too late

    def _end_session(self) -> None:
        self._session = self._keys = self._their_keys = None
        self._asleep = False
        self._set_timer()

    def _tell_waiters(self, opened: bool) -> None:
        for waiter in self._waiters:
            _resolve(waiter, opened)

    # --- time -------------------------------------------------------------------------------------------------------

    def _try_later(self) -> None:
        self._try_in(max(self._sessions.not_before - self._context.timers.time(), 0.0))

    def _try_in(self, seconds: float) -> None:
        if self._retry is None:
            self._retry = self._context.timers.call_later(seconds, self._retry_due)

    def _retry_due(self) -> None:
        self._retry = None
        self._owner.relay_due()

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _set_timer(self) -> None:
        deadline = None if self._session is None else earliest(self._session.deadline, self._sessions.expires)
        if deadline == self._deadline:
            return
        self._deadline = deadline
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            timers = self._context.timers
            self._timer = timers.call_later(max(deadline - timers.time(), 0.0), self._tick)

    def _tick(self) -> None:
        self._deadline = self._timer = None
        session = self._session
        if session is None:
            return
        now = self._context.timers.time()
        expires = self._sessions.expires
        if expires is not None and now >= expires:
            self._expire(now)
            return
        if now - self._said_at >= QUIET_SECONDS and session.greeted and not self._owner.has_unacknowledged:
            session.rest()
        self._tell(session, session.tick(now))

    def _expire(self, now: float) -> None:
        """The session is old: forget its keys. What was on its way, or still comes, is sent again in another one."""
        rests = self.resting
        self._sessions.lose(now)
        self._keys = self._their_keys = None
        self._asleep = True
        self._set_timer()
        if not rests:
            self.want()


def _first_of(frames: list[bytes]) -> Frame | None:
    """The first of these frames; None for a broken one, which is for the session."""
    try:
        return decode(frames[0]) if frames else None
    except ProtocolViolation:
        return None


def _resolve(waiter: asyncio.Future[bool], result: bool) -> None:
    if not waiter.done():
        waiter.set_result(result)
