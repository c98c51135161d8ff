"""What is kept of certificates, in the folder `acme` of the data directory:

    accounts.json      for each authority: our account's address and its private key
    certificate.pem    the private key and the certificate chain, in one file: they are replaced together
    lock               held during an order, so that two servers with one data directory make none at the same time

Rules: only this user reads them (0600). A file is replaced as a whole, after its content is on the disk. Content
that cannot be used counts as not there: a new account or certificate costs a minute, and the broken file stays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

FOLDER: Final = "acme"
_MAX_FILE: Final = 256 * 1024  # bytes; a chain of ten certificates has 20 KB


class KeptCertificate:
    """A certificate with its private key and chain, from the bytes of a PEM file. Raises `ValueError`."""

    def __init__(self, pem: bytes) -> None:
        self.pem = pem
        self.leaf = x509.load_pem_x509_certificates(pem)[0]
        key = serialization.load_pem_private_key(pem, None)
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        if key.public_key().public_bytes(*form) != self.leaf.public_key().public_bytes(*form):
            raise ValueError("the key is not that of the certificate")

    @property
    def starts(self) -> datetime:
        """When it becomes valid, in UTC."""
        return self.leaf.not_valid_before_utc

    @property
    def expires(self) -> datetime:
        """When it expires, in UTC."""
        return self.leaf.not_valid_after_utc

    @property
    def leaf_pem(self) -> bytes:
        """The server's own certificate alone."""
        return self.leaf.public_bytes(serialization.Encoding.PEM)

    def covers(self, domains: tuple[str, ...]) -> bool:
        """Whether it is for all of these names."""
        try:
            names = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (x509.ExtensionNotFound, ValueError):
            return False
        return set(domains) <= {name.lower() for name in names.get_values_for_type(x509.DNSName)}


class CertificateFiles:
    """The folder of one server, which is made when it is first written to."""

    def __init__(self, data: Path) -> None:
        self.folder = data / FOLDER
        self.certificate = self.folder / "certificate.pem"
        self._accounts = self.folder / "accounts.json"

    def load(self) -> KeptCertificate | None:
        """The certificate; None without one that can be used. Raises `OSError` for a file that cannot be read."""
        try:
            return KeptCertificate(self._read(self.certificate))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, IndexError):
            self._set_aside(self.certificate)
            return None

    def save(self, certificate: KeptCertificate) -> None:
        """Keep this one. Raises `OSError`; what was there before stays then."""
        self._write(self.certificate, certificate.pem)

    def account(self, authority: str) -> tuple[str, str] | None:
        """Address and private key (PEM) of our account at an authority, named by its directory's URL.

        None without one. Raises `OSError`.
        """
        found = self._all_accounts().get(authority)
        match found:
            case {"account": str(address), "key": str(key)}:
                return address, key
        return None

    def save_account(self, authority: str, address: str, key: str) -> None:
        """Keep an account. Raises `OSError`."""
        accounts = {**self._all_accounts(), authority: {"account": address, "key": key}}
        self._write(self._accounts, json.dumps(accounts, indent=1).encode())

    @contextmanager
    def order(self) -> Iterator[bool]:
        """Hold the lock for an order; False if another process holds it. Raises `OSError`."""
        self._make_folder()
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            yield _locked(descriptor)
        finally:
            os.close(descriptor)

    def _all_accounts(self) -> dict[str, object]:
        try:
            found = json.loads(self._read(self._accounts))
        except FileNotFoundError:
            return {}
        except ValueError:
            found = None
        if isinstance(found, dict):
            return found
        self._set_aside(self._accounts)
        return {}

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _read(self, path: Path) -> bytes:
        with path.open("rb") as file:
            return file.read(_MAX_FILE)

    def _write(self, path: Path, content: bytes) -> None:
        self._make_folder()
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)

    def _set_aside(self, path: Path) -> None:
        with suppress(OSError):
            path.replace(path.with_name(f"{path.name}.broken"))


def _locked(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
