"""The data folder of a server that is running: no other one may have it.

What is in it is read at the start and replaced as a whole later, the bans above all: of two servers, each would undo
what the other has written. The nodes of a cluster keep nothing there that changes, and may share a folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from aldis.errors import ConfigError

_ADVICE: Final = "another running server; stop that one, or give this one a folder of its own"


@contextmanager
def held_folder(folder: Path, advice: str = _ADVICE) -> Iterator[None]:
    """Hold a folder that is there. Raises `ConfigError` with `advice` when a server holds it.

    The lock is on the folder itself, so that nothing is left behind. Where that cannot be locked (Windows, some network
    file systems), nothing is held.
    """
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (ImportError, OSError):
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError("data", f"{folder} is in use by {advice}") from None
        except OSError:
            pass
        yield
    finally:
        # Not only closed: a child that was forked meanwhile would hold it on.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
