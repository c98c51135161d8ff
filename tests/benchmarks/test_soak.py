"""The soak in small: clients come and go, and nothing of them is left. Whether a value grows is decided as stated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.soak import run as suite
from benchmarks.soak.run import BOUNDS, Sample


def test_nothing_is_left_of_clients_that_came_and_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    words = ["--connections", "20", "--minutes", "0.1", "--rate", "60", "--every", "2", "--resume-window", "1"]
    suite.main([*words, "--json", str(file)])
    figures = json.loads(file.read_text())
    assert figures["faults"] == []
    assert figures["left"] == {}
    before, after = figures["descriptors"]
    assert before == after
    assert sum(figures["done"].values()) > 50
    assert max(sample["connections"] for sample in figures["samples"]) >= 15
    assert "| memory, MiB |" in capsys.readouterr().out


def samples(growth: dict[str, float] | None = None, count: int = 30) -> list[Sample]:
    """Samples whose values grow by so much from one to the next."""
    start = {"memory": 100.0, "descriptors": 5000, "connections": 0, "users": 0, "detached": 0, "lag": 1.0}
    return [
        Sample(
            seconds=60.0 * number,
            lag_p99=1.0,
            cpu=0.1,
            **{name: value + number * (growth or {}).get(name, 0.0) for name, value in start.items()},  # type: ignore[arg-type]
        )
        for number in range(count)
    ]


def test_a_value_that_stays_is_flat() -> None:
    assert suite.judge(samples()) == []
    assert suite.judge(samples({"memory": -1.0, "descriptors": -5, "lag": -0.01})) == []


@pytest.mark.parametrize(("name", "step"), [("memory", 1.0), ("descriptors", 10.0), ("lag", 1.0)])
def test_a_value_that_grows_all_the_time_is_not(name: str, step: float) -> None:
    (problem,) = suite.judge(samples({name: step}))
    assert problem.startswith(f"{name} grows by")
    assert name in BOUNDS


def test_growth_at_the_beginning_does_not_count() -> None:
    warm = [
        Sample(**{**sample.__dict__, "memory": 50.0 + 10 * min(number, 5)}) for number, sample in enumerate(samples())
    ]
    assert suite.judge(warm) == []
    assert suite.judge(samples(count=2)) == ["too short to tell"]
