"""A hub and clients in one thread: the real `Hub`, real `ClientMachine`s, a link in memory, one clock.

No socket, no event loop, no waiting: an hour of lost connections takes milliseconds, and happens the same way each
time.

    pair = HubPair()
    alice, bob = pair.client("alice"), pair.client("bob")        # connected and registered
    alice.do(lambda m, now: m.relay(offer, now))                 # carried out, delivered, answered
    assert bob.take_events() == [OfferReceived("alice", ...)]

Time passes only in `pair.pass_time(seconds)`: machines act on their deadlines, the hub ticks each second. Everything
that is sent is delivered in order before any call returns, unless the link is told otherwise:

    bob.cut()                   the line breaks; both ends notice at once (code 1006)
    bob.go_dark()               nothing passes any more, and nobody notices until a time-out; `bob.cut()` ends it
    bob.drop_next(3)            three more messages to bob are swallowed, then the line breaks: the resume case
    pair.crash()                the server is killed: all lines break, its memory is gone, the directory stays
    pair.start()                it is up again
    pair.restart()              the graceful way: `going-away`, close, a new hub
    pair.reachable = False      the server is well, but nobody gets a new connection to it

A client that has lost its line comes back by itself as time passes. The directory is a dictionary,
`pair.keys`. Each client has `results` and `failures` by request number, `take_events()`, `notes`, and
`call(...)`, which makes a request and returns its result or raises its error.
"""

from __future__ import annotations

import dataclasses
import random
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from aldis.backends.base import (
    ChangePrivacy,
    Claim,
    ClaimBinding,
    DirectoryAnswer,
    FindBinding,
    PrivacyRefusal,
    Question,
    RotateBinding,
)
from aldis.client.backoff import Backoff
from aldis.client.effects import CloseTransport, Completed, Dial, Failed, Happened, Noted, Result, Send
from aldis.client.events import SignalingEvent
from aldis.client.machine import ClientMachine
from aldis.client.phases import Phase
from aldis.client.settings import MachineSettings
from aldis.errors import AldisError
from aldis.hub.dialects import V1
from aldis.hub.hub import Hub
from aldis.hub.sessions import Session
from aldis.hub.settings import HubSettings
from aldis.identity.keys import Identity
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy
from support.hub_world import UNLIMITED
from support.machine_bench import HOST, identity_of

T = TypeVar("T")


