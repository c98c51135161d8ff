"""What proves to a certificate authority that our names lead here: answers to its challenges, while it asks.

    http-01       RFC 8555 section 8.3: a text at a path of port 80 (`server.redirect` answers)
    tls-alpn-01   RFC 8737: a certificate of its own for a TLS client that speaks nothing but `acme-tls/1`

Rules: outside of an order nothing is answered. During one, a client with other protocols gets the real certificate: the
authority's connections are told by their ClientHello, which is looked at before the TLS handshake (`server.listener`).
"""

from __future__ import annotations

import datetime
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from aldis.server.certificates.client_hello import ClientHello

Kind: TypeAlias = Literal["http-01", "tls-alpn-01"]
HTTP: Final[Kind] = "http-01"
TLS: Final[Kind] = "tls-alpn-01"
PATH: Final = "/.well-known/acme-challenge/"
ALPN: Final = "acme-tls/1"
# RFC 8737 section 6.1: id-pe-acmeIdentifier.
_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_OCTET_STRING: Final = b"\x04\x20"  # of 32 bytes (ITU-T X.690)
_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Challenge:
    """One proof that the authority asks for. `authorization` is RFC 8555's key authorization."""

    domain: str
    kind: Kind
    token: str
    authorization: str


class Challenges:
    """The challenges of the order that is under way."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    @contextmanager
    def answered(self, challenges: Sequence[Challenge]) -> Iterator[None]:
        """Answer these. Blocks for some milliseconds for `tls-alpn-01`."""
        self._texts = {one.token: one.authorization for one in challenges if one.kind == HTTP}
        self._contexts = {one.domain: _context(one) for one in challenges if one.kind == TLS}
        try:
            yield
        finally:
            self._texts, self._contexts = {}, {}

    def text(self, path: str) -> str | None:
        """The text at a path of the plain port; None where no challenge is."""
        return self._texts.get(path.removeprefix(PATH)) if path.startswith(PATH) else None

    @property
    def looks_at_hellos(self) -> bool:
        """Whether the authority may connect with TLS."""
        return bool(self._contexts)

    def context(self, hello: ClientHello) -> ssl.SSLContext | None:
        """What answers a TLS client; None for one that is not the authority's."""
        return self._contexts.get(hello.server_name.lower()) if hello.protocols == (ALPN,) else None


def _context(challenge: Challenge) -> ssl.SSLContext:
    """RFC 8737 section 3: a self-signed certificate for the name, with the digest of the key authorization."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([])
    digest = sha256(challenge.authorization.encode()).digest()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(challenge.domain)]), critical=True)
        .add_extension(x509.UnrecognizedExtension(_IDENTIFIER, _OCTET_STRING + digest), critical=True)
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    with tempfile.TemporaryDirectory(prefix="aldis-acme-") as folder:  # only this user reads it
        file = Path(folder) / "challenge.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context.load_cert_chain(file)
    return context
