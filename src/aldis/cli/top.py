"""`aldis top`: a live view of a running server, in a terminal.

Rules: it redraws a screen of its own and leaves the terminal as it was. Where standard output is no terminal it prints
one line of JSON for each look.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from aldis.cli.admin import duration
from aldis.cli.admin_client import AdminArguments, AdminClient, AdminRefused, add_admin
from aldis.cli.exits import ExitCode, complain
from aldis.cli.options import seconds
from aldis.cli.parser import Parser
from aldis.cli.text import safe_line
from aldis.errors import ServerUnreachable

_TEXT: Final = "Watch a running server: who is there, what it carries, which limits it applies.\nCtrl-C ends it."
_CODES: Final = (ExitCode.OK, ExitCode.USAGE, ExitCode.SERVER_UNREACHABLE, ExitCode.REFUSED)
_CLEAR: Final = "\x1b[H\x1b[2J"
_OTHER_SCREEN: Final = "\x1b[?1049h\x1b[?25l"
_OWN_SCREEN: Final = "\x1b[?25h\x1b[?1049l"


class Arguments(AdminArguments):
    """The arguments of this command."""

    every: float
    times: int | None


def run(words: Sequence[str]) -> int:
    """Run `aldis top` with these arguments and return the exit code."""
    parser = Parser("aldis top", "[options]", _TEXT, codes=_CODES)
    parser.options.add_argument(
        "--every", metavar="SECS", type=seconds, default=2.0, help="Seconds between two looks [2]."
    )
    parser.options.add_argument("--times", metavar="N", type=_count, help="End after so many looks [never].")
    add_admin(parser)
    parser.add_help_option()
    arguments = parser.parse_args(words, Arguments())
    client = AdminClient(arguments)
    try:
        # The first look before the screen is taken: what is wrong then is said where it stays.
        first = client.ask("GET", "/statistics")
        if not sys.stdout.isatty():
            return _print(client, arguments, first)
        with _screen():
            return _watch(client, arguments, first)
    except AdminRefused as error:
        complain(safe_line(str(error)))
        return ExitCode.REFUSED


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


@contextmanager
def _screen() -> Iterator[None]:
    sys.stdout.write(_OTHER_SCREEN)
    try:
        yield
    except KeyboardInterrupt:
        pass  # how it is meant to end
    finally:
        sys.stdout.write(_OWN_SCREEN)
        sys.stdout.flush()


def _print(client: AdminClient, arguments: Arguments, found: dict[str, Any]) -> int:
    left = arguments.times
    while True:
        print(json.dumps(found), flush=True)
        left = None if left is None else left - 1
        if left == 0:
            return ExitCode.OK
        time.sleep(arguments.every)
        found = client.ask("GET", "/statistics")


def _watch(client: AdminClient, arguments: Arguments, found: dict[str, Any]) -> int:
    before, since, left = found, time.monotonic(), arguments.times
    now = since
    trouble = ""
    while True:
        columns, rows = shutil.get_terminal_size()
        lines = screen(found, before, now - since, trouble, columns)
        sys.stdout.write(_CLEAR + "\n".join(lines[:rows]))
        sys.stdout.flush()
        left = None if left is None else left - 1
        if left == 0:
            return ExitCode.OK
        time.sleep(arguments.every)
        try:
            answer = client.ask("GET", "/statistics")
        except ServerUnreachable as error:
            trouble = str(error)
            continue
        before, since, now, found, trouble = found, now, time.monotonic(), answer, ""


def screen(found: dict[str, Any], before: dict[str, Any], passed: float, trouble: str, columns: int) -> list[str]:
    """The lines of one view. `before` are the figures of `passed` seconds ago."""

    def rate(name: str) -> str:
        change = found[name] - before[name]  # below 0 when a server was started again, or a node is gone
        return "" if passed <= 0 or change < 0 else f"{change / passed:,.1f}/s"

    memory = found["memory"]
    spent = found["processorSeconds"] - before["processorSeconds"]
    busy = "" if passed <= 0 or spent < 0 else f"{spent / passed:.0%}"
    lines = [f"Aldis {found['version']}, up for {duration(found['uptime'])}", ""]
    if trouble:
        lines[1:1] = ["", f"! {trouble}; these are the last figures"]
    rows = [
        ("users online", f"{found['users']:,}", ""),
        ("connections", f"{found['connections']:,}", ""),
        ("lost, may resume", f"{found['detached']:,}", ""),
        ("relayed", f"{found['relayed']:,}", rate("relayed")),
        ("bytes of sealed ones", f"{found['sealedBytes']:,}", rate("sealedBytes")),
        ("handled", f"{found['messages']:,}", rate("messages")),
        ("refused", f"{found['refused']:,}", rate("refused")),
        ("throttled", f"{found['throttled']:,}", rate("throttled")),
        ("waiting for their turn", f"{found['waiting']:,}", ""),
        ("bans", f"{found['bans']:,}", ""),
        ("memory", "unknown" if memory is None else f"{memory / 2**20:,.0f} MiB", ""),
        ("processor", busy or "-", ""),
    ]
    lines += [f"{name:<24}{value:>14}  {per_second:>12}".rstrip() for name, value, per_second in rows]
    lines += _nodes(found, before, passed)
    lines[1:1] = [f"! {problem}" for problem in found["problems"]]
    lines += ["", f"{'message':<24}{'ok':>14}  {'refused':>12}"]
    for kind, outcomes in sorted(found["messagesByType"].items()):
        done = outcomes.get("ok", 0)
        lines.append(f"{kind:<24}{done:>14,}  {sum(outcomes.values()) - done:>12,}")
    if found["limits"]:
        lines += ["", f"{'limit that was reached':<40}{'times':>14}"]
        lines += [f"{one['limit']:<40}{one['count']:>14,}  {one['effect']}" for one in found["limits"]]
    return [safe_line(line)[:columns] for line in lines]


def _nodes(found: dict[str, Any], before: dict[str, Any], passed: float) -> list[str]:
    """The lines of the nodes of a cluster; the figures above are their sums."""
    nodes = found.get("nodes", [])
    if not nodes:
        return []
    earlier = {node["node"]: node for node in before.get("nodes", [])}
    head = f"{'node':<14}{'machine':<20}{'users':>10}{'connections':>13}{'relayed':>13}{'memory':>12}{'processor':>11}"
    lines = ["", head]
    for node in nodes:
        past = earlier.get(node["node"])
        memory = "unknown" if node["memory"] is None else f"{node['memory'] / 2**20:,.0f} MiB"
        busy = relayed = "-"
        if past is not None and passed > 0:
            busy = f"{(node['processorSeconds'] - past['processorSeconds']) / passed:.0%}"
            relayed = f"{(node['relayed'] - past['relayed']) / passed:,.1f}/s"
        figures = f"{node['users']:>10,}{node['connections']:>13,}{relayed:>13}{memory:>12}{busy:>11}"
        mark = " *" if node["node"] == found["node"] else ""  # the one that was asked
        lines.append(f"{node['node']:<14}{(node['host'] or '?')[:19]:<20}{figures}{mark}")
    return lines
