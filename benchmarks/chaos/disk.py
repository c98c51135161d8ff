"""A disk of its own for a program, which can be full, fail, or report errors.

* Full: a file takes all of its room, until it is removed.
* Failing: the file system becomes read-only, as a kernel makes it when a disk fails (`errors=remount-ro`). Nothing but
  a new mount makes it writable again.
* Reporting errors: `strace` lets writes of one program fail with EIO, and leaves the disk as it is.

Rules: it needs root, loop devices, `trigger_fs_error` of ext4, and strace for the last of these. The disk is mounted in
a mount namespace of its own, in which the programs run. The kernel unmounts it, and frees its loop device, when all of
them have ended. They end with the process that starts them, however that ends.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final

MIB: Final = 24  # the smallest on which ext4 has a journal of some size
_EXT4: Final = Path("/sys/fs/ext4")
_BOUND: Final = ("setpriv", "--pdeathsig", "KILL")
_MOUNT: Final = 'mount -o loop,errors=remount-ro "$1" "$2" && echo mounted && exec sleep infinity'
_FILLER: Final = "filler"
_PATIENCE: Final = 30.0  # seconds for programs that were killed to be gone
_WRITES: Final = "write,pwrite64,writev,pwritev,fsync,fdatasync,ftruncate,fallocate"


def _program(name: str) -> str:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") or name


def can_fail() -> bool:
    """Whether there is what a disk needs that fails."""
    return os.geteuid() == 0 and Path("/dev/loop-control").exists() and os.access(_EXT4, os.W_OK)


def make_image(image: Path, mib: int = MIB) -> None:
    """Make the file of a disk, with an empty file system."""
    with image.open("wb") as file:
        file.truncate(mib << 20)
    subprocess.run([_program("mkfs.ext4"), "-q", "-F", "-m", "0", image], check=True, capture_output=True)


def make_fail(pid: int, path: Path) -> None:
    """Make the disk at `path`, as this process sees it, read-only, as the kernel does after an error of the disk."""
    (device,) = [
        line.split(" - ")[1].split()[1]
        for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        if line.split()[4] == str(path)
    ]
    (_EXT4 / Path(device).name / "trigger_fs_error").write_text("1")


def check(image: Path) -> None:
    """As after a power cut: write back the journal of the file system, and look for damage. Nobody may use it."""
    checked = subprocess.run([_program("e2fsck"), "-f", "-y", image], check=False, capture_output=True)
    assert checked.returncode in (0, 1), checked.stdout  # 1: errors were corrected


class Disk:
    """`with Disk(folder) as disk:`; programs see it at `disk.path`."""

    def __init__(self, folder: Path, mib: int = MIB) -> None:
        self._image = folder / "disk.img"
        self.path = folder / "disk"
        self._mib = mib
        self._holder: subprocess.Popen[str] | None = None

    def __enter__(self) -> Disk:
        self.path.mkdir(parents=True)
        make_image(self._image, self._mib)
        self._mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._let_go()

    def _mount(self) -> None:
        words = ("unshare", "--mount", *_BOUND, "sh", "-c", _MOUNT, "sh", str(self._image), str(self.path))
        self._holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "mounted\n", "the disk cannot be mounted"

    def _let_go(self) -> None:
        if self._holder is not None:
            self._holder.kill()
            self._holder.communicate()
            self._holder = None

    @property
    def _pid(self) -> int:
        assert self._holder is not None
        return self._holder.pid

    @property
    def seen(self) -> Path:
        """Where this process sees it."""
        return Path(f"/proc/{self._pid}/root{self.path}")

    def around(self, command: Sequence[str], folder: Path) -> list[str]:
        """The command that runs this one in a folder, where the disk is mounted."""
        return [*_BOUND, "nsenter", "--mount", f"--target={self._pid}", f"--wdns={folder}", *command]

    # --- faults -----------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Take all room."""
        with (self.seen / _FILLER).open("wb", buffering=0) as file:
            room = os.fstatvfs(file.fileno())
            for size in (room.f_bavail * room.f_frsize * 9 // 10, room.f_frsize):
                try:
                    while True:
                        os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
                except OSError:  # there is less
                    continue

    def empty(self) -> None:
        """Give it back."""
        (self.seen / _FILLER).unlink()

    def fail(self) -> None:
        """Make it read-only."""
        make_fail(self._pid, self.path)

    async def repair(self) -> None:
        """Check it, and mount it anew. The programs that were on it have to be killed before."""
        self._let_go()
        losetup = _program("losetup")
        last = time.monotonic() + _PATIENCE
        while subprocess.run([losetup, "-j", self._image], check=True, capture_output=True).stdout:  # noqa: ASYNC221
            assert time.monotonic() < last, "programs hold the disk"
            await asyncio.sleep(0.1)
        check(self._image)
        self._mount()

    @asynccontextmanager
    async def errors(self, pid: int, files: Sequence[str], when: str) -> AsyncIterator[None]:
        """While in the block, writes of a program to these files of the disk fail. `when`: which ones, as for `inject`
        of strace(1)."""
        paths = [word for name in files for word in ("-P", str(self.path / name))]
        words = ("-f", "-qq", "-o", os.devnull, "-p", str(pid), *paths, "-e", f"inject={_WRITES}:error=EIO:when={when}")
        nsenter = ("nsenter", "--mount", f"--target={self._pid}")
        strace = await asyncio.create_subprocess_exec(*_BOUND, *nsenter, _program("strace"), *words)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(strace.pid, signal.SIGTERM)  # it lets go of the program
            assert await strace.wait() != 1, "strace cannot attach"
