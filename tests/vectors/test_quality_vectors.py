"""The quality of `peer.quality` against quality.json, which the browser's must follow as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aldis.peer.quality import Quality

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "quality.json").read_text(encoding="utf-8"))[
    "vectors"
]


def call(quality: Quality, step: dict[str, Any]) -> None:
    match step:
        case {"call": "ping", "at": now, "token": token}:
            assert quality.ping(now) == token
        case {"call": "heard", "at": now}:
            quality.heard(now)
        case {"call": "sent", "size": size, "at": now}:
            quality.sent(size, now)
        case {"call": "suspect" | "doubt" | "answered" as name, "at": now}:
            getattr(quality, name)(now)
        case {"call": "pinged", "token": token}:
            quality.pinged(token)
        case {"call": "ponged", "token": token, "at": now}:
            quality.ponged(token, now)
        case _:
            assert step["call"] == "look"


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_every_call_leads_to_these_times(vector: dict[str, Any]) -> None:
    quality = Quality(vector["now"], vector["silence"], vector["heartbeat"])
    for number, step in enumerate(vector["steps"]):
        call(quality, step)
        now = step["at"]
        told = {
            "roundTripTime": quality.round_trip_time,
            "pingIn": quality.ping_in(now),
            "silentIn": quality.silent_in(now),
            "jitter": quality.jitter,
            "lostHeartbeats": quality.lost_heartbeats(now),
            "heartbeats": quality.heartbeats,
        }
        assert told == {name: step[name] for name in told}, f"step {number}"
        assert quality.silent(now) == (step["silentIn"] == 0)
