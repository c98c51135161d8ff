"""What users install: the wheel has the page and the SDK in it, and nothing that is for developers."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from multidict import CIMultiDict

from aldis.server.pages import Pages

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel as a release has it, built without a network and without Node."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        yield wheel


def test_the_wheel_serves_the_page_and_the_sdk(wheel: zipfile.ZipFile) -> None:
    packed, here = Pages(zipfile.Path(wheel, "aldis/web/")), Pages.of_package()
    assert packed.complete
    assert {b"/", b"/aldis.js"} <= packed.paths == here.paths
    for path in here.paths:
        assert packed.reply(path, CIMultiDict()) == here.reply(path, CIMultiDict())


def test_all_of_the_wheel_is_for_users(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"aldis"}
    assert [name for name in names if name.endswith((".d.ts", ".map", ".test.js")) or "node_modules" in name] == []
