"""The grades and rates of `store.quality` against grades.json, which the browser's must follow as well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aldis.store.quality import Throughput, grade_of

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "grades.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", VECTORS["grades"], ids=str)
def test_what_was_measured_has_this_grade(case: dict[str, Any]) -> None:
    grade = grade_of(
        connected=case["connected"],
        round_trip_time=case["roundTripTime"],
        jitter=case["jitter"],
        lost_heartbeats=case["lostHeartbeats"],
    )
    assert grade == (case["grade"], case["reason"])


@pytest.mark.parametrize("script", VECTORS["rates"], ids=lambda script: script["name"])
def test_counted_bytes_make_these_rates(script: dict[str, Any]) -> None:
    throughput = Throughput()
    for step in script["steps"]:
        assert list(throughput.measure(step["now"], step["sent"], step["received"])) == step["rates"]
