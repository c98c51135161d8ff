"""The storm in small: clients of the library lose their server to kill -9, and all come back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.storm import run as suite
from benchmarks.storm.run import CASES


def test_all_clients_are_back_after_their_server_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    words = ["--clients", "12", "--watches", "3", "--pause", "0.1", "--json", str(file)]
    assert suite.main([*words, "--only", "tls-watches", "--only", "plain-away"]) == 0
    figures = json.loads(file.read_text())
    assert [each["case"] for each in figures] == ["tls-watches", "plain-away"]
    for each in figures:
        assert each["clients"] == 12
        assert each["half"] <= each["p90"] <= each["p99"] <= each["last"]
        assert each["most_tries"] >= each["tries"] >= 1
        assert sum(each["reasons"].values()) >= 12
    assert "| tls-watches | 12 |" in capsys.readouterr().out


def test_there_is_a_case_with_and_without_tls_for_each_question() -> None:
    questions = {(case.watches > 0, case.pause > 0) for case in CASES.values()}
    assert questions == {(False, False), (True, False), (False, True)}
    for case in CASES.values():
        assert [
            other.tls for other in CASES.values() if (other.watches, other.pause) == (case.watches, case.pause)
        ] == [
            False,
            True,
        ]
