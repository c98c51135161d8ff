"""The settings of a server for tests: a free port, no admin port, and nothing kept."""

from __future__ import annotations

from aldis.server.config import ServerConfig


def config(**settings: object) -> ServerConfig:
    """These settings, with what a test wants otherwise."""
    return ServerConfig(**{"port": 0, "admin_port": None, "data": ":memory:", **settings})  # type: ignore[arg-type]
