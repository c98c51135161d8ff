"""What a cluster costs by its number of servers: a short run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.cluster import growth


def test_a_short_run_gives_the_costs_of_each_event(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("IDLE_SECONDS", "MESSAGE_SECONDS", "SETTLE_SECONDS"):
        monkeypatch.setattr(growth, name, 0.3)
    out = tmp_path / "figures.json"
    words = ["--nodes", "1,2", "--users", "24", "--watches", "3", "--changes", "6", "--json", str(out)]
    assert growth.main(words) == 0
    figures = json.loads(out.read_text())
    assert list(figures) == ["1", "2"]
    for each in figures.values():
        assert each["registration"]["commands"] > each["message"]["commands"]
        assert each["change"]["servers_us"] > 0 < each["memory"]["redis_bytes_per_user"]
    # Partners at the same server need no Redis.
    assert figures["1"]["message"]["bytes_in"] < figures["2"]["message"]["bytes_in"]
    table = capsys.readouterr().out
    assert all(f"| {title} | {nodes} |" in table for title in growth.EVENTS.values() for nodes in (1, 2))


def test_the_numbers_have_to_fit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        growth.main(["--users", "10", "--changes", "9"])
    assert "more users than --changes" in capsys.readouterr().err
