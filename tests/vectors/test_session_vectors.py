"""The session of `peer.session` against session.json, which the browser's session must follow as well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aldis.peer.session import Ended, PathLost, PathRestored, PeerSession, SessionEvent, Violated
from aldis.protocol.channel import Ack, Chunk, Frame, Goodbye, Hello, Ping, Pong, decode
from support.vectors import camel, snake

VECTORS = Path(__file__).parent / "session.json"
OUTPUTS = ("result", "sent", "events", "deadline", "greeted", "lost")


class Recorder:
    """A path that keeps what is sent on it."""

    def __init__(self) -> None:
        self.room = 1_000_000
        self.closed = self.may_bundle = False
        self.sent: list[list[object]] = []

    def send(self, frame: bytes) -> bool:
        self.sent.append(shown(decode(frame)))
        return True


def shown(value: Frame | SessionEvent | None) -> list[object]:
    match value:
        case Hello(stream=stream):
            return ["hello", stream]
        case Chunk(sequence=sequence) | Ack(sequence):
            return [type(value).__name__.lower(), sequence]
        case Ping(token) | Pong(token):
            return [type(value).__name__.lower(), token]
        case Goodbye(reason):
            return ["goodbye", reason]
        case PathLost():
            return ["pathLost"]
        case PathRestored():
            return ["pathRestored"]
        case Ended(reason, orderly):
            return ["ended", reason, orderly]
        case Violated(reason):
            return ["violated", reason]
    raise AssertionError(value)


def play(vector: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What comes of each step."""
    path = Recorder()
    setup = {name: vector[name] for name in ("silence", "heartbeat", "probe", "early") if name in vector}
    session = PeerSession(path, vector["now"], **setup)
    for step in vector["steps"]:
        path.room, path.closed = step.get("room", path.room), step.get("closed", path.closed)
        path.sent = []
        result = call(session, step)
        told: dict[str, Any] = {} if isinstance(result, list) else {"result": result}
        events = [shown(event) for event in result] if isinstance(result, list) else []
        state = {"deadline": session.deadline, "greeted": session.greeted, "lost": session.lost}
        yield {**told, "sent": path.sent, "events": events, **state}


def call(session: PeerSession, step: dict[str, Any]) -> Any:
    match step:
        case {"call": "open", "hello": hello, "at": now}:
            return session.open(msgspec.convert(hello, Hello), now)
        case {"call": "received", "text": str(text), "at": now}:
            return session.received(text, now)
        case {"call": "received", "at": now}:
            return session.received(bytes(step["zeros"]) if "zeros" in step else bytes.fromhex(step["data"]), now)
        case {"call": "send", "frame": frame}:
            return session.send(bytes.fromhex(frame))
        case {"call": "expect", "size": size, "at": now}:
            return session.expect(size, now)
        case {"call": "goodbye", "reason": reason}:
            return session.goodbye(reason)
        case {"call": "probe", "reason": reason, "at": now}:
            return session.probe(reason, now)
        case {"call": "lose" | "drained" | "rest" as name}:
            return getattr(session, name)()
        case {"call": name, "at": now}:
            return getattr(session, name)(now)


@pytest.mark.parametrize(
    "vector", json.loads(VECTORS.read_text(encoding="utf-8"))["vectors"], ids=lambda vector: vector["name"]
)
def test_every_call_leads_to_these_frames_and_events(vector: dict[str, Any]) -> None:
    for number, (step, told) in enumerate(zip(vector["steps"], play(vector), strict=True)):
        expected = {name: step[name] for name in OUTPUTS if name in step}
        assert {name: told.get(name) for name in expected} == expected, f"step {number}"


def test_every_call_of_the_session_is_in_the_vectors() -> None:
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))["vectors"]
    used = {snake(step["call"]) for vector in vectors for step in vector["steps"]}
    calls = {name for name, value in vars(PeerSession).items() if callable(value) and not name.startswith("_")}
    # No browser tells of signs of life of its own; what was measured has vectors of its own. `expect_more` is a quick
    # `expect`, where reading the clock costs more than in a browser.
    assert used == calls - {"alive", "measured", "expect_more"}
    assert {camel(name) for name in used} == used
