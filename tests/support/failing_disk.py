"""A disk of its own whose file system becomes read-only while programs have files open on it.

That is what a kernel does when a disk fails (`errors=remount-ro`). Nothing but a new mount makes it writable again.
Each program sees the disk in a mount namespace of its own, so the disk is unmounted, and its loop device is free, when
the program ends: also when it is killed, and also when the test process is, since the program ends with it.

It needs root, loop devices and `trigger_fs_error` of ext4.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest
from benchmarks.chaos import disk

_MOUNT: Final = 'mount -o loop,errors=remount-ro "$1" "$2" && shift 2 && exec "$@"'


def need_failing_disks() -> None:
    """Skip the test where no disk can fail; in CI that is an error."""
    there = disk.can_fail()
    if not there and "CI" not in os.environ:
        pytest.skip("needs root, loop devices and /sys/fs/ext4")
    assert there, "there are no root, loop devices and /sys/fs/ext4"


class FailingDisk:
    """The disk in the file `disk.img` of a folder, for programs that see it at `path`."""

    def __init__(self, folder: Path) -> None:
        need_failing_disks()
        self._image = folder / "disk.img"
        self.path = folder / "disk"
        self.path.mkdir()
        disk.make_image(self._image)

    def around(self, *command: str) -> tuple[str, ...]:
        """The command that runs this one where the disk is mounted, and ends it with the process that starts it."""
        mounted = ("sh", "-c", _MOUNT, "sh", str(self._image), str(self.path), *command)
        return ("unshare", "--mount", "setpriv", "--pdeathsig", "KILL", *mounted)

    def fail(self, pid: int) -> None:
        """Make it read-only, as the kernel does after an error of the disk, under the program with this number."""
        disk.make_fail(pid, self.path)

    def repair(self) -> None:
        """As after a power cut: write back the journal of the file system, and look for damage. Nobody may use it."""
        disk.check(self._image)
