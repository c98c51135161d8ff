"""Folders of temporary files: those of killed processes are removed, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aldis.server import temporary_folder, turn_folder
from aldis.server.temporary_folder import TemporaryFolder, remove_abandoned
from aldis.server.turn_folder import TurnFolder

PREFIX = "aldis-turn-"
MAKE = f"""
import sys
from aldis.server.temporary_folder import TemporaryFolder
folder = TemporaryFolder({PREFIX!r})
(folder.path / "secret").write_text("secret")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of temporary files for this test."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def never(_: Path) -> bool:
    return False


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process, and its folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    with process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_a_folder_goes_with_its_process_or_at_the_next_look_after_that_was_killed(
    other: tuple[subprocess.Popen[str], Path],
) -> None:
    process, folder = other
    mine = TemporaryFolder(PREFIX)
    assert remove_abandoned(PREFIX, never) == 0
    assert (folder / "secret").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert remove_abandoned(PREFIX, never) == 1
    assert not folder.exists()
    assert mine.path.exists()
    mine.remove()
    mine.remove()
    assert not mine.path.exists()


def test_no_link_is_followed(temporary: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "lock").touch()
    (victim / "precious").touch()
    (temporary / f"{PREFIX}link").symlink_to(victim)
    locked_by_link = temporary / f"{PREFIX}lock"
    locked_by_link.mkdir()
    (locked_by_link / "lock").symlink_to(victim / "lock")
    with_link = temporary / f"{PREFIX}inside"
    with_link.mkdir()
    (with_link / "lock").touch()
    (with_link / "certificate.pem").symlink_to(victim / "precious")
    assert remove_abandoned(PREFIX, never) == 1
    assert sorted(each.name for each in victim.iterdir()) == ["lock", "precious"]
    assert locked_by_link.exists()
    assert not with_link.exists()


def test_folders_of_other_users_and_other_names_stay(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (f"{PREFIX}theirs", "aldis-other"):
        (temporary / name).mkdir()
        (temporary / name / "lock").touch()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert remove_abandoned(PREFIX, never) == 0
    monkeypatch.undo()
    assert (temporary / "aldis-other" / "lock").exists()


def test_where_nothing_can_be_locked_nothing_is_removed(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> bool:
        raise OSError("no locks")

    monkeypatch.setattr(temporary_folder, "_hold", fail)
    folder = TemporaryFolder(PREFIX)
    assert remove_abandoned(PREFIX, never) == 0
    assert folder.path.exists()
    folder.remove()


def test_a_folder_that_another_start_has_removed_before_it_was_locked_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = temporary_folder._hold
    lost: list[bool] = []

    def hold(descriptor: int) -> bool:
        if not lost:
            lost.append(True)
            assert remove_abandoned(PREFIX, never) == 1
        return lock(descriptor)

    monkeypatch.setattr(temporary_folder, "_hold", hold)
    folder = TemporaryFolder(PREFIX)
    assert lost
    assert (folder.path / "lock").exists()
    folder.remove()


def test_a_turn_server_removes_what_earlier_versions_have_left_and_nothing_that_is_in_use(temporary: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = {"dead": f"{dead.pid}\n", "alive": f"{os.getpid()}\n", "noise": "noise"}
    for name, process in left.items():
        folder = temporary / f"{PREFIX}{name}"
        folder.mkdir()
        (folder / turn_folder._PROCESS).write_text(process)
    (temporary / f"{PREFIX}new").mkdir()  # just made, by another server
    TurnFolder().remove()
    stay = [f"{PREFIX}{name}" for name in ("alive", "new", "noise")]
    assert sorted(each.name for each in temporary.iterdir()) == stay
