"""Identity keys: made, kept, read back, and never given away."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from aldis.errors import IdentityError, UsageError
from aldis.identity.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Identity, check_fingerprint, fingerprint, verify
from support.races import at_once

SEED = bytes(range(32))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- made and used --------------------------------------------------------------------------------------------------


def test_two_new_identities_are_two() -> None:
    assert Identity.generate().public_key != Identity.generate().public_key


def test_an_identity_comes_from_its_seed() -> None:
    # RFC 8032 section 7.1, test 1.
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    identity = Identity.from_seed(seed)
    assert identity.public_key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert identity.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_seed_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(IdentityError):
        Identity.from_seed(bytes(size))


@given(st.binary(max_size=200))
def test_a_signature_is_verified_by_its_key_and_message_alone(message: bytes) -> None:
    identity = Identity.from_seed(SEED)
    signature = identity.sign(message)
    assert (len(identity.public_key), len(signature)) == (PUBLIC_KEY_BYTES, SIGNATURE_BYTES)
    assert verify(identity.public_key, signature, message)
    assert not verify(identity.public_key, signature, message + b"\x00")
    assert not verify(Identity.from_seed(bytes(32)).public_key, signature, message)


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80))
def test_verification_of_garbage_is_no_and_never_an_exception(key: bytes, signature: bytes, message: bytes) -> None:
    assert not verify(key, signature, message)


def test_a_signature_with_one_bit_changed_is_no_signature() -> None:
    identity = Identity.from_seed(SEED)
    signature = bytearray(identity.sign(b"message"))
    for position in range(len(signature)):
        signature[position] ^= 1
        assert not verify(identity.public_key, bytes(signature), b"message")
        signature[position] ^= 1


def test_the_second_form_of_a_signature_is_refused() -> None:
    # RFC 8032 section 5.1.7: S must be below the group order, or one signature would have several spellings.
    order = 2**252 + 27742317777372353535851937790883648493
    identity = Identity.from_seed(SEED)
    signature = identity.sign(b"message")
    s = int.from_bytes(signature[32:], "little") + order
    assert not verify(identity.public_key, signature[:32] + s.to_bytes(32, "little"), b"message")


def test_an_identity_shows_its_fingerprint_and_nothing_of_its_private_key() -> None:
    identity = Identity.from_seed(SEED)
    assert identity.fingerprint == fingerprint(identity.public_key)
    assert repr(identity) == f"<Identity {identity.fingerprint}>"


def test_a_fingerprint_is_read_as_people_write_it_and_nothing_else_is_one() -> None:
    right = fingerprint(bytes(32))
    assert check_fingerprint(f" {right.upper()}\n") == right
    assert check_fingerprint(right.replace("-", "")) == right
    for wrong in ("", "k3ul", right[:-1], f"{right[:-1]}1", f"{right}-k3ul"):
        with pytest.raises(UsageError):
            check_fingerprint(wrong)


def test_a_fingerprint_is_eight_groups_of_four() -> None:
    groups = fingerprint(bytes(32)).split("-")
    assert [len(group) for group in groups] == [4] * 8
    assert set("".join(groups)) <= set("abcdefghijklmnopqrstuvwxyz234567")


# --- kept in a file -------------------------------------------------------------------------------------------------


def test_a_saved_identity_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "key.pem"
    identity = Identity.generate()
    identity.save(path)
    assert Identity.load(path).public_key == identity.public_key
    assert Identity.load(str(path)).sign(b"x") == identity.sign(b"x")


def test_a_key_file_and_its_folder_are_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "key.pem"
    before = os.umask(0)
    try:
        Identity.generate().save(path)
    finally:
        os.umask(before)
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)


def test_nothing_but_the_key_file_is_left_in_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    Identity.generate().save(path)
    with pytest.raises(FileExistsError):
        Identity.generate().save(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    first = Identity.generate()
    first.save(path)
    with pytest.raises(FileExistsError):
        Identity.generate().save(path)
    assert Identity.load(path).public_key == first.public_key


def test_a_key_is_not_written_through_a_symbolic_link(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    link = tmp_path / "key.pem"
    link.symlink_to(target)
    with pytest.raises(FileExistsError):
        Identity.generate().save(link)
    assert not target.exists()


def test_a_key_below_a_file_instead_of_a_folder_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(IdentityError, match="cannot write the key file"):
        Identity.generate().save(tmp_path / "file" / "key.pem")


@pytest.mark.parametrize("bits", [0o604, 0o640, 0o620, 0o601, 0o777])
def test_a_key_file_that_others_can_use_is_refused_with_the_cure(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "key.pem"
    Identity.generate().save(path)
    path.chmod(bits)
    with pytest.raises(IdentityError, match=f"chmod 600 {path}"):
        Identity.load(path)


def test_a_file_that_only_its_owner_can_read_may_also_be_read_only(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    Identity.generate().save(path)
    path.chmod(0o400)
    Identity.load(path)


def pem(key: Any, **password: serialization.KeySerializationEncryption) -> bytes:
    encryption = password.get("encryption", NoEncryption())
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))


KEY = Ed25519PrivateKey.from_private_bytes(SEED)
WRONG_FILES = {
    "empty": (b"", "is not an unencrypted PEM private key"),
    "garbage": (os.urandom(1000), "is not an unencrypted PEM private key"),
    "huge": (b"-" * 1_000_000, "is not an unencrypted PEM private key"),
    "public": (
        KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "is not an unencrypted PEM private key",
    ),
    "cut": (pem(KEY)[:80], "is not an unencrypted PEM private key"),
    "encrypted": (
        pem(KEY, encryption=serialization.BestAvailableEncryption(b"secret")),
        "is not an unencrypted PEM private key",
    ),
    "x25519": (pem(X25519PrivateKey.generate()), "holds a key of another kind"),
    "p-256": (pem(generate_private_key(SECP256R1())), "holds a key of another kind"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_file_with_anything_else_is_refused_in_words(tmp_path: Path, name: str) -> None:
    data, problem = WRONG_FILES[name]
    path = tmp_path / "key.pem"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(IdentityError, match=problem):
        Identity.load(path)


def test_a_file_that_is_not_there_or_a_folder_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="No such file"):
        Identity.load(tmp_path / "key.pem")
    with pytest.raises(IdentityError, match="Is a directory"):
        Identity.load(tmp_path)


# --- read or made ---------------------------------------------------------------------------------------------------


def test_the_first_call_makes_an_identity_and_the_second_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "key.pem"
    first = Identity.load_or_create(path)
    assert Identity.load_or_create(path).public_key == first.public_key
    assert mode(path) == 0o600


def test_a_broken_key_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("not a key")
    path.chmod(0o600)
    with pytest.raises(IdentityError):
        Identity.load_or_create(path)
    assert path.read_text() == "not a key"


def test_a_link_to_nowhere_is_not_followed(tmp_path: Path) -> None:
    link = tmp_path / "key.pem"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IdentityError):
        Identity.load_or_create(link)
    assert not (tmp_path / "elsewhere").exists()


def test_a_name_that_no_file_can_have_is_an_identity_error(tmp_path: Path) -> None:
    with pytest.raises(IdentityError):
        Identity.load_or_create(tmp_path / ("x" * 300))


def test_processes_that_make_the_identity_at_once_agree_on_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key.pem"
    keys = at_once(
        "import sys; from aldis.identity.keys import Identity",
        "print(Identity.load_or_create(sys.argv[1]).public_key.hex())",
        [str(path)] * 4,
    )
    assert keys == [Identity.load(path).public_key.hex()] * 4
    assert list(path.parent.iterdir()) == [path]
