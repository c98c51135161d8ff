"""The mesh benchmark in small: it connects all ends, counts what is made, and fails when an end is missing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import webrtc
from benchmarks.mesh import bare
from benchmarks.mesh import run as mesh

from aldis.peer.slots import ANSWERS, MAX_UNANSWERED
from support.patience import PATIENCE


@pytest.mark.parametrize("engine", ["wrtc", "aiortc"])
def test_all_ends_are_connected_and_counted(engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    assert mesh.main(["--stores", "4", "--engine", engine, "--json", str(file)]) == 0
    (figures,) = json.loads(file.read_text())
    assert (figures["ends"], figures["connected"], figures["errors"]) == (12, 12, {})
    assert figures["made"] >= 12
    assert 0 < figures["most"] <= MAX_UNANSWERED + ANSWERS
    assert figures["over_time"][0][1] == 0
    assert figures["bare"] > 0
    assert "ends connected         12 of 12" in capsys.readouterr().out


def test_an_end_that_is_not_connected_is_told_and_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert mesh.main(["--stores", "3", "--engine", "wrtc", "--limit", "0.001", "--no-bare"]) == 1
    assert "failed, " in capsys.readouterr().out


def test_the_bare_engine_makes_as_many_as_it_is_told() -> None:
    assert asyncio.run(mesh.run_bare(3, "wrtc")) > 0


async def test_both_bare_ends_get_all_candidates_also_those_after_the_channel_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed: asyncio.Queue[webrtc.RTCIceCandidate | None] = asyncio.Queue()
    add = webrtc.RTCPeerConnection.add_ice_candidate

    async def watched(end: webrtc.RTCPeerConnection, candidate: webrtc.RTCIceCandidate | None = None) -> None:
        await add(end, candidate)
        passed.put_nowait(candidate)

    monkeypatch.setattr(webrtc.RTCPeerConnection, "add_ice_candidate", watched)
    close = await bare.connect_bare("wrtc")
    async with asyncio.timeout(PATIENCE):
        for _ in range(2):
            while await passed.get() is not None:
                pass  # `None` is the last of one end
    await close()
