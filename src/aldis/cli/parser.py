"""The argument parser of all commands: the standard library's, with readable help.

Rules: help fits into 80 columns, starts with what the command does, and ends with examples and exit codes. A wrong
argument gives one line on stderr and a pointer to the help. It uses plain argparse, because a command line is started
often and should answer at once.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Final, NoReturn

from aldis.cli.exits import MEANINGS, ExitCode, complain
from aldis.cli.text import safe_line

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

_WIDTH: Final = 80
_HELP_COLUMN: Final = 28
_HEADING = re.compile(r"^(?:Usage:|[A-Z][^\n]*(?=\n  ))", re.MULTILINE)


class Parser(argparse.ArgumentParser):
    """One command. `examples` are lines as a person types them, `codes` are its possible exit codes."""

    def __init__(
        self,
        command: str,
        usage: str,
        text: str,
        *,
        examples: str = "",
        codes: Iterable[ExitCode] = (),
    ) -> None:
        sections = [("Examples", examples.strip("\n"))] if examples else []
        table = "\n".join(f"  {code:<4} {MEANINGS[code]}" for code in codes)
        sections += [("Exit codes", table)] if table else []
        super().__init__(
            prog=command,
            usage=f"{command} {usage}",
            description=text.strip("\n"),
            epilog="\n\n".join(f"{title}\n{body}" for title, body in sections),
            formatter_class=_Layout,
            allow_abbrev=False,  # an abbreviation that works today could be ambiguous tomorrow
            add_help=False,
        )
        self.color = False  # Python 3.14 adds colours of its own
        self._arguments = self.add_argument_group("Arguments")
        self._options = self.add_argument_group("Options")

    def argument(
        self, name: str, text: str, *, convert: Callable[[str], str], optional: bool = False, many: bool = False
    ) -> None:
        """Declare a positional argument, or with `many` a list of them."""
        nargs = ("*" if optional else "+") if many else "?" if optional else None
        self._arguments.add_argument(name, metavar=name.upper(), type=convert, help=text, nargs=nargs)

    @property
    def options(self) -> argparse._ArgumentGroup:
        """The group of options; help shows them in this order."""
        return self._options

    def add_help_option(self) -> None:
        """Declare `--help`. Last, because readers of the help know it already."""
        self._options.add_argument("-h", "--help", action="help", help="Show this text.")

    def error(self, message: str) -> NoReturn:
        """Print one line and a pointer to the help; exit with code 2."""
        complain(f"{message.removeprefix('argument ')}\n  `{self.prog} --help` explains.")
        sys.exit(ExitCode.USAGE)

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Print the help on stdout, with bold headings if possible; or plain into `file`."""
        if file is None:
            print_help(self.format_help())
        else:
            super().print_help(file)


class _Layout(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_HELP_COLUMN, width=min(_WIDTH, shutil.get_terminal_size().columns))

    def add_usage(self, usage: str | None, actions: object, groups: object, prefix: str | None = None) -> None:
        super().add_usage(usage, (), (), prefix="Usage: ")  # usage is always written by hand, so it needs no actions

    def _format_action_invocation(self, action: argparse.Action) -> str:
        # `-s, --server URL`, and not `-s URL, --server URL`
        if not action.option_strings:
            return super()._format_action_invocation(action)
        value = "" if action.nargs == 0 else " " + self._format_args(action, action.dest.upper())
        indent = "    " if action.option_strings[0].startswith("--") else ""
        return f"{indent}{', '.join(action.option_strings)}{value}"

    def format_help(self) -> str:
        return re.sub(r"^(Arguments|Options):$", r"\1", super().format_help(), flags=re.MULTILINE)


def print_help(text: str, file: IO[str] | None = None) -> None:
    """Print help, with bold headings on a terminal that can show them."""
    stream = file or sys.stdout
    if file is sys.stderr:
        with suppress(OSError):  # it is full, and there is no other place to say so
            _print_help(text, stream)
    else:
        _print_help(text, stream)


def _print_help(text: str, stream: IO[str]) -> None:
    if stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb":
        text = _HEADING.sub(lambda match: f"\x1b[1m{match[0]}\x1b[0m", text)
    print(text, file=stream, end="" if text.endswith("\n") else "\n", flush=True)


def unknown_command(command: str, word: str, known: Iterable[str]) -> ExitCode:
    """Report that `word` is no command of `command`, and suggest a similar one."""
    close = difflib.get_close_matches(word, list(known), n=1)
    guess = f" Did you mean `{command} {close[0]}`?" if close else ""
    complain(f"there is no command `{command} {word}`.{guess}\n  `{command} --help` lists them.")
    return ExitCode.USAGE


def run_command(
    command: str, text: str, commands: Mapping[str, Callable[[Sequence[str]], int]], words: Sequence[str]
) -> int:
    """Run the one of `commands` that the first word names, with the others; `text` is the help of `command`."""
    if not words:
        print_help(text, sys.stderr)
        return ExitCode.USAGE
    word, rest = words[0], words[1:]
    if word in ("-h", "--help"):
        print_help(text)
        return ExitCode.OK
    if word.startswith("-"):
        complain(f"options follow the command: `{command} {next(iter(commands))} {safe_line(word)}`.")
        return ExitCode.USAGE
    if word not in commands:
        return unknown_command(command, word, commands)
    return commands[word](rest)
