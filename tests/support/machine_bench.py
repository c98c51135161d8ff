"""A `ClientMachine` on a bench: a clock that the test turns, and a server that says what the test says.

    bench = Bench()
    bench.join()                                    # connected and registered as alice
    number = bench.do(lambda m, now: m.discover("bob", now))
    assert bench.take_one() == {"type": "discover", "userId": "bob", "id": number}
    bench.say(type="discover-response", userId="bob", online=False, re=number)
    assert bench.results[number].online is False

The bench checks the machine's promises at every step: a request ends once, nothing is sent without a connection,
`Closed` is the last event, and no deadline lies in the past for longer than one `tick`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from aldis.client.backoff import Backoff
from aldis.client.effects import CloseTransport, Completed, Dial, Failed, Happened, Noted, Result, Send
from aldis.client.events import Closed, SignalingEvent
from aldis.client.machine import ClientMachine
from aldis.client.phases import ATTACHED, Phase
from aldis.client.settings import MachineSettings
from aldis.errors import AldisError
from aldis.identity.keys import Identity
from aldis.protocol.codec import raw, to_base64
from aldis.protocol.messages import Limits

HOST = "signal.example:8080"
NONCE = bytes(range(32))
LIMITS = Limits(65536, 10000, 30.0)
T = TypeVar("T")


def identity_of(name: str) -> Identity:
    """A key that is always the same for a name."""
    return Identity.from_seed(name.encode().ljust(32, b".")[:32])


class Bench:
    """The machine, its clock (`now`, seconds), and what has come out of it."""

    def __init__(
        self,
        user_id: str = "alice",
        *,
        device: str = "main",
        token: str | None = None,
        backoff: Backoff | None = None,
        request_timeout: float = 10.0,
    ) -> None:
        self.now = 1000.0
        # What `random()` says next; full jitter makes it the share of the ceiling.
        self.lot = 1.0
        settings = MachineSettings(
            host=HOST,
            user_id=user_id,
            device=device,
            token=token,
            backoff=backoff or Backoff(),
            request_timeout=request_timeout,
        )
        self.machine = ClientMachine(settings, random=lambda: self.lot)
        self.identity = identity_of(user_id)
        self.sent: list[dict[str, Any]] = []
        self.events: list[SignalingEvent] = []
        self.results: dict[int, Result] = {}
        self.failures: dict[int, AldisError] = {}
        self.notes: list[str] = []
        self.closed: tuple[int, str] | None = None
        self.dials = 0
        self._attached = False

    # --- input ------------------------------------------------------------------------------------------------------

    def do(self, command: Callable[[ClientMachine, float], T]) -> T:
        """Call something of the machine's and carry out what it wants."""
        result = command(self.machine, self.now)
        self._carry_out()
        return result

    def connect(self) -> None:
        """A connection has been made."""
        self.closed = None
        self._attached = True
        self.do(lambda m, now: m.connected(now))

    def say(self, **message: Any) -> None:
        """The server says something."""
        self.say_text(bytes(raw(message)).decode())

    def say_text(self, text: str) -> None:
        self.do(lambda m, now: m.received(text, now))

    def lose(self, code: int = 1006, reason: str = "") -> None:
        """The connection is gone."""
        self._attached = False
        self.do(lambda m, now: m.lost(now, code, reason))

    def fail_to_connect(self, reason: str = "connection refused") -> None:
        self.do(lambda m, now: m.unreachable(now, reason))

    def pass_time(self, seconds: float) -> None:
        """Turn the clock, stopping at each of the machine's deadlines on the way."""
        end = self.now + seconds
        for _ in range(100_000):
            deadline = self.machine.next_deadline
            if deadline is None or deadline > end:
                break
            assert deadline >= self.now, "a deadline that has passed was not acted on"
            self.now = deadline
            self.do(lambda m, now: m.tick(now))
            after = self.machine.next_deadline
            assert after is None or after > deadline, "the machine asks for the same moment again"
        else:
            raise AssertionError("the machine never comes to rest")
        self.now = end
        self.do(lambda m, now: m.tick(now))

    # --- the usual --------------------------------------------------------------------------------------------------

    def join(self, **registered: Any) -> int:
        """Connect and register; what has come out of the machine so far is forgotten."""
        self.connect()
        number = self.do(lambda m, now: m.register(self.identity, now))
        self.admit(**registered)
        self.forget()
        return number

    def admit(self, *, session: str = "s1", resumed: bool = False, **more: Any) -> None:
        """Play the server's part of the registration that the machine has just asked for."""
        register = self.sent[-1]
        assert register["type"] == "register", self.sent
        self.say(type="challenge", nonce=to_base64(NONCE), re=register["id"])
        prove = self.sent[-1]
        assert prove["type"] == "prove", self.sent
        reply = {
            "userId": register["userId"],
            "device": register["device"],
            "session": session,
            "secret": f"secret of {session}",
            "serverTime": 0.0,
            "limits": LIMITS,
            **more,
        }
        self.say(type="registered", success=True, resumed=resumed, re=prove["id"], **reply)

    def reconnect(self, *, resumed: bool = False, **more: Any) -> None:
        """Lose the connection, come back and register again."""
        self.lose()
        self.redial()
        self.admit(resumed=resumed, **more)

    def redial(self) -> None:
        """Wait for the next attempt and let it succeed."""
        dials = self.dials
        while self.dials == dials:
            deadline = self.machine.next_deadline
            assert deadline is not None
            self.pass_time(deadline - self.now)
        self.connect()

    # --- output -----------------------------------------------------------------------------------------------------

    def take(self) -> list[dict[str, Any]]:
        """What has been sent since the last time."""
        sent, self.sent = self.sent, []
        return sent

    def take_one(self) -> dict[str, Any]:
        (message,) = self.take()
        return message

    def take_events(self) -> list[SignalingEvent]:
        """What has happened since the last time."""
        events, self.events = self.events, []
        return events

    def forget(self) -> None:
        self.take()
        self.take_events()

    @property
    def phase(self) -> Phase:
        return self.machine.phase

    def _carry_out(self) -> None:
        for effect in self.machine.take():
            match effect:
                case Send(text):
                    assert self._attached, f"sent without a connection: {text}"
                    assert self.closed is None, f"sent after the connection was closed: {text}"
                    self.sent.append(json.loads(text))
                case CloseTransport(code, reason):
                    assert self._attached, "closed what is not there"
                    assert self.closed is None, "closed twice"
                    self.closed = (code, reason)
                case Dial():
                    assert not self._attached, "dials with a connection"
                    self.dials += 1
                case Completed(number, result):
                    self._ends(number)
                    self.results[number] = result
                case Failed(number, error):
                    self._ends(number)
                    self.failures[number] = error
                case Happened(event):
                    assert not any(isinstance(earlier, Closed) for earlier in self.events), "an event after Closed"
                    self.events.append(event)
                case Noted(text):
                    self.notes.append(text)
        if self.machine.phase not in ATTACHED and self.closed is None:
            assert not self._attached, "a connection that nobody wants"

    def _ends(self, number: int) -> None:
        assert number not in self.results, "a request ended twice"
        assert number not in self.failures, "a request ended twice"
