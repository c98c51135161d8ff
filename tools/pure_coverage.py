"""Check that the pure layers are covered: run after the tests, on the `.coverage` that they left.

    python tools/pure_coverage.py

The pure layers (no sockets, no event loop) can be tested completely and cheaply, so there is no excuse: of each of
them at least `WANTED` percent of the statements and of the branches must have run, and in tests of their own: only
those are measured (tests/conftest.py). The rest of the source has no figure, since what talks to sockets and engines is
better judged by what its tests assert.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WANTED = 95.0
COUNTED = ("num_statements", "covered_lines", "num_branches", "covered_branches")
PURE = (
    "protocol/",
    "identity/",
    "hub/",
    "client/backoff.py",
    "client/handshake.py",
    "client/keepalive.py",
    "client/machine.py",
    "client/requests.py",
    "client/resume.py",
    "client/watches.py",
    "peer/commands.py",
    "peer/negotiation.py",
    "peer/quality.py",
    "peer/session.py",
    "store/messages/outbox.py",
    "store/messages/inbox.py",
    "store/messages/control.py",
    "store/files/window.py",
)


def measured() -> dict[str, dict[str, Any]]:
    """The summary of each file under src/aldis, by its path there."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        command = [sys.executable, "-m", "coverage", "json", "--quiet", "-o", str(report)]
        subprocess.run(command, check=True)
        files: dict[str, Any] = json.loads(report.read_text())["files"]
    return {path.replace("\\", "/").partition("src/aldis/")[2]: data["summary"] for path, data in files.items()}


def percent(covered: int, total: int) -> float:
    return 100.0 * covered / total if total else 100.0


def main() -> int:
    files = measured()
    failed = False
    print(f"\n{'coverage of':<24}{'statements':>12}{'branches':>12}")
    for layer in PURE:
        chosen = [numbers for path, numbers in files.items() if path.startswith(layer)]
        total = {key: sum(numbers[key] for numbers in chosen) for key in COUNTED}
        if not total["num_statements"]:
            print(f"{layer:<24}  nothing was measured: has it moved?")
            failed = True
            continue
        statements = percent(total["covered_lines"], total["num_statements"])
        branches = percent(total["covered_branches"], total["num_branches"])
        low = min(statements, branches) < WANTED
        failed |= low
        mark = f"  below {WANTED:g} %: see `coverage report -m`" if low else ""
        print(f"{layer:<24}{statements:>11.1f}%{branches:>11.1f}%{mark}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
