"""The choice of a device against devices.json, which the browser's must follow as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aldis.store.peers.choice import choose, gone

CASES = json.loads((Path(__file__).parent / "devices.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", [pytest.param(each, id=each["name"]) for each in CASES])
def test_which_device_gets_what_is_sent_to_a_user(case: dict[str, Any]) -> None:
    heard, listed, connected, current = case["heard"], case["listed"], case["connected"], case["current"]
    assert choose(heard, listed, connected, current) == case["chosen"]
    known = dict.fromkeys([*heard, *([current] if current else [])])
    assert [device for device in known if gone(device, listed, connected)] == case["gone"]
