"""The deployment kit in deploy/: its files, with other texts where a test needs them, and the programs they are for."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def written(name: str, changes: Mapping[str, str]) -> str:
    """A file of the kit with other texts in it; each text to change must be there."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text, f"deploy/{name} does not say {old!r}"
        text = text.replace(old, new)
    return text


def program(name: str) -> str:
    """The path of a program. A missing one is a failure."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    assert found, f"there is no {name} on the path; `make test` installs it"
    return found


def tool(name: str, *words: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its outputs are one text."""
    return subprocess.run(
        [program(name), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
        **more,
    )


@asynccontextmanager
async def running(*command: str | Path, says: bytes, **more: Any) -> AsyncIterator[str]:
    """A program that runs until the block ends. The block starts when the program has said this; all until then."""
    pipes: dict[str, Any] = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT}
    process = await asyncio.create_subprocess_exec(*map(str, command), **pipes, **more)
    assert process.stdout is not None
    reading = None
    try:
        said = b""
        async with asyncio.timeout(PATIENCE):
            while says not in said:
                line = await process.stdout.readline()
                assert line, said.decode()
                said += line
        reading = asyncio.create_task(process.stdout.read())  # a full pipe would stop it
        yield said.decode()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if reading is not None:
            await reading
