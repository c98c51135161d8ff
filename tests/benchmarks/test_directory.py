"""The benchmark of copies of a directory runs, with few names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.patience import PATIENCE


def test_each_kind_of_copy_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.directory.run", "--names", "300", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(": ")[1].split("  ")[0].strip()[:15] for line in lines] == [
        "the first copy",
        "without changes",
        "1 % has changed",
    ]
    assert all(line.endswith("MiB") for line in lines)
