"""The command `aldis`, forked from a process that has imported what chats and transfers need."""

from __future__ import annotations

import functools
from typing import Final

from support.forks import Template

# What Python and `aldis/__main__.py` do at the start of a command: standard streams, a terminal of its own, arguments.
_PROGRAM: Final = """
import fcntl, io, termios
import aldis.__main__
from aldis.cli import chat, exchange, main, piped, progress, receive, send, talk, typed
from aldis.store import store
import rich.console, rich.progress, wrtc

def run(words, terminal):
    if terminal:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.stdin = open(0, encoding=sys.stdin.encoding, errors=sys.stdin.errors, closefd=False)
    sys.stdout = open(1, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, closefd=False)
    errors = open(2, "wb", closefd=False)
    sys.stderr = io.TextIOWrapper(errors, encoding=sys.stderr.encoding, errors="backslashreplace", line_buffering=True)
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    sys.argv = [aldis.__main__.__file__, *words]
    main.main()
"""


@functools.cache
def template() -> Template:
    """That of this test process, started when it is first needed."""
    return Template(_PROGRAM)
