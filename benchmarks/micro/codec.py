"""What it costs to read an offer, write the sender into it and write it again: `codec`, and the library's `json`.

The relayed payload is never parsed by `codec` (`Raw`), only walked over.
"""

from __future__ import annotations

import json

from msgspec import UNSET

from aldis.protocol import codec
from aldis.protocol.messages import Offer
from benchmarks.load.dialects import Aldis, AldisComplete
from benchmarks.micro.timing import Case, time_all

HEADROOM = 14


def measure(seconds: float) -> list[Case]:
    """Time the codec on a bare offer, on one with all that Aldis's own client adds, and json beside it."""
    bare = Aldis("alice@example.com").offer("bob@example.com").decode()
    complete = AldisComplete("alice@example.com").offer("bob@example.com").decode()
    buffer = bytearray(8192)

    def relay(text: str) -> None:
        message = codec.decode_client_message(text)
        assert isinstance(message, Offer)
        message.from_ = "alice@example.com"
        message.id = UNSET
        codec.encode_into(message, buffer, HEADROOM)

    def with_json() -> None:
        message = json.loads(bare)
        message["from"] = "alice@example.com"
        json.dumps(message, separators=(",", ":")).encode()

    decoded = codec.decode_client_message(bare)
    return time_all(
        {
            "decode and encode an offer": lambda: relay(bare),
            "decode and encode an offer with proof and id": lambda: relay(complete),
            "decode an offer": lambda: codec.decode_client_message(bare),
            "encode an offer": lambda: codec.encode_into(decoded, buffer, HEADROOM),
            "decode and encode an offer with json": with_json,
        },
        seconds,
    )
