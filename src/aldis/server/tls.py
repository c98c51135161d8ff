"""TLS for the public port, from a certificate and a key in PEM files."""

from __future__ import annotations

import ssl
from pathlib import Path

from aldis.errors import ConfigError


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """The context of a server: TLS 1.2 or later (RFC 8996), no client certificates.

    `certificate` holds the server's certificate and those between it and the root, in this order. Raises `ConfigError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])  # a browser would try HTTP/2, in which a WebSocket is something else
    for setting, path in (("tls_cert", certificate), ("tls_key", key)):
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise ConfigError(setting, f"cannot read {path}: {error.strerror or error}") from error
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        problem = f"{certificate} and {key} are not a certificate and its unencrypted key in PEM: {error}"
        raise ConfigError("tls_cert", problem) from error
    return context
