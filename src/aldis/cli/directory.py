"""`aldis directory`: backup and restore of the names that a server keeps."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from aldis.cli.exits import ExitCode
from aldis.cli.options import existing_file
from aldis.cli.parser import Parser, run_command
from aldis.cli.text import safe_line
from aldis.errors import UsageError

_HELP: Final = """\
Usage: aldis directory COMMAND [options]

Back up and restore the names of a server, and the keys that they are bound to.

Commands
  backup       Copy the names to a new file, also while the server runs.
  restore      Put a backup in their place, while the server is stopped.

Options
  -h, --help   Show this text; `aldis directory COMMAND --help` tells more.

Examples
  aldis directory backup /var/backups/names-$(date +%F).sqlite3
  aldis directory restore /var/backups/names-2026-11-28.sqlite3

Exit codes
  0    all went well
  1    something else failed
  2    wrong usage, or a file that cannot be used
"""
_CODES: Final = (ExitCode.OK, ExitCode.FAULT, ExitCode.USAGE)


class Arguments(Namespace):
    """The arguments of these commands."""

    file: Path
    data: str | None
    config: Path | None


def run(arguments: Sequence[str]) -> int:
    """Run `aldis directory` with these arguments and return the exit code."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {"backup": _backup, "restore": _restore}
    return run_command("aldis directory", _HELP, commands, arguments)


def _backup(words: Sequence[str]) -> int:
    from aldis.backends.sqlite_copies import backup

    text = (
        "Copy the names and their keys to a new file, which only you may read. The server\n"
        "may run meanwhile: the copy is whole, and of one moment. Never replaces a file."
    )
    file, directory = _parsed("backup", text, "  aldis directory backup names-$(date +%F).sqlite3", words)
    names = backup(directory, file)
    print(f"{_counted(names)} copied to {safe_line(str(file))}")
    return ExitCode.OK


def _restore(words: Sequence[str]) -> int:
    from aldis.backends.sqlite_copies import restore

    text = (
        "Put a backup in the place of the names that the server keeps. Stop the server\n"
        "first: this refuses while it runs. The names that were there are kept beside.\n\n"
        "Names that were bound after the backup are free again, and belong to the first\n"
        "who registers them. Keys that were rotated since are the old ones again."
    )
    file, directory = _parsed("restore", text, "  aldis directory restore names-2026-11-28.sqlite3", words)
    names, kept = restore(directory, file)
    print(f"{_counted(names)} restored to {safe_line(str(directory))}")
    if kept is not None:
        print(f"the names that were there are kept in {safe_line(str(kept))}")
    return ExitCode.OK


def _counted(names: int) -> str:
    return f"{names} name{'' if names == 1 else 's'}"


def _parsed(command: str, text: str, examples: str, words: Sequence[str]) -> tuple[Path, Path]:
    """The backup, and the file of the server's directory."""
    parser = Parser(f"aldis directory {command}", "FILE [options]", text, examples=examples, codes=_CODES)
    parser.argument("file", "The backup.", convert=str)
    parser.options.add_argument(
        "--data", metavar="DIR", help="The server's data directory [$ALDIS_DATA or your data directory]."
    )
    parser.options.add_argument(
        "--config",
        metavar="FILE",
        type=existing_file,
        default=os.environ.get("ALDIS_CONFIG") or None,
        help="The server's settings file, which may name the directory [$ALDIS_CONFIG].",
    )
    parser.add_help_option()
    arguments = parser.parse_args(words, Arguments())

    from aldis.backends.sqlite_file import FILE_NAME
    from aldis.server.config import MEMORY, load_config

    data = load_config({"data": arguments.data}, os.environ, arguments.config).data
    if data == MEMORY:
        raise UsageError(f"a server with --data {MEMORY} keeps no names")
    return Path(arguments.file), Path(data) / FILE_NAME
