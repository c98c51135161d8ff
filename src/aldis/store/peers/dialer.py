"""When to call one peer, and what came of it.

A peer is *wanted* while the application has asked for it (`connect_to_peer`) or messages wait for it. A wanted peer
is called when it is online, again after growing pauses when that fails, and at once when it comes online. So is one
with which messages go through the relay, because a direct connection is better: after pauses as long as something is
said, and later when something changes. Any other is never called, but its own calls are answered.

Rules of this module:

* At most one attempt at a time; who asks meanwhile shares it. Never a call and a pause at once (`TABLE`, which
  docs/architecture.md draws).
* Where the peer is known to be offline, nothing is tried: the server tells when that changes.
* A peer that has said goodbye while nothing waits for it is left alone until it comes back online; so is one of which
  the server says for good that it may not be asked.
* A peer whose key has changed is not called before a person has accepted the new one.
* A peer that refuses is not called again before the time that it names; one that refuses for good is left alone, as
  after a goodbye. Who waits for it is told at once, and what is queued stays queued. The relay may carry it still.

It does not know how a connection is made, nor what is sent on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from typing import Final, Protocol

from aldis.client.backoff import Backoff
from aldis.errors import (
    AldisError,
    PeerConnectionFailed,
    PeerKeyChanged,
    PeerOffline,
    PeerRefused,
    PeerUnknown,
    RequestFailed,
    SignalingError,
    StateError,
)
from aldis.peer.connection import Failure, PeerState, limited_calls
from aldis.peer.transport import Timer, Timers
from aldis.protocol.codes import LONGEST_PAUSE, ErrorCode

_log = logging.getLogger(__name__)

# A connection that has stood for so many seconds was no failure: the pauses begin small again.
SETTLED: Final = 10.0
# The highest ceiling of a pause in seconds, while a message or a caller waits. A call costs both programs and the
# server more than dialling a server does, so it is higher than there.
URGENT: Final = 5.0
# While the relay carries the messages, nobody waits for a direct connection: after so many failures the pauses are so
# many times as long, and at most so many seconds.
RELAYED_FAILURES: Final = 2
RELAYED_FACTOR: Final = 10.0
RELAYED_MOST: Final = 300.0
# So many attempts have to fail in a row, in one network, before there is no reason to expect a direct path soon.
VAIN: Final = 3
# An attempt that fails within so many seconds has not failed for want of a path: it was ended by somebody.
CROSSED: Final = 3.0


class DialPhase(Enum):
    """What a dialer is about."""

    IDLE = auto()  # connected, or left alone
    CALLING = auto()  # asks the server for the peer, then connects
    PAUSING = auto()  # calls again after a pause


class DialEvent(Enum):
    """What moves a dialer on."""

    CALLED = auto()
    ENDED = auto()  # the call, whatever came of it
    GIVEN_UP = auto()  # nobody wants the call any more, or it was meant for the peer as it was before
    PAUSED = auto()
    DUE = auto()  # the pause is over
    CUT_SHORT = auto()  # there is no reason to wait any more, or nobody waits


TABLE: Final[dict[DialPhase, dict[DialEvent, DialPhase]]] = {
    DialPhase.IDLE: {DialEvent.CALLED: DialPhase.CALLING, DialEvent.PAUSED: DialPhase.PAUSING},
    DialPhase.CALLING: {DialEvent.ENDED: DialPhase.IDLE, DialEvent.GIVEN_UP: DialPhase.IDLE},
    DialPhase.PAUSING: {DialEvent.DUE: DialPhase.IDLE, DialEvent.CUT_SHORT: DialPhase.IDLE},
}


class Hush(Enum):
    """Why a peer is left alone."""

    LEFT = auto()  # it has said goodbye, or the server refuses for good
    REFUSED = auto()  # it refuses direct connections for good; the relay asks for itself


def registered_anew(before: tuple[str, ...], now: tuple[str, ...]) -> bool:
    """Whether one of the devices that are online `now`, newest first, has registered since `before`.

    If not, devices have left and nothing else: what is there now is what was there, in the same order, without some.
    """
    rest = iter(before)
    return len(before) == len(now) or not all(device in rest for device in now)


class DialTarget(Protocol):
    """What a dialer works with: the peer's end of it, made by `peer.Peer`."""

    user_id: str

    @property
    def wanted(self) -> bool:
        """Whether there should be a connection."""

    @property
    def queued(self) -> int:
        """How many messages wait for the peer."""

    @property
    def has_waiting(self) -> bool:
        """Whether something waits for the peer: messages, or files that go on."""

    @property
    def relayed(self) -> bool:
        """Whether messages get through meanwhile, by the relay."""

    @property
    def resting(self) -> bool:
        """Whether nothing was said through the relay for a while."""

    @property
    def watched(self) -> bool:
        """Whether the server will tell when the peer comes online."""

    @property
    def registered(self) -> bool:
        """Whether the server can be asked."""

    @property
    def state(self) -> PeerState:
        """How the connection stands now."""

    @property
    def unaccepted(self) -> PeerKeyChanged | None:
        """The key has changed, and nobody has accepted the new one: the peer is not called."""

    @property
    def clock_from(self) -> float | None:
        """When the turn of the attempt came (by the dialer's `timers`); None while it waits for it."""

    def need_server(self) -> None:
        """The peer waits for the server: it should be dialled soon."""

    async def find(self) -> None:
        """Ask the server for the peer. Raises `SignalingError`, `PeerOffline`, `PeerUnknown`, `PeerKeyChanged`,
        `IdentityError`."""

    def dial(self) -> None:
        """Start to connect, unless that is under way; the new state is told to the dialer when it comes."""

    def hang_up(self, reason: str) -> None:
        """End an attempt or a connection, for good."""

    def failed(self, error: AldisError, *, key_changed: PeerKeyChanged | None = None) -> None:
        """An attempt has failed. With `key_changed` nothing that waits can be delivered: the key is `unaccepted`."""


