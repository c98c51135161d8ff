"""From raw numbers to what people read: medians and spreads, tables in the terminal, JSON, Markdown, targets.

It measures nothing. A number is written as its median, with the lowest and highest of the rounds behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.load.generator import DISTURBED
from benchmarks.load.servers import ALL, BEFORE

TITLES: Final = {contender.name: contender.title for contender in (*ALL, BEFORE)}
KB: Final = 1000

# What issue and README promise: name, what is compared, at most.
RELAY_TARGETS: Final = (
    ("processor time a message, against the PeerJS server", "peerjs", 1 / 3),
    ("processor time a message, against a minimal relay on ws", "ws", 0.4),
    ("processor time a message, against bare picows with a dictionary", "picows", 9 / 7.8),
    ("processor time a message, against Aldis before", "before", 1.10),
)
# 2,000 new names a second on a core, and 1,600 that are on the disk when they count.
REGISTRATION_TARGETS: Final = (
    ("processor time of a new name, in memory", "aldis", 1e6 / 2000),
    ("processor time of a new name, on disk", "aldis-sqlite", 1e6 / 1600),
)
# A change may cost this much of what a connection took before it.
MEMORY_GROWTH: Final = 1.05
MEMORY_TARGET: Final = 10 * KB


@dataclass(frozen=True)
class Grid:
    """A table."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Target:
    """One promise, and what came of it."""

    name: str
    unit: str
    at_most: float
    measured: float
    lowest: float
    highest: float

    @property
    def met(self) -> bool:
        return self.measured <= self.at_most


def spread(values: Iterable[float], digits: int = 1, scale: float = 1.0) -> str:
    """`median (lowest to highest)`."""
    numbers = [value * scale for value in values]
    if len(numbers) == 1:
        return f"{numbers[0]:,.{digits}f}"
    return f"{median(numbers):,.{digits}f} ({min(numbers):,.{digits}f} to {max(numbers):,.{digits}f})"


def _pick(rounds: Sequence[dict[str, Any]], *path: str) -> list[float]:
    values: list[float] = []
    for result in rounds:
        value: Any = result
        for step in path:
            value = value[step]
        values.append(float(value))
    return values


def _ratios(results: dict[str, Any], one: str, other: str, *path: str) -> list[float]:
    """Round by round: what the machine did meanwhile was done to both."""
    pairs = zip(_pick(results[one], *path), _pick(results[other], *path), strict=True)
    return [mine / theirs for mine, theirs in pairs]


def disturbed(relay: dict[str, Any]) -> str:
    """A word about what else the machine did."""
    slices = [
        phase for rounds in relay.values() for round_ in rounds for phase in (round_["saturated"], round_["paced"])
    ]
    count = sum(phase["disturbance"] > DISTURBED for phase in slices)
    if not count:
        return "Nothing else needed the two cores meanwhile."
    verdict = "; do not trust this" if count > len(slices) / 4 else ""
    return f"Something else needed more than {DISTURBED:.0%} of a core in {count} of {len(slices)} slices{verdict}."


def targets(document: dict[str, Any]) -> list[Target]:
    """Every promise for which there is a measurement."""
    found: list[Target] = []
    relay = document.get("relay", {})
    for name, other, at_most in RELAY_TARGETS:
        if "aldis" in relay and other in relay:
            ratios = _ratios(relay, "aldis", other, "saturated", "cpu_us")
            found.append(Target(name, "ratio", at_most, median(ratios), min(ratios), max(ratios)))
    registered = document.get("register", {})
    for name, contender, at_most in REGISTRATION_TARGETS:
        if contender in registered:
            values = _pick(registered[contender], "first", "cpu_us")
            found.append(Target(name, "us", at_most, median(values), min(values), max(values)))
    if "aldis" in registered:
        sizes = _pick(registered["aldis"], "memory", "pss")
        name = "memory of an idle registered connection"
        found.append(Target(name, "bytes", MEMORY_TARGET, median(sizes), min(sizes), max(sizes)))
        if "before" in registered and min(*sizes, *_pick(registered["before"], "memory", "pss")) > 0:
            ratios = _ratios(registered, "aldis", "before", "memory", "pss")
            found.append(
                Target(f"{name}, against before", "ratio", MEMORY_GROWTH, median(ratios), min(ratios), max(ratios))
            )
    return found


def grids(document: dict[str, Any]) -> list[Grid]:
    """All tables of a document."""
    made: list[Grid] = []
    makers: tuple[tuple[str, Callable[[Any], list[Grid]]], ...] = (
        ("relay", _relay_grids),
        ("register", _register_grids),
        ("opening", _opening_grids),
        ("micro", _micro_grids),
    )
    for key, make in makers:
        if key in document:
            made += make(document[key])
    found = targets(document)
    if found:
        made.insert(0, _target_grid(found))
    return made


