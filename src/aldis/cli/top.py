"""`aldis top`: a live view of a running server, in a terminal.

Rules: it redraws a screen of its own (`cli.full_screen`). A figure is shown whole or not at all: columns that a narrow
terminal has no room for are left out. What asks for an operator comes first, so that a low terminal shows it: problems,
then limits, then figures; types of messages come last. Where standard output is no
terminal it prints one line of JSON for each look.
"""

from __future__ import annotations

import json
import sys
import textwrap
import time
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

from aldis.cli.admin import duration
from aldis.cli.admin_client import AdminArguments, AdminClient, AdminRefused, add_admin
from aldis.cli.exits import ExitCode, complain
from aldis.cli.full_screen import Ended, FullScreen, full_screen
from aldis.cli.options import seconds
from aldis.cli.parser import Parser
from aldis.cli.text import safe_line
from aldis.errors import ServerUnreachable

_TEXT: Final = "Watch a running server: who is there, what it carries, which limits it applies.\n`q` or Ctrl-C ends it."
_CODES: Final = (ExitCode.OK, ExitCode.USAGE, ExitCode.SERVER_UNREACHABLE, ExitCode.REFUSED)
_QUIT: Final = frozenset("qQ\x03\x04")  # Ctrl-C is a signal, unless the terminal says otherwise
# Of a column for names that is cut: less says nothing.
_SHORTEST_NAME: Final = 12
# Limits that are shown also where a low terminal then has no room for all figures.
_LEAST_LIMITS: Final = 3


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
        try:
            with full_screen() as terminal:
                _watch(terminal, client, arguments, first)
        except KeyboardInterrupt:
            pass  # how it is meant to end
        except Ended as ended:
            return 128 + ended.number
        return ExitCode.OK
    except AdminRefused as error:
        complain(safe_line(str(error)))
        return ExitCode.REFUSED


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _print(client: AdminClient, arguments: Arguments, found: dict[str, Any]) -> int:
    left = arguments.times
    while True:
        print(json.dumps(found), flush=True)
        left = None if left is None else left - 1
        if left == 0:
            return ExitCode.OK
        time.sleep(arguments.every)
        found = client.ask("GET", "/statistics")


def _watch(terminal: FullScreen, client: AdminClient, arguments: Arguments, found: dict[str, Any]) -> None:
    before, since, left = found, time.monotonic(), arguments.times
    now = since
    trouble = ""
    while True:
        left = None if left is None else left - 1
        due = time.monotonic() + arguments.every
        while True:
            columns, rows = terminal.size
            terminal.draw(fitted(screen(found, before, now - since, trouble, columns, rows), rows))
            if left == 0 or _QUIT.intersection(terminal.wait(max(0.0, due - time.monotonic()))):
                return
            if time.monotonic() >= due:
                break
        try:
            answer = client.ask("GET", "/statistics")
        except ServerUnreachable as error:
            trouble = str(error)
            continue
        before, since, now, found, trouble = found, now, time.monotonic(), answer, ""


def fitted(lines: list[str], rows: int) -> list[str]:
    """As many of the lines as a terminal of so many rows has room for, and how many are missing."""
    if len(lines) <= rows or rows < 2:
        return lines[:rows]
    return [*lines[: rows - 1], f"({len(lines) - rows + 1} more lines)"]


def screen(
    found: dict[str, Any], before: dict[str, Any], passed: float, trouble: str, columns: int, rows: int = 0
) -> list[str]:
    """The lines of one view, of `columns` characters at most. `before` are the figures of `passed` seconds ago.

    There may be more lines than `rows` of the terminal; the limits are cut so that the figures below are among those.
    """

    def rate(name: str) -> str:
        change = found[name] - before[name]  # below 0 when a server was started again, or a node is gone
        return "" if passed <= 0 or change < 0 else f"{change / passed:,.1f}/s"

    memory = found["memory"]
    spent = found["processorSeconds"] - before["processorSeconds"]
    busy = "" if passed <= 0 or spent < 0 else f"{spent / passed:.0%}"
    lines = [f"Aldis {found['version']}, up for {duration(found['uptime'])} (q ends)"]
    if trouble:
        lines += _wrapped(f"! {trouble}; these are the last figures", columns)
    for problem in found["problems"]:
        lines += _wrapped(f"! {problem}", columns)
    now = [
        ("users online", f"{found['users']:,}", ""),
        ("connections", f"{found['connections']:,}", ""),
        ("lost, may resume", f"{found['detached']:,}", ""),
        ("waiting for their turn", f"{found['waiting']:,}", ""),
        ("bans", f"{found['bans']:,}", ""),
        ("memory", "unknown" if memory is None else f"{memory / 2**20:,.0f} MiB", ""),
        ("processor", busy or "-", ""),
    ]
    since_start = [
        ("relayed", f"{found['relayed']:,}", rate("relayed")),
        ("bytes of sealed ones", f"{found['sealedBytes']:,}", rate("sealedBytes")),
        ("handled", f"{found['messages']:,}", rate("messages")),
        ("refused", f"{found['refused']:,}", rate("refused")),
        ("throttled", f"{found['throttled']:,}", rate("throttled")),
    ]
    figures = ["", *_beside(now, since_start, columns), *_nodes(found, before, passed, columns)]
    lines += _limits(found, before, columns, rows - len(lines) - len(figures) - 1 if rows else len(found["limits"]) + 2)
    lines += figures
    kinds = [("message", "ok", "refused")]
    for kind, outcomes in sorted(found["messagesByType"].items()):
        done = outcomes.get("ok", 0)
        kinds.append((safe_line(kind), f"{done:,}", f"{sum(outcomes.values()) - done:,}"))
    lines += ["", *_table(kinds, (24, 14, 14), columns)]
    return [safe_line(line)[:columns] for line in lines]


