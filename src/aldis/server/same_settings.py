"""The settings that all nodes of a cluster need alike: `server.node_totals.different_settings` compares them.

Rules:

* A secret is told by a hash that is slow to compute, and never shown. That of TURN belongs to the servers it is for:
  two machines may each have a TURN server of their own.
* What belongs to a machine may differ: ports, files, names of hosts, and the limits that protect one process.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final, TypeAlias

from aldis.server.config import LIMITS, ServerConfig
from aldis.server.worker_settings import SHARED_OUT

Told: TypeAlias = dict[str, str]
"""The settings of one node, as texts."""

NAMES: Final = tuple(
    sorted(
        {
            *(LIMITS - SHARED_OUT.keys()),
            *("auth", "relay", "name_policy", "turn_credential_lifetime"),
            *("token_audience", "token_issuer", "token_claim", "token_device_claim", "token_leeway", "token_grace"),
            *("hook_failure", "hook_cache"),
        }
    )
)
_SALT: Final = b"aldis same settings"


def told(config: ServerConfig) -> Told:
    """What a node tells the others."""
    settings = {name: str(getattr(config, name)) for name in NAMES}
    settings["hook_url"] = "set" if config.hook_url else "not set"  # each machine may have its own
    if config.hook_secret:
        settings["hook_secret"] = _hashed(config.hook_secret)
    return settings | {f"turn_secret of {url}": _hashed(config.turn_secret) for url in config.turn}


@lru_cache(maxsize=16)
def _hashed(secret: str) -> str:
    # RFC 7914 section 2: with these, a guess takes 16 MiB and 50 ms.
    return hashlib.scrypt(secret.encode(), salt=_SALT, n=2**14, r=8, p=1, dklen=16).hex()
