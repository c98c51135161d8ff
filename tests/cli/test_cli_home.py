"""Where keys are kept: a name chooses a file name and never a path."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aldis.cli.home import Home, file_name
from aldis.errors import IdentityError, InvalidAddress, UsageError

NAMES = st.text(min_size=1, max_size=128)


@given(NAMES)
def test_every_name_gives_a_file_name_that_stays_in_its_folder(name: str) -> None:
    quoted = file_name(name)
    assert "/" not in quoted
    assert "\\" not in quoted
    assert "\x00" not in quoted
    assert not quoted.startswith(".")
    assert len(f"{quoted}.pem".encode()) <= 255


@given(NAMES, NAMES)
def test_two_names_never_share_a_file(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)


def test_a_usual_name_can_be_read_in_the_folder(tmp_path: Path) -> None:
    assert Home(str(tmp_path)).key_path("alice@example.com") == tmp_path / "keys" / "alice@example.com.pem"


@pytest.mark.parametrize("name", ["../x", "a/b", "", "a b", "x" * 129])
def test_what_is_no_name_has_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidAddress):
        Home(str(tmp_path)).key_path(name)


def test_an_identity_is_made_once_and_found_again(tmp_path: Path) -> None:
    home = Home(str(tmp_path))
    first, path, made = home.identity("ältere.schwester")
    again, _, made_again = home.identity("ältere.schwester")
    assert (made, made_again) == (True, False)
    assert first.public_key == again.public_key
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert home.names() == [("ältere.schwester", path)]


def test_a_key_file_of_ones_own_is_used_instead(tmp_path: Path) -> None:
    home = Home(str(tmp_path))
    _, path, made = home.identity("alice", tmp_path / "elsewhere.pem")
    assert made
    assert path == tmp_path / "elsewhere.pem"
    assert home.names() == []


def test_memory_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = Home(":memory:")
    assert home.identity("alice")[0].public_key != home.identity("alice")[0].public_key
    home.remember_refused("server", "bob", bytes(32))
    home.pins().accept("server", "bob", bytes(32))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError):
        home.require_disk()


def test_the_last_refused_key_is_remembered_until_one_is_accepted(tmp_path: Path) -> None:
    home = Home(str(tmp_path))
    assert home.refused("127.0.0.1:8080", "bob") is None
    home.remember_refused("127.0.0.1:8080", "bob", bytes(32))
    home.remember_refused("127.0.0.1:8080", "bob", b"x" * 32)
    assert home.refused("127.0.0.1:8080", "bob") == b"x" * 32
    assert home.refused("127.0.0.1:8081", "bob") is None
    home.forget_refused("127.0.0.1:8080", "bob")
    assert home.refused("127.0.0.1:8080", "bob") is None


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IdentityError):
        Home(str(tmp_path / "file")).identity("alice")


def test_a_folder_that_cannot_be_used_is_an_error_of_the_identity_whatever_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    home = Home(str(tmp_path / "file"))
    for ask in (
        lambda: home.names(),
        lambda: home.refused("server", "bob"),
        lambda: home.remember_refused("server", "bob", bytes(32)),
        lambda: home.forget_refused("server", "bob"),
        lambda: home.pins(),
        lambda: home.doctor_identity(),
    ):
        with pytest.raises(IdentityError, match=str(tmp_path)):
            ask()