def _limits(found: dict[str, Any], before: dict[str, Any], columns: int, room: int) -> list[str]:
    """The limits that were reached, in so many lines: those that grow now first, then the most frequent."""
    earlier = {(one["limit"], one["effect"]): one["count"] for one in before["limits"]}
    limits = sorted(
        found["limits"],
        key=lambda one: (one["count"] <= earlier.get((one["limit"], one["effect"]), 0), -one["count"]),
    )
    if not limits:
        return []
    shown = limits if len(limits) + 2 <= room else limits[: max(_LEAST_LIMITS, room - 3)]
    cells = [("limit that was reached", "times", "")]
    cells += [(safe_line(one["limit"]), f"{one['count']:,}", safe_line(one["effect"])) for one in shown]
    more = len(limits) - len(shown)
    return ["", *_table(cells, (40, 14, -1), columns), *([f"({more} more limits)"] if more else [])]


def _beside(
    now: Sequence[tuple[str, str, str]], since_start: Sequence[tuple[str, str, str]], columns: int
) -> list[str]:
    """Two tables of figures beside each other; in a narrow terminal one below the other, in one table."""
    # Whole: `_table` leaves columns out where they do not fit.
    left = _table([row[:2] for row in now], (24, 10), sys.maxsize)
    right = _table(since_start, (20, 12, 12), sys.maxsize)
    width = max(map(len, left)) + 2
    if width + max(map(len, right)) > columns:
        return _table([*now, *since_start], (24, 14, 14), columns)
    return [f"{line:<{width}}{other}".rstrip() for line, other in zip_longest(left, right, fillvalue="")]


def _wrapped(text: str, columns: int) -> list[str]:
    """What a person must read, on as many lines as it takes."""
    return textwrap.wrap(safe_line(text), columns, subsequent_indent="  " if columns > 4 else "")


def _table(rows: Sequence[Sequence[str]], widths: Sequence[int], columns: int) -> list[str]:
    """The lines of a table: names, and figures on the right of their columns; a negative width is that of a text.

    A column is as wide as `widths` says, or as what is in it. Where all do not fit, they are as narrow as what is in
    them. Then the last ones are left out, and names are cut.
    """
    signs = [-1 if width < 0 else 1 for width in widths]
    least = [max(map(len, cells)) + (2 if number else 0) for number, cells in enumerate(zip(*rows, strict=True))]
    chosen = [max(abs(width), each) for width, each in zip(widths, least, strict=True)]
    if sum(chosen) > columns:
        chosen = least
        while len(chosen) > 2 and min(chosen[0], _SHORTEST_NAME) + sum(chosen[1:]) > columns:
            chosen = chosen[:-1]
        chosen = [max(1, min(chosen[0], columns - sum(chosen[1:]))), *chosen[1:]]
    lines = []
    for row in rows:
        name, *cells = row[: len(chosen)]
        name = name if len(name) <= chosen[0] else name[: chosen[0] - 1] + "~"
        line = name.ljust(chosen[0])
        for cell, width, sign in zip(cells, chosen[1:], signs[1:], strict=False):
            line += cell.rjust(width) if sign > 0 else f"  {cell}".ljust(width)
        lines.append(line.rstrip())
    return lines


def _nodes(found: dict[str, Any], before: dict[str, Any], passed: float, columns: int) -> list[str]:
    """The lines of the nodes of a cluster; the figures above are their sums."""
    nodes = found.get("nodes", [])
    if not nodes:
        return []
    earlier = {node["node"]: node for node in before.get("nodes", [])}
    rows = [("node", "machine", "users", "connections", "relayed", "memory", "processor", "")]
    for node in nodes:
        past = earlier.get(node["node"])
        memory = "unknown" if node["memory"] is None else f"{node['memory'] / 2**20:,.0f} MiB"
        busy = relayed = "-"
        if past is not None and passed > 0:
            busy = f"{(node['processorSeconds'] - past['processorSeconds']) / passed:.0%}"
            relayed = f"{(node['relayed'] - past['relayed']) / passed:,.1f}/s"
        mark = "*" if node["node"] == found["node"] else ""  # the one that was asked
        figures = (f"{node['users']:,}", f"{node['connections']:,}", relayed, memory, busy, mark)
        rows.append((safe_line(node["node"]), safe_line((node["host"] or "?")[:19]), *figures))
    return ["", *_table(rows, (14, -20, 10, 13, 13, 12, 11, -1), columns)]
