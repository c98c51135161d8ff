"""`aldis doctor`: runs the checks of `checks.py` and prints them, for people or for machines."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aldis.cli.exits import ExitCode
from aldis.cli.home import Home
from aldis.cli.options import add_ca_file, add_data, add_key, add_server, add_token, seconds, token_of, user_name
from aldis.cli.parser import Parser
from aldis.client.address import ServerAddress
from aldis.errors import IdentityError
from aldis.identity.keys import Identity

if TYPE_CHECKING:
    from aldis.cli.checks import Check, Patient

_TEXT: Final = """\
Check step by step what works between this machine and a server: reach the
server, register a name, ask its STUN servers, gather the addresses that the
WebRTC engines can offer to a peer, open a data channel, ask each TURN server
for a relay, and say which ways lead to peers in other networks. For each
problem, say in plain words what to do about it.

The command registers a name for this, `doctor-` and some letters, the same each
time. With --as it takes one of your names, whose key must be on this machine.
It contacts only the server, and the STUN and TURN servers that the server
names."""

_EXAMPLES: Final = """\
  aldis doctor
  aldis doctor --server wss://example.com
  aldis doctor --server wss://example.com --as alice
  aldis doctor --json | jq '.checks[] | select(.mark == "fail")'"""

_WIDTH: Final = 80
_NAME_WIDTH: Final = 18
_NARROW: Final = 60
_NARROWEST: Final = 20
_SIGNS: Final = {
    "ok": ("✓", "ok", "32"),
    "note": ("·", "--", "2"),
    "warn": ("!", "!!", "33"),
    "fail": ("✗", "NO", "31"),
}


class Arguments(argparse.Namespace):
    """The arguments of `aldis doctor`."""

    server: ServerAddress
    name: str | None
    key: Path | None
    data: str | None
    ca_file: Path | None
    token_file: Callable[[], str] | None
    timeout: float
    json: bool


def run(words: Sequence[str]) -> int:
    """Run `aldis doctor` with these arguments and return the exit code."""
    codes = (ExitCode.OK, ExitCode.USAGE, ExitCode.SERVER_UNREACHABLE, ExitCode.REFUSED, ExitCode.CONNECTION_FAILED)
    parser = Parser("aldis doctor", "[options]", _TEXT, examples=_EXAMPLES, codes=codes)
    add_server(parser)
    parser.options.add_argument(
        "--as", dest="name", metavar="NAME", type=user_name, help="Register this name of yours."
    )
    add_key(parser)
    add_data(parser)
    add_ca_file(parser)
    add_token(parser)
    parser.options.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, default=5.0, help="How long each step may take [5]."
    )
    parser.options.add_argument("--json", action="store_true", help="Print one JSON object, for machines.")
    parser.add_help_option()
    arguments = parser.parse_args(words, Arguments())
    if not arguments.timeout:
        parser.error("--timeout must be more than 0 seconds")
    import asyncio  # --help does not need it

    from aldis.cli.logs import log_to_stderr

    log_to_stderr(verbose=False)  # the report has all that the log would say

    try:
        return asyncio.run(_examine(arguments))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


async def _examine(arguments: Arguments) -> int:
    report = JsonReport(arguments.server.url) if arguments.json else PlainReport(arguments.server.url)
    code = ExitCode.OK
    async for section, check in _all(arguments):
        report.add(section, check)
        code = code or check.code
    report.end()
    return code


async def _all(arguments: Arguments) -> AsyncIterator[tuple[str, Check]]:
    from aldis.cli.checks import Examination

    examination = Examination(_patient(arguments))
    async for check in examination.server():
        yield "Server", check
    async for check in examination.stun():
        yield "Server", check
    async for check in examination.engines():
        yield "This machine", check
    async for check in examination.turn():
        yield "Ways to peers in other networks", check
    async for check in examination.ways():
        yield "Ways to peers in other networks", check


def _patient(arguments: Arguments) -> Patient:
    from aldis.cli.checks import Patient

    home = Home(arguments.data)
    if arguments.name is None:
        # Always the same name, because the server keeps each registered name and its key for good.
        identity = home.doctor_identity(arguments.key)
        name = f"doctor-{identity.fingerprint[:9]}"
    else:
        name = arguments.name
        path = arguments.key or home.key_path(name)
        if not os.path.exists(path):  # not Path.exists, which raises for a folder that we may not read
            raise IdentityError(f"there is no key for {name} here ({path}), so its name cannot be proved")
        identity = Identity.load(path)
    return Patient(
        arguments.server, name, identity, arguments.ca_file, arguments.timeout, token_of(arguments.token_file)
    )


class PlainReport:
    """Prints each check as soon as it is known: a mark, its subject, the finding, and what to do."""

    def __init__(self, server: str) -> None:
        self._section = ""
        self._to_mend = 0
        self._marks: set[str] = set()
        self._failed: dict[str, None] = {}  # the names of failed checks, each once
        self._color = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH
        self._width = min(_WIDTH, max(columns, _NARROWEST))
        self._unicode = "utf" in (sys.stdout.encoding or "").lower()
        print(f"Looking at {server}")

    def add(self, section: str, check: Check) -> None:
        """Print one check."""
        if section != self._section:
            self._section = section
            print(f"\n{section}")
        pretty, ascii_only, color = _SIGNS[check.mark.value]
        sign = pretty if self._unicode else f"{ascii_only:2}"
        if self._color:
            sign = f"\x1b[{color}m{sign}\x1b[0m"
        # On a narrow terminal the finding has its own lines. They have no room beside the name.
        narrow = self._width < _NARROW
        name_width = 2 if narrow else _NAME_WIDTH
        indent = " " * (name_width + 4)
        # Do not break long addresses: a line that is too long can still be copied.
        lines = textwrap.wrap(check.text, self._width - len(indent), break_long_words=False, break_on_hyphens=False)
        if narrow:
            lines.insert(0, "")
        print(f"  {sign} {check.name:{name_width}}{lines[0] if lines else ''}".rstrip())
        for line in lines[1:]:
            print(f"{indent}{line}")
        room = self._width - len(indent) - 3
        for line in textwrap.wrap(check.advice, room, break_long_words=not narrow, break_on_hyphens=False):
            print(f"{indent}{'-> ' if line == check.advice or check.advice.startswith(line) else '   '}{line}")
        self._to_mend += bool(check.advice)
        self._marks.add(check.mark.value)
        if check.mark.value == "fail":
            self._failed[check.name] = None
        sys.stdout.flush()

    def end(self) -> None:
        """Print the summary."""
        said = []
        if self._failed:  # first: it may be that nothing has an arrow
            *others, last = self._failed
            names = f"{', '.join(others)} and {last}" if others else last
            said.append(f"It does not work: {names} failed.")
        match self._to_mend:
            case 0 if self._failed:
                pass
            case 0 if self._marks - {"ok", "note"}:
                said.append("It works, but not as well as it could.")
            case 0:
                said.append("All is well.")
            case 1:
                said.append("One thing to look at, marked with an arrow.")
            case many:
                said.append(f"{many} things to look at, marked with arrows.")
        print("\n" + "\n".join(textwrap.wrap(" ".join(said), self._width)))


class JsonReport:
    """Prints all checks at the end, as one JSON object."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._checks: list[dict[str, str]] = []

    def add(self, section: str, check: Check) -> None:
        """Keep one check."""
        line = {"section": section, "check": check.name, "mark": check.mark.value, "text": check.text}
        self._checks.append(line | ({"advice": check.advice} if check.advice else {}))

    def end(self) -> None:
        """Print the object."""
        ok = all(check["mark"] != "fail" for check in self._checks)
        print(json.dumps({"server": self._server, "ok": ok, "checks": self._checks}, indent=2))
