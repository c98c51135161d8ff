"""What is received, on a real disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from aldis.store.files.digest import BLOCK
from aldis.store.files.disk import in_words
from aldis.store.files.sinks import Incoming, Sink, open_sink


def a_sink(target: Path, name: str, mark: str, size: int) -> Sink:
    """For a plain transfer."""
    return open_sink(target, Incoming(name, mark, size))


def a_file(folder: Path, data: bytes = b"0123456789", name: str = "a.txt") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "b.txt"
    sink = a_sink(target, "a.txt", "id", 4)
    sink.write(b"01")
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt.id.part"]
    sink.write(bytearray(b"23"))
    assert sink.finish() == target
    sink.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]
    assert target.read_bytes() == b"0123"


def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    sink = a_sink(tmp_path / "b.txt", "a.txt", "id", 4)
    sink.write(b"01")
    sink.discard()
    sink.discard()
    assert list(tmp_path.iterdir()) == []


def test_in_a_folder_a_file_gets_its_own_name_with_a_number_where_that_is_taken(tmp_path: Path) -> None:
    for expected in ("a.txt", "a (2).txt", "a (3).txt"):
        sink = a_sink(tmp_path, "a.txt", "id", 0)
        assert sink.finish() == tmp_path / expected


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    with pytest.raises(FileExistsError):
        a_sink(path, "x", "id", 0)
    late = a_sink(tmp_path / "b.txt", "x", "id", 0)
    other = a_file(tmp_path, b"precious", "b.txt")
    with pytest.raises(FileExistsError):
        late.finish()
    late.discard()
    assert other.read_bytes() == b"precious"
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        a_sink(dangling, "x", "id", 0)


def test_a_file_system_without_links_serves_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    assert a_sink(tmp_path, "a.txt", "one", 0).finish() == tmp_path / "a.txt"
    assert a_sink(tmp_path, "a.txt", "two", 0).finish() == tmp_path / "a (2).txt"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a (2).txt", "a.txt"]


def test_a_folder_that_is_not_there_and_a_file_in_its_place_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        a_sink(tmp_path / "none" / "a.txt", "x", "id", 0)
    with pytest.raises(NotADirectoryError):
        a_sink(a_file(tmp_path) / "b.txt", "x", "id", 0)


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        a_sink(tmp_path, "a.txt", "id", 2**53 - 1)
    assert list(tmp_path.iterdir()) == []


def test_a_long_name_leaves_room_for_the_mark(tmp_path: Path) -> None:
    target = tmp_path / ("ü" * 120 + ".txt")
    assert a_sink(target, "x", "AAECAwQFBgc", 0).finish() == target


def test_what_goes_wrong_is_said_without_the_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        a_sink(tmp_path / "none" / "a.txt", "x", "id", 0)
    assert in_words(caught.value) == "no such file or directory"
    assert in_words(OSError()) == "oserror"
    assert in_words(ValueError("embedded null byte")) == "embedded null byte"


# --- what cannot be used ----------------------------------------------------------------------------------------------


def test_what_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path) -> None:
    for manifest in (0, 10):
        with pytest.raises(OSError, match="No space left"):
            open_sink(tmp_path, Incoming("a", "mark", 2**52, "key", manifest))
        assert list(tmp_path.iterdir()) == []


def test_a_list_that_was_damaged_is_dropped_and_received_again(tmp_path: Path) -> None:
    """As after a loss of power: its size is right, and its content is not."""
    manifest = b'[["a",2]]'
    part = tmp_path / ".tree.key.part"
    part.mkdir()
    (part / "list").write_bytes(bytes(len(manifest)))
    sink = open_sink(tmp_path, Incoming("tree", "mark", len(manifest) + 2, "key", len(manifest)))
    assert sink.kept == 0
    sink.write(manifest + b"hi")
    assert sink.finish() == tmp_path / "tree"
    assert (tmp_path / "tree" / "a").read_bytes() == b"hi"


def test_what_was_kept_is_read_no_longer_than_it_is_wanted(tmp_path: Path) -> None:
    first = open_sink(tmp_path, Incoming("a", "mark", 4 * BLOCK, "key"))
    first.write(bytes(3 * BLOCK))
    first.keep()
    sink = open_sink(tmp_path, Incoming("a", "mark", 4 * BLOCK, "key", wanted=lambda: False))
    assert (sink.kept, sink.digest.size) == (3 * BLOCK, 0)
    sink.keep()
    assert (tmp_path / ".a.key.part").stat().st_size == 3 * BLOCK
