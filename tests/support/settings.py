"""The settings of a server for tests: a free port, no port for admin or STUN (all would want one), nothing kept."""

from __future__ import annotations

from typing import Any

from aldis.server.config import ServerConfig

# For tests that send much and look at something else.
UNLIMITED: dict[str, Any] = {
    "messages_per_second": 1_000_000,
    "bytes_per_second": 1_000_000_000,
    "user_relayed_bytes_per_second": 1_000_000_000,
    "user_discovers_per_second": 1_000_000,
    "user_sealed_bytes_per_second": 1_000_000_000,
    "pair_sealed_bytes_per_second": 1_000_000_000,
    "new_names_per_address": 0,
}


def config(**settings: object) -> ServerConfig:
    """These settings, with what a test wants otherwise."""
    return ServerConfig(**{"port": 0, "admin_port": None, "stun_port": 0, "data": ":memory:", **settings})  # type: ignore[arg-type]
