"""How coverage is measured: by the tests of the pure layers alone, and what those do not run is an error."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from coverage import CoverageData

from aldis.protocol.texts import clean
from aldis.server.config import help_of, load_config
from support.measured import MEASURED, TESTS, is_measured

BESIDES = "tests/server/test_config.py"  # runs `load_config`, and is no test of a pure layer


def python(*words: str, data: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COVERAGE_FILE": str(data)}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)


def was_run(data: CoverageData, function: Callable[..., object]) -> bool:
    """Whether the last line of the function was."""
    lines, first = inspect.getsourcelines(function)
    ran = data.lines(inspect.getsourcefile(function) or "") or []
    assert first in ran, "nobody was looking when the module was imported"
    return first + len(lines) - 1 in ran


@pytest.mark.parametrize("path", MEASURED)
def test_what_is_to_be_measured_is_there(path: str) -> None:
    assert (TESTS / path).exists()
    assert is_measured(TESTS / path)


@pytest.mark.timeout(180)  # a whole run of pytest, measured, and a report
def test_only_the_tests_of_the_pure_layers_are_measured_and_one_without_its_tests_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "coverage"
    words = ("-q", "-p", "no:cacheprovider", "--cov", "--cov-report=", BESIDES, "tests/protocol/test_texts.py")
    tested = python("-m", "pytest", *words, data=path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    data = CoverageData(str(path))
    data.read()
    assert was_run(data, clean)
    assert not was_run(data, load_config)
    assert not was_run(data, help_of)

    # That is far from enough for the layers whose tests were not among them.
    judged = python("tools/pure_coverage.py", data=path)
    assert judged.returncode == 1, judged.stderr
    assert "hub/" in judged.stdout
    assert "below 95 %" in judged.stdout
