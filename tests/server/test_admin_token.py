"""The file with the password of the admin API."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from aldis.errors import ConfigError
from aldis.server.admin_token import FILE_NAME, admin_token


def read(data: Path) -> tuple[str | None, list[str]]:
    """The token, and what the operator is told."""
    told: list[str] = []
    return admin_token("", data, told.append), told


def test_a_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    token, told = read(tmp_path)
    path = tmp_path / FILE_NAME
    assert (path.read_text(), told) == (f"{token}\n", [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read(tmp_path) == (token, [])
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_an_empty_file_as_a_full_disk_leaves_it_gets_a_token(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.touch(mode=0o600)
    token, told = read(tmp_path)
    assert token
    assert (path.read_text(), told) == (f"{token}\n", [])


def test_a_disk_that_is_full_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(OSError, match="No space left"):
        read(tmp_path)
    assert os.listdir(tmp_path) == []


def test_of_two_workers_both_use_the_token_of_the_quicker_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def later(source: Path, target: Path) -> None:
        Path(target).write_text("the other worker's\n")
        Path(target).chmod(0o600)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", later)
    assert read(tmp_path) == ("the other worker's", [])
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_a_file_that_others_can_read_is_told(tmp_path: Path) -> None:
    token, _ = read(tmp_path)
    path = tmp_path / FILE_NAME
    path.chmod(0o640)
    again, told = read(tmp_path)
    assert again == token
    assert len(told) == 1
    assert told[0].startswith(f"others can read {path}")
    assert "chmod 600" in told[0]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"two\nlines", b"\x1b[2J"])
def test_a_file_with_something_else_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(ConfigError, match="is not one line of printable ASCII; remove it"):
        read(tmp_path)


def test_a_token_in_the_settings_needs_no_file(tmp_path: Path) -> None:
    assert admin_token("given", tmp_path, pytest.fail) == "given"
    assert admin_token("", None, pytest.fail) is None
    assert os.listdir(tmp_path) == []
