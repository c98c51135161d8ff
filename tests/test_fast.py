"""`pytest --fast`: the rule which tests it leaves out."""

from __future__ import annotations

import importlib
import sys

import pytest

from support.fast import ENGINES, SLOW, TESTS, NoEngines, is_fast


@pytest.mark.parametrize("path", SLOW)
def test_what_is_left_out_is_there(path: str) -> None:
    assert list(TESTS.glob(path)), "renamed or gone: mend the list in support/fast.py"


@pytest.mark.parametrize(
    ("path", "fast"),
    [
        ("hub/test_bounds.py", True),
        ("hub", True),
        ("browser", False),
        ("browser/test_pairs.py", False),
        ("peer/test_negotiation.py", True),
        ("integration", True),
        ("integration/test_cli_doctor.py", False),
    ],
)
def test_a_file_is_fast_unless_it_or_its_folder_is_listed(path: str, fast: bool) -> None:
    assert (TESTS / path).exists()
    assert is_fast(TESTS / path) is fast


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_fast_test_cannot_load_an_engine(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, engine, raising=False)
    monkeypatch.setattr("sys.meta_path", [NoEngines, *sys.meta_path])
    with pytest.raises(AssertionError, match=engine):
        importlib.import_module(engine)
