"""What a client says to each relay: one small class a dialect, and all that differs between the relays is in here.

A dialect is text in and text out; it opens no socket and keeps no clock. For the load generator a client is: dial `url`
with `headers`; send what `greeting` gives; give every text that comes to `reply`, and send what that gives, until
`registered` says so; then send `offer`s. `confirmation` is what a client owes its relay after every `confirm_every`
relayed messages, and nobody but Aldis asks for one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final, Protocol

from aldis.client import resume
from aldis.identity import proofs
from aldis.identity.keys import Identity
from aldis.protocol import codec
from aldis.protocol.messages import Capabilities, Offer, Proof, Prove, Received, Register
from benchmarks.load.sample import OFFER_SDP

# As the client of Aldis does it: after so many messages or so many characters, whichever comes first.
CONFIRM_EVERY: Final = min(resume.MOST_MESSAGES, -(-resume.MOST_CHARACTERS // len(OFFER_SDP)))


class Dialect(Protocol):
    """One client of one relay."""

    user: str
    registered: bool
    confirm_every: int  # 0: never

    def url(self, port: int) -> str: ...
    def headers(self) -> dict[str, str]: ...
    def greeting(self) -> bytes | None: ...
    def reply(self, text: bytes) -> bytes | None: ...
    def offer(self, to: str) -> bytes: ...
    def carries(self, text: bytes, sender: str) -> bool:
        """Tell whether a relayed message holds the whole SDP and names its sender."""
        ...

    def confirmation(self, count: int) -> bytes: ...
    def heartbeat(self) -> bytes | None:
        """What a client says every few seconds so as not to be thrown out, if it has to say anything."""
        ...


class RelayRefused(Exception):
    """The relay answered with an error where none may come: the benchmark would measure the wrong thing."""


def _description() -> dict[str, str]:
    return {"type": "offer", "sdp": OFFER_SDP}


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass
class Minimal:
    """The dialect of the two relays that were written for this comparison (`ws_relay.mjs`, `picows_relay.py`)."""

    user: str
    registered: bool = False
    confirm_every: int = 0

    def url(self, port: int) -> str:
        return f"ws://127.0.0.1:{port}/"

    def headers(self) -> dict[str, str]:
        return {}

    def greeting(self) -> bytes | None:
        return _dump({"type": "register", "userId": self.user})

    def reply(self, text: bytes) -> bytes | None:
        message = json.loads(text)
        if message["type"] != "registered":
            raise RelayRefused(text.decode())
        self.registered = True
        return None

    def offer(self, to: str) -> bytes:
        return _dump({"type": "offer", "to": to, "offer": _description()})

    def carries(self, text: bytes, sender: str) -> bool:
        message = json.loads(text)
        return bool(message["from"] == sender and message["offer"] == _description())

    def confirmation(self, count: int) -> bytes:
        raise NotImplementedError

    def heartbeat(self) -> bytes | None:
        return None


@dataclass
class PeerJS:
    """The dialect of the PeerJS server: who one is stands in the URL, and `OPEN` says that one is known."""

    user: str
    registered: bool = False
    confirm_every: int = 0

    def url(self, port: int) -> str:
        return f"ws://127.0.0.1:{port}/peerjs?key=peerjs&id={self.user}&token={self.user}"

    def headers(self) -> dict[str, str]:
        return {}

    def greeting(self) -> bytes | None:
        return None

    def reply(self, text: bytes) -> bytes | None:
        if json.loads(text)["type"] != "OPEN":
            raise RelayRefused(text.decode())
        self.registered = True
        return None

    def offer(self, to: str) -> bytes:
        return _dump({"type": "OFFER", "src": self.user, "dst": to, "payload": {"sdp": _description()}})

    def carries(self, text: bytes, sender: str) -> bool:
        message = json.loads(text)
        return bool(message["src"] == sender and message["payload"]["sdp"] == _description())

    def confirmation(self, count: int) -> bytes:
        raise NotImplementedError

    def heartbeat(self) -> bytes | None:
        return _dump({"type": "HEARTBEAT"})


@dataclass
class Aldis:
    """`aldis.v1` with a proven key, sending the same bare offer as the others."""

    user: str
    identity: Identity = field(default_factory=Identity.generate)
    registered: bool = False
    confirm_every: int = CONFIRM_EVERY
    _host: str = ""

    def url(self, port: int) -> str:
        self._host = f"127.0.0.1:{port}"
        return f"ws://{self._host}/"

    def headers(self) -> dict[str, str]:
        return {"Sec-WebSocket-Protocol": "aldis.v1"}

    def greeting(self) -> bytes | None:
        return codec.encode(Register(user_id=self.user, public_key=codec.to_base64(self.identity.public_key)))

    def reply(self, text: bytes) -> bytes | None:
        message = json.loads(text)
        match message["type"]:
            case "challenge":
                nonce = codec.from_base64(message["nonce"])
                proof = proofs.registration(self._host, nonce, self.user, "main")
                return codec.encode(Prove(signature=codec.to_base64(self.identity.sign(proof))))
            case "registered":
                self.registered = True
            case "ack":
                pass
            case _:
                raise RelayRefused(text.decode())
        return None

    def offer(self, to: str) -> bytes:
        return codec.encode(Offer(to=to, offer=codec.raw(_description())))

    def carries(self, text: bytes, sender: str) -> bool:
        message = json.loads(text)
        return bool(message["from"] == sender and message["offer"] == _description())

    def confirmation(self, count: int) -> bytes:
        return codec.encode(Received(count=count))

    def heartbeat(self) -> bytes | None:
        return None  # the server pings


@dataclass
class AldisComplete(Aldis):
    """Aldis as its own client speaks it: connection name, end-to-end proof, and an `id` that the server acks."""

    def offer(self, to: str) -> bytes:
        connection = "3q2-7wAAAAAAAAAAAAAAAA"
        nonce = bytes(range(proofs.NONCE_BYTES))
        signature = self.identity.sign(proofs.offer(self.user, to, connection, nonce, OFFER_SDP))
        proof = Proof(
            public_key=codec.to_base64(self.identity.public_key),
            nonce=codec.to_base64(nonce),
            signature=codec.to_base64(signature),
        )
        return codec.encode(
            Offer(
                to=to,
                offer=codec.raw(_description()),
                connection=connection,
                proof=codec.raw(proof),
                capabilities=codec.raw(Capabilities()),
                id=1,
            )
        )


DIALECTS: Final[dict[str, type[Minimal] | type[PeerJS] | type[Aldis]]] = {
    "minimal": Minimal,
    "peerjs": PeerJS,
    "aldis": Aldis,
    "aldis-complete": AldisComplete,
}
