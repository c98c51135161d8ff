"""The hooks of pre-commit: they run the tools of `make check`, and download nothing."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def commands_of_make_check() -> set[str]:
    """The commands of the recipes of `lint` and `types`, as `make` would run them."""
    recipes = re.findall(r"^(?:lint|types):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    lines = "".join(recipes).replace("$(BIN)", ".venv/bin").replace("$(NPM)", "npm --prefix sdk --silent")
    return {line.strip().removesuffix(" .") for line in lines.splitlines()}


def hooks() -> list[dict[str, object]]:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in config["repos"]] == ["local"], "another repository would be downloaded"
    return config["repos"][0]["hooks"]  # type: ignore[no-any-return]


def test_the_hooks_run_the_tools_of_make_check() -> None:
    entries = {str(hook["entry"]).removesuffix(" --force-exclude") for hook in hooks()}
    assert entries == commands_of_make_check()


def test_the_hooks_use_what_the_locks_have_installed() -> None:
    assert {hook["language"] for hook in hooks()} == {"system"}
    assert (Path(sys.prefix) / "bin" / "pre-commit").exists()
