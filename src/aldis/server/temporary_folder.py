"""A folder of temporary files that the next start removes if this process was killed.

Rules: a living process holds a lock on the file `lock` in its folder. Only folders of the same user are removed, no
link is followed, and where files cannot be locked (Windows, some network file systems) nothing is removed.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_LOCK = "lock"


class TemporaryFolder:
    """A new folder that only this user reads, and that is there until `remove`. Raises `OSError`."""

    def __init__(self, prefix: str) -> None:
        while True:
            self._made = tempfile.TemporaryDirectory(prefix=prefix)
            self.path = Path(self._made.name)
            lock = self.path / _LOCK
            self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with suppress(OSError):  # it cannot be locked, by others neither
                _hold(self._lock)
            # Before it was locked, another start may have taken it for that of a dead process.
            if lock.exists():
                return
            self.remove()

    def remove(self) -> None:
        """Delete all of it."""
        self._made.cleanup()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def remove_abandoned(prefix: str, is_in_use: Callable[[Path], bool]) -> int:
    """Remove the folders that killed processes of this user have left. Return how many.

    `is_in_use` is asked about folders without a lock, which earlier versions have made. What cannot be removed stays.
    """
    if not hasattr(os, "geteuid"):
        return 0
    removed = 0
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):
            removed += _remove_abandoned(path, is_in_use)
    return removed


def _remove_abandoned(path: Path, is_in_use: Callable[[Path], bool]) -> bool:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return False
    try:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        if is_in_use(path):
            return False
        shutil.rmtree(path)
        return True
    try:
        if not _hold(lock):
            return False
        shutil.rmtree(path)
        return True
    finally:
        os.close(lock)


def _hold(descriptor: int) -> bool:
    """Lock a file for as long as it is open. Returns False if another process holds it; may raise `OSError`."""
    try:
        import fcntl
    except ImportError:
        raise OSError("files cannot be locked here") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
