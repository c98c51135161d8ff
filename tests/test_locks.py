"""The locks: whatever pip installs from them, nothing is taken from outside.

pip before 23.3 resolves `coverage[toml]`, which pytest-cov requires, apart from a pinned `coverage`: with
`--require-hashes` it takes the newest version there is, finds no hash for it and fails. So a lock names the extras of
what it pins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Set
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
_PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?:\[(?P<extras>[^\]]+)\])?==", re.MULTILINE)


def locks() -> list[Path]:
    """All locks of the tree: text files that pin by hash."""
    folders = [path for path in ROOT.iterdir() if path.name not in {".venv", "build", "dist"} and path.name[0] != "."]
    files = [file for folder in folders if folder.is_dir() for file in folder.rglob("*.txt")]
    return sorted(file for file in files if "node_modules" not in file.parts and "--hash=sha256:" in file.read_text())


def installed(name: str) -> list[str]:
    """What an installed distribution requires; what is not installed here (of another platform) tells nothing."""
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


def unnamed_extras(
    lock: str, requirements_of: Callable[[str], Iterable[str]] = installed, roots: Iterable[str] = ()
) -> list[str]:
    """Requirements with an extra, of what the lock pins or of `roots`, which no line of the lock names."""
    pinned: dict[str, set[str]] = {}
    for match in _PINNED.finditer(lock):
        named = {canonicalize_name(extra) for extra in (match["extras"] or "").split(",") if extra}
        pinned.setdefault(canonicalize_name(match["name"]), set()).update(named)
    asked: list[tuple[str, str, Set[str]]] = [("the project", text, frozenset()) for text in roots]
    asked += [(name, text, frozenset(extras)) for name, extras in pinned.items() for text in requirements_of(name)]
    problems = []
    for name, text, extras in asked:
        wanted = Requirement(text)
        # A requirement of an extra counts when the lock installs that extra.
        applies = wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in {"", *extras})
        there = pinned.get(canonicalize_name(wanted.name), set())
        if applies and not {canonicalize_name(extra) for extra in wanted.extras} <= there:
            problems.append(
                f"{name} requires {text}, and no line pins {wanted.name}[{','.join(sorted(wanted.extras))}]"
            )
    return problems


def test_there_are_locks_to_read() -> None:
    assert {"run.txt", "dev.txt", "docs.txt"} <= {path.name for path in locks()}


@pytest.mark.parametrize("lock", locks(), ids=lambda path: path.name)
def test_a_lock_names_each_extra_that_something_in_it_requires(lock: Path) -> None:
    asked = lock.with_suffix(".in")
    roots = [line for line in asked.read_text().splitlines() if line and line[0] not in "#-"] if asked.exists() else []
    assert unnamed_extras(lock.read_text(), roots=roots) == []


def test_the_locks_agree_on_what_both_pin() -> None:
    """All are installed into one environment, one after the other."""
    pins: dict[str, set[str]] = {}
    for lock in (ROOT / "requirements").glob("*.txt"):
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]+\])?==(\S+)", lock.read_text(), re.MULTILINE):
            pins.setdefault(canonicalize_name(name), set()).add(version)
    assert {name: versions for name, versions in pins.items() if len(versions) > 1} == {}


def test_the_metadata_that_is_read_is_there() -> None:
    """Else the test above could not fail: nothing that is installed here is without metadata."""
    (dev,) = (path for path in locks() if path.name == "dev.txt")
    names = {canonicalize_name(match["name"]) for match in _PINNED.finditer(dev.read_text())}
    assert any(Requirement(text).extras for name in names for text in installed(name))


# --- the checker itself: it has to be able to say no ----------------------------------------------------------------

REQUIRES = {
    "pytest-cov": ["coverage[toml]>=7.10.6"],
    "coverage": ["tomli; python_version < '3' and extra == 'toml'"],
    "of-its-extra": ["other[fast]; extra == 'speed'"],
    "elsewhere": ["other[fast]; sys_platform == 'nowhere'"],
}


@pytest.mark.parametrize(
    ("lock", "found"),
    [
        ("pytest-cov==7\ncoverage[toml]==7.13 \\\n    --hash=sha256:00", 0),
        ("pytest_cov==7\nCoverage[TOML]==7.13", 0),
        ("pytest-cov==7\ncoverage==7.13", 1),
        ("pytest-cov==7\ncoverage[other]==7.13", 1),
        ("pytest-cov==7", 1),
        ("of-its-extra==1\nother==1", 0),
        ("of-its-extra[speed]==1\nother==1", 1),
        ("of-its-extra[speed]==1\nother[fast,slow]==1", 0),
        ("elsewhere==1\nother==1", 0),
    ],
)
def test_the_checker_finds_an_extra_without_a_line_of_its_own(lock: str, found: int) -> None:
    assert len(unnamed_extras(lock, lambda name: REQUIRES.get(name, []))) == found


def test_the_checker_reads_what_the_project_itself_requires() -> None:
    assert unnamed_extras("build==1", lambda _: [], ["build[uv]>=1"]) != []


def test_the_locks_of_this_tree_without_their_extras_are_found() -> None:
    dev = (ROOT / "requirements" / "dev.txt").read_text()
    assert unnamed_extras(re.sub(r"^([A-Za-z0-9._-]+)\[[^\]]+\]==", r"\1==", dev, flags=re.MULTILINE)) != []
