"""The attack suite in small: it measures an attack, and holds it to its bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks.attack import run as suite
from benchmarks.attack.attack import ATTACKS
from benchmarks.attack.run import DISTURBED, FACTOR, GROWTH, LATEST, Result, Slice

# One of each kind of scene: what else the server opens or needs.
SCENES = [
    *("pings", "tls-handshakes", "stun-requests", "redirect-requests", "admin-wrong-tokens", "blocks-in-turns"),
    *("bad-tokens", "hanging-strangers", "classic-offers", "proxied-handshakes", "forwarded-everywhere"),
]


@pytest.mark.parametrize("name", SCENES)
def test_an_attack_is_measured_beside_honest_users(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    suite.main(["--only", name, "--rounds", "1", "--seconds", "0.5", "--json", str(file)])
    (figures,) = json.loads(file.read_text())
    assert figures["name"] == name
    assert 0 < figures["quiet_p50"] <= figures["quiet_p99"]
    assert 0 < figures["attack_p50"] <= figures["attack_p99"] <= figures["attack_max"]
    assert figures["server_cpu"] > 0
    assert 0 < figures["memory_quiet"] <= figures["memory_peak"]
    assert figures["journeys"] > 0
    assert not figures["lost"]
    assert not figures["refused"]
    assert f"| {name} |" in capsys.readouterr().out


def test_all_attacks_are_listed_with_what_they_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(ATTACKS)
    assert all(len(line.split()) > 2 for line in lines)


def verdict(
    under_attack: float = 1.0, quiet: float = 1.0, growth: float = 0.0, **seen: list[tuple[float, str]]
) -> Result:
    """What comes of these milliseconds and this many MiB."""
    slices = [
        Slice(under_attack=False, begin=0, end=1, cpu=0.1, waited=0.0),
        Slice(under_attack=True, begin=1, end=2, cpu=0.9, waited=0.2),
    ]
    all_seen: dict[str, Any] = {
        "messages": [(0.5, quiet / 1000), (1.5, under_attack / 1000)],
        "late": [(0.5, 0.0001), (1.5, 0.0005)],
        "newcomers": [(1.5, 0.001)],
        "journeys": 1,
        "lost": [],
        "refused": [],
    }
    return suite.evaluate("pings", slices, all_seen | seen, 50, 50 + growth)


def test_an_attack_passes_within_its_bounds() -> None:
    result = verdict(under_attack=FACTOR - 0.1, growth=GROWTH)
    assert not result.failures
    assert result.ratio == pytest.approx(FACTOR - 0.1)
    assert (result.newcomer, result.server_cpu, result.server_waited, result.late_p99) == (1.0, 0.9, 0.2, 0.5)


def test_an_attack_fails_beyond_any_of_its_bounds() -> None:
    assert verdict(under_attack=FACTOR + 0.1).failures
    assert verdict(under_attack=LATEST + 1, quiet=LATEST).failures
    assert verdict(under_attack=DISTURBED + 0.1, quiet=DISTURBED + 0.1).failures
    assert verdict(growth=GROWTH + 1).failures
    assert verdict(lost=[(1.0, "message 7")]).failures
    assert verdict(refused=[(1.0, "honest-a: closed")]).failures


def test_only_what_was_disturbed_is_measured_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disturbed, bad, good = verdict(quiet=DISTURBED + 0.1), verdict(under_attack=FACTOR + 0.1), verdict()
    lost = verdict(quiet=DISTURBED + 0.1, lost=[(1.0, "message 7")])
    assert [each.disturbed for each in (disturbed, bad, good, lost)] == [True, False, False, False]
    results = [disturbed, disturbed, good, disturbed, disturbed, disturbed, bad, lost]
    monkeypatch.setattr(suite, "measure", lambda *words, **more: replace(results.pop(0)))
    assert suite.main([*("--only", "pings") * 4, "--again", "2"]) == 1
    assert not results
    rows = [line.split("|")[-2].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("| pings")]
    assert rows[0] == "pass (measured 3 times)"
    assert rows[1].endswith("too much to tell (measured 3 times)")
    assert rows[2] == "p99 is 3.1 times that in quiet"
    assert rows[3].endswith("1 lost")
