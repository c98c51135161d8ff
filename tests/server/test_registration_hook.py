"""What is kept of the answers of the operator's application."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

from aldis.protocol.messages import MAX_CLASSIC_KEY
from aldis.server.hooks import Applicant, RegistrationHook, SignedPosts
from aldis.server.http_calls import HttpCalls
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
