"""`aldis keys` as a process: what it prints, what it keeps, how it ends."""

import re
from pathlib import Path

import pytest

from aldis.cli.home import Home
from aldis.identity.keys import Identity, fingerprint
from aldis.protocol.codec import to_base64
from support.commands import aldis

SERVER = "127.0.0.1:8080"
FINGERPRINT = re.compile(r"([a-z2-7]{4}-){7}[a-z2-7]{4}")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(str(tmp_path / "data"))


def test_a_new_key_is_shown_and_kept(tmp_path: Path) -> None:
    made = aldis("keys", "new", "alice", home=tmp_path)
    assert made.returncode == 0
    assert made.stderr == ""
    shown = aldis("keys", "show", "alice", home=tmp_path)
    assert shown.stdout == made.stdout
    only = aldis("keys", "fingerprint", "alice", home=tmp_path).stdout
    assert FINGERPRINT.fullmatch(only.strip())
    assert only.strip() in shown.stdout
    assert (tmp_path / ".local/share/aldis/keys/alice.pem").exists()


def test_the_folder_can_be_named_by_an_option_or_the_environment(tmp_path: Path) -> None:
    aldis("keys", "new", "alice", "--data", tmp_path / "here", home=tmp_path)
    found = aldis("keys", "show", home=tmp_path, extra={"ALDIS_DATA": str(tmp_path / "here")})
    assert found.stdout.startswith("alice  ")


def test_an_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    first = aldis("keys", "new", "alice", home=tmp_path)
    second = aldis("keys", "new", "alice", home=tmp_path)
    assert second.returncode == 2
    assert "there is a key already" in second.stderr
    assert aldis("keys", "show", "alice", home=tmp_path).stdout == first.stdout


def test_a_key_that_others_can_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    aldis("keys", "new", "--key", tmp_path / "k.pem", home=tmp_path)
    (tmp_path / "k.pem").chmod(0o644)
    refused = aldis("keys", "show", "--key", tmp_path / "k.pem", home=tmp_path)
    assert refused.returncode == 2
    assert "chmod 600" in refused.stderr


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    refused = aldis("keys", "new", "../../escaped", home=tmp_path)
    assert refused.returncode == 2
    assert list(tmp_path.rglob("*escaped*")) == []


def test_a_wrong_word_is_answered_with_the_right_one(tmp_path: Path) -> None:
    guess = aldis("keys", "fingerprnt", "alice", home=tmp_path)
    assert guess.returncode == 2
    assert "Did you mean `aldis keys fingerprint`?" in guess.stderr


def test_the_refused_key_of_a_peer_is_trusted_by_its_fingerprint(tmp_path: Path, home: Home) -> None:
    old, new = Identity.generate().public_key, Identity.generate().public_key
    pins = home.pins()
    pins.pin(SERVER, "bob", old)
    home.remember_refused(SERVER, "bob", new)
    spoken = fingerprint(new).upper().replace("-", " ")

    trusted = aldis("keys", "trust", "bob", "--fingerprint", spoken, "--data", tmp_path / "data", home=tmp_path)

    assert trusted.returncode == 0
    assert pins.find(SERVER, "bob") == new
    pins.close()
    assert home.refused(SERVER, "bob") is None
    known = aldis("keys", "peer", "bob", "--data", tmp_path / "data", home=tmp_path)
    assert known.stdout.strip() == fingerprint(new)


def test_another_fingerprint_than_that_of_the_refused_key_changes_nothing(tmp_path: Path, home: Home) -> None:
    old, new = Identity.generate().public_key, Identity.generate().public_key
    pins = home.pins()
    pins.pin(SERVER, "bob", old)
    home.remember_refused(SERVER, "bob", new)

    refused = aldis(
        "keys", "trust", "bob", "--fingerprint", fingerprint(old), "--data", tmp_path / "data", home=tmp_path
    )

    assert refused.returncode == 2
    assert fingerprint(new) in refused.stderr
    assert pins.find(SERVER, "bob") == old
    pins.close()


def test_half_a_fingerprint_is_told_as_such_and_not_as_that_of_somebody_else(tmp_path: Path, home: Home) -> None:
    new = Identity.generate().public_key
    home.remember_refused(SERVER, "bob", new)

    half = fingerprint(new)[:19]
    refused = aldis("keys", "trust", "bob", "--fingerprint", half, "--data", tmp_path / "data", home=tmp_path)

    assert refused.returncode == 2
    assert f"'{half}' is no fingerprint" in refused.stderr
    assert "stand between" not in refused.stderr


def test_a_key_can_be_trusted_before_the_first_meeting(tmp_path: Path) -> None:
    key = Identity.generate().public_key
    trusted = aldis("keys", "trust", "bob", "--public-key", to_base64(key), home=tmp_path)
    assert trusted.returncode == 0
    assert aldis("keys", "peer", "bob", home=tmp_path).stdout.strip() == fingerprint(key)
    elsewhere = aldis("keys", "peer", "bob", "--server", "wss://example.com", home=tmp_path)
    assert elsewhere.returncode == 2


@pytest.mark.parametrize(
    "words",
    [
        ("trust", "bob"),
        ("trust", "bob", "--fingerprint", "aaaa"),
        ("trust", "bob", "--public-key", "AAAA"),
        ("show", "alice"),
        ("new",),
        ("new", "alice", "--data", ":memory:"),
        ("fingerprint", "alice"),
        ("peer", "bob"),
        ("peer",),
    ],
)
def test_what_cannot_be_done_is_one_clear_line_and_code_2(words: tuple[str, ...], tmp_path: Path) -> None:
    refused = aldis("keys", *words, home=tmp_path)
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.startswith("aldis: ")
    assert len(refused.stderr.splitlines()) <= 2