def _target_grid(found: Sequence[Target]) -> Grid:
    rows = []
    for target in found:
        if target.unit == "us":
            at_most, measured = f"{target.at_most:.0f} us", f"{target.measured:.0f} us"
            around = f"{target.lowest:.0f} to {target.highest:.0f}"
        elif target.unit == "bytes":
            at_most, measured = f"{target.at_most / KB:.0f} KB", f"{target.measured / KB:.1f} KB"
            around = f"{target.lowest / KB:.1f} to {target.highest / KB:.1f}"
        else:
            at_most, measured = f"{target.at_most:.3f}", f"{target.measured:.3f}"
            around = f"{target.lowest:.3f} to {target.highest:.3f}"
        rows.append([target.name, at_most, measured, around, "met" if target.met else "missed"])
    return Grid("Targets", ["what", "at most", "measured", "lowest to highest round", ""], rows)


def _relay_grids(results: dict[str, Any]) -> list[Grid]:
    saturated, paced = [], []
    note = disturbed(results)
    for name, rounds in results.items():
        row = [
            TITLES[name],
            spread(_pick(rounds, "saturated", "per_second"), 0),
            spread(_pick(rounds, "saturated", "cpu_us")),
            f"{median(_pick(rounds, 'saturated', 'server_load')):.0%}",
            f"{median(_pick(rounds, 'saturated', 'generator_load')):.0%}",
        ]
        if "picows" in results:
            row.append(spread(_ratios(results, name, "picows", "saturated", "cpu_us"), 2))
        saturated.append(row)
        latencies = [
            spread(_pick(rounds, "paced", f"latency_{at}_us"), 2, 1 / 1000) for at in ("p50", "p90", "p99", "p999")
        ]
        paced.append([TITLES[name], *latencies, spread(_pick(rounds, "paced", "cpu_us"))])
    head = ["relay", "messages a second", "server CPU us a message", "server busy", "generator busy"]
    if "picows" in results:
        head.append("CPU against bare picows")
    return [
        Grid("Relaying, saturated: one message on its way for every connection", head, saturated, note),
        Grid(
            "Relaying, paced: latency in ms",
            ["relay", "median", "90 %", "99 %", "99.9 %", "server CPU us a message"],
            paced,
            note,
        ),
    ]


def _register_grids(results: dict[str, Any]) -> list[Grid]:
    proves = [f"{contender.title}: {contender.proves}" for contender in ALL if contender.name in results]
    rows = [
        [
            TITLES[name],
            spread(_pick(rounds, "first", "per_second"), 0),
            spread(_pick(rounds, "first", "cpu_us"), 0),
            spread(_pick(rounds, "again", "per_second"), 0),
            spread(_pick(rounds, "memory", "pss"), 1, 1 / KB),
        ]
        for name, rounds in results.items()
    ]
    head = ["relay", "new names a second", "server CPU us each", "known names a second", "KB each, idle"]
    note = "What has been shown when a client counts as registered: " + "; ".join(proves) + "."
    return [Grid("Registration, from the first packet on, and memory of those who stay", head, rows, note)]


def _opening_grids(results: dict[str, Any]) -> list[Grid]:
    rows = [[case["name"], spread(case["seconds"], 1, 1000)] for case in results["cases"]]
    return [Grid(f"Opening a data channel on loopback ({results['network']}), ms", ["what", "ms"], rows)]


def _micro_grids(results: dict[str, Any]) -> list[Grid]:
    rows = [
        [case["name"], f"{case['median_ns'] / 1000:,.2f}", f"{case['fastest_ns'] / 1000:,.2f}"]
        for case in results["times"]
    ]
    sizes = [
        [entry["name"], str(entry["bytes"]), str(entry["around"]) if entry["around"] else ""]
        for entry in results["sizes"]
    ]
    return [
        Grid("Micro benchmarks, processor time in us", ["what", "median", "fastest"], rows),
        Grid("Envelopes", ["message", "bytes", "of these around the payload"], sizes),
    ]


def show(document: dict[str, Any], console: Console) -> None:
    """Print all tables to a terminal."""
    for grid in grids(document):
        table = Table(
            title=grid.title,
            title_justify="left",
            title_style="bold",
            caption=grid.note or None,
            caption_justify="left",
        )
        for number, name in enumerate(grid.head):
            table.add_column(name, justify="left" if number == 0 else "right")
        for row in grid.rows:
            table.add_row(*row)
        console.print(table)


def markdown(document: dict[str, Any]) -> str:
    """All tables as Markdown, with what they were taken on."""
    machine, versions = document["machine"], document["versions"]
    lines = [
        f"Taken {document['date']}, commit `{document['commit']}`, `{document['command']}`.",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}.",
        ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "",
    ]
    for grid in grids(document):
        lines += [f"### {grid.title}", "", "| " + " | ".join(grid.head) + " |"]
        lines += ["|---|" + "---:|" * (len(grid.head) - 1)]
        lines += ["| " + " | ".join(row) + " |" for row in grid.rows]
        lines += ["", *([grid.note, ""] if grid.note else [])]
    return "\n".join(lines)


def as_json(found: Sequence[Target]) -> list[dict[str, object]]:
    return [{**asdict(target), "met": target.met} for target in found]
