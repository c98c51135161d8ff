"""Releases: the version is the same in all places, and `make release` refuses a tree that is not ready.

It stands in a module beside pyproject.toml, since a frozen program has no metadata, and in the SDK's package.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tools import release

from aldis.version import VERSION

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The files with a version in them, committed, and a changelog that names it."""
    for place in {place.partition(",")[0] for place in release.versions()}:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / place, tmp_path / place)
    (tmp_path / "CHANGELOG.md").write_text(f"## [Unreleased]\n\n## [{VERSION}] - 2030-01-31\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "--quiet", "--message", "x")
    return tmp_path


def git(tree: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=tree, check=True)


def test_the_version_is_the_same_in_all_places() -> None:
    assert release.agreed_version() == VERSION


@pytest.mark.parametrize(
    "place", ["pyproject.toml", "src/aldis/version.py", "sdk/package.json", "sdk/package-lock.json"]
)
def test_another_version_in_one_place_is_told_with_the_place(tree: Path, place: str) -> None:
    text = (tree / place).read_text()
    (tree / place).write_text(text.replace(f'"{VERSION}"', '"9.9.9"', 1))
    with pytest.raises(release.Failure, match=rf"9\.9\.9 in {place}"):
        release.agreed_version(tree)


def test_a_tree_that_is_ready_is_released(tree: Path) -> None:
    release.check_finished(VERSION, tree)


def test_what_is_still_to_do_is_told(tree: Path) -> None:
    (tree / "CHANGELOG.md").write_text("## [Unreleased]\n")
    git(tree, "tag", f"v{VERSION}")
    with pytest.raises(release.Failure) as raised:
        release.check_finished(VERSION, tree)
    for problem in ("CHANGELOG.md has no section", "not everything is committed", "was released"):
        assert problem in str(raised.value)


def test_both_distributions_have_the_licence() -> None:
    assert (ROOT / "packaging/server/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
