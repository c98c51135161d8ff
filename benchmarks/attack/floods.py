"""One registered client that says the same again and again, as fast as the server takes it."""

from __future__ import annotations

import base64
import json
from types import MappingProxyType

from aldis.identity.keys import Identity
from benchmarks.attack.attack import Flood, attack, key_of, relay
from benchmarks.attack.honest import PAIR, TRAVELLER
from benchmarks.attack.wire import CONTINUATION, PING, PONG, TEXT, Wire, frame, many, text

SIGNATURE = base64.b64encode(bytes(64)).decode()
NAMES = [f"somebody-{number}" for number in range(1000)]


@attack("fragments")
class Fragments(Flood):
    """Fragments of one message, without end."""

    async def enter(self, index: int) -> Wire:
        wire = await super().enter(index)
        await wire.send(frame(TEXT, b"{", fin=False))
        return wire

    def blob(self) -> bytes:
        return many(frame(CONTINUATION, b"", fin=False))


@attack("watch-again")
class WatchAgain(Flood):
    """`watch` of the same 1,000 names."""

    def blob(self) -> bytes:
        return many(text({"type": "watch", "userIds": NAMES}))


@attack("watch-in-turns")
class WatchInTurns(Flood):
    """`watch` and `unwatch` of the same 1,000 names in turns."""

    def blob(self) -> bytes:
        return many(text({"type": "watch", "userIds": NAMES}) + text({"type": "unwatch", "userIds": NAMES}))


@attack("rotate-badly")
class RotateBadly(Flood):
    """`rotate` with bad signatures."""

    def blob(self) -> bytes:
        return many(text({"type": "rotate", "newPublicKey": key_of(Identity.generate()), "signature": SIGNATURE}))


@attack("pings")
class Pings(Flood):
    """Pings in JSON."""

    def blob(self) -> bytes:
        return many(text({"type": "ping"}))


@attack("pings-with-ids")
class PingsWithIds(Flood):
    """Pings in JSON, whose replies repeat an id of 64 characters outside of ASCII."""

    def blob(self) -> bytes:
        return many(text({"type": "ping", "id": "\u20ac" * 64}))


@attack("relays-to-nobody")
class RelaysToNobody(Flood):
    """Messages to a user who is not there."""

    def blob(self) -> bytes:
        return many(text({"type": "bye", "to": "nobody", "id": 1}))


@attack("unknown-types")
class UnknownTypes(Flood):
    """Messages of 58 KB and of an unknown type."""

    def blob(self) -> bytes:
        return text({"type": "of another version", "padding": "x" * 58_000})


@attack("bad-seal-keys")
class BadSealKeys(Flood):
    """`register` with sealing keys whose signature is bad."""

    registered = False

    def blob(self) -> bytes:
        seal_key = {"publicKey": base64.b64encode(bytes(2000)).decode(), "signature": SIGNATURE}
        key = key_of(Identity.generate())
        return many(text({"type": "register", "userId": "attacker", "publicKey": key, "sealKey": seal_key}))


@attack("challenges")
class Challenges(Flood):
    """`register` again and again, and never a proof."""

    registered = False

    def blob(self) -> bytes:
        return many(text({"type": "register", "userId": "attacker", "publicKey": key_of(Identity.generate())}))


@attack("relays-to-itself")
class RelaysToItself(Flood):
    """Messages to itself."""

    def blob(self) -> bytes:
        return many(text({"type": "bye", "to": "attacker-0", "id": 1}))


@attack("relays-to-a-victim")
class RelaysToAVictim(Flood):
    """Messages of 64 KB to one of the honest pair."""

    def blob(self) -> bytes:
        return relay(PAIR[1], 64_000)


@attack("many-to-a-victim")
class ManyToAVictim(Flood):
    """Messages of 64 KB to one of the honest pair, from ten users."""

    connections = 10

    def blob(self) -> bytes:
        return relay(PAIR[1], 64_000)


@attack("tiny-to-a-traveller")
class TinyToATraveller(Flood):
    """Tiny messages to an honest client that loses its connection and wants to resume."""

    def blob(self) -> bytes:
        return text({"type": "bye", "to": TRAVELLER})


@attack("websocket-pings")
class WebSocketPings(Flood):
    """Empty WebSocket pings."""

    def blob(self) -> bytes:
        return many(frame(PING))


@attack("large-websocket-pings")
class LargeWebSocketPings(Flood):
    """WebSocket pings of 125 bytes, whose answers nobody reads."""

    listens = False

    def blob(self) -> bytes:
        return many(frame(PING, b"x" * 125))


