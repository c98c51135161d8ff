"""The version of this package, and of which distribution it is."""

from typing import Final

# Not read from the metadata of the package, which a frozen program does not have.
VERSION: Final = "0.1.0"


def distribution_name() -> str:
    """`aldis`, or `aldis-server`, which has no wrtc. Both have the same files, so only one may be installed."""
    from importlib.metadata import PackageNotFoundError, distribution  # takes time, and is seldom needed

    try:
        distribution("aldis-server")
    except PackageNotFoundError:
        return "aldis"
    return "aldis-server"


def install_command(extra: str) -> str:
    """What installs an extra of the distribution that is here."""
    return f"pip install '{distribution_name()}[{extra}]'"
