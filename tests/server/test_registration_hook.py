"""What is kept of the answers of the operator's application, and whom it keeps waiting."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest

from aldis.protocol.messages import MAX_CLASSIC_KEY
from aldis.server.hooks import Applicant, RegistrationHook, SignedPosts
from aldis.server.http_calls import CallFailed, HttpCalls
from aldis.server.logs import get_logger

ANSWERS = 300


class Application(HttpCalls):
    """Refuses everybody, at length."""

    async def post(self, *_: Any, **__: Any) -> bytes:
        return b'{"allow": false, "reason": "%s"}' % ("é" * 300).encode()


async def test_a_kept_answer_takes_a_kilobyte_however_long_the_key_of_a_classic_client_is() -> None:
    posts = SignedPosts(Application(), "http://127.0.0.1/", "secret")
    hook = RegistrationHook(posts, get_logger("aldis.accounts"), timeout=60, cache=60, concurrency=1)
    gc.collect()
    tracemalloc.start()
    for number in range(ANSWERS):
        key = f"{number}".ljust(MAX_CLASSIC_KEY, "x")
        for _ in range(2):
            await hook.decide(Applicant(f"user{number}".ljust(128, "x"), "main", key, False))
    del key
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert hook.calls["denied"] == hook.calls["cached"] == ANSWERS
    assert size < ANSWERS * 1024


class Failing(HttpCalls):
    """Takes some time for each call, and fails in the second and the third."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.calls = 0

    async def post(self, *_: Any, **__: Any) -> bytes:
        self.calls += 1
        self.now += 2.0
        match self.calls:
            case 2:
                raise CallFailed("it is not there")
            case 3:
                raise TimeoutError
        return b'{"allow": true}'


async def test_calls_that_fail_are_measured_too_and_kept_answers_are_not() -> None:
    application = Failing()
    posts = SignedPosts(application, "http://127.0.0.1/", "secret")
    log, clock = get_logger("aldis.accounts"), (lambda: application.now)
    hook = RegistrationHook(posts, log, timeout=60, cache=60, concurrency=1, clock=clock)
    for name in ("alice", "alice", "bob", "carol"):
        with suppress(CallFailed):
            await hook.decide(Applicant(name, "main", "key", True))
    assert hook.calls == {"allowed": 1, "cached": 1, "failed": 2, "denied": 0}
    assert (sum(hook.seconds.counts), hook.seconds.total) == (3, 6.0)


class Thoughtful(HttpCalls):
    """Admits honest users, and thinks about the others until the end of the test."""

    def __init__(self) -> None:
        super().__init__()
        self.thinking = 0

    async def post(self, url: str, body: bytes, *_: Any, **__: Any) -> bytes:
        if not json.loads(body)["user"].startswith("honest"):
            self.thinking += 1
            await asyncio.Event().wait()
        return b'{"allow": true}'


@pytest.mark.parametrize("network", [b"\xc0\0\2\1", None], ids=["of one network", "of one account"])
async def test_those_about_whom_the_application_thinks_leave_half_of_its_turns_to_the_others(
    network: bytes | None,
) -> None:
    application = Thoughtful()
    posts = SignedPosts(application, "http://127.0.0.1/", "secret")
    hook = RegistrationHook(posts, get_logger("aldis.accounts"), timeout=60, cache=0, concurrency=4)
    names = ["greedy"] * 10 if network is None else [f"stranger-{number}" for number in range(10)]
    who = () if network is None else (network,)
    tasks = [asyncio.create_task(hook.decide(Applicant(name, "main", "key", True, who))) for name in names]
    await asyncio.sleep(0)  # they begin
    for number in range(5):
        assert (await hook.decide(Applicant(f"honest-{number}", "main", "key", True))).allow
    assert application.thinking == 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
