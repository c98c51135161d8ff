"""The version stands in two places: in pyproject.toml, and in a module, since a frozen program has no metadata."""

from __future__ import annotations

import tomllib
from pathlib import Path

from aldis.version import VERSION


def test_the_program_says_the_version_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == VERSION
