"""When a peer is called, against dialer.json, which the browser's dialer must follow as well.

A step is something that happens to the dialer; `done` is what it does to its target then, and `waiting` what becomes of
those who wait for a connection, by their numbers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from aldis.client.backoff import Backoff
from aldis.errors import (
    AldisError,
    ConnectionLost,
    PeerConnectionFailed,
    PeerKeyChanged,
    PeerOffline,
    PeerRefused,
    PeerUnknown,
    ProofInvalid,
    RequestFailed,
)
from aldis.peer.connection import PeerState
from aldis.store.peers.dialer import CROSSED, SETTLED, Dialer, registered_anew
from support.peers import FakeTimers

VECTORS = json.loads((Path(__file__).parent / "dialer.json").read_text(encoding="utf-8"))
ERRORS: dict[str, AldisError] = {
    "offline": PeerOffline("bob"),
    "unknown": PeerUnknown("bob"),
    "key changed": PeerKeyChanged("bob", b"1", b"2"),
    "no path": PeerConnectionFailed("bob", "no path"),
    "forged": ProofInvalid("bob", "the signature is wrong"),
    "busy": PeerRefused("bob", "busy", "busy", retry_after=5.0),
    "not accepted": PeerRefused("bob", "not accepted", "not-accepted", temporary=False),
    "server gone": ConnectionLost("gone"),
    "forbidden": RequestFailed("forbidden", "no"),
    "rate limited": RequestFailed("rate-limited", "later", temporary=True, retry_after=7.0),
}


class Target:
    """What a script says of the peer, and what the dialer does to it."""

    def __init__(self) -> None:
        self.user_id = "bob"
        self.wanted = True
        self.queued = 0
        self.relayed = False
        self.resting = False
        self.watched = True
        self.registered = True
        self.state = PeerState.NEW
        self.clock_from: float | None = 0.0
        self.unaccepted: PeerKeyChanged | None = None
        self.found: list[str | None] = []
        self.done: list[str] = []
        self.waiting: dict[str, str] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.timers = FakeTimers()
        backoff = Backoff(**VECTORS["backoff"])
        random = VECTORS["random"]
        self.dialer = Dialer(self, backoff=backoff, timers=self.timers, random=lambda: random, spawn=self.spawn)

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self.tasks.append(task)
        return task

    @property
    def has_waiting(self) -> bool:
        return self.queued > 0

    def need_server(self) -> None:
        self.done.append("need the server")

    async def find(self) -> None:
        self.done.append("find")
        name = self.found.pop(0) if self.found else None
        if name is not None:
            raise ERRORS[name]

    def dial(self) -> None:
        self.done.append("dial")
        if self.state is not PeerState.CONNECTED:
            self.state = PeerState.CONNECTING

    def hang_up(self, reason: str) -> None:
        self.done.append("hang up")
        self.state = PeerState.CLOSED

    def failed(self, error: AldisError, *, key_changed: PeerKeyChanged | None = None) -> None:
        how = ", for good" if key_changed else ", in vain" if self.dialer.in_vain else ""
        self.done.append(f"failed: {type(error).__name__}{how}")
        self.unaccepted = self.unaccepted or key_changed

    async def connect(self, name: str, seconds: float) -> None:
        try:
            await self.dialer.connected(seconds)
        except AldisError as error:
            self.waiting[name] = type(error).__name__
        else:
            self.waiting[name] = "connected"

    def set(self, name: str, value: Any) -> None:
        match name:
            case "state":
                self.state = PeerState(value)
            case "clock_from" if value == "now":
                self.clock_from = self.timers.time()
            case _:
                setattr(self, name, value)

    def take(self, step: dict[str, Any]) -> None:
        dialer = self.dialer
        error = None if step.get("error") is None else ERRORS[step["error"]]
        match step["step"]:
            case "set":
                for name, value in step["target"].items():
                    self.set(name, value)
            case "poke":
                dialer.poke(now=step["now"])
            case "queued":
                self.queued = step["count"]
                dialer.queued()
            case "presence":
                dialer.presence_changed(step["online"], anew=step["anew"])
            case "signaling returned":
                dialer.signaling_returned(resumed=step["resumed"])
            case "state":
                self.state = PeerState(step["state"])
                dialer.state_changed(self.state, error)  # type: ignore[arg-type]  # one of those that it may be
            case "signaling lost":
                dialer.signaling_lost()
            case "path found":
                dialer.path_found()
            case "network changed":
                dialer.network_changed()
            case "refused":
                dialer.refused(error)  # type: ignore[arg-type]
            case "dismissed":
                dialer.dismissed()
            case "accepted":
                self.unaccepted = None
                dialer.accepted()
            case "reconsider":
                dialer.reconsider()
            case "stop":
                assert error is not None
                dialer.stop(error)
            case "connect":
                self.spawn(self.connect(step["name"], step["seconds"]), step["name"])
            case "wait":
                self.timers.advance(step["seconds"])
            case other:
                pytest.fail(f"an unknown step: {other}")


async def played(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What happens in each step."""
    target = Target()
    results = []
    for step in steps:
        target.done, target.waiting = [], {}
        target.found = list(step.get("found", target.found))
        target.take(step)
        for _ in range(20):
            await asyncio.sleep(0)
        results.append({"done": target.done, "waiting": target.waiting, "is": target.state.value})
    for task in target.tasks:
        task.cancel()
    await asyncio.gather(*target.tasks, return_exceptions=True)
    return results


def test_the_numbers_of_the_dialer() -> None:
    expected = (VECTORS["settled"], VECTORS["crossed"])
    assert expected == (SETTLED, CROSSED)


def test_a_device_that_registers_anew_is_told_from_one_that_leaves() -> None:
    for before, now, anew in VECTORS["registered_anew"]:
        assert registered_anew(tuple(before), tuple(now)) is anew


@pytest.mark.parametrize("script", [pytest.param(each, id=each["name"]) for each in VECTORS["scripts"]])
async def test_a_peer_is_called_as_in_the_script(script: dict[str, Any]) -> None:
    for step, result in zip(script["steps"], await played(script["steps"]), strict=True):
        assert {name: step[name] for name in result} == result, step
