"""What the parts of the public port are told of a server's settings; the hub: `server.hub_settings`."""

from __future__ import annotations

from aldis.server.config import ServerConfig
from aldis.server.opening import OpeningLimits
from aldis.server.origins import OriginPolicy, is_reachable


def origins(config: ServerConfig) -> OriginPolicy:
    """Which pages of other hosts may connect."""
    return OriginPolicy(config.origins, reachable=is_reachable(config.host, config.names))


def address_limits(config: ServerConfig) -> dict[str, int]:
    """The limits of connections, for `AddressLimits`."""
    return {
        "connections_per_address": config.connections_per_address,
        "connects_per_address": config.connects_per_address,
        "connects_per_second": config.connects_per_second,
    }


def opening_limits(config: ServerConfig) -> OpeningLimits:
    """The limits of connections that are not open yet."""
    return OpeningLimits(
        handshake_timeout=config.handshake_timeout,
        tls_handshakes=config.tls_handshakes,
        partial_requests_bytes=config.partial_requests_bytes,
    )
