"""What a message between two servers costs, in small: every figure is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.cluster import relay


def test_messages_and_registrations_are_measured_at_one_server_and_at_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    words = ["--clients", "4", "--registrations", "6", "--rounds", "2", "--seconds", "0.2", "--rate", "100"]
    assert relay.main([*words, "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    across = figures["relay"]["between two servers"]
    assert len(across) == 2
    for each in across:
        for part in ("saturated", "paced"):
            assert each[part]["latency_p50_us"] <= each[part]["latency_p99_us"]
            assert min(each[part][f"{name}_us"] for name in ("server", "other", "redis")) > 0
    assert "other_us" not in figures["relay"]["one server of a cluster"][0]["paced"]
    for rounds in figures["register"].values():
        assert min(each[part]["per_second"] for each in rounds for part in ("first", "again")) > 0
    said = capsys.readouterr().out
    assert "| between two servers |" in said
    for title in ("two servers", "one worker", "two workers"):
        assert f"| {title}, Redis |" in said
