"""A disk of its own for one program, which a test fills and frees while the program runs.

It is a small file system in memory, in a mount namespace of the program: it is gone when the program ends, by whatever
cause. It needs users that may make namespaces, as all tests do (`tools/netns.sh`).
"""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Final

# What is in the folder already comes along. `exec` keeps the process, so its number is that of the program.
_MOUNT: Final = (
    'mount -t tmpfs -o "size=$2m" none "$1.new" && cp -a "$1/." "$1.new/" && mount --move "$1.new" "$1" '
    '&& echo $$ > "$3" && shift 3 && exec "$@"'
)


class SmallDisk:
    """A disk of so many MiB, for the program that sees it at `path`."""

    def __init__(self, folder: Path, size: int) -> None:
        self.path = folder / "disk"
        self.path.mkdir()
        (folder / "disk.new").mkdir()
        self._pid = folder / "pid"
        self._size = size
        self._program = folder / "program"
        self._freed = Event()
        self._filling: Thread | None = None

    def program(self, executable: str) -> Path:
        """A program that runs this one where the disk is, with the arguments that it is given."""
        around = ("unshare", "--mount", "sh", "-c", _MOUNT, "sh", self.path, self._size, self._pid, executable)
        self._program.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, around))} "$@"\n')
        self._program.chmod(0o755)
        return self._program

    @property
    def _filler(self) -> Path:
        """As the program sees it."""
        return Path(f"/proc/{int(self._pid.read_text())}/root{self.path}/filler")

    def fill(self) -> None:
        """Leave no room until `free`: a browser tidies up, and so frees some that it could use otherwise."""
        self._fill()
        if self._filling is None:
            self._freed.clear()
            self._filling = Thread(target=self._keep_full, daemon=True)
            self._filling.start()

    def _fill(self) -> None:
        with self._filler.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def _keep_full(self) -> None:
        with suppress(OSError):  # the program has ended, and the disk with it
            while not self._freed.wait(0.002):
                self._fill()

    def free(self) -> None:
        """Make room again."""
        if self._filling is not None:
            self._freed.set()
            self._filling.join()
            self._filling = None
        os.unlink(self._filler)
