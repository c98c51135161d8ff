"""Aldis: two programs, anywhere, find each other by name and talk directly and privately over WebRTC.

The public names. They are loaded when they are first used: `import aldis` is cheap, and a program that only runs the
server never loads a WebRTC engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from aldis.version import VERSION

if TYPE_CHECKING:
    from aldis.client.backoff import Backoff as Backoff
    from aldis.client.client import SignalingClient as SignalingClient
    from aldis.errors import AldisError as AldisError
    from aldis.identity.keys import Identity as Identity
    from aldis.identity.pins import FilePins as FilePins
    from aldis.identity.pins import MemoryPins as MemoryPins
    from aldis.server.app import SignalingServer as SignalingServer
    from aldis.server.config import ServerConfig as ServerConfig
    from aldis.store.store import NetworkStore as NetworkStore

__version__: Final = VERSION

_HOMES: Final = {
    "AldisError": "aldis.errors",
    "Backoff": "aldis.client.backoff",
    "FilePins": "aldis.identity.pins",
    "Identity": "aldis.identity.keys",
    "MemoryPins": "aldis.identity.pins",
    "NetworkStore": "aldis.store.store",
    "ServerConfig": "aldis.server.config",
    "SignalingClient": "aldis.client.client",
    "SignalingServer": "aldis.server.app",
}

__all__ = [
    "AldisError",
    "Backoff",
    "FilePins",
    "Identity",
    "MemoryPins",
    "NetworkStore",
    "ServerConfig",
    "SignalingClient",
    "SignalingServer",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
