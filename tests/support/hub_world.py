"""A hub with clients that are plain objects: no socket, no event loop, and a clock that the test turns.

    world = World()
    alice = world.client("alice")            # connects, registers with a key of its own
    bob = world.client("bob")
    alice.send(type="offer", to="bob", offer={"type": "offer", "sdp": "v=0"}, id=1)
    assert bob.take() == [{"type": "offer", ...}]

The directory is a dictionary. It answers at once after each step, or when `world.answer()` is called if
`world.directory_waits` is set, or fails if `world.directory_fails` is set.
"""

from __future__ import annotations

import json
import random
from typing import Any

from aldis.backends.base import (
    Claim,
    ClaimBinding,
    DirectoryAnswer,
    FindBinding,
    Question,
    ReleaseBinding,
    RotateBinding,
)
from aldis.hub.dialects import CLASSIC, V1
from aldis.hub.hub import Hub
from aldis.hub.sessions import HEADROOM, Session
from aldis.hub.settings import HubSettings, IceSource
from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol.codec import from_base64, to_base64

HOST = "signal.example:8080"
START = 1000.0


class World:
    """One hub, its clock (`now`, seconds), its directory, and all clients that were made."""

    def __init__(self, *, seed: int = 1, ice: IceSource | None = None, **settings: Any) -> None:
        self.now = START
        self.keys: dict[str, bytes] = {}
        self.questions: list[Question] = []
        self.directory_waits = False
        self.directory_fails = False
        self.hub_waits = False
        self.random = random.Random(seed)
        self.hub = Hub(
            HubSettings(**settings),
            ask=self.questions.append,
            ice=ice,
            random=self.random.randbytes,
            wall=lambda: 1_700_000_000.0 + self.now,
        )

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Turn the clock, with a tick each `step` as a server gives them."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            self.hub.tick(self.now)
            self.work()

    def work(self) -> None:
        """Have the hub do all that it has put off, unless `hub_waits` is set."""
        while not self.hub_waits and self.hub.work():
            pass

    def answer(self) -> None:
        """Have the directory answer all open questions, and those that come of the answers."""
        while self.questions:
            question = self.questions.pop(0)
            if self.directory_fails:
                self.hub.failed(question, self.now)
            else:
                self.hub.answered(question, self._look_up(question), self.now)

    def look_up(self, question: Question) -> DirectoryAnswer:
        """What the directory says and does now."""
        return self._look_up(question)

    def settle(self) -> None:
        if not self.directory_waits:
            self.answer()
        self.work()

    def _look_up(self, question: Question) -> DirectoryAnswer:
        match question:
            case ClaimBinding():
                new = question.user_id not in self.keys
                return Claim(self.keys.setdefault(question.user_id, question.public_key), new)
            case FindBinding():
                return self.keys.get(question.user_id)
            case ReleaseBinding():
                return self.keys.pop(question.user_id, None) is not None
            case RotateBinding():
                if self.keys.get(question.user_id) != question.old_key:
                    return False
                self.keys[question.user_id] = question.new_key
                return True

    def connect(self, *, classic: bool = False, host: str = HOST) -> Client:
        """A client that has connected and said nothing."""
        return Client(self, classic=classic, host=host)

    def client(self, name: str, *, device: str | None = None, identity: Identity | None = None, **more: Any) -> Client:
        """A client that is registered; `identity` is made from the name when it is not given."""
        client = self.connect()
        client.register(name, device=device, identity=identity, **more)
        assert client.registered is not None, client.inbox
        client.take()
        return client

    def classic_client(self, name: str, key: str = "a key") -> Client:
        client = self.connect(classic=True)
        client.send(type="register", userId=name, publicKey=key)
        assert client.take() == [{"type": "registered", "success": True, "userId": name}]
        return client


def identity_of(name: str) -> Identity:
    """A key that is always the same for a name."""
    return Identity.from_seed(name.encode().ljust(32, b".")[:32])


class Client:
    """A client and its transport at once: what the hub sends stands in `inbox`."""

    def __init__(self, world: World, *, classic: bool, host: str) -> None:
        self.world = world
        self.inbox: list[dict[str, Any]] = []
        self.pings = 0
        self.full = False
        self.address = "192.0.2.1"
        self.reading = True
        self.closed: tuple[int, str] | None = None
        self.registered: dict[str, Any] | None = None
        self.host = host
        self.identity = identity_of("")
        self.session: Session = world.hub.connected(
            self,
            dialect=CLASSIC if classic else V1,
            host=host,
            now=world.now,
        )

    # What the hub calls

    def send_frame(self, frame: bytearray) -> None:
        self.inbox.append(json.loads(frame[HEADROOM:]))

    def ping(self) -> None:
        self.pings += 1

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def close(self, code: int, reason: str) -> None:
        assert self.closed is None, "closed twice"
        self.closed = (code, reason)

    # What a test calls

    def send(self, frame: bytearray | None = None, /, **message: Any) -> None:
        """The hub's `send` when it is given a frame; else send the hub a message made of the keyword arguments."""
        if frame is not None:
            self.send_frame(frame)
        else:
            self.send_text(json.dumps(message))

    def send_text(self, text: str) -> None:
        self.world.hub.received(self.session, text, self.world.now)
        self.world.settle()

    def take(self) -> list[dict[str, Any]]:
        """What has arrived since the last time."""
        inbox, self.inbox = self.inbox, []
        return inbox

    def take_one(self) -> dict[str, Any]:
        (message,) = self.take()
        return message

    def lose(self, *, clean: bool = False) -> None:
        """The connection is gone."""
        self.world.hub.lost(self.session, self.world.now, clean=clean)
        self.world.work()

    def ask_challenge(self, name: str, **more: Any) -> bytes:
        """Send `register`; the nonce of the challenge."""
        self.send(type="register", userId=name, publicKey=to_base64(self.identity.public_key), **more)
        challenge = self.inbox.pop()
        assert challenge["type"] == "challenge", challenge
        return from_base64(challenge["nonce"])

    def register(
        self, name: str, *, device: str | None = None, identity: Identity | None = None, **more: Any
    ) -> dict[str, Any]:
        """Go through the whole registration; the hub's last word on it."""
        self.identity = identity or identity_of(name)
        if device is not None:
            more["device"] = device
        nonce = self.ask_challenge(name, **more)
        signature = self.identity.sign(proofs.registration(self.host, nonce, name, device or "main"))
        self.send(type="prove", signature=to_base64(signature))
        replies = [m for m in self.inbox if m["type"] in ("registered", "error")]
        if replies and replies[-1]["type"] == "registered":
            self.registered = replies[-1]
        return replies[-1] if replies else {}

    def ticket(self, received: int) -> dict[str, Any]:
        """What to show in order to resume this client's session."""
        assert self.registered is not None
        return {"session": self.registered["session"], "secret": self.registered["secret"], "received": received}
