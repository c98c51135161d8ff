"""Under which address clients and browsers find a server, as far as its settings tell. Pure."""

from __future__ import annotations

from typing import Final

from aldis.server.config import ServerConfig

_HTTPS: Final = 443


def dialled_name(config: ServerConfig, port: int) -> str | None:
    """The host, and port if it is not the usual one, by which clients dial the server; None if no setting says it."""
    if config.names:
        return config.names[0]
    if not config.acme_domain:
        return None
    return config.acme_domain[0] if port == _HTTPS else f"{config.acme_domain[0]}:{port}"


def dialled_url(config: ServerConfig, port: int) -> str | None:
    """The URL that clients dial, which has the first of the names; None if no setting says it."""
    name = dialled_name(config, port)
    if name is None:
        return None
    # Without TLS here, a port that differs from ours is the port of a proxy with TLS.
    plain = not config.secure and name.endswith(f":{port}")
    return f"{'ws' if plain else 'wss'}://{name}{config.base_path and config.base_path + '/'}"


def page_url(config: ServerConfig, port: int) -> str | None:
    """The URL of the page under that address."""
    url = dialled_url(config, port)
    return None if url is None else f"{url.replace('ws', 'http', 1).removesuffix('/')}/"
