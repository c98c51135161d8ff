"""What is sent, on a real disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from aldis.errors import UsageError
from aldis.store.files import disk
from aldis.store.files.digest import BLOCK
from aldis.store.files.disk import SourceChanged, look, open_source


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
    source = open_source(found)
    assert (source.read(4), source.read(6)) == (b"0123", b"456789")
    source.close()


def test_what_is_no_file_or_not_there_cannot_be_offered(tmp_path: Path) -> None:
    for path, problem in (
        (tmp_path / "none", "no such file"),
        (Path("a\x00b"), "null"),
        (Path("/dev/zero"), "neither a file"),
    ):
        with pytest.raises(UsageError, match=problem):
            look(path)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["a", "b\\c"], r"'b\\c' has a backslash, which leads to another folder on another system"),
        (["x/a:b", "x/a?b"], "'x/a:b' and 'x/a?b' would have one name on another system"),
        (["a:/b", "a?"], "'a:' and 'a?' would have one name on another system"),
        (["a\udcff", "a\udcfe"], "two of its files would have one name on another system"),
    ],
)
def test_a_folder_with_names_that_do_not_fit_elsewhere_says_which(
    tmp_path: Path, names: list[str], problem: str
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        a_file(tmp_path, name=name)
    with pytest.raises(UsageError) as raised:
        look(tmp_path)
    assert str(raised.value) == f"{tmp_path} cannot be sent: {problem}"


def test_a_file_that_has_changed_since_it_was_offered_is_not_sent(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    found = look(path)
    path.write_bytes(b"something else")
    with pytest.raises(SourceChanged, match="changed"):
        open_source(found)
    path.unlink()
    with pytest.raises(SourceChanged, match="not there"):
        open_source(found)
    a_file(tmp_path)
    with pytest.raises(SourceChanged, match="changed"):  # the same content, in another file
        open_source(found)


def test_a_file_that_changes_while_it_is_sent_is_not_sent_on(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    found = look(path)
    source = open_source(found)
    source.read(1)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(SourceChanged, match="changed"):
        source.read(1)
    source.close()


def test_a_file_that_is_deleted_while_it_is_sent_is_not_sent_on(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    source = open_source(look(path))
    path.unlink()
    with pytest.raises(SourceChanged, match="deleted"):
        source.read(1)
    source.close()


def test_more_than_there_is_cannot_be_read(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    source = open_source(look(path))
    with pytest.raises(SourceChanged, match="shorter"):
        source.read(11)
    source.close()


def test_the_version_stays_when_the_system_numbers_its_disks_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_file(tmp_path)
    before = look(path)
    stamp = disk._stamp
    monkeypatch.setattr(disk, "_stamp", lambda status: (*stamp(status)[:3], 99))
    after = look(path)
    assert after.files[0][1] != before.files[0][1]
    assert after.version == before.version


def test_what_the_other_side_has_is_read_no_longer_than_it_is_wanted(tmp_path: Path) -> None:
    source = open_source(look(a_file(tmp_path, bytes(3 * BLOCK))))
    answers = iter([True, False])
    disk.skip(source, 3 * BLOCK, lambda: next(answers))
    assert source.digest.size == BLOCK
    source.close()
