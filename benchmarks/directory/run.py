"""What `aldis directory copy` takes: seconds and memory for a first copy, one without changes, and one with some.

    .venv/bin/python -m benchmarks.directory.run [--names N,N] [--to URL] [--folder DIR]

FROM is a SQLite file in the folder, TO another one unless `--to` names an empty directory. The folder should be on the
disk that directories will be on: each thousand of names is synced to it. Memory is the most that the command had.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from aldis.backends.base import Binding
from aldis.backends.sqlite import SqliteDirectory
from aldis.protocol.privacy import DEFAULT_PRIVACY, Privacy

_TOGETHER: Final = 1000
# One name in ten has a privacy of its own, and one in a hundred changes between two copies.
_HIDDEN: Final = Privacy("hidden", "contacts", frozenset({"bob", "carol"}), frozenset({"mallory"}))


async def fill(path: Path, count: int) -> None:
    """Make a directory with `count` names."""
    directory = await SqliteDirectory.open(path)
    for first in range(0, count, _TOGETHER):
        numbers = range(first, min(first + _TOGETHER, count))
        await asyncio.gather(
            *(
                directory.put(Binding(f"user{n}", n.to_bytes(32, "big"), DEFAULT_PRIVACY if n % 10 else _HIDDEN))
                for n in numbers
            )
        )
    await directory.close()


async def change(path: Path, count: int) -> None:
    """Hand over one name in a hundred."""
    directory = await SqliteDirectory.open(path)
    keys = ((f"user{n}", n.to_bytes(32, "big")) for n in range(0, count, 100))
    await asyncio.gather(*(directory.rotate(name, key, bytes([255]) + key[1:]) for name, key in keys))
    await directory.close()


def copy(source: Path, target: str) -> str:
    """Run the command; what it took."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "aldis", "directory", "copy", str(source), target], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    seconds = time.perf_counter() - began
    busy = usage.ru_utime + usage.ru_stime
    return f"{seconds:6.1f} s, {busy:5.1f} s of processor, {usage.ru_maxrss / 1024:4.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", default="100000,1000000")
    parser.add_argument("--to", default=None)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    counts = list(map(int, arguments.names.split(",")))
    if arguments.to is not None and len(counts) > 1:
        parser.error("--to takes the names of one copy: give one number with --names")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for count in counts:
            source = Path(folder) / f"from-{count}.sqlite3"
            target = arguments.to or str(Path(folder) / f"to-{count}.sqlite3")
            asyncio.run(fill(source, count))
            print(f"{count:8} names: the first copy  {copy(source, target)}", flush=True)
            print(f"{count:8} names: without changes {copy(source, target)}", flush=True)
            asyncio.run(change(source, count))
            print(f"{count:8} names: 1 % has changed {copy(source, target)}", flush=True)


if __name__ == "__main__":
    main()
