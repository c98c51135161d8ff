"""Files at the ends of a transfer, on a real disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from aldis.errors import UsageError
from aldis.store.files.disk import Sink, Source, SourceChanged, in_words, look


def a_file(folder: Path, data: bytes = b"0123456789", name: str = "a.txt") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


# --- sending --------------------------------------------------------------------------------------------------------


def test_a_file_is_looked_at_and_read(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    found = look(path)
    assert (found.size, found.mime) == (10, "text/plain")
    assert look(a_file(tmp_path, name="b.thing")).mime == "application/octet-stream"
    source = Source(path, found)
    assert (source.read(4), source.read(6)) == (b"0123", b"456789")
    source.close()


def test_what_is_no_file_or_not_there_cannot_be_offered(tmp_path: Path) -> None:
    for path, problem in (
        (tmp_path, "not a file"),
        (tmp_path / "none", "no such file"),
        (Path("a\x00b"), "null"),
        (Path("/dev/zero"), "not a file"),
    ):
        with pytest.raises(UsageError, match=problem):
            look(path)


def test_a_file_that_has_changed_since_it_was_offered_is_not_sent(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    found = look(path)
    path.write_bytes(b"something else")
    with pytest.raises(SourceChanged, match="changed"):
        Source(path, found)
    path.unlink()
    with pytest.raises(SourceChanged, match="not there"):
        Source(path, found)
    a_file(tmp_path)
    with pytest.raises(SourceChanged, match="changed"):  # the same content, in another file
        Source(path, found)


def test_a_file_that_changes_while_it_is_sent_is_not_sent_on(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    found = look(path)
    source = Source(path, found)
    source.read(1)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(SourceChanged, match="changed"):
        source.read(1)
    source.close()


def test_a_file_that_is_deleted_while_it_is_sent_is_not_sent_on(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    source = Source(path, look(path))
    path.unlink()
    with pytest.raises(SourceChanged, match="deleted"):
        source.read(1)
    source.close()


def test_more_than_there_is_cannot_be_read(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    source = Source(path, look(path))
    with pytest.raises(SourceChanged, match="shorter"):
        source.read(11)
    source.close()


# --- receiving ------------------------------------------------------------------------------------------------------


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "b.txt"
    sink = Sink(target, "a.txt", "id", 4)
    sink.write(b"01")
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt.id.part"]
    sink.write(bytearray(b"23"))
    assert sink.finish() == target
    sink.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]
    assert target.read_bytes() == b"0123"


def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    sink = Sink(tmp_path / "b.txt", "a.txt", "id", 4)
    sink.write(b"01")
    sink.discard()
    sink.discard()
    assert list(tmp_path.iterdir()) == []


def test_in_a_folder_a_file_gets_its_own_name_with_a_number_where_that_is_taken(tmp_path: Path) -> None:
    for expected in ("a.txt", "a (2).txt", "a (3).txt"):
        sink = Sink(tmp_path, "a.txt", "id", 0)
        assert sink.finish() == tmp_path / expected


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    with pytest.raises(FileExistsError):
        Sink(path, "x", "id", 0)
    late = Sink(tmp_path / "b.txt", "x", "id", 0)
    other = a_file(tmp_path, b"precious", "b.txt")
    with pytest.raises(FileExistsError):
        late.finish()
    late.discard()
    assert other.read_bytes() == b"precious"
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        Sink(dangling, "x", "id", 0)


def test_a_file_system_without_links_serves_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    assert Sink(tmp_path, "a.txt", "one", 0).finish().name == "a.txt"
    assert Sink(tmp_path, "a.txt", "two", 0).finish().name == "a (2).txt"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a (2).txt", "a.txt"]


def test_a_folder_that_is_not_there_and_a_file_in_its_place_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Sink(tmp_path / "none" / "a.txt", "x", "id", 0)
    with pytest.raises(NotADirectoryError):
        Sink(a_file(tmp_path) / "b.txt", "x", "id", 0)


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        Sink(tmp_path, "a.txt", "id", 2**53 - 1)
    assert list(tmp_path.iterdir()) == []


def test_a_long_name_leaves_room_for_the_mark(tmp_path: Path) -> None:
    target = tmp_path / ("ü" * 120 + ".txt")
    assert Sink(target, "x", "AAECAwQFBgc", 0).finish() == target


def test_what_goes_wrong_is_said_without_the_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Sink(tmp_path / "none" / "a.txt", "x", "id", 0)
    assert in_words(caught.value) == "no such file or directory"
    assert in_words(OSError()) == "oserror"
    assert in_words(ValueError("embedded null byte")) == "embedded null byte"
