"""The benchmark runs, in a tiny form and without Node. What it measures is not looked at, only that it does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.run", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_tiny_run_relays_and_registers_with_aldis_and_bare_picows_and_keeps_its_numbers(tmp_path: Path) -> None:
    tiny = ["--quick", "--rounds", "1", "--seconds", "0.1", "--pairs", "2", "--connections", "8"]
    relays = "aldis,aldis-complete,aldis-sqlite,picows"
    done = run("--relays", relays, "--parts", "relay,register", *tiny, "--results", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    (kept,) = tmp_path.glob("*.json")
    document: dict[str, Any] = json.loads(kept.read_text())
    assert set(document["relay"]) == {"aldis", "aldis-complete", "picows"}
    assert set(document["register"]) == {"aldis", "aldis-sqlite", "picows"}
    for rounds in document["relay"].values():
        assert rounds[0]["saturated"]["messages"] > 0
        assert rounds[0]["paced"]["messages"] > 0
    for rounds in document["register"].values():
        assert rounds[0]["connections"] == 8
        assert rounds[0]["again"]["per_second"] > 0
    assert {target["name"] for target in document["targets"]} == {
        "processor time a message, against bare picows with a dictionary",
        "memory of an idle registered connection",
        "processor time of a new name, in memory",
        "processor time of a new name, on disk",
    }
    (table,) = tmp_path.glob("*.md")
    assert "| bare picows |" in table.read_text()


def test_the_server_of_another_environment_takes_part_and_is_compared_with(tmp_path: Path) -> None:
    before = Path(sys.executable).with_name("aldis")
    tiny = ["--quick", "--rounds", "1", "--seconds", "0.1", "--pairs", "2", "--connections", "8"]
    words = ["--relays", "aldis", "--before", str(before), "--parts", "relay,register", "--results", str(tmp_path)]
    done = run(*words, *tiny)
    assert done.returncode == 0, done.stdout + done.stderr
    (kept,) = tmp_path.glob("*.json")
    document: dict[str, Any] = json.loads(kept.read_text())
    found = {target["name"]: target["at_most"] for target in document["targets"]}
    # Eight connections may take no page that the process did not have before: then there is no ratio.
    found.pop("memory of an idle registered connection, against before", None)
    assert found == {
        "processor time a message, against Aldis before": 1.10,
        "memory of an idle registered connection": 10_000,
        "processor time of a new name, in memory": 500,
    }


def test_what_is_unknown_is_refused_with_what_is_known() -> None:
    done = run("--relays", "aldis,carrier-pigeon")
    assert done.returncode == 2
    assert "'carrier-pigeon' is none of aldis, aldis-complete, aldis-sqlite, picows, ws, peerjs" in done.stderr


def test_the_lock_of_the_relays_has_a_hash_for_every_package_and_no_address_for_any() -> None:
    lock = json.loads((ROOT / "benchmarks" / "load" / "relays" / "package-lock.json").read_text())
    packages = {path: entry for path, entry in lock["packages"].items() if path}
    assert {"node_modules/peer", "node_modules/ws"} <= set(packages)
    for path, entry in packages.items():
        assert entry["integrity"].startswith("sha512-"), path
        assert "resolved" not in entry, path