class Dialer:
    """Decides about the calls to one peer."""

    def __init__(
        self,
        target: DialTarget,
        *,
        backoff: Backoff,
        timers: Timers,
        random: Callable[[], float],
        spawn: Callable[[Coroutine[object, object, None], str], asyncio.Task[None]],
    ) -> None:
        """`random` gives numbers evenly from 0 to 1; `spawn` starts a task that the store owns."""
        self._target = target
        self._backoff = backoff
        self._timers = timers
        self._random = random
        self._spawn = spawn
        self._phase = DialPhase.IDLE
        self._task: asyncio.Task[None] | None = None  # while CALLING
        self._timer: Timer | None = None  # while PAUSING
        self._waiters: set[asyncio.Future[AldisError | None]] = set()
        self._outcome: asyncio.Future[Failure | None] | None = None  # of the attempt that `_task` waits for
        self._refusal: Failure | None = None  # what was wrong with an answer to it
        self._failures = 0
        self._fruitless = 0  # attempts that have failed in a row
        self._connected_at: float | None = None
        self._hush: Hush | None = None
        self._offline = False
        self._asked_for = False  # the pause, by the peer or the server

    @property
    def hushed(self) -> bool:
        """Whether the peer is left alone, by any path, until it comes back online, or something waits for it."""
        return self._hush is Hush.LEFT

    @property
    def in_vain(self) -> bool:
        """Whether there is no reason to expect a direct path soon: several attempts in a row have failed, or the peer
        is not called any more."""
        return self._hush is not None or self._fruitless >= VAIN

    # --- what happens ---------------------------------------------------------------------------------------------

    async def connected(self, seconds: float) -> None:
        """Wait until the peer is connected, calling it now. Raises `PeerError` when it fails, or takes too long, and
        `IdentityError` when the pinned keys cannot be read or written.

        While the attempt waits for its turn, `seconds` do not run: they begin anew when it has it.
        """
        if self._connected_at is not None and self._target.state is PeerState.CONNECTED:
            return
        waiter: asyncio.Future[AldisError | None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        timer: Timer

        began: float | None = None

        def late() -> None:
            nonlocal timer, began
            since = self._target.clock_from
            if since is not None:
                # A peer that comes and goes has a new attempt each time. The waiter has one time-out.
                since = began = since if began is None else min(began, since)
            left = seconds if since is None else since + seconds - self._timers.time()
            if left > 0:
                timer = self._timers.call_later(left, late)
            elif not waiter.done():
                waiter.set_result(self._cause(PeerConnectionFailed(self._target.user_id, self._why_so_long(seconds))))

        timer = self._timers.call_later(seconds, late)
        try:
            self.poke(now=True)
            error = await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)
        if error is not None:
            raise error

    def _why_so_long(self, seconds: float) -> str:
        if not self._target.registered:
            return f"the signaling server cannot be reached, after {seconds:g} s"
        return f"it was not there after {seconds:g} s"

    def poke(self, *, now: bool = False) -> None:
        """Something may have changed: call if it is time to. `now` means that there is no reason to wait any more."""
        if now:
            self._offline, self._hush = False, None
            self._cancel_timer()
        if not self._target.registered and self._waited_for:
            self._target.need_server()
        if (
            self._welcome
            and self._target.registered
            and self._phase is DialPhase.IDLE
            and self._target.state not in (PeerState.CONNECTING, PeerState.CONNECTED)
        ):
            self._move(DialEvent.CALLED)
            self._task = self._spawn(self._call(), f"call {self._target.user_id}")

    def queued(self) -> None:
        """A message waits for the peer."""
        if not (self._hush is Hush.REFUSED and self._target.relayed):
            self._hush = None
        self.poke()

    def presence_changed(self, online: bool, *, anew: bool) -> None:
        """The server has said whether the peer is online. `anew`: a device of it has just registered.

        Without `anew` this may be how things have stood all along, so it does not disturb a path that is being healed.
        """
        came_back = online and (self._offline or (anew and self._target.state is PeerState.DISCONNECTED))
        self._offline = not online
        if came_back or anew:
            self._failures = self._fruitless = 0
        if came_back and self._useful and self._target.state in (PeerState.CONNECTING, PeerState.DISCONNECTED):
            # That was meant for the peer as it was before: nobody will answer.
            self._stop("it has come back online")
        if anew:
            self.path_found()
        self.poke(now=came_back)

    def signaling_returned(self, *, resumed: bool) -> None:
        """We are registered again. Unless `resumed`, something may have been missed."""
        if not resumed:
            self._offline, self._hush = False, None
        self.path_found()

    def path_found(self) -> None:
        """There is no reason to wait, unless we were asked to: the engine has a path again, the server is back, or the
        network is another one."""
        if not self._asked_for:
            self._cancel_timer()
        self.poke()

    def network_changed(self) -> None:
        """This machine has another network, or has slept: what has failed before says nothing of what comes."""
        self._failures = self._fruitless = 0
        self.path_found()

    def signaling_lost(self) -> None:
        """The server is away: it is needed where the peer waits for it."""
        self.poke()

    @property
    def _waited_for(self) -> bool:
        """Whether somebody waits for the peer: a call, a message, or a connection that was there."""
        connecting = self._target.state in (PeerState.CONNECTED, PeerState.CONNECTING)
        return self._target.wanted and not (connecting or self._hush)

    @property
    def _useful(self) -> bool:
        """Whether a direct connection is of use."""
        return self._target.wanted or self._target.relayed

    @property
    def _welcome(self) -> bool:
        """Whether the peer is to be called, now or later."""
        return self._useful and not (self._target.unaccepted or self._hush or self._offline)

    def state_changed(self, state: PeerState, error: Failure | None) -> None:
        """The connection has come to another state."""
        match state:
            case PeerState.CONNECTED:
                self._connected_at = self._timers.time()
                self._fruitless = 0
                self._hush = None
                self._refusal = None
                self._cancel_timer()
                self._finish(None)
            case PeerState.FAILED | PeerState.CLOSED | PeerState.DISCONNECTED:
                self._lost(state, error)
            case _:
                pass

    def _lost(self, state: PeerState, error: Failure | None) -> None:
        if self._connected_at is not None and self._timers.time() - self._connected_at >= SETTLED:
            self._failures = 0
        was_connected, self._connected_at = self._connected_at is not None, None
        if self._outcome is not None and not self._outcome.done():
            # DISCONNECTED with an error: the attempt has failed beside a connection that may still come back.
            if state is not PeerState.DISCONNECTED or error is not None:
                self._outcome.set_result(error or PeerConnectionFailed(self._target.user_id, "it has hung up"))
            return
        if state is PeerState.CLOSED and was_connected and not self._target.has_waiting:
            self._hush = Hush.LEFT
        self._retry(self._heed(error))

    def dismissed(self) -> None:
        """The peer has taken leave, through the relay: an attempt is in vain, and it is left alone unless something
        waits for it."""
        self._stop("the other side has hung up")
        self._hush = None if self._target.has_waiting else Hush.LEFT
        self._retry()

    def refused(self, error: Failure) -> None:
        """An offer or answer in the peer's name was not genuine; if this attempt fails, that will be why."""
        self._refusal = error

    def accepted(self, *, changed: bool = False) -> None:
        """A person has accepted the peer's key. When it has `changed`, an attempt with the other key is in vain."""
        self._refusal = None
        if changed:
            self._stop("another key was accepted")
        self.poke(now=True)

    def reconsider(self) -> None:
        """Somebody has lost interest: end an attempt of ours that nobody wants any more, leave all else as it is."""
        if not self._useful:
            if self._phase is DialPhase.CALLING:
                self._stop("it is not wanted any more")
            self._cancel_timer()

    def stop(self, error: AldisError) -> None:
        """End what is under way; who waits gets `error`."""
        self._stop(str(error))
        self._finish(error)

    def retry(self) -> None:
        """Call again after a pause, if the peer is wanted and nothing is under way."""
        self._retry()

    # --- one attempt ----------------------------------------------------------------------------------------------

    async def _call(self) -> None:
        try:
            if await self._found():
                await self._connect()
                self._move(DialEvent.ENDED)
                if self._target.state is not PeerState.CONNECTED:
                    self._retry()  # it opened, and was lost in the same moment
        except RequestFailed as error:
            self._hush = None if error.temporary else Hush.LEFT
            self._ended(self._refusal_of_server(error), not_before=error.retry_after)
        except (SignalingError, StateError) as error:
            # Who waits goes on waiting, as the server may come back in time.
            _log.debug("a call to %s was cut short: %s", self._target.user_id, error)
            self._move(DialEvent.ENDED)
            self._retry()
        except AldisError as error:
            self._ended(error, not_before=self._heed(error))
        except Exception:
            self._ended(PeerConnectionFailed(self._target.user_id, "an internal error, see the log"))
            raise

    def _refusal_of_server(self, error: RequestFailed) -> PeerConnectionFailed:
        if error.code == ErrorCode.RATE_LIMITED:
            return limited_calls(self._target.user_id, error, error.retry_after)
        return PeerConnectionFailed(self._target.user_id, f"the server refuses: {error.message}")

    async def _found(self) -> bool:
        """Ask the server for the peer; False when the call ends here."""
        try:
            await self._target.find()
        except (PeerOffline, PeerUnknown) as error:
            self._ended(error, offline=self._target.watched)
            return False
        except PeerKeyChanged as error:
            self._ended(error, key_changed=error)
            return False
        return True

    async def _connect(self) -> None:
        """Dial, and wait for what comes of it. Raises `PeerError`, `IdentityError`."""
        self._refusal = None
        began = self._timers.time()
        error = await self._attempt()
        if error is not None and not isinstance(error, PeerRefused) and self._may_have_crossed(began):
            error = await self._attempt()
        if error is not None:
            raise self._cause(error)

    def _may_have_crossed(self, began: float) -> bool:
        """Whether an attempt that has failed is worth another one at once.

        One of the two has been restarted, perhaps, and the other has noticed by this very call; or the offer went to
        a connection that the server had to give up. Who waits should not have to know of that.
        """
        return bool(self._waiters) and self._refusal is None and self._timers.time() - began < CROSSED

    async def _attempt(self) -> Failure | None:
        self._target.dial()
        if self._target.state is PeerState.CONNECTED:
            return None
        outcome: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self._outcome = outcome
        try:
            return await outcome
        finally:
            if self._outcome is outcome:
                self._outcome = None

    def _cause(self, error: Failure) -> Failure:
        """Why an attempt has failed: what was wrong with the answer says more than that none came in time."""
        return error if self._refusal is None else self._refusal

    def _ended(
        self,
        error: AldisError,
        *,
        offline: bool = False,
        key_changed: PeerKeyChanged | None = None,
        not_before: float | None = None,
    ) -> None:
        self._move(DialEvent.ENDED)
        if self._target.state is PeerState.CONNECTED:
            return  # it has called us meanwhile, with the pinned key: whatever the server says, there it is
        self._offline = offline
        if isinstance(error, PeerConnectionFailed):
            self._fruitless += 1
        self._target.failed(error, key_changed=key_changed)
        self._finish(error)
        self._retry(not_before or 0.0)

    def _heed(self, error: AldisError | None) -> float:
        """Do what a refusal of the peer asks for: call no more, or not within so many seconds."""
        if not isinstance(error, PeerRefused):
            return 0.0
        if not error.temporary:
            self._hush = self._hush or Hush.REFUSED
        return error.retry_after or 0.0

    def _finish(self, error: AldisError | None) -> None:
        if error is None and self._outcome is not None and not self._outcome.done():
            self._outcome.set_result(None)
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(error)

    def _retry(self, not_before: float = 0.0) -> None:
        """Call again after a pause, which begins in `not_before` seconds, if that makes sense.

        Not in exactly so many seconds: others were told the same at the same time. And whatever the server says, in at
        most `LONGEST_PAUSE` seconds and the pause.
        """
        if self._phase is not DialPhase.IDLE:
            return  # the call goes on, or the pause
        if not self._welcome or (self._target.resting and not self._target.wanted):
            return
        self._move(DialEvent.PAUSED)
        self._failures += 1
        self._asked_for = not_before > 0
        ceiling = self._backoff.ceiling(self._failures)
        if self._target.relayed and not self._waiters:
            if self._failures > RELAYED_FAILURES:
                ceiling = min(ceiling * RELAYED_FACTOR, RELAYED_MOST)
        elif self._waiters or self._target.queued:
            ceiling = min(ceiling, URGENT)
        pause = min(not_before, LONGEST_PAUSE) + self._random() * ceiling
        self._timer = self._timers.call_later(pause, self._due)

    def _due(self) -> None:
        self._move(DialEvent.DUE)
        self.poke()

    def _stop(self, reason: str) -> None:
        self._cancel_timer()
        self._outcome = None
        if self._phase is DialPhase.CALLING:
            assert self._task is not None  # noqa: S101 - it is what calls
            self._task.cancel()
            self._move(DialEvent.GIVEN_UP)
        if self._target.state in (PeerState.CONNECTING, PeerState.DISCONNECTED):
            self._target.hang_up(reason)

    def _cancel_timer(self) -> None:
        if self._phase is DialPhase.PAUSING:
            assert self._timer is not None  # noqa: S101 - it is the pause
            self._timer.cancel()
            self._move(DialEvent.CUT_SHORT)

    def _move(self, event: DialEvent) -> None:
        self._phase = TABLE[self._phase][event]
