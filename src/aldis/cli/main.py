"""The entry point of the `aldis` command: it finds the command, runs it, and turns any outcome into an exit code.

Rules: no user sees a traceback without ALDIS_DEBUG=1. A command's module is imported when it runs, and imports slow
modules only where it needs them, so that `--help` and `aldis keys` answer at once (a test checks that). This module
imports nothing of Aldis before `main` runs, so that Ctrl-C in the first tenth of a second is handled here too.
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

# name: (module, text for `aldis --help`)
_COMMANDS: Final = {
    "serve": ("aldis.cli.serve", "Run a signaling server."),
    "check-config": ("aldis.cli.check_config", "Say whether a server could run with these settings."),
    "chat": ("aldis.cli.chat", "Talk to a peer, at a terminal or through pipes."),
    "send": ("aldis.cli.send", "Send files and folders, to a name or by a code of words."),
    "receive": ("aldis.cli.receive", "Receive what `aldis send` sends."),
    "keys": ("aldis.cli.keys", "Make, show and compare identity keys; accept a peer's new one."),
    "admin": ("aldis.cli.admin", "Look at a running server, disconnect and ban its users."),
    "directory": ("aldis.cli.directory", "Back up, restore and move the names of a server."),
    "token": ("aldis.cli.token", "Make a token of an account for a trial."),
    "top": ("aldis.cli.top", "Watch a running server in the terminal."),
    "doctor": ("aldis.cli.doctor", "Check the way to a server, and say what to do about problems."),
}

# What a program of ours starts, and no person: name and module.
_INTERNAL: Final = {"serve-worker": "aldis.cli.serve_worker"}

# Errors of a write to a file or a terminal that a socket does not have (write(2)).
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_HELP: Final = f"""\
Usage: aldis COMMAND [options]

Two programs, anywhere, find each other by name and talk directly and privately.

A server introduces the two. What they then say goes directly from one to the
other, over a WebRTC data channel, encrypted end to end. The server cannot read
it, and cannot pretend to be one of them.

Commands
{chr(10).join(f"  {name:<13} {text}" for name, (_, text) in _COMMANDS.items())}

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
                stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no error
        if isinstance(sys.stdin, TextIOWrapper) and lookup(sys.stdin.encoding).name == "ascii":
            sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # the terminal usually knows better
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # Python would complain again when it flushes at exit, but nothing reads the output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    except _OutputFailed as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        with suppress(OSError):  # standard error may be on the same disk
            print(f"aldis: cannot write the output: {error}", file=sys.stderr)
        code = 1
    finally:
        _let_go_of_full_stderr()
    sys.exit(code)


def _let_go_of_full_stderr() -> None:
    """Drop what standard error does not take. Otherwise Python tries again at exit, with the exit code 120."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _fill_closed_streams() -> None:
    """Open the null device for each of standard input, output and error that the parent process has closed.

    Otherwise the next opened file or socket gets the number of the closed stream, and a library that prints to standard
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
    """Standard output cannot be written: its disk is full, or it is gone."""


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
    except Exception as error:  # the last place that can report it; nothing goes on after it
        if isinstance(error, OSError) and error.errno in _FULL:
            raise _OutputFailed(error.strerror) from None
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            complain("too many open files; raise the limit of this process: `ulimit -n 1024`, or more")
            sys.unraisablehook = lambda _: None  # a half-made event loop complains when it is freed
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
    if word not in _COMMANDS and word not in _INTERNAL:
        return unknown_command("aldis", word, _COMMANDS)
    command = import_module(_INTERNAL.get(word) or _COMMANDS[word][0])
    code: int = command.run(rest)
    return code


if __name__ == "__main__":
    main()
