"""How coverage is measured: by the tests of the pure layers alone, and what those do not run is an error.

What comes of a whole run, `make test` judges at its end (tools/pure_coverage.py).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage

from support.measured import LARGE, MEASURED, TESTS, is_measured

_SPEC = importlib.util.spec_from_file_location("pure_coverage", TESTS.parent / "tools" / "pure_coverage.py")
assert _SPEC
assert _SPEC.loader
pure_coverage = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(pure_coverage)


@pytest.mark.parametrize("path", MEASURED)
def test_what_is_to_be_measured_is_there(path: str) -> None:
    assert (TESTS / path).exists()
    assert is_measured(TESTS / path)


@pytest.mark.parametrize("path", [path for path in pure_coverage.PURE if not path.endswith("/")])
def test_a_module_that_is_judged_has_a_test_that_is_measured(path: str) -> None:
    """Otherwise `make test` says so, but only at its end."""
    folder = path.partition("/")[0]
    name = "aldis." + path.removesuffix(".py").replace("/", ".")
    measured = filter(is_measured, TESTS.rglob("test_*.py"))
    assert folder in MEASURED or any(name in test.read_text(encoding="utf-8") for test in measured)


@pytest.mark.parametrize("path", LARGE)
def test_a_large_test_is_there_and_is_not_measured(path: str) -> None:
    assert (TESTS / path).exists()
    assert not is_measured(TESTS / path)


def test_the_tests_of_a_server_are_not_measured() -> None:
    assert not is_measured(TESTS / "server" / "test_config.py")
    assert not is_measured(TESTS / "hubbub" / "test_hub.py")


def test_nothing_is_measured_while_a_test_runs_that_is_not_to_be_measured() -> None:
    """This one, wherever it runs: alone, with `--cov`, and in a test process of xdist."""
    assert not is_measured(Path(__file__))
    assert Coverage.current() is None
    assert sys.gettrace() is None


# --- the judge --------------------------------------------------------------------------------------------------------


def summary(covered: int) -> dict[str, Any]:
    numbers = {"num_statements": 100, "covered_lines": covered, "num_branches": 100, "covered_branches": covered}
    return {"summary": numbers, "executed_lines": [1]}


def whole() -> dict[str, dict[str, Any]]:
    """A run in which everything was covered, and nothing else measured."""
    files = {f"{layer}module.py" if layer.endswith("/") else layer: summary(100) for layer in pure_coverage.PURE}
    return files | {pure_coverage.OTHER[0]: summary(0)}


def faults(files: dict[str, dict[str, Any]]) -> list[str]:
    return [line for line, good in pure_coverage.judge(files) if not good]


def test_a_run_that_covers_everything_is_good() -> None:
    assert faults(whole()) == []


def test_a_layer_without_its_tests_is_an_error() -> None:
    (fault,) = faults(whole() | {"hub/module.py": summary(94)})
    assert fault.startswith("hub/")
    assert "below 95 %" in fault


@pytest.mark.parametrize("name", ["hub/module.py", pure_coverage.OTHER[0]])
def test_what_has_moved_is_an_error(name: str) -> None:
    files = whole()
    del files[name]
    (fault,) = faults(files)
    assert "has it moved?" in fault


def test_what_other_tests_have_run_is_an_error() -> None:
    path, name = pure_coverage.OTHER
    inside = pure_coverage.lines_of(pure_coverage.SOURCE / path, name)
    (fault,) = faults(whole() | {path: summary(1) | {"executed_lines": [1, min(inside)]}})
    assert "while other tests ran" in fault


def test_lines_of_a_function_are_told_from_those_of_the_module(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("a = 1\n\n\nclass B:\n    c = 2\n\n    def d(self) -> int:\n        return 3\n")
    assert pure_coverage.lines_of(tmp_path / "module.py", "d") == {8}
