"""What the hub is told of a server's settings."""

from __future__ import annotations

from pathlib import Path

from aldis.server.config import ServerConfig
from aldis.server.hub_settings import PLAIN_BYTES, TLS_BYTES, hub_settings


def test_a_connection_costs_more_with_tls_wherever_the_certificate_comes_from(tmp_path: Path) -> None:
    assert hub_settings(ServerConfig(data=str(tmp_path))).connection_bytes == PLAIN_BYTES
    files = ServerConfig(data=str(tmp_path), tls_cert=Path("c.pem"), tls_key=Path("k.pem"))
    ordered = ServerConfig(data=str(tmp_path), acme_domain=("a.example",), acme_agree_tos=True)
    assert [hub_settings(config).connection_bytes for config in (files, ordered)] == [TLS_BYTES, TLS_BYTES]
