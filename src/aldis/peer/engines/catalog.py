"""The WebRTC engines, by name.

An engine is imported only when it is requested: a program that uses one does not load the other, and a program that
only runs a server loads none.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from aldis.errors import ConfigError, EngineMissing
from aldis.peer.engine import Engine
from aldis.version import distribution_name, install_command

ENGINES: Final = ("wrtc", "aiortc")


def load_engine(name: str) -> Engine:
    """Import and return the engine called `name` (`wrtc` or `aiortc`).

    Raises `EngineMissing` when it is not installed or cannot be loaded, `ConfigError` for an unknown name.
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
        raise EngineMissing(name, _hint(name, error)) from error
    raise ConfigError("engine", f"there is no WebRTC engine {name!r}; choose one of {', '.join(ENGINES)}")


def _hint(name: str, error: ImportError) -> str:
    """What is wrong with an engine, and what to do."""
    module = "webrtc" if name == "wrtc" else name
    if find_spec(module) is not None:
        return f"it is installed, and cannot be loaded: {error}"
    if name == "wrtc":
        here = distribution_name()
        first = "" if here == "aldis" else f"`pip uninstall {here}` and then "
        hint = f"it is not installed; {first}`pip install aldis` brings it where it has a wheel"
        return f"{hint}, and where it has none there is the engine aiortc: {_install_aiortc()}"
    return f"it is not installed; {_install_aiortc()}"


def _install_aiortc() -> str:
    if find_spec("aiortc") is not None:
        return "installed here, to be chosen with engine='aiortc' (`aldis chat --engine aiortc`)"
    return f"`{install_command('aiortc')}`"
