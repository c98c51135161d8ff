"""`aldis admin`: what an operator does with a running server."""

from __future__ import annotations

import json
import re
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

from aldis.cli.admin_client import AdminArguments, AdminClient, AdminRefused, add_admin
from aldis.cli.exits import ExitCode, complain
from aldis.cli.options import user_name, utf8
from aldis.cli.parser import Parser, run_command
from aldis.cli.text import safe_line

_HELP: Final = """\
Usage: aldis admin COMMAND [options]

Look at a running server, and act on its users. It asks the server's admin port.

Commands
  stats        Show the server at a glance.
  users        List the users that are online.
  user         Show one user's sessions.
  disconnect   Close all connections of a user, which may come back.
  ban          Ban a user, a key or a network.
  unban        End a ban.
  bans         List all bans.
  release      Free a name whose owner has lost the key.
  log-level    Log more or less, until the server is started again.
  drain        Stop the server in order: clients are told when to come back.

Options
  -h, --help   Show this text; `aldis admin COMMAND --help` tells more.

Examples
  aldis admin users
  aldis admin ban user mallory --reason "spam" --for 7d
  aldis admin ban network 203.0.113.0/24

Exit codes
  0    all went well
  2    wrong usage, or a file that cannot be used
  3    the server cannot be reached
  4    the server refused, mostly because the name belongs to another key
"""
_CODES: Final = (ExitCode.OK, ExitCode.USAGE, ExitCode.SERVER_UNREACHABLE, ExitCode.REFUSED)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MOST_LISTED: Final = 1000


class Arguments(AdminArguments):
    """The arguments of these commands."""

    json: bool
    name: str
    kind: str
    value: str
    reason: str
    seconds: float | None
    level: str
    prefix: str


