"""How many bytes a message has on the wire (without the WebSocket's own 2 to 8), and how many are not payload."""

from __future__ import annotations

import json
from dataclasses import dataclass

from aldis.protocol import channel, codec
from aldis.protocol import messages as m
from benchmarks.load.dialects import Aldis, AldisComplete, Minimal, PeerJS
from benchmarks.load.sample import OFFER_SDP

CANDIDATE = "candidate:1467250027 1 udp 2122260223 192.0.2.146 51472 typ host generation 0 network-id 1 network-cost 10"


@dataclass(frozen=True)
class Envelope:
    """A message's size; `around` is what remains without the payload, None where there is no payload."""

    name: str
    bytes: int
    around: int | None


def _relayed(name: str, frame: bytes, payload: str) -> Envelope:
    return Envelope(name, len(frame), len(frame) - len(json.dumps(payload)) + 2)


def measure() -> list[Envelope]:
    """The sizes of typical messages, Aldis's beside the others'."""
    alice, bob = "alice@example.com", "bob@example.com"
    candidate = codec.encode(
        m.IceCandidate(
            to=bob, candidate=codec.raw(m.Candidate(CANDIDATE, "0", 0, "sXP5")), connection="3q2-7wAAAAAAAAAAAAAAAA"
        )
    )
    registered = m.Registered(
        True, alice, "main", "s" * 22, "s" * 43, False, 1764000000.123, m.Limits(65536, 10000, 30.0)
    )
    return [
        _relayed("offer, bare", Aldis(alice).offer(bob), OFFER_SDP),
        _relayed("offer with connection, proof, capabilities and id", AldisComplete(alice).offer(bob), OFFER_SDP),
        _relayed("offer to the minimal relays", Minimal(alice).offer(bob), OFFER_SDP),
        _relayed("offer to the PeerJS server", PeerJS(alice).offer(bob), OFFER_SDP),
        _relayed("ICE candidate", candidate, CANDIDATE),
        Envelope("register", len(Aldis(alice).greeting() or b""), None),
        Envelope("challenge", len(codec.encode(m.Challenge(codec.to_base64(bytes(32))))), None),
        Envelope("prove", len(codec.encode(m.Prove(codec.to_base64(bytes(64))))), None),
        Envelope("registered", len(codec.encode(registered)), None),
        Envelope("ack", len(codec.encode(m.Ack(1))), None),
        Envelope("received", len(codec.encode(m.Received(1000))), None),
        Envelope("data channel: acknowledgement", len(channel.encode_ack(1)), None),
    ]