class HubPair:
    """One server and its clients. `settings` are those of `HubSettings`; `seed` decides all that is random."""

    def __init__(self, *, seed: int = 1, **settings: Any) -> None:
        self.now = 1000.0
        """The time, for all of them, in seconds."""
        self.random = random.Random(seed)
        self.keys: dict[str, bytes] = {}
        """The directory: which key each name is bound to."""
        self.privacies: dict[str, Privacy] = {}
        self.clients: list[PairedClient] = []
        self.reachable = True
        """Whether new connections can be made."""
        self.up = True
        """Whether the server is running; see `crash` and `start`."""
        self._settings = HubSettings(**{**UNLIMITED, **settings})
        self._questions: deque[Question] = deque()
        # What is on its way, in the order in which it was sent, whichever way it goes.
        self._moving: deque[Callable[[], object]] = deque()
        self._delivering = False
        self.hub = self._new_hub()
        """The hub that is running."""

    def _new_hub(self) -> Hub:
        self._questions.clear()
        return Hub(
            self._settings,
            ask=self._questions.append,
            random=self.random.randbytes,
            wall=lambda: 1_700_000_000.0 + self.now,
        )

    def _look_up(self, question: Question) -> DirectoryAnswer:
        match question:
            case ClaimBinding():
                new = question.user_id not in self.keys
                key = self.keys.setdefault(question.user_id, question.public_key)
                return Claim(key, new, self.privacies.get(question.user_id, DEFAULT_PRIVACY))
            case FindBinding():
                return self.keys.get(question.user_id)
            case ChangePrivacy():
                changed = self.privacies.get(question.user_id, DEFAULT_PRIVACY).changed(question.change)
                if changed is None:
                    return PrivacyRefusal.TOO_LARGE
                self.privacies[question.user_id] = changed
                return changed
        assert isinstance(question, RotateBinding)
        if self.keys.get(question.user_id) != question.old_key:
            return False
        self.keys[question.user_id] = question.new_key
        return True

    def client(
        self,
        name: str,
        *,
        device: str = "main",
        identity: Identity | None = None,
        backoff: Backoff | None = None,
        register: bool = True,
    ) -> PairedClient:
        """A client that is connected, and registered unless told otherwise; its key is made of its name."""
        client = PairedClient(self, name, device, identity or identity_of(name), backoff or Backoff())
        self.clients.append(client)
        client.connect()
        if register:
            client.call(lambda m, now: m.register(client.identity, now))
            client.take_events()
        return client

    def pass_time(self, seconds: float) -> None:
        """Turn the clock, to each moment at which somebody has something to do."""
        end = self.now + seconds
        while self.now < end:
            moments = [client.machine.next_deadline for client in self.clients]
            due = [moment for moment in moments if moment is not None and moment > self.now]
            self.now = min([end, int(self.now) + 1.0, *due])
            if self.up and self.now == int(self.now):
                self.hub.tick(self.now)
            for client in self.clients:
                client.do(lambda m, now: m.tick(now))
            self.deliver()

    def deliver(self) -> None:
        """Let everything arrive that is on its way, and all that comes of it."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._moving or self._questions or self.hub.work(self.now) == 0.0:
                if self._moving:
                    self._moving.popleft()()
                elif self._questions:
                    question = self._questions.popleft()
                    self.hub.answered(question, self._look_up(question), self.now)
        finally:
            self._delivering = False

    def send(self, arrive: Callable[[], object]) -> None:
        """Put something on its way."""
        self._moving.append(arrive)

    # --- the server's troubles --------------------------------------------------------------------------------------

    def crash(self) -> None:
        """As by kill -9: the hub is gone with all it knew; only the directory stays."""
        self.up = False
        self._moving.clear()
        self.hub = self._new_hub()
        for client in self.clients:
            client.lose()
        self.deliver()

    def start(self) -> None:
        """The server is up (again)."""
        self.up = True

    def restart(self, **settings: Any) -> None:
        """A graceful stop, as by SIGTERM, and a new hub at once, with these settings changed."""
        self.hub.drain(self.now)
        self.deliver()
        self._settings = dataclasses.replace(self._settings, **settings)
        self.hub = self._new_hub()


class PairedClient:
    """A machine, and its line to the hub."""

    def __init__(self, pair: HubPair, name: str, device: str, identity: Identity, backoff: Backoff) -> None:
        settings = MachineSettings(host=HOST, user_id=name, device=device, backoff=backoff)
        self.machine = ClientMachine(settings, random=pair.random.random)
        self.identity = identity
        self.results: dict[int, Result] = {}
        self.failures: dict[int, AldisError] = {}
        self.events: list[SignalingEvent] = []
        self.notes: list[str] = []
        self._pair = pair
        self._line: _Line | None = None

    def do(self, command: Callable[[ClientMachine, float], T]) -> T:
        """Call something of the machine's, and let everything happen that comes of it."""
        result = command(self.machine, self._pair.now)
        self._carry_out()
        self._pair.deliver()
        return result

    def call(self, command: Callable[[ClientMachine, float], int]) -> Result:
        """Make a request; its result, or its error raised. It has to come without time passing."""
        number = self.do(command)
        if number in self.failures:
            raise self.failures[number]
        return self.results[number]

    def take_events(self) -> list[SignalingEvent]:
        """What has happened since the last time."""
        events, self.events = self.events, []
        return events

    @property
    def registered(self) -> bool:
        return self.machine.phase is Phase.REGISTERED

    # --- the line ---------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Make the first connection; later ones are made when the machine dials."""
        self._line = _Line(self._pair, self)
        self.do(lambda m, now: m.connected(now))

    def cut(self) -> None:
        """The line breaks, and both ends notice."""
        if self._line is not None:
            line, self._line = self._line, None
            line.end(clean=False)
            self.do(lambda m, now: m.lost(now, 1006, "the line was cut"))

    def lose(self) -> None:
        """The line breaks; the hub is not told (because there is none any more)."""
        if self._line is not None:
            self._line.over = True
            self._line = None
            self.do(lambda m, now: m.lost(now, 1006, "the server is gone"))

    def come_from(self, address: str) -> None:
        """The hub takes this for the address of the client from now on, until the next connection."""
        assert self._line is not None
        self._line.address = address

    def go_dark(self) -> None:
        """From now on nothing passes, either way, and nobody is told."""
        assert self._line is not None
        self._line.dark = True

    def drop_next(self, count: int) -> None:
        """Swallow the next messages to this client; with the last of them the line breaks."""
        assert self._line is not None
        self._line.to_drop = count

    def line_closed(self, line: _Line, code: int, reason: str) -> None:
        """The hub has closed the line."""
        if self._line is line:
            self._line = None
            self.do(lambda m, now: m.lost(now, code, reason))

    def _carry_out(self) -> None:
        for effect in self.machine.take():
            match effect:
                case Send(text):
                    assert self._line is not None, "sent without a connection"
                    self._line.to_hub(text)
                case CloseTransport(code, _):
                    line, self._line = self._line, None
                    assert line is not None, "closed what is not there"
                    line.close_by_client(code)
                case Dial():
                    self._dial()
                case Completed(number, result):
                    self.results[number] = result
                case Failed(number, error):
                    self.failures[number] = error
                case Happened(event):
                    self.events.append(event)
                case Noted(text):
                    self.notes.append(text)

    def _dial(self) -> None:
        if self._pair.up and self._pair.reachable:
            self._pair.send(self.connect)
        else:
            self._pair.send(lambda: self.do(lambda m, now: m.unreachable(now, "connection refused")))


