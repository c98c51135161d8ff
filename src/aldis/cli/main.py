"""The entry point of the `aldis` command: finds the command, runs it, and turns whatever comes out into an exit code.

Rules: nobody ever sees a traceback, unless they ask for one with ALDIS_DEBUG=1. A command's module is imported when it
is run, and imports what is slow only where it needs it, so that `--help` and `aldis keys` answer at once (a test holds
them to it). This module imports nothing of Aldis before `main` runs, so that Ctrl-C in the first tenth of a second is
met here too.
"""

from __future__ import annotations

import errno
import os
import sys
from codecs import lookup
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import Final

# name: (module, what `aldis --help` says)
_COMMANDS: Final = {
    "serve": ("aldis.cli.serve", "Run a signaling server."),
    "chat": ("aldis.cli.chat", "Talk to somebody: typed at a terminal, or through pipes."),
    "keys": ("aldis.cli.keys", "Make, show and compare identity keys; accept a peer's new one."),
    "doctor": ("aldis.cli.doctor", "Say what works between here and a server, and what to do if not."),
}

# What a write to a file or a terminal can fail with, and a socket does not (write(2)).
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_HELP: Final = f"""\
Usage: aldis COMMAND [options]

Two programs, anywhere, find each other by name and talk directly and privately.

A server introduces the two; what they then say goes over a WebRTC data channel
from one to the other, encrypted end to end. The server cannot read it, and it
cannot pass itself off as either of them.

Commands
{chr(10).join(f"  {name:<9} {text}" for name, (_, text) in _COMMANDS.items())}

Options
      --version  Print the version.
  -h, --help     Show this text; `aldis COMMAND --help` tells about a command.

Try it on one machine, in three terminals
  aldis serve
  aldis chat bob --as alice
  aldis chat alice --as bob
"""


def main() -> None:
    """Run `aldis` with the arguments of this process; always ends in `SystemExit`."""
    try:
        _fill_closed_streams()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no fault
        if isinstance(sys.stdin, TextIOWrapper) and lookup(sys.stdin.encoding).name == "ascii":
            sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # the terminal mostly knows better
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # Python would complain once more when it flushes at exit; there is nobody left to read it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    except _OutputFailed as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        with suppress(OSError):  # standard error is on the same disk
            print(f"aldis: cannot write the output: {error}", file=sys.stderr)
        code = 1
    finally:
        _let_go_of_full_stderr()
    sys.exit(code)


def _let_go_of_full_stderr() -> None:
    """Forget what standard error does not take: else Python tries again at exit, and turns the exit code into 120."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _fill_closed_streams() -> None:
    """Put the null device where standard input, output or error were closed by the program that started us.

    Else the next file or socket that is opened gets the number of the closed stream: a library that prints to standard
    error would write into the database.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process


class _OutputFailed(Exception):
    """Standard output takes no more: its disk is full, or gone."""


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    from aldis.cli.exits import complain, report  # inside the try of main()
    from aldis.cli.text import safe_line
    from aldis.errors import AldisError

    debug = os.environ.get("ALDIS_DEBUG", "") not in ("", "0")
    try:
        code = _dispatch(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except AldisError as error:
        if debug:
            raise
        return report(error)
    except BrokenPipeError:
        raise
    except Exception as error:  # the last place that can tell a person; nothing goes on after it
        if isinstance(error, OSError) and error.errno in _FULL:
            raise _OutputFailed(error.strerror) from None
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            complain("too many open files; raise the limit of this process: `ulimit -n 1024`, or more")
            sys.unraisablehook = lambda _: None  # an event loop that was half made complains when it is let go of
            return 1
        complain(
            f"this is a fault in Aldis: {type(error).__name__}: {safe_line(str(error))}\n"
            "  Set ALDIS_DEBUG=1 to see where it comes from, and please report it."
        )
        return 1


def _dispatch(arguments: Sequence[str]) -> int:
    from importlib import import_module

    from aldis.cli.parser import print_help, unknown_command

    if not arguments:
        print_help(_HELP, sys.stderr)
        return 2
    word, rest = arguments[0], arguments[1:]
    if word in ("-h", "--help", "help"):
        print_help(_HELP)
        return 0
    if word in ("--version", "-V"):
        from aldis.version import VERSION

        print(f"aldis {VERSION}")
        return 0
    if word not in _COMMANDS:
        return unknown_command("aldis", word, _COMMANDS)
    command = import_module(_COMMANDS[word][0])
    code: int = command.run(rest)
    return code


if __name__ == "__main__":
    main()
