"""Who is blocked, against blocking.json, which the browser's module must follow as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aldis.protocol.privacy import Privacy
from aldis.store.peers.blocking import Blocking

CASES = json.loads((Path(__file__).parent / "blocking.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", [pytest.param(each, id=each["name"]) for each in CASES])
def test_who_is_blocked_after_each_call(case: dict[str, Any]) -> None:
    blocking = Blocking()
    for step in case["steps"]:
        names = step["names"]
        fresh: frozenset[str] = frozenset()
        match step["call"]:
            case "told":
                kept = Privacy(presence="contacts", contacts=frozenset({"bob"}), blocked=frozenset(names))
                fresh = blocking.told(kept)
                assert (blocking.privacy.presence, blocking.privacy.contacts) == (kept.presence, kept.contacts)
            case "block":
                fresh = blocking.block(names)
            case _:
                blocking.unblock(names)
        assert (sorted(fresh), sorted(blocking.privacy.blocked)) == (step["fresh"], step["blocked"])
        assert all(blocking.blocks(name) for name in step["blocked"])
        assert not blocking.blocks("alice")
