"""The benchmark of journals runs, in a tiny form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_tiny_run_measures_both_sizes_with_and_without(tmp_path: Path) -> None:
    words = ["--messages", "50", "--folder", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.journal.run", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    lines = done.stdout.splitlines()
    assert [line.split(" bytes")[0].strip() for line in lines] == ["100", "16384"]
    assert all("without a journal" in line for line in lines)