def run(arguments: Sequence[str]) -> int:
    """Run `aldis admin` with these arguments and return the exit code."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "stats": _stats,
        "users": _users,
        "user": _user,
        "disconnect": _disconnect,
        "ban": _ban,
        "unban": _unban,
        "bans": _bans,
        "release": _release,
        "log-level": _log_level,
        "drain": _drain,
    }
    try:
        return run_command("aldis admin", _HELP, commands, arguments)
    except AdminRefused as error:
        complain(safe_line(str(error)))
        return ExitCode.USAGE if error.status == 400 else ExitCode.REFUSED


def _parser(command: str, usage: str, text: str) -> Parser:
    parser = Parser(f"aldis admin {command}", f"{usage} [options]".strip(), text, codes=_CODES)
    parser.options.add_argument("--json", action="store_true", help="Print the server's answer as JSON.")
    return parser


def _parsed(parser: Parser, words: Sequence[str]) -> tuple[Arguments, AdminClient]:
    add_admin(parser)
    parser.add_help_option()
    arguments = parser.parse_args(words, Arguments())
    return arguments, AdminClient(arguments)


def _show(arguments: Arguments, answer: dict[str, Any], lines: Sequence[str]) -> int:
    for line in [json.dumps(answer)] if arguments.json else lines:
        print(safe_line(line))
    return ExitCode.OK


# --- looking --------------------------------------------------------------------------------------------------------


def _stats(words: Sequence[str]) -> int:
    arguments, client = _parsed(_parser("stats", "", "Show the server at a glance."), words)
    found = client.ask("GET", "/statistics")
    memory = found["memory"]
    rows = [
        ("version", found["version"]),
        ("up for", duration(found["uptime"])),
        ("users online", found["users"]),
        ("connections", found["connections"]),
        ("lost, may resume", found["detached"]),
        ("waiting for their turn", found["waiting"]),
        ("messages relayed", found["relayed"]),
        ("messages handled", found["messages"]),
        ("messages refused", found["refused"]),
        ("times throttled", found["throttled"]),
        ("bans", found["bans"]),
        ("memory", "unknown" if memory is None else f"{memory / 2**20:.0f} MiB"),
        ("processor time", duration(found["processorSeconds"])),
    ]
    return _show(arguments, found, [f"{name:<24}{value}" for name, value in rows])


def _users(words: Sequence[str]) -> int:
    parser = _parser("users", "[PREFIX]", "List the users that are online, by name.")
    parser.argument("prefix", "Only names that begin so.", convert=utf8, optional=True)
    arguments, client = _parsed(parser, words)
    users: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        query = {"prefix": arguments.prefix or "", "after": after, "limit": str(_MOST_LISTED)}
        page = client.ask("GET", "/users", query=query)
        users += page["users"]
        after = page["next"]
    lines = [f"{user['user']}" + (f"  ({user['devices']} devices)" if user["devices"] > 1 else "") for user in users]
    return _show(arguments, {"users": users}, lines or ["nobody is online"])


def _user(words: Sequence[str]) -> int:
    parser = _parser("user", "NAME", "Show one user's sessions, the newest first.")
    parser.argument("name", "The user.", convert=user_name)
    arguments, client = _parsed(parser, words)
    found = client.ask("GET", f"/users/{quote(arguments.name, safe='')}")
    lines = []
    for session in found["sessions"]:
        state = "connected" if session["connected"] else "lost, may resume"
        lines.append(
            f"{session['device']:<20} {state} for {duration(session['seconds'])}, "
            f"silent for {duration(session['silent'])}, watches {session['watches']}, "
            f"{session['unconfirmed']} messages unconfirmed ({session['unconfirmedBytes']} bytes)"
        )
    return _show(arguments, found, lines or [f"{arguments.name} is not online"])


def _bans(words: Sequence[str]) -> int:
    arguments, client = _parsed(_parser("bans", "", "List all bans."), words)
    found = client.ask("GET", "/bans")
    lines = []
    for ban in found["bans"]:
        left = None if ban["until"] is None else ban["until"] - time.time()
        ends = "for ever" if left is None else f"for {duration(left)} more" if left > 0 else "over"
        lines.append(f"{ban['kind']:<8} {ban['value']}  {ends}" + (f"  {ban['reason']}" if ban["reason"] else ""))
    return _show(arguments, found, lines or ["there are no bans"])


# --- doing ----------------------------------------------------------------------------------------------------------


def _disconnect(words: Sequence[str]) -> int:
    text = "Close all connections of a user. Its programs may come back; `ban` keeps them out."
    parser = _parser("disconnect", "NAME", text)
    parser.argument("name", "The user.", convert=user_name)
    arguments, client = _parsed(parser, words)
    found = client.ask("POST", f"/users/{quote(arguments.name, safe='')}/disconnect")
    return _show(arguments, found, [f"{arguments.name}: {_counted(found['sessions'], 'session')} ended"])


def _release(words: Sequence[str]) -> int:
    text = (
        "Free a name, whose owner has lost the key for instance. Its connections are closed,\n"
        "and whoever registers the name next has it."
    )
    parser = _parser("release", "NAME", text)
    parser.argument("name", "The name.", convert=user_name)
    arguments, client = _parsed(parser, words)
    found = client.ask("POST", f"/users/{quote(arguments.name, safe='')}/release")
    said = "is free now" if found["released"] else "was bound to no key"
    return _show(arguments, found, [f"{arguments.name} {said}"])


def _ban(words: Sequence[str]) -> int:
    text = (
        "Ban a user, a key or a network. Connections that it fits end at once, and get\n"
        "the reason. A ban is kept when the server is started again."
    )
    parser = _parser("ban", "(user | key | network) VALUE", text)
    _add_ban(parser)
    parser.options.add_argument("--reason", metavar="TEXT", type=utf8, default="", help="Why; the banned are told.")
    parser.options.add_argument(
        "--for", dest="seconds", metavar="TIME", type=_time, help="How long, such as 90s, 15m, 2h or 7d [for ever]."
    )
    arguments, client = _parsed(parser, words)
    body = {"kind": arguments.kind, "value": arguments.value, "reason": arguments.reason}
    if arguments.seconds is not None:
        body["seconds"] = arguments.seconds  # type: ignore[assignment]  # a number of JSON
    found = client.ask("POST", "/bans", body=body)
    how_long = "for ever" if arguments.seconds is None else f"for {duration(arguments.seconds)}"
    ended = _counted(found["sessions"], "session")
    return _show(arguments, found, [f"{found['kind']} {found['value']} is banned {how_long}; {ended} ended"])


def _unban(words: Sequence[str]) -> int:
    parser = _parser("unban", "(user | key | network) VALUE", "End a ban.")
    _add_ban(parser)
    arguments, client = _parsed(parser, words)
    found = client.ask("DELETE", "/bans", query={"kind": arguments.kind, "value": arguments.value})
    said = "is banned no more" if found["removed"] else "was not banned"
    return _show(arguments, found, [f"{arguments.kind} {arguments.value} {said}"])


def _log_level(words: Sequence[str]) -> int:
    parser = _parser("log-level", "LEVEL", "Log from this level up, until the server is started again.")
    parser.argument("level", "debug, info, warning or error.", convert=str)
    arguments, client = _parsed(parser, words)
    found = client.ask("PUT", "/log-level", body={"level": arguments.level})
    return _show(arguments, found, [f"the server logs from {found['level']} up"])


def _drain(words: Sequence[str]) -> int:
    text = "Stop the server in order: clients are told when to come back."
    arguments, client = _parsed(_parser("drain", "", text), words)
    return _show(arguments, client.ask("POST", "/drain"), ["the server stops"])


def _add_ban(parser: Parser) -> None:
    parser.argument("kind", "What VALUE is: user, key (base64) or network.", convert=str)
    parser.argument("value", "A name, a public key, or a network such as 203.0.113.0/24.", convert=utf8)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _time(text: str) -> float:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])", text)
    if match is None or float(match[1]) == 0:
        raise ArgumentTypeError(f"{text!r} is no time; expected a number and a unit, such as 90s, 15m, 2h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def duration(seconds: float) -> str:
    """A time for people, in its two largest units."""
    left = int(seconds)
    if left < 60:
        return f"{left} s"
    parts: list[str] = []
    for unit in "dhms":
        count, left = divmod(left, _UNITS[unit])
        if parts:  # one more, if it says anything
            return " ".join([*parts, f"{count} {unit}"] if count else parts)
        if count:
            parts.append(f"{count} {unit}")
    return parts[0]
