"""What `aldis send` and `aldis receive` show of their transfers: a bar for each at a terminal, else lines.

Rules: everything goes to standard error, because standard output may be the file. Names of files are made safe, and are
no markup.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from aldis.cli.exits import complain, fitting
from aldis.cli.text import safe_line
from aldis.store.files.transfer import OPEN, Transfer, TransferState

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB", "PB")
_LONGEST_NAME: Final = 40  # characters; a longer name is cut in the middle


def amount(size: float) -> str:
    """A number of bytes as people read it, in powers of 1000."""
    if size == 1:
        return "1 byte"
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size /= 1000
        unit += 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 or size >= 99.5 else f"{size:.1f} {_UNITS[unit]}"


def shown_name(name: str) -> str:
    """A name of a file on a line that has more to show."""
    safe = safe_line(name)
    half = _LONGEST_NAME // 2
    return safe if len(safe) <= _LONGEST_NAME else f"{safe[: half - 1]}…{safe[-half:]}"


class Screen:
    """The transfers of one command. Close it at the end, so that the terminal is as it was."""

    def __init__(self, *, quiet: bool = False, now: Callable[[], float] = time.monotonic) -> None:
        """`quiet`: nothing but problems."""
        self._quiet = quiet
        self._now = now
        self._progress: Progress | None = None
        if not quiet and sys.stderr is not None and sys.stderr.isatty():
            self._progress = _bars()
            self._progress.start()

    def close(self) -> None:
        """Stop drawing."""
        if self._progress is not None:
            self._progress.stop()

    def say(self, text: str) -> None:
        """A line for a person."""
        if self._progress is not None:
            console = self._progress.console
            console.print(fitting(f"aldis: {text}"), markup=False, highlight=False, soft_wrap=True)
        else:
            complain(text)

    def tell(self, text: str) -> None:
        """A line that can be missed."""
        if not self._quiet:
            self.say(text)

    def follow(self, transfer: Transfer) -> None:
        """Show how a transfer goes, until it is over."""
        _Line(self, self._progress, transfer, self._now)


class _Line:
    def __init__(self, screen: Screen, progress: Progress | None, transfer: Transfer, now: Callable[[], float]) -> None:
        self._screen = screen
        self._progress = progress
        self._now = now
        self._began = now()
        self._from = 0  # bytes that were there before
        self._task: TaskID | None = None
        self._state: TransferState | None = None
        self._stop: Callable[[], None] | None = None
        stop = transfer.subscribe(self._changed)
        self._stop = stop
        if transfer.state not in OPEN:
            stop()

    def _changed(self, transfer: Transfer) -> None:
        before, self._state = self._state, transfer.state
        match transfer.state:
            case TransferState.RUNNING:
                if before is not TransferState.RUNNING or transfer.resumed != self._from:
                    self._start(transfer)
                if self._progress is not None and self._task is not None:
                    self._progress.update(self._task, completed=transfer.transferred, total=transfer.size)
            case TransferState.OFFERED:
                self._drop()
            case _:
                self._drop()
                self._end(transfer)
                if self._stop is not None:
                    self._stop()

    def _start(self, transfer: Transfer) -> None:
        if transfer.resumed and transfer.resumed != self._from:
            self._screen.tell(f"{shown_name(transfer.name)}: going on behind {amount(transfer.resumed)}")
        self._began, self._from = self._now(), transfer.resumed
        self._drop()
        if self._progress is not None:
            # A fresh task: what was there before has no part in the speed.
            self._task = self._progress.add_task(
                shown_name(transfer.name), total=transfer.size, completed=transfer.resumed
            )

    def _drop(self) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None

    def _end(self, transfer: Transfer) -> None:
        name = shown_name(transfer.name)
        if transfer.state is TransferState.DONE:
            size = transfer.transferred
            took = self._now() - self._began
            speed = f", {amount((size - self._from) / took)}/s" if took >= 0.1 else ""
            done = "sent" if transfer.direction == "out" else "received"
            where = "" if transfer.direction == "out" or transfer.path is None else f" in {_folder_of(transfer)}"
            links = (
                "1 link or special file" if transfer.left_out == 1 else f"{transfer.left_out} links or special files"
            )
            left_out = f"; {links} left out" if transfer.left_out else ""
            # The list of the files of a folder takes time, and is none of what people count.
            self._screen.tell(f"{done} {name}{where}: {amount(size - transfer.listing)}{speed}{left_out}")


def _folder_of(transfer: Transfer) -> str:
    assert transfer.path is not None  # noqa: S101 - the caller has looked
    return safe_line(str(transfer.path.parent))


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True, highlight=False),
        expand=True,
        transient=True,
    )
