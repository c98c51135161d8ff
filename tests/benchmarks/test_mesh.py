"""The mesh benchmark in small: it connects all ends, counts what is made, and fails when an end is missing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from benchmarks.mesh import run as mesh

from aldis.peer.slots import ANSWERS, CALLS


@pytest.mark.parametrize("engine", ["wrtc", "aiortc"])
def test_all_ends_are_connected_and_counted(engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    assert mesh.main(["--stores", "4", "--engine", engine, "--json", str(file)]) == 0
    (figures,) = json.loads(file.read_text())
    assert (figures["ends"], figures["connected"], figures["errors"]) == (12, 12, {})
    assert figures["made"] >= 12
    assert 0 < figures["most"] <= CALLS + ANSWERS
    assert figures["over_time"][0][1] == 0
    assert figures["bare"] > 0
    assert "ends connected         12 of 12" in capsys.readouterr().out


def test_an_end_that_is_not_connected_is_told_and_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert mesh.main(["--stores", "3", "--engine", "wrtc", "--limit", "0.001", "--no-bare"]) == 1
    assert "failed, " in capsys.readouterr().out


def test_the_bare_engine_makes_as_many_as_it_is_told() -> None:
    assert asyncio.run(mesh.run_bare(3, "wrtc")) > 0
