"""Under which address clients and browsers find a server, as far as its settings and its certificate tell. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aldis.protocol.hosts import is_this_machine
from aldis.server.config import ServerConfig

_HTTPS: Final = 443


def dialled_name(config: ServerConfig, port: int, certified: Sequence[str] = ()) -> str | None:
    """The host, and port if it is not the usual one, by which clients dial the server; None if nothing says it.

    `certified` are the names in the certificate: clients refuse it under any other.
    """
    if config.names:
        return config.names[0]
    name = config.acme_domain[0] if config.acme_domain else _certified_name(config.host, certified)
    if name is None:
        return None
    host = f"[{name}]" if ":" in name else name
    return host if port == _HTTPS else f"{host}:{port}"


def _certified_name(host: str, certified: Sequence[str]) -> str | None:
    """The name in the certificate to dial; None if the address of the server is as good, or there is none."""
    names = [name for name in certified if not name.startswith("*")]
    if host in names:
        return None
    here = [name for name in names if is_this_machine(name)]
    elsewhere = [name for name in names if name not in here]
    first, second = (here, elsewhere) if is_this_machine(host) else (elsewhere, here)
    return next(iter((*first, *second)), None)


def dialled_url(config: ServerConfig, port: int, certified: Sequence[str] = ()) -> str | None:
    """The URL that clients dial, which has the first of the names; None if nothing says it."""
    name = dialled_name(config, port, certified)
    if name is None:
        return None
    # Without TLS here, a port that differs from ours is the port of a proxy with TLS.
    plain = not config.secure and name.endswith(f":{port}")
    return f"{'ws' if plain else 'wss'}://{name}{config.base_path and config.base_path + '/'}"


def page_url(config: ServerConfig, port: int, certified: Sequence[str] = ()) -> str | None:
    """The URL of the page under that address."""
    url = dialled_url(config, port, certified)
    return None if url is None else f"{url.replace('ws', 'http', 1).removesuffix('/')}/"
