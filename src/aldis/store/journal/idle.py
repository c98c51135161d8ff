"""What is known of devices that are not in use: our stream to each, and how far theirs have arrived.

It does not know what is written, nor when.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aldis.protocol.channel import Content
from aldis.store.journal.rows import DeviceRow
from aldis.store.messages.stored import StoredStream

# Devices without waiting messages, and what is known of all of them in bytes: a device that uses one stream takes some
# 300, and one that makes up names 10 KiB. Those that were heard from last stay.
MAX_DEVICES: Final = 10_000
MAX_SIZE: Final = 8 * 1024 * 1024
_ROW_SIZE: Final = 64  # of a row, without its names


def _size(row: DeviceRow, stored: StoredStream) -> int:
    """Bytes on the disk and, about, in memory; messages not counted."""
    names = [row.user_id, row.device or "", row.stream, *(position.stream for position in stored.positions)]
    return sum(len(name.encode()) + _ROW_SIZE for name in names)


def _waits(stored: StoredStream) -> bool:
    """Whether there are messages of the application."""
    return any(message.content is not Content.CONTROL for message in stored.messages)


class IdleDevices:
    """By user and device, those first that were heard from longest ago."""

    def __init__(self, max_devices: int = MAX_DEVICES, max_size: int = MAX_SIZE) -> None:
        self._max_devices = max_devices
        self._max_size = max_size
        self._found: dict[tuple[str, str | None], tuple[DeviceRow, StoredStream]] = {}
        self._size = 0

    def __contains__(self, key: tuple[str, str | None]) -> bool:
        return key in self._found

    def __iter__(self) -> Iterator[DeviceRow]:
        return (row for row, _ in self._found.values())

    def keep(self, row: DeviceRow, stored: StoredStream) -> list[DeviceRow]:
        """Keep one more. If that is too much, return which are forgotten: the first for whom nothing waits."""
        self._found[row.user_id, row.device] = row, stored
        self._size += _size(row, stored)
        forgotten = []
        while len(self._found) > self._max_devices or self._size > self._max_size:
            oldest = next((row for row, stored in self._found.values() if not _waits(stored)), None)
            if oldest is None:
                break
            self.take(oldest.user_id, oldest.device)
            forgotten.append(oldest)
        return forgotten

    def take(self, user_id: str, device: str | None) -> tuple[DeviceRow, StoredStream] | None:
        """A device that is in use from now on, if it is known."""
        found = self._found.pop((user_id, device), None)
        if found is not None:
            self._size -= _size(*found)
        return found

    @property
    def waiting(self) -> list[tuple[str, str | None]]:
        """The users and devices for whom the application's messages wait."""
        return [key for key, (_, stored) in self._found.items() if _waits(stored)]
