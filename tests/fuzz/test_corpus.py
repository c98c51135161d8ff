"""The corpus of `tools/fuzz.py`: inputs that reached code of their own, or that once failed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent
CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(CORPUS.glob("*/*"))


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "tools" / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TARGETS = _tool().TARGETS


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_an_input_of_the_corpus_is_read_or_refused_as_documented(file: Path) -> None:
    TARGETS[file.parent.name](file.read_bytes())


def test_each_target_has_a_corpus() -> None:
    assert {file.parent.name for file in FILES} == set(TARGETS)
