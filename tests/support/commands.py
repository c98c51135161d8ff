"""The `aldis` command as people run it: real processes, with pipes or with a terminal."""

from __future__ import annotations

import asyncio
import codecs
import errno
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyte

from support.command_forks import template
from support.forks import ForkedProcess
from support.patience import PATIENCE

COMMAND = (sys.executable, "-m", "aldis")
# Cursor movement, colours, modes, window titles: what a terminal acts on and does not show (ECMA-48 section 5.4).
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_=>78]|\r")


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment in which nothing of the person who runs the tests is read or written."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ALDIS_", "XDG_"))}
    own = {"HOME": str(home), "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", "PYTHONWARNINGS": "default"}
    return {**kept, **own, **(extra or {})}


def aldis(
    *words: str | Path, home: Path, stdin: bytes = b"", extra: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end; output as text."""
    result = subprocess.run(
        [*COMMAND, *map(str, words)],
        input=stdin,
        capture_output=True,
        env=environment(home, extra),
        timeout=PATIENCE,
        check=False,
    )
    out, err = result.stdout.decode(), result.stderr.decode()
    assert "Traceback" not in out + err, err
    return subprocess.CompletedProcess(result.args, result.returncode, out, err)


class Piped:
    """A command with three pipes. Use it as `async with`; what still runs at the end is killed."""

    def __init__(
        self,
        *words: str | Path,
        home: Path,
        extra: Mapping[str, str] | None = None,
        output: int | None = None,
        forked: bool = False,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """`output`: a file descriptor to use as standard output, instead of a pipe that can be read here.

        `forked`: from a process that has imported everything, where the start is not what the test looks at. `command`:
        how `aldis` is started.
        """
        self._words = [*map(str, words)]
        self._command = command
        self._forked = forked
        self._environment = environment(home, extra)
        self._output = output
        self.errors = ""

    async def __aenter__(self) -> Piped:
        self.process = await self._start(32 * 1024 * 1024)
        assert self.process.stdin
        assert self.process.stderr
        self.stdin, self.stdout = self.process.stdin, self.process.stdout or asyncio.StreamReader()
        self._grown = asyncio.Event()
        self._listener = asyncio.create_task(self._listen(self.process.stderr))
        return self

    async def _start(self, limit: int) -> asyncio.subprocess.Process | ForkedProcess:
        if self._forked:
            streams = {0: None, 1: self._output, 2: None}
            return await template().fork(
                self._words, False, environment=self._environment, streams=streams, limit=limit
            )
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *self._command,
            *self._words,
            stdin=pipe,
            stdout=pipe if self._output is None else self._output,
            stderr=pipe,
            env=self._environment,
            limit=limit,
        )

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        while data := await stderr.read(4096):
            self.errors += data.decode()
            self._grown.set()
        # What waits for a text is told of the end, too, once this task is done.
        asyncio.get_running_loop().call_soon(self._grown.set)

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        self.stdin.close()
        await self.process.wait()
        await self._listener
        print(f"--- standard error of aldis {' '.join(self._words)} ---\n{self.errors}")  # seen when a test fails
        assert "Traceback" not in self.errors, self.errors

    async def type(self, text: str) -> None:
        """Write into its standard input."""
        self.stdin.write(text.encode())
        await self.stdin.drain()

    async def line(self) -> str:
        """The next line of its standard output, without the line end; empty at the end."""
        async with asyncio.timeout(PATIENCE):
            return (await self.stdout.readline()).decode().removesuffix("\n")

    async def rest(self) -> str:
        """What is left of its standard output, until it closes it."""
        async with asyncio.timeout(PATIENCE):
            return (await self.stdout.read()).decode()

    async def says(self, text: str) -> str:
        """Wait until standard error contains `text`; return all of it."""
        try:
            async with asyncio.timeout(PATIENCE):
                while text not in self.errors:
                    assert not self._listener.done(), f"has ended without {text!r}, but said:\n{self.errors}"
                    self._grown.clear()
                    await self._grown.wait()
        except TimeoutError:
            raise AssertionError(f"never said {text!r}, but:\n{self.errors}") from None
        return self.errors

    async def end(self) -> int:
        """Wait for its end and return the exit code."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self.process.wait()
        except TimeoutError:
            raise AssertionError(f"did not end; it said:\n{self.errors}") from None
        await self._listener
        assert self.process.returncode is not None
        return self.process.returncode


class Typed:
    """A command at a terminal of its own, of so many `columns` and `rows`.

    `seen` is all that it ever wrote, without what steers. `screen` is what a person sees now: a program that draws only
    what has changed does not write a line from its first letter to its last.
    """

    def __init__(
        self,
        *words: str | Path,
        home: Path,
        extra: Mapping[str, str] | None = None,
        forked: bool = False,
        columns: int = 80,
        rows: int = 24,
    ) -> None:
        self._words = [*map(str, words)]
        self._forked = forked
        self._environment = environment(home, extra)
        self.raw = ""
        self._size = columns, rows
        self._screen = pyte.Screen(columns, rows)
        self._emulator = pyte.Stream(self._screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    async def __aenter__(self) -> Typed:
        self._terminal, self._inside = pty.openpty()
        self.resize(*self._size)
        self.modes_before = self.modes
        self.process = await self._start(self._inside)
        os.set_blocking(self._terminal, False)
        self._grown = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._terminal, self._read)
        return self

    async def _start(self, inside: int) -> asyncio.subprocess.Process | ForkedProcess:
        if self._forked:
            return await template().fork(
                self._words, True, environment=self._environment, streams=dict.fromkeys(range(3), inside)
            )
        return await asyncio.create_subprocess_exec(
            *COMMAND,
            *self._words,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=self._environment,
            start_new_session=True,
            # The terminal becomes the controlling one, so that Ctrl-C is a signal and not a letter.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def _read(self) -> None:
        try:
            data = os.read(self._terminal, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # the terminal is gone: the process has ended
                raise
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._terminal)
        text = self._decoder.decode(data)
        self.raw += text
        self._emulator.feed(text)
        if b"\x1b[6n" in data:  # it asks where the cursor is, as prompt_toolkit does
            cursor = self._screen.cursor
            os.write(self._terminal, f"\x1b[{cursor.y + 1};{cursor.x + 1}R".encode())
        self._grown.set()

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._terminal)
        os.close(self._terminal)
        os.close(self._inside)
        assert "Traceback" not in self.seen, self.seen

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size; the program is told by SIGWINCH."""
        fcntl.ioctl(self._inside, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)

    @property
    def modes(self) -> list[object]:
        """How the terminal is set: flags, speeds, characters that act (termios(3))."""
        return termios.tcgetattr(self._inside)

    @property
    def has_cursor(self) -> bool:
        """Whether the cursor is shown."""
        return not self._screen.cursor.hidden

    @property
    def on_alternate_screen(self) -> bool:
        """Whether the program has another screen than what was there before (xterm's mode 1049)."""
        return self.raw.rfind("\x1b[?1049h") > self.raw.rfind("\x1b[?1049l")

    @property
    def seen(self) -> str:
        return _CONTROLS.sub("", self.raw)

    @property
    def screen(self) -> str:
        """The lines that the terminal shows now."""
        return "\n".join(self._screen.display)

    def type(self, text: str | bytes) -> None:
        """Press keys."""
        os.write(self._terminal, text if isinstance(text, bytes) else text.encode())

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed by itself, as it does when no editor has taken it over."""
        return bool(termios.tcgetattr(self._inside)[3] & termios.ECHO)

    async def shows(self, text: str | re.Pattern[str], *, after: int = 0) -> int:
        """Wait until `text` has been written beyond the position `after`, or stands on the screen; return the position
        behind it.

        A blank may be missing where one was before: what stays as it was on the screen is not drawn again.
        """
        pattern = re.compile(re.escape(text).replace(r"\ ", " ?")) if isinstance(text, str) else text
        try:
            async with asyncio.timeout(PATIENCE):
                while (found := pattern.search(self.seen, after)) is None and not pattern.search(self.screen):
                    self._grown.clear()
                    await self._grown.wait()
        except TimeoutError:
            raise AssertionError(f"never showed {pattern.pattern!r}, but:\n{self.screen}") from None
        return len(self.seen) if found is None else found.end()

    async def writes(self, text: str, times: int) -> None:
        """Wait until it has written `text`, which may steer, so many times."""
        async with asyncio.timeout(PATIENCE):
            while self.raw.count(text) < times:
                self._grown.clear()
                await self._grown.wait()

    async def end(self) -> int:
        """Wait for its end and return the exit code."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self.process.wait()
        except TimeoutError:
            raise AssertionError(f"did not end; it showed:\n{self.seen[-4000:]}") from None
        assert self.process.returncode is not None
        return self.process.returncode
