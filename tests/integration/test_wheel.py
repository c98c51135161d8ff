"""What users install: the wheel has the page, the SDK and their sources, and nothing that is for developers."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from multidict import CIMultiDict

from aldis.server.pages import Pages

ROOT = Path(__file__).parents[2]


def build(kind: str, source: Path, folder: Path) -> Path:
    """What `source` makes, built without a network and without Node."""
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(folder), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.iterdir()
    return path


def files_of(archive: zipfile.ZipFile) -> set[str]:
    return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel as a release has it."""
    with zipfile.ZipFile(build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))) as wheel:
        yield wheel


def test_the_wheel_serves_the_page_and_the_sdk(wheel: zipfile.ZipFile) -> None:
    packed, here = Pages(zipfile.Path(wheel, "aldis/web/")), Pages.of_package()
    assert packed.complete
    assert {b"/", b"/aldis.js", b"/src/page/main.js", b"/src/sdk/index.js"} <= packed.paths == here.paths
    for path in here.paths:
        assert packed.reply(path, CIMultiDict()) == here.reply(path, CIMultiDict())


def test_all_of_the_wheel_is_for_users(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"aldis"}
    assert [name for name in names if name.endswith((".d.ts", ".test.js")) or "node_modules" in name] == []


def test_the_source_distribution_makes_the_same_wheel(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    archive = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    with zipfile.ZipFile(build("wheel", source, tmp_path / "wheel")) as made:
        assert files_of(made) == files_of(wheel)
