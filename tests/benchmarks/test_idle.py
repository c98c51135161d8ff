"""The idle benchmark in small: it measures both, and says how they compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.idle import run as idle


def test_stores_and_the_bare_engine_are_measured_in_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    words = ["--stores", "3", "--engine", "wrtc", "--rounds", "2", "--seconds", "1", "--settle", "0"]
    assert idle.main([*words, "--json", str(file)]) == 0
    (figures,) = json.loads(file.read_text())
    assert figures["ends"] == 6
    assert len(figures["ours"]) == len(figures["bare"]) == 2
    assert min(figures["ours"] + figures["bare"]) > 0
    assert figures["ratio"] == pytest.approx(
        sum(ours / bare for ours, bare in zip(figures["ours"], figures["bare"], strict=True)) / 2
    )
    assert "wrtc: 6 ends" in capsys.readouterr().out
