"""TLS for the public port, from a certificate and a key in PEM files."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from cryptography import x509

from aldis.errors import ConfigError

_MAX_FILE: Final = 1024 * 1024  # bytes; a chain of ten certificates has 20 KB


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """The TLS context of a server: TLS 1.2 or later (RFC 8996), without client certificates.

    `certificate` holds the server's certificate, then the intermediate certificates. Raises `ConfigError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])  # browsers would try HTTP/2, where WebSockets work differently
    if b"-----BEGIN CERTIFICATE-----" not in _read("tls_cert", certificate):
        raise ConfigError("tls_cert", f"{certificate} holds no certificate in PEM form")
    text = _read("tls_key", key)
    if b"PRIVATE KEY-----" not in text:
        raise ConfigError("tls_key", f"{key} holds no private key in PEM form")
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in text or b"Proc-Type: 4,ENCRYPTED" in text:
        # OpenSSL would ask for the password on the terminal.
        raise ConfigError("tls_key", f"{key} is encrypted; `openssl pkey -in {key} -out FILE` takes the password off")
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError("tls_key", f"{key} is not the key of the certificate in {certificate}") from error
        problem = f"{certificate} and {key} are not a certificate and its key in PEM: {error}"
        raise ConfigError("tls_cert", problem) from error
    except OSError as error:
        raise ConfigError("tls_cert", f"cannot read {certificate} and {key}: {error.strerror or error}") from error
    return context


def _read(setting: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE)
    except OSError as error:
        raise ConfigError(setting, f"cannot read {path}: {error.strerror or error}") from error


def certificate_names(certificate: Path) -> tuple[str, ...]:
    """The DNS names and addresses of the first certificate in a file (RFC 5280 section 4.2.1.6).

    Raises `ConfigError` when they cannot be read. The subject's common name does not count (RFC 9525 section 6.3).
    """
    try:
        leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except (OSError, ValueError) as error:
        problem = f"the names in {certificate} cannot be read: {error}; say the server's own with --names"
        raise ConfigError("tls_cert", problem) from error
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)