@attack("websocket-pongs")
class WebSocketPongs(Flood):
    """WebSocket pongs that nobody has asked for."""

    def blob(self) -> bytes:
        return many(frame(PONG))


@attack("empty-texts")
class EmptyTexts(Flood):
    """Empty messages, 100 on each connection and then the next one."""

    def blob(self) -> bytes:
        return many(frame(TEXT))


@attack("deep-json")
class DeepJson(Flood):
    """64 KB of opening brackets."""

    def blob(self) -> bytes:
        return frame(TEXT, b'{"type":"offer","to":"attacker-0","offer":' + b"[" * 64_000)


@attack("many-keys")
class ManyKeys(Flood):
    """Objects of 5,000 keys that nobody knows."""

    def blob(self) -> bytes:
        return text({"type": "ping", **{f"k{number}": number for number in range(5_000)}})


@attack("escapes")
class Escapes(Flood):
    """Strings that consist of escapes alone, 64 KB of them."""

    def blob(self) -> bytes:
        return frame(TEXT, b'{"type":"bye","to":"nobody","reason":"' + rb"\u00e9" * 10_600 + b'"}')


@attack("huge-numbers")
class HugeNumbers(Flood):
    """A number of 60,000 digits as an id."""

    def blob(self) -> bytes:
        return frame(TEXT, b'{"type":"ping","id":' + b"9" * 60_000 + b"}")


@attack("discovers")
class Discovers(Flood):
    """`discover` of names that nobody has."""

    def blob(self) -> bytes:
        return b"".join(
            text({"type": "discover", "userId": f"nobody-{number}", "id": number}) for number in range(1000)
        )


@attack("ice-servers")
class IceServers(Flood):
    """Requests for STUN and TURN servers."""

    def blob(self) -> bytes:
        return many(text({"type": "ice-servers", "id": 1}))


@attack("confirmations")
class Confirmations(Flood):
    """`received` of numbers that cannot be."""

    def blob(self) -> bytes:
        return many(json_frame({"type": "received", "count": 2**53 - 1}))


@attack("crowd")
class Crowd(Flood):
    """100 clients that all send tiny messages to each other as fast as they may."""

    connections = 100

    def blob(self) -> bytes:
        return many(text({"type": "ping", "id": 1}), 4096)


@attack("crowd-of-relays")
class CrowdOfRelays(Flood):
    """50 clients that all send 16 KB to the next one as fast as they may."""

    connections = 50

    def blob(self) -> bytes:
        return relay("attacker-0", 16_000)


@attack("ice-servers-with-turn")
class IceServersWithTurn(Flood):
    """Requests for STUN and TURN servers, each of which gets a password of its own."""

    settings = MappingProxyType(
        {"ALDIS_TURN": "turn:turn.example:3478", "ALDIS_TURN_SECRET": "a secret of server and TURN server"}
    )

    def blob(self) -> bytes:
        return many(text({"type": "ice-servers", "id": 1}))


class Classic(Flood):
    """Clients of the classic dialect, on a server that takes them."""

    settings = MappingProxyType({"ALDIS_AUTH": "open"})
    connections = 20

    async def enter(self, index: int) -> Wire:
        wire = await self.open(subprotocol=None)
        await wire.send(text({"type": "register", "userId": f"classic-{index}", "publicKey": "x"}))
        return wire


@attack("classic-registrations")
class ClassicRegistrations(Classic):
    """Classic clients that register under other names and keys again and again, on the same connection."""

    def blob(self) -> bytes:
        register = {"type": "register", "userId": "classic"}
        keys = ["A", "B" * 4000]
        return many(b"".join(text({**register, "publicKey": key}) for key in keys))


@attack("classic-offers")
class ClassicOffers(Classic):
    """Classic clients that all call one of them, and one of the honest pair, as fast as they may."""

    def blob(self) -> bytes:
        offer = {"type": "offer", "offer": {"type": "offer", "sdp": "v=0" * 400}}
        return many(text({**offer, "to": "classic-0"}) + text({**offer, "to": PAIR[0]}))


@attack("classic-watches")
class ClassicWatches(Classic):
    """Classic clients that watch and do not watch 1,000 names in turns."""

    def blob(self) -> bytes:
        return many(text({"type": "watch", "userIds": NAMES}) + text({"type": "unwatch", "userIds": NAMES}))


def json_frame(message: dict[str, object]) -> bytes:
    """A message in a frame."""
    return frame(TEXT, json.dumps(message).encode())
