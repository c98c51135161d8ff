"""The sealed sessions of `peer.relay` against relay.json, which the browser's must follow as well.

A step is the name of the call and its arguments by position, and holds what came of it: the result, the name of the
current session, whether it is answered, the room, and when the next handshake may leave.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aldis.peer.relay import Outgoing, RelaySessions, Verdict
from support.vectors import camel, snake

VECTORS = json.loads((Path(__file__).parent / "relay.json").read_text(encoding="utf-8"))["vectors"]
CALLS = {name for name, value in vars(RelaySessions).items() if callable(value) and not name.startswith("_")}


def read(argument: Any) -> Any:
    """`"s:01"` is a session, `"f:5"` a frame of five bytes."""
    if not isinstance(argument, str):
        return argument
    kind, value = argument.split(":")
    return bytes.fromhex(value) if kind == "s" else bytes(int(value))


def shown(result: Any) -> Any:
    match result:
        case list():
            return [shown(each) for each in result]
        case Outgoing():
            frames = [len(frame) for frame in result.frames]
            return {
                "number": result.number,
                "session": result.session.hex(),
                "counter": result.counter,
                "frames": frames,
            }
        case Verdict():
            return result.value
    return result


def play(vector: dict[str, Any]) -> list[dict[str, Any]]:
    sessions = RelaySessions(polite=vector["polite"])
    told = []
    for step in vector["steps"]:
        result = None
        for _ in range(step.get("repeat", 1)):
            result = getattr(sessions, snake(step["call"]))(*map(read, step["arguments"]))
        name = sessions.session
        told.append(
            {
                "result": shown(result),
                "session": None if name is None else name.hex(),
                "answered": sessions.answered,
                "room": sessions.room,
                "notBefore": sessions.not_before,
            }
        )
    return told


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_every_call_leads_to_this_result_and_state(vector: dict[str, Any]) -> None:
    for number, (step, told) in enumerate(zip(vector["steps"], play(vector), strict=True)):
        assert {name: step[name] for name in told} == told, f"step {number}"


def test_every_call_and_every_verdict_is_in_the_vectors() -> None:
    steps = [step for vector in VECTORS for step in vector["steps"]]
    assert {step["call"] for step in steps} == {camel(name) for name in CALLS}
    assert {verdict.value for verdict in Verdict} <= {
        step["result"] for step in steps if isinstance(step["result"], str)
    }
