"""Ed25519 identity keys: make them, keep them in a file, sign with them, show them to people.

Rules: a private key leaves this module only into a file that no other user may read. Verification returns yes or no and
never the reason, so that no caller can tell an attacker more.
"""

from __future__ import annotations

import os
import re
import stat
from base64 import b32encode
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aldis.errors import IdentityError, UsageError
from aldis.settings import check_path

PUBLIC_KEY_BYTES: Final = 32  # RFC 8032 section 5.1.5
SIGNATURE_BYTES: Final = 64  # RFC 8032 section 5.1.6
_FINGERPRINT_BYTES: Final = 20  # 160 bits: nobody can make a second key with the same fingerprint
_FINGERPRINT: Final = re.compile(r"[A-Za-z2-7]{32}")
# Characters that people and programs put in between: white space, and the dashes that word processors put in place of a
# hyphen (U+2010 to U+2015, U+2212). Listed one by one, because languages differ in their definition of white space.
_BETWEEN: Final = re.compile(r"[ \t\r\n\u00a0\u2010-\u2015\u2212-]+")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Identity:
    """An Ed25519 key pair, which identifies a program to servers and peers.

    Make one with `generate()`, keep it with `save(path)`, read it with `load(path)`.
    """

    __slots__ = ("_private", "public_key")

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private = private_key
        self.public_key: bytes = private_key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Identity:
        """Make a new identity from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity of a 32-byte private key (RFC 8032 section 5.1.5). Raises `IdentityError` for another size."""
        try:
            return cls(Ed25519PrivateKey.from_private_bytes(seed))
        except ValueError as error:
            raise IdentityError(f"not an Ed25519 private key: {error}") from None

    @classmethod
    def load(cls, path: Path | str) -> Identity:
        """Read an identity from a PEM file (PKCS #8, RFC 5958).

        Raises `IdentityError` when the file is missing, is not an Ed25519 key, or may be read by other users.
        """
        path = check_path("path", path)
        try:
            # Check the open file and not its name, so that the checked file is the file that is read.
            with path.open("rb") as file:
                if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & _OTHERS:
                    raise IdentityError(f"{path} can be read by other users; run: chmod 600 {path}")
                data = file.read(64 * 1024)
        except OSError as error:
            raise IdentityError(f"cannot read the key file {path}: {error.strerror or error}") from error
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise IdentityError(f"{path} is not an unencrypted PEM private key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError(f"{path} holds a key of another kind; Aldis uses Ed25519")
        return cls(key)

    @classmethod
    def load_or_create(cls, path: Path | str) -> Identity:
        """Read the identity at `path`, or make one and keep it there. Two processes may call this at the same time."""
        path = check_path("path", path)
        # Not Path.exists, which raises when it cannot tell (a name too long, a folder that we may not read).
        if not os.path.exists(path):
            try:
                identity = cls.generate()
                identity.save(path)
                return identity
            except FileExistsError:
                pass  # another process was faster; use its key
        return cls.load(path)

    def save(self, path: Path | str) -> None:
        """Write the key as an unencrypted PEM file that only its owner can read. Makes missing folders.

        Never overwrites: raises `FileExistsError` when the file exists, `IdentityError` when it cannot be written.
        """
        path = check_path("path", path)
        data = self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # Write it under another name and link it into place, so that no reader ever sees half a key.
        draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.link(draft, path)
            finally:
                draft.unlink(missing_ok=True)
            _flush_folder(path.parent)
        except OSError as error:
            if isinstance(error, FileExistsError) and os.path.lexists(path):
                raise
            raise IdentityError(f"cannot write the key file {path}: {error.strerror or error}") from error

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of `message`."""
        return self._private.sign(message)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the public key, for people to compare; see `fingerprint`."""
        return fingerprint(self.public_key)

    def __repr__(self) -> str:
        return f"<Identity {self.fingerprint}>"


def _flush_folder(folder: Path) -> None:
    """Flush the folder's entries to disk: a key that has proved a name must survive a power cut."""
    if os.name != "posix":  # pragma: no cover - elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is the signature of `message` under `public_key`. Never raises for bad input."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public_key: bytes) -> str:
    """The fingerprint of a public key: eight groups of four characters, such as `k3ul-7q2a-...`.

    The first 160 bits of the SHA-256 of the 32 key bytes in lower-case base32 (RFC 4648 section 6).
    """
    text = b32encode(sha256(public_key).digest()[:_FINGERPRINT_BYTES]).decode("ascii").lower()
    return _in_groups(text)


def _in_groups(text: str) -> str:
    return "-".join(text[i : i + 4] for i in range(0, len(text), 4))


def check_fingerprint(text: str) -> str:
    """Return a fingerprint that a person has entered in the spelling of `fingerprint`.

    Capitals count as small letters; hyphens, other dashes and white space may stand anywhere or be missing. The rest
    must be 32 characters of base32. Raises `UsageError` otherwise, because no key can have that fingerprint.
    """
    if not isinstance(text, str):
        raise UsageError(f"{text!r} is no fingerprint: it is no str")
    plain = _BETWEEN.sub("", text)
    if not _FINGERPRINT.fullmatch(plain):
        raise UsageError(f"{text!r} is no fingerprint")
    return _in_groups(plain.lower())
