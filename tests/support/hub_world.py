"""A hub with clients that are plain objects: no socket, no event loop, and a clock that the test turns.

    world = World()
    alice = world.client("alice")            # connects, registers with a key of its own
    bob = world.client("bob")
    alice.send(type="offer", to="bob", offer={"type": "offer", "sdp": "v=0"}, id=1)
    assert bob.take() == [{"type": "offer", ...}]

The directory is a dictionary. It answers at once after each step, or when `world.answer()` is called if
`world.directory_waits` is set, or fails if `world.directory_fails` is set. Presence is told at each change, unless
`presence_interval` is given, and a user may send as fast as it likes, because the clock stands still between steps.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from aldis.backends.base import (
    ChangePrivacy,
    Claim,
    ClaimBinding,
    DirectoryAnswer,
    FindBinding,
    LoadBinding,
    PrivacyRefusal,
    Question,
    ReleaseBinding,
    RotateBinding,
)
from aldis.hub.accounts import AccountQuestion, AccountVerdict
from aldis.hub.cluster import ClusterLink
from aldis.hub.dialects import CLASSIC, V1
from aldis.hub.hub import Hub
from aldis.hub.sessions import HEADROOM, TEXT, Session
from aldis.hub.settings import HubSettings, IceSource
from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol.codec import from_base64, to_base64
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy

HOST = "signal.example:8080"
UNLIMITED: dict[str, Any] = {
    "presence_interval": 0.0,
    "user_messages_per_second": 1_000_000,
    "user_bytes_per_second": 1_000_000_000,
    "user_relayed_bytes_per_second": 1_000_000_000,
    "user_discovers_per_second": 1_000_000,
    "user_sealed_bytes_per_second": 1_000_000_000,
    "pair_sealed_bytes_per_second": 1_000_000_000,
}
START = 1000.0


class World:
    """One hub, its clock (`now`, seconds), its directory, and all clients that were made."""

    def __init__(
        self,
        *,
        seed: int = 1,
        ice: IceSource | None = None,
        operator: Callable[[AccountQuestion], AccountVerdict] | None = None,
        cluster: ClusterLink | None = None,
        **settings: Any,
    ) -> None:
        """`operator` decides on registrations, when the directory answers."""
        self.now = START
        self.keys: dict[str, bytes] = {}
        self.privacies: dict[str, Privacy] = {}
        self.questions: list[Question] = []
        self.accounts: list[AccountQuestion] = []
        self.operator = operator
        self.presence: list[tuple[str, bool]] = []
        self.directory_waits = False
        self.directory_fails = False
        self.hub_waits = False
        self.random = random.Random(seed)
        self.hub = Hub(
            HubSettings(**{**UNLIMITED, **settings}),
            ask=self.questions.append,
            ask_account=None if operator is None else self.accounts.append,
            presence_changed=lambda user_id, online: self.presence.append((user_id, online)),
            ice=ice,
            random=self.random.randbytes,
            wall=lambda: 1_700_000_000.0 + self.now,
            cluster=cluster,
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
        while not self.hub_waits and self.hub.work(self.now) == 0.0:
            pass

    def answer(self) -> None:
        """Have the directory answer all open questions, and those that come of the answers."""
        while self.questions or self.accounts:
            if self.accounts and self.operator is not None:
                account = self.accounts.pop(0)
                self.hub.account_checked(account, self.operator(account), self.now)
            elif self.directory_fails:
                self.hub.failed(self.questions.pop(0), self.now)
            else:
                question = self.questions.pop(0)
                self.hub.answered(question, self._look_up(question), self.now)
            self.work()

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
                return self._claim(question.user_id, self.keys.setdefault(question.user_id, question.public_key), new)
            case FindBinding():
                return self.keys.get(question.user_id)
            case LoadBinding():
                key = self.keys.get(question.user_id)
                return None if key is None else self._claim(question.user_id, key, False)
            case ChangePrivacy():
                if self.keys.get(question.user_id) != question.public_key:
                    return PrivacyRefusal.NOT_BOUND
                changed = self.privacies.get(question.user_id, DEFAULT_PRIVACY).changed(question.change)
                if changed is None:
                    return PrivacyRefusal.TOO_LARGE
                self.privacies[question.user_id] = changed
                return changed
            case ReleaseBinding():
                self.privacies.pop(question.user_id, None)
                return self.keys.pop(question.user_id, None) is not None
            case RotateBinding():
                if self.keys.get(question.user_id) != question.old_key:
                    return False
                self.keys[question.user_id] = question.new_key
                return True

    def _claim(self, user_id: str, key: bytes, new: bool) -> Claim:
        return Claim(key, new, self.privacies.get(user_id, DEFAULT_PRIVACY))

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
        self.pinged = b""
        self.full = False
        self.kept = 0
        self.address = "192.0.2.1"
        self.reading = True
        self.closed: tuple[int, str] | None = None
        self.registered: dict[str, Any] | None = None
        self.host = host
        self.corked: list[bytearray] | None = None
        self.most_corked = 100
        self.pieces = 0
        """How often something was sent."""
        self.identity = identity_of("")
        self.session: Session = world.hub.connected(
            self,
            dialect=CLASSIC if classic else V1,
            host=host,
            now=world.now,
        )

    # What the hub calls

    def write(self, kind: int, frame: bytearray, headroom: int) -> None:
        assert (kind, headroom) == (TEXT, HEADROOM)
        if self.corked is None:
            self.pieces += 1
            self.send_frame(frame)
        else:
            self.corked.append(frame.copy())
            if len(self.corked) >= self.most_corked:
                self._flush()

    def send_frame(self, frame: bytearray) -> None:
        self.inbox.append(json.loads(frame[HEADROOM:]))

    def cork(self) -> None:
        if self.corked is None:
            self.corked = []

    def uncork(self) -> None:
        self._flush()
        self.corked = None

    def _flush(self) -> None:
        if self.corked:
            self.pieces += 1
            frames, self.corked = self.corked, []
            for frame in frames:
                self.send_frame(frame)

    def ping(self, payload: bytes = b"") -> None:
        self.pings += 1
        self.pinged = payload

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def close(self, code: int, reason: str) -> None:
        assert self.closed is None, "closed twice"
        self.uncork()
        self.closed = (code, reason)

    # What a test calls

    def send(self, /, **message: Any) -> None:
        """Send the hub a message made of the keyword arguments."""
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

    def pong(self) -> None:
        """Answer the last ping."""
        self.world.hub.heard(self.session, self.world.now, pong=self.pinged)

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
        self,
        name: str,
        *,
        device: str | None = None,
        identity: Identity | None = None,
        settle: Callable[[], None] = lambda: None,
        **more: Any,
    ) -> dict[str, Any]:
        """Go through the whole registration; the hub's last word on it, when all has `settled`."""
        self.identity = identity or identity_of(name)
        if device is not None:
            more["device"] = device
        nonce = self.ask_challenge(name, **more)
        signature = self.identity.sign(proofs.registration(self.host, nonce, name, device or "main"))
        self.send(type="prove", signature=to_base64(signature))
        settle()
        replies = [m for m in self.inbox if m["type"] in ("registered", "error")]
        if replies and replies[-1]["type"] == "registered":
            self.registered = replies[-1]
        return replies[-1] if replies else {}

    def ticket(self, received: int) -> dict[str, Any]:
        """What to show in order to resume this client's session."""
        assert self.registered is not None
        return {"session": self.registered["session"], "secret": self.registered["secret"], "received": received}
