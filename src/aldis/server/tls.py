"""TLS for the public port, from a certificate and a key in PEM files.

Without files it waits for a first certificate, and refuses each handshake until then. Not with a certificate of its own
making: people would learn to click on in their browsers, and clients end for good at one that they do not trust, but
come back after a refused handshake.

`ServerTls` takes over changed files while the server runs. An event loop keeps the context that it got with the port.
So that context chooses another one in each handshake (`sni_callback`), and no handshake sees half of a change.
OpenSSL takes from the chosen context the certificate alone; tickets for resumption are those of the first context, and
stay valid.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509

from aldis.errors import ConfigError
from aldis.server.certificates.files import CertificateFiles
from aldis.server.config import ServerConfig

_MAX_FILE: Final = 1024 * 1024  # bytes; a chain of ten certificates has 20 KB
# For TLS 1.2: Mozilla's "intermediate" list without DHE, which needs parameters and is slow. OpenSSL's own five for
# TLS 1.3 are all good. The client's order counts: a phone without AES in hardware prefers ChaCha20.
_CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
# A certificate expires soon when less than this is left, or a quarter of its lifetime: some are valid for six days.
_SOON: Final = 14 * 86_400.0
_SOON_PART: Final = 0.25
# What tells that a file is another one, or has other content: device, inode, size and time of change.
_Look: TypeAlias = tuple[tuple[int, int, int, int] | None, ...]


def expires_soon(starts: float, expires: float, now: float) -> bool:
    """Whether a certificate has to be looked after; one that is renewed in time never has. Seconds since 1970."""
    return expires - now < min(_SOON, _SOON_PART * (expires - starts))


def validity_problem(starts: float, expires: float, now: float) -> str:
    """Why clients refuse a certificate by its dates, to follow "the certificate"; empty if they do not. Seconds since
    1970."""
    if now >= expires:
        return "has expired: clients refuse it"
    if now < starts:
        return f"is not valid before {datetime.fromtimestamp(starts, UTC):%Y-%m-%d %H:%M} UTC: clients refuse it"
    return ""


def certificate_files(config: ServerConfig) -> tuple[Path, Path] | None:
    """The certificate and the key of a server; None if it has none, or none yet."""
    if config.tls_cert is not None and config.tls_key is not None:
        return config.tls_cert, config.tls_key
    if config.acme_domain:
        kept = CertificateFiles(Path(config.data)).certificate
        return (kept, kept) if kept.exists() else None
    return None


def certified_names(config: ServerConfig) -> tuple[str, ...]:
    """The names in the certificate of a server; none without one, and when they cannot be read."""
    files = certificate_files(config)
    try:
        return () if files is None else _names_in(_leaf_of(files[0]))
    except ConfigError:
        return ()


def check_authorities(config: ServerConfig) -> None:
    """See that `acme_ca_file` can be used, if there is one. Raises `ConfigError`."""
    path = config.acme_ca_file
    if path is None or not config.acme_domain:
        return
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise ConfigError("acme_ca_file", f"{path} holds no certificate in PEM form") from None
    except OSError as error:
        raise ConfigError("acme_ca_file", f"cannot read {path}: {error.strerror or error}") from None


class ServerTls:
    """The TLS of one server. Raises `ConfigError` for files that cannot be used. None: without a certificate yet."""

    def __init__(self, files: tuple[Path, Path] | None) -> None:
        self._files = files
        self._look = None if files is None else _look_at(*files)
        # What was looked at when the certificate in use was read.
        self._used = self._look
        self.context = _context() if files is None else server_context(*files)
        self._current = None if files is None else self.context
        self._leaf = None if files is None else _leaf_of(files[0])
        self.context.sni_callback = self._choose

    def changed(self) -> bool:
        """Whether a file has changed since this was last asked, or since the start."""
        before, self._look = self._look, None if self._files is None else _look_at(*self._files)
        return self._look != before

    def load(self, certificate: Path, key: Path, *, for_names: bool) -> bool:
        """Use these files from the next handshake on; `for_names` if the names in the certificate are needed.

        Returns whether they are others than those in use, or have changed. Raises `ConfigError`, and then all stays as
        it was.
        """
        look = _look_at(certificate, key)
        if (certificate, key) == self._files:
            self._look = look  # whatever comes of it: files that cannot be used are worth one error, not one a minute
        current, leaf = server_context(certificate, key), _leaf_of(certificate)
        if for_names:
            _names_in(leaf)
        self._current, self._leaf = current, leaf
        is_new = (certificate, key) != self._files or look != self._used
        self._files, self._look, self._used = (certificate, key), look, look
        return is_new

    @property
    def files(self) -> tuple[Path, Path] | None:
        """The certificate and the key; None before there are any."""
        return self._files

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the certificate in use. Raises `ConfigError` when they cannot be read."""
        return () if self._leaf is None else _names_in(self._leaf)

    @property
    def leaf(self) -> x509.Certificate | None:
        """The certificate in use; None without one, and when only OpenSSL can read it."""
        return None if isinstance(self._leaf, ConfigError) else self._leaf

    @property
    def expires(self) -> datetime | None:
        """When the certificate in use expires, in UTC; None when only OpenSSL can read it."""
        return None if self.leaf is None else self.leaf.not_valid_after_utc

    def validity_problem(self, now: float) -> str:
        """As the function of this name, about the certificate in use; empty when its dates cannot be read."""
        if (leaf := self.leaf) is None:
            return ""
        return validity_problem(leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp(), now)

    def _choose(
        self, handshake: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> int | None:
        # Called in each handshake, also for a client that names no server.
        if self._current is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR  # RFC 8446 section 6.2: nothing that the client can mend
        if self._current is not context:
            handshake.context = self._current
        return None


def _look_at(*paths: Path) -> _Look:
    return tuple(map(_look_at_one, paths))


def _look_at_one(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()  # of what a link leads to: certbot changes links
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """The TLS context of a server: TLS 1.2 or later (RFC 8996), without client certificates.

    `certificate` holds the server's certificate, then the intermediate certificates. Raises `ConfigError`.
    """
    context = _context()
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


def _context() -> ssl.SSLContext:
    """As `server_context`, without a certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_RENEGOTIATION  # it costs a server more than the client, and nobody needs it
    context.set_alpn_protocols(["http/1.1"])  # browsers would try HTTP/2, where WebSockets work differently
    return context


def _read(setting: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE)
    except OSError as error:
        raise ConfigError(setting, f"cannot read {path}: {error.strerror or error}") from error


def _leaf_of(certificate: Path) -> x509.Certificate | ConfigError:
    """The first certificate in a file, which is the server's own; the error if that cannot be read here."""
    try:
        return x509.load_pem_x509_certificates(certificate.read_bytes())[0]
    except (OSError, ValueError) as error:
        return _unreadable_names(error)


def _names_in(leaf: x509.Certificate | ConfigError) -> tuple[str, ...]:
    """The DNS names and addresses of a certificate (RFC 5280 section 4.2.1.6).

    The subject's common name does not count (RFC 9525 section 6.3).
    """
    if isinstance(leaf, ConfigError):
        raise leaf
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except ValueError as error:
        raise _unreadable_names(error) from error
    return (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))


def _unreadable_names(error: Exception) -> ConfigError:
    problem = f"the names in the certificate cannot be read: {error}; say the server's own with --names"
    return ConfigError("tls_cert", problem)