class _Line:
    """One connection between a client and the hub, as the hub's `Connection`."""

    def __init__(self, pair: HubPair, client: PairedClient) -> None:
        self.dark = False
        self.over = False
        self.to_drop = 0
        self._pair = pair
        self._client = client
        self._hub = pair.hub
        self._session: Session = self._hub.connected(self, dialect=V1, host=HOST, now=pair.now)

    # What the hub calls

    full = False
    kept = 0
    address = "192.0.2.1"

    def write(self, kind: int, frame: bytearray, headroom: int) -> None:
        text = frame[headroom:].decode()
        if self.to_drop:
            self.to_drop -= 1
            if not self.to_drop:
                self.dark = True
                self._pair.send(self._client.cut)
        elif not self.dark:
            self._pair.send(lambda: self._arrive(text))

    def pause_reading(self) -> None:
        raise AssertionError("a client has sent too much at once")

    def resume_reading(self) -> None:
        raise AssertionError("was never paused")

    def cork(self) -> None:
        pass

    def uncork(self) -> None:
        pass

    def ping(self, payload: bytes = b"") -> None:
        if not self.dark:
            self._pair.send(self._pinged)

    def close(self, code: int, reason: str) -> None:
        self._pair.send(lambda: self._closed(code, reason))

    # What happens on the line

    def to_hub(self, text: str) -> None:
        if not self.dark:
            self._pair.send(lambda: None if self.over else self._received(text))

    def close_by_client(self, code: int) -> None:
        """The client's CLOSE frame; the hub hears it unless the line is dark, and the client's end comes anyway."""
        if not self.dark:
            self._pair.send(lambda: self.end(clean=code in (1000, 1001)))
        self._pair.send(lambda: self._client.do(lambda m, now: m.lost(now, 1006, "")))

    def end(self, *, clean: bool) -> None:
        if not self.over:
            self.over = True
            self._hub.lost(self._session, self._pair.now, clean=clean)

    def _arrive(self, text: str) -> None:
        if not self.over and not self.dark:
            self._client.do(lambda m, now: m.received(text, now))

    def _received(self, text: str) -> None:
        self._hub.received(self._session, text, self._pair.now)

    def _pinged(self) -> None:
        if not self.over and not self.dark:
            self._client.do(lambda m, now: m.heard(now))
            self._hub.heard(self._session, self._pair.now)

    def _closed(self, code: int, reason: str) -> None:
        if not self.over:
            self.end(clean=False)
            if not self.dark:
                self._client.line_closed(self, code, reason)
