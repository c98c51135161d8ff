"""A conversation with one peer, for both forms of `aldis chat`: connect, watch the state, report, leave.

Rules: it reports each event once, in words, through `tell`; it raises what ends the conversation. It knows neither
terminals nor pipes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Final, TypeVar

from aldis.cli.text import safe_line
from aldis.client.events import SignalingState
from aldis.errors import (
    AldisError,
    DeliveryFailed,
    PeerConnectionFailed,
    PeerError,
    PeerKeyChanged,
    PeerOffline,
    PeerRefused,
    PeerUnknown,
)
from aldis.peer.connection import PeerState
from aldis.store.files.transfer import Transfer
from aldis.store.state import PeerView, StoreState
from aldis.store.store import NetworkStore

_T = TypeVar("_T")

_ATTEMPT: Final = 30.0  # seconds for one attempt: by then ICE has found a path, or finds none
_PAUSE: Final = 2.0  # seconds between two attempts
_NO_FILES: Final = "aldis chat takes no files; aldis receive does"


@dataclass(frozen=True, slots=True)
class Plan:
    """The arguments of `aldis chat`. `timeout` is in seconds, None for no limit. `first_contact`: no key of the peer is
    known yet. `keeps`: a journal keeps what is not delivered."""

    me: str
    peer: str
    server: str
    first_contact: bool
    wait: bool
    timeout: float | None
    listen: bool
    keep_listening: bool
    json: bool
    keeps: bool = False


class Talk:
    """A conversation with one peer of a registered store."""

    def __init__(
        self, store: NetworkStore, plan: Plan, tell: Callable[[str], None], *, chatty: bool, files: bool = False
    ) -> None:
        """`chatty`: also report what works. `files`: the command takes care of files itself."""
        self.store = store
        self.plan = plan
        self.view = PeerView(plan.peer)
        self.state = StoreState()
        self.met = False  # there was a connection
        self.left = False  # the peer has ended the connection
        self.problem: PeerError = PeerOffline(plan.peer)  # why there was no connection yet
        self._tell = tell
        self._name = safe_line(plan.peer)
        self._chatty = chatty
        self._waiting_told = False
        self._trouble_told = ""
        self._limit: float | None = None
        self._changed = asyncio.Event()
        self._unsubscribe = store.subscribe(self._note)
        self._stop_declining = None if files else store.on_file(self._decline)

        if self.view.queued:
            self._tell(f"{count_messages(self.view.queued)} of an earlier time: waiting for {self._name}")

    @property
    def afterwards(self) -> str:
        """What becomes of the messages that are not delivered, to end a sentence with."""
        return "; kept for the next chat with this name" if self.plan.keeps else ""

    def close(self) -> None:
        """Stop watching the store."""
        self._unsubscribe()
        if self._stop_declining is not None:
            self._stop_declining()

    def _decline(self, transfer: Transfer) -> None:
        transfer.decline(_NO_FILES)
        if transfer.user_id == self.plan.peer:
            self._tell(f"{self._name} would have sent the file {safe_line(transfer.name)}; {_NO_FILES}")

    # --- events -------------------------------------------------------------------------------------------------------

    def _note(self, state: StoreState) -> None:
        old, self.state = self.state, state
        old_view, self.view = self.view, state.peers.get(self.plan.peer, self.view)
        self._note_journal(old.journal_error, state.journal_error)
        self._note_signaling(old.signaling, state)
        if self.view.state is not old_view.state:
            self._note_peer(old_view.state, self.view)
        elif self._chatty and None not in (self.view.path, old_view.path) and self.view.path != old_view.path:
            self._tell(f"{self._name} is {_how(self.view)}")
        self._changed.set()

    def _note_journal(self, old: AldisError | None, error: AldisError | None) -> None:
        if (old is None) is (error is None):
            return
        self._tell("messages are kept again" if error is None else f"{safe_line(str(error))}; new messages are lost")

    def _note_signaling(self, old: SignalingState, state: StoreState) -> None:
        if state.signaling is old:
            return
        if old is SignalingState.CONNECTED and state.signaling is SignalingState.CONNECTING:
            direct = self.view.state is PeerState.CONNECTED and self.view.path != "relay"
            goes_on = "you can talk on without it" if direct else "it is tried again"
            self._tell(f"the server is out of reach; {goes_on}")
        elif old is SignalingState.CONNECTING and state.signaling is SignalingState.CONNECTED:
            self._tell("the server is back")

    def _note_peer(self, old: PeerState, view: PeerView) -> None:
        match view.state:
            case PeerState.CONNECTED:
                if self._chatty or self._waiting_told:
                    self._tell(f"{self._name} is {'back' if self.met else 'here'}, {_how(view)}")
                if self.plan.first_contact and not self.met:
                    text = f"first contact with {self._name}; the key is remembered. Its fingerprint:"
                    self._tell(f"{text}\n  {view.fingerprint}")
                self.met, self.left, self._waiting_told, self._trouble_told = True, False, False, ""
            case PeerState.CLOSED if self._is_goodbye(old, view):
                self.left = self._waiting_told = True
                self._tell(f"{self._name} has left")
            case PeerState.DISCONNECTED:
                self._waiting_told = True
                self._tell_trouble(f"the connection to {self._name} is interrupted")
            case PeerState.FAILED if view.error is not None and not isinstance(view.error, PeerKeyChanged):
                # Without waiting, the first failure ends the conversation, and is reported there.
                if self.met or self.plan.wait:
                    self._waiting_told = True
                    self._tell_trouble(f"{safe_line(str(view.error))}; trying again")
            case _:
                pass

    def _is_goodbye(self, old: PeerState, view: PeerView) -> bool:
        """Whether the peer has ended the connection. (The store itself drops a dead connection when the peer comes back
        online.)"""
        return old is PeerState.CONNECTED or (old is PeerState.DISCONNECTED and view.online is not True)

    def _tell_trouble(self, text: str) -> None:
        if text != self._trouble_told:  # each attempt may fail in the same way
            self._trouble_told = text
            self._tell(text)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds. Raises when the server has closed the session for good."""
        while not condition():
            if self.state.signaling is SignalingState.DISCONNECTED and self.state.signaling_error is not None:
                raise self.state.signaling_error
            self._changed.clear()
            await self._changed.wait()

    async def refused_for_good(self) -> None:
        """Never returns; raises when the server has ended the session for good."""
        await self.until(lambda: False)

    # --- connecting ---------------------------------------------------------------------------------------------------

    async def meet(self, limit: float | None) -> None:
        """Return when the peer is connected. Waits for the peer to come online if the plan says so.

        Raises `PeerError` after `limit` seconds (None: never), or at once without waiting.
        """
        self._limit = limit
        try:
            async with asyncio.timeout(limit):
                while not await self._try_to_meet():
                    pass
        except TimeoutError:
            # Through the relay they may have met, while the direct connection was still being tried.
            if not self.met:
                raise self.problem from None

    async def _try_to_meet(self) -> bool:
        try:
            await self.store.connect_to_peer(self.plan.peer, timeout=_ATTEMPT)
        except (PeerOffline, PeerUnknown) as error:
            self.problem = error
            if not self.plan.wait:
                raise
            self._tell_waiting(error)
            await self.until(lambda: self.view.online is True or self.view.state is PeerState.CONNECTED)
        except PeerConnectionFailed as error:
            self.problem = error
            if not (self.plan.wait and error.temporary):
                raise
            pause = error.retry_after if isinstance(error, PeerRefused) else None
            try:
                async with asyncio.timeout(max(_PAUSE, pause or 0.0)):
                    await self.until(lambda: self.view.state is PeerState.CONNECTED)
            except TimeoutError:
                return False
        else:
            return True
        return False

    def _tell_waiting(self, error: PeerError) -> None:
        if self._waiting_told:
            return
        self._waiting_told = True
        unknown = isinstance(error, PeerUnknown)
        why = f"nobody called {self._name} has been here yet" if unknown else f"{self._name} is not online"
        self._tell(f"{why}; waiting" + ("" if self._limit is None else f" for up to {self._limit:g} s"))

    async def until_left(self) -> None:
        """Return when the peer has said goodbye. Raises `PeerConnectionFailed` when the peer vanishes."""
        away = (PeerState.FAILED, PeerState.DISCONNECTED, PeerState.CLOSED)
        await self.until(
            lambda: self.left or (self.met and self.view.state in away and self.view.online is False),
        )
        if not self.left:
            raise PeerConnectionFailed(self.plan.peer, "they went away without a goodbye")

    # --- leaving ------------------------------------------------------------------------------------------------------

    async def delivered(self) -> bool:
        """Wait until the peer has confirmed every message, within the plan's time-out; return whether it has.

        Raises `PeerKeyChanged` and `DeliveryFailed`.
        """
        try:
            await self.confirmed(self.store.drain(self.plan.peer, timeout=self.plan.timeout))
        except TimeoutError:
            return False
        return True

    async def confirmed(self, delivery: Awaitable[None]) -> None:
        """Wait for a delivery. Raises `DeliveryFailed`, or its cause if a person has to act on that."""
        try:
            await delivery
        except DeliveryFailed:
            if isinstance(self.view.error, PeerKeyChanged):
                raise self.view.error from None
            raise


async def alongside(main: Coroutine[object, object, _T], *others: Coroutine[object, object, object]) -> _T:
    """Run `main` and return its result. Meanwhile run `others`, and cancel them after it.

    When one of the others raises, cancel `main` and raise that instead. When one returns, nothing happens.
    """
    task = asyncio.ensure_future(main)
    beside = [asyncio.ensure_future(other) for other in others]
    try:
        while not task.done():
            running = [each for each in beside if not each.done()]
            await asyncio.wait([task, *running], return_when=asyncio.FIRST_COMPLETED)
            for each in running:
                if each.done():
                    each.result()
        return task.result()
    finally:
        for each in beside:
            each.cancel()
        task.cancel()
        await asyncio.gather(task, *beside, return_exceptions=True)


def _how(view: PeerView) -> str:
    return "connected through the server, sealed" if view.path == "relay" else "directly connected"


def count_messages(number: int) -> str:
    return "1 message" if number == 1 else f"{number} messages"
