"""What each of several workers gets of the settings of a server, and what a hang-up may change.

A limit of the whole machine is shared out evenly, rounded up. A limit of one address, user or name counts in all
workers together, as in a cluster (`hub.usage`), so each worker gets the whole of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from aldis.server.config import SETTINGS, ServerConfig
from aldis.server.limit_settings import MIN_HANDSHAKES
from aldis.server.machine import default_budget

if TYPE_CHECKING:
    from aldis.server.turn_folder import TurnSettings

# The limits of the whole machine, and the lowest value that each may have.
SHARED_OUT: Final[Mapping[str, int]] = {
    "max_connections": 1,
    "handshakes": 1,
    "tls_handshakes": MIN_HANDSHAKES,
    "partial_requests_bytes": 64 * 1024,
    "connects_per_second": 1,
    "stun_per_second": 1,
    "watches_bytes": 64 * 1024,
    "privacy_bytes": 64 * 1024,
    "detached_bytes": 64 * 1024,
    "memory_budget": 1,
}
# What belongs to the open ports, and to the TURN server, which the supervisor runs. All else changes with new workers.
FIXED: Final = frozenset(
    {
        *("host", "port", "redirect_port", "stun_port", "admin_host", "admin_port"),
        *("turn_server", "turn_address", "turn_port", "turn_tls_port", "turn_relay_ports"),
    }
)


def for_worker(config: ServerConfig, *, turn: TurnSettings | None, secret: str, stun: bool) -> ServerConfig:
    """The settings of one worker. `turn` and `secret` are those of the TURN server that the supervisor runs; `stun`:
    the worker gets the sockets of the STUN port."""
    whole = replace(config, memory_budget=config.memory_budget or default_budget())
    shares: dict[str, Any] = {
        name: max(lowest, -(-getattr(whole, name) // config.workers)) for name, lowest in SHARED_OUT.items()
    }
    servers: dict[str, Any] = {}
    if turn is not None:
        servers = {
            "turn_server": False,
            "turn": (*turn.urls, *config.turn),
            "turn_secret": secret,
            # A worker has metrics, and the supervisor has none.
            "turn_check": (turn.check_url, *config.turn_check),
            "stun": (turn.stun_url, *config.stun),
        }
    return replace(
        whole,
        workers=1,
        # The sockets are given.
        admin_port=None if config.admin_port is None else 0,
        redirect_port=None,
        stun_port=config.stun_port if stun else 0,
        **shares,
        **servers,
    )


def changed_ports(before: ServerConfig, after: ServerConfig) -> tuple[ServerConfig, list[str]]:
    """The settings after a hang-up, with those of before where a restart is needed, and the names of these. Raises
    `ConfigError` when the two do not go together."""
    fixed = [name for name in SETTINGS if name in FIXED and getattr(before, name) != getattr(after, name)]
    return replace(after, **{name: getattr(before, name) for name in fixed}), fixed
