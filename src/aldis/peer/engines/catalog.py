"""Which WebRTC engines there are, by name.

Each is imported when it is asked for and not before: a program that uses one does not load the other, and one that only
runs a server loads none.
"""

from __future__ import annotations

from typing import Final

from aldis.errors import EngineMissing, UsageError
from aldis.peer.engine import Engine

ENGINES: Final = ("wrtc", "aiortc")


def load_engine(name: str) -> Engine:
    """The engine called `name` (`wrtc` or `aiortc`), imported now and not before.

    Raises `EngineMissing` when it is not installed, `UsageError` when there is none of that name.
    """
    try:
        match name:
            case "wrtc":
                from aldis.peer.engines.wrtc import WrtcEngine

                return WrtcEngine()
            case "aiortc":
                from aldis.peer.engines.aiortc import AiortcEngine

                return AiortcEngine()
    except ImportError as error:
        extra = "aldis" if name == "wrtc" else "aldis[aiortc]"
        raise EngineMissing(name, f"pip install '{extra}' ({error})") from error
    raise UsageError(f"there is no WebRTC engine {name!r}; choose one of {', '.join(ENGINES)}")
