"""Reads and writes at a place of an open file, for any thread.

Windows has no `os.pread` and `os.pwrite`. Its files have one position for all who use them, so there a lock keeps the
move to the place and the access together. No other code may use the position of such a file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

read_at: Callable[[int, int, int], bytes]
"""`read_at(file, length, offset)`: up to `length` bytes from `offset` on."""
write_at: Callable[[int, bytes, int], int]
"""`write_at(file, data, offset)`: write there; returns how many bytes were written."""

_lock = threading.Lock()


def _move_and_read(file: int, length: int, offset: int) -> bytes:
    with _lock:
        os.lseek(file, offset, os.SEEK_SET)
        return os.read(file, length)


def _move_and_write(file: int, data: bytes, offset: int) -> int:
    with _lock:
        os.lseek(file, offset, os.SEEK_SET)
        return os.write(file, data)


if hasattr(os, "pread") and hasattr(os, "pwrite"):
    read_at, write_at = os.pread, os.pwrite
else:
    read_at, write_at = _move_and_read, _move_and_write
