"""Check the coverage of the pure layers. Run it after the tests, on their `.coverage` file.

    python tools/pure_coverage.py

The pure layers (no sockets, no event loop) can be tested completely and cheaply. So in each of them, at least `WANTED`
percent of the statements and of the branches must run in the layer's own tests; only those tests are measured
(tests/conftest.py). Other source files have no figure, because the assertions of their tests say more.

It also checks that no other tests were measured: `OTHER` must not have run.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1] / "src" / "aldis"

WANTED = 95.0
COUNTED = ("num_statements", "covered_lines", "num_branches", "covered_branches")
PURE = (
    "protocol/",
    "identity/",
    "hub/",
    "client/backoff.py",
    "client/commands.py",
    "client/handshake.py",
    "client/keepalive.py",
    "client/machine.py",
    "client/requests.py",
    "client/resume.py",
    "client/watches.py",
    "cluster/buckets.py",
    "cluster/faults.py",
    "cluster/messages.py",
    "cluster/shared_bans.py",
    "cluster/states.py",
    "peer/attempts.py",
    "peer/commands.py",
    "peer/negotiation.py",
    "peer/quality.py",
    "peer/relay.py",
    "peer/relay_guard.py",
    "peer/sealing.py",
    "peer/session.py",
    "store/messages/outbox.py",
    "store/peers/choice.py",
    "store/messages/inbox.py",
    "store/messages/control.py",
    "store/files/digest.py",
    "store/files/manifest.py",
    "store/files/pace.py",
    "store/files/window.py",
    "store/journal/rows.py",
    "store/quality.py",
    "server/stun.py",
    "server/supervision.py",
)
# A function that is not pure, has its own tests, and is called by the tests of every server.
OTHER = ("server/config.py", "load_config")


def measured() -> dict[str, dict[str, Any]]:
    """The coverage of each file under src/aldis, by its path there."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "coverage.json"
        command = [sys.executable, "-m", "coverage", "json", "--quiet", "-o", str(report)]
        subprocess.run(command, check=True)
        files: dict[str, Any] = json.loads(report.read_text())["files"]
    return {path.replace("\\", "/").partition("src/aldis/")[2]: data for path, data in files.items()}


def percent(covered: int, total: int) -> float:
    return 100.0 * covered / total if total else 100.0


def judge(files: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, bool]]:
    """The lines of a table for the result of `measured`, and whether each passes."""
    yield f"{'coverage of':<24}{'statements':>12}{'branches':>12}", True
    for layer in PURE:
        chosen = [data["summary"] for path, data in files.items() if path.startswith(layer)]
        total = {key: sum(numbers[key] for numbers in chosen) for key in COUNTED}
        if not total["num_statements"]:
            yield f"{layer:<24}  nothing was measured: has it moved?", False
            continue
        statements = percent(total["covered_lines"], total["num_statements"])
        branches = percent(total["covered_branches"], total["num_branches"])
        high = min(statements, branches) >= WANTED
        mark = "" if high else f"  below {WANTED:g} %: see `coverage report -m`"
        yield f"{layer:<24}{statements:>11.1f}%{branches:>11.1f}%{mark}", high
    path, name = OTHER
    if path not in files:
        yield f"{path:<24}  nothing was measured: has it moved?", False
    elif lines_of(SOURCE / path, name) & set(files[path]["executed_lines"]):
        yield f"{path:<24}  was measured while other tests ran (tests/conftest.py)", False


def lines_of(path: Path, name: str) -> set[int]:
    """The numbers of the lines that run when this function is called, but not when the module is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (function,) = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)
    return {line for part in function.body for line in range(part.lineno, (part.end_lineno or 0) + 1)}


def main() -> int:
    print()
    judged = list(judge(measured()))
    for line, _ in judged:
        print(line)
    return int(not all(good for _, good in judged))


if __name__ == "__main__":
    sys.exit(main())
