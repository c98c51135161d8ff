"""A screen of its own in a terminal: drawn again and again, one key at a time read, and all left as it was.

Rules: the alternate screen, so that what was there comes back. Signals stay signals: Ctrl-C and SIGTERM end the
program, and Ctrl-Z stops it until it goes on. Each of them gives the terminal back first. A line is never longer than
the terminal is wide. It does not know what it shows.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

if sys.platform != "win32":
    import select
    import termios
    import tty

_ENTER: Final = "\x1b[?1049h\x1b[?25l"  # the alternate screen, without a cursor
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_CLEAR: Final = "\x1b[2J"
# What a terminal without a size counts as.
_USUAL: Final = os.terminal_size((80, 24))


class Ended(BaseException):
    """A signal asks the program to end. Attribute: its `number`."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class FullScreen:
    """The screen; made by `full_screen`."""

    def __init__(self, woken: int | None, keys: int | None) -> None:
        """`woken`: a pipe that can be read after a signal. `keys`: standard input, where it is a terminal."""
        self._woken = woken
        self._keys = keys
        self._size: os.terminal_size | None = None

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines now. Not those in the environment, which do not change with the window."""
        try:
            size = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return _USUAL
        return size if size.columns > 0 and size.lines > 0 else _USUAL

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines. What does not fit below or on the right is left out."""
        columns, rows = size = self.size
        # The cursor is placed for each line: behind a line of full width, terminals differ in where it is.
        drawn = [f"\x1b[{row};1H\x1b[2K{line[:columns]}" for row, line in enumerate(lines[:rows], 1)]
        rest = f"\x1b[{len(drawn) + 1};1H\x1b[J" if len(drawn) < rows else ""
        _write(("" if size == self._size else _CLEAR) + "".join(drawn) + rest)
        self._size = size

    def forget(self) -> None:
        """Somebody else has written on the terminal: draw all of it the next time."""
        self._size = None

    def wait(self, seconds: float) -> str:
        """Wait for a key, and return it. Empty when the time is over; also earlier when it is time to draw again."""
        if sys.platform == "win32" or self._woken is None:
            time.sleep(seconds)
            return ""
        sources = [self._woken] if self._keys is None else [self._woken, self._keys]
        ready, _, _ = select.select(sources, [], [], seconds)
        if self._woken in ready:
            os.read(self._woken, 4096)
        if self._keys is None or self._keys not in ready:
            return ""
        pressed = os.read(self._keys, 1024)
        if not pressed:
            self._keys = None  # the terminal is gone; SIGHUP says the rest
        return pressed.decode("utf-8", "replace")


def _write(text: str) -> None:
    """Write at once. Not by `sys.stdout`, which a signal that comes while it writes may not use."""
    data = text.encode(sys.stdout.encoding, "backslashreplace")
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


@contextmanager
def full_screen() -> Iterator[FullScreen]:
    """Take the terminal of standard output for the length of the block. Raises `Ended` in it on SIGTERM and SIGHUP.

    On Windows no keys are read, and a change of the size shows when it is drawn the next time.
    """
    sys.stdout.flush()
    if sys.platform == "win32":
        _write(_ENTER)
        try:
            yield FullScreen(None, None)
        finally:
            _write(_LEAVE)
        return
    keys = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    before = None if keys is None else termios.tcgetattr(keys)
    woken, wakes = os.pipe()
    screen = FullScreen(woken, keys)
    os.set_blocking(wakes, False)

    def enter() -> None:
        if keys is not None:
            tty.setcbreak(keys)
        screen.forget()
        _write(_ENTER)

    def leave() -> None:
        with suppress(OSError, termios.error):  # it is gone, as after SIGHUP
            _write(_LEAVE)
            if keys is not None and before is not None:
                termios.tcsetattr(keys, termios.TCSANOW, before)

    def stop(number: int, frame: FrameType | None) -> None:
        leave()
        os.kill(os.getpid(), signal.SIGSTOP)  # until somebody has it go on
        enter()

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(number)

    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
        signal.SIGWINCH: lambda number, frame: None,  # it wakes
        # Python leaves it ignored where whoever has started the program did, as scripts do that start it with `&`.
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTSTP: stop,
        signal.SIGTERM: end,
        signal.SIGHUP: end,
    }
    earlier_fd = signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    earlier = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        enter()
        yield screen
    finally:
        leave()
        for number, handler in earlier.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(earlier_fd)
        os.close(woken)
        os.close(wakes)
