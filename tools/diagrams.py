"""Draw the state diagrams of docs/architecture.md from the tables in the source.

    python tools/diagrams.py            # write them
    python tools/diagrams.py --check    # fail when one is stale

A diagram is a name, the first state and an iterable of transitions `(from, event, to)`. To add one, add it to
`DIAGRAMS`, and put a line `<!-- diagram: NAME -->` with `<!-- end -->` below it into the page. The text between the two
is generated: Mermaid, which GitHub and the documentation site draw. `tests/test_diagrams.py` fails when it is stale.

Common transitions are drawn once: a transition of every state becomes a note, and a transition of all states of a group
starts at the group.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

PAGE: Final = Path(__file__).parent.parent / "docs" / "architecture.md"

Transition: TypeAlias = tuple[str, str, str]
"""From, event, to."""

_State = TypeVar("_State", bound=Enum)
_Event = TypeVar("_Event", bound=Enum)


@dataclass(frozen=True)
class Diagram:
    """One state machine. `groups` names sets of states that have transitions in common."""

    start: str
    transitions: Callable[[], Iterable[Transition]]
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)


def word(member: Enum) -> str:
    """The name of a state or an event, as a diagram shows it."""
    return member.name.lower().replace("_", " ")


def of_table(table: Mapping[_State, Mapping[_Event, _State]]) -> list[Transition]:
    """The transitions of a table `{state: {event: next state}}`."""
    return [(word(one), word(event), word(other)) for one, row in table.items() for event, other in row.items()]


def _client() -> list[Transition]:
    from aldis.client.phases import TABLE

    return of_table(TABLE)


def _session() -> list[Transition]:
    from aldis.hub.stages import TABLE

    return of_table(TABLE)


def _dialer() -> list[Transition]:
    from aldis.store.peers.dialer import TABLE

    return of_table(TABLE)


def _transfer() -> list[Transition]:
    from aldis.store.files.transfer import TABLE

    return of_table(TABLE)


def _negotiation() -> list[Transition]:
    from aldis.peer.attempts import PHASES

    return of_table(PHASES)


DIAGRAMS: Final[dict[str, Diagram]] = {
    "client": Diagram("idle", _client, {"live": frozenset({"open", "registering", "proving", "registered"})}),
    "negotiation": Diagram("new", _negotiation),
    "session": Diagram("open", _session),
    "dialer": Diagram("idle", _dialer),
    "transfer": Diagram("offered", _transfer, {"open": frozenset({"offered", "running"})}),
}


def mermaid(diagram: Diagram) -> str:
    """The diagram in Mermaid's language. Raises `ValueError` when the transitions form no diagram."""
    transitions = list(dict.fromkeys(diagram.transitions()))
    states = list(dict.fromkeys([diagram.start, *(state for one, _, other in transitions for state in (one, other))]))
    leaving = {state: {(event, other) for one, event, other in transitions if one == state} for state in states}
    for group, members in diagram.groups.items():
        if not members <= leaving.keys():
            raise ValueError(f"the group {group} has states that no transition has: {sorted(members - leaving.keys())}")
    ends = [state for state in states if not leaving[state]]
    going_on = set(states).difference(ends)
    everywhere = [
        (event, other)
        for event, other in dict.fromkeys((event, other) for _, event, other in transitions)
        if len(states) > 2 and all((event, other) in leaving[state] for state in going_on)
    ]
    if any(members >= going_on for members in diagram.groups.values()):
        everywhere = []  # they start at that group
    lines = [f"[*] --> {_id(diagram.start)}"]
    lines += [f'state "{state}" as {_id(state)}' for state in states if _id(state) != state]
    drawn = {(one, event, other) for one, event, other in transitions if (event, other) in everywhere}
    for group, members in diagram.groups.items():
        lines += [f"state {_id(group)} {{", *(f"    {_id(state)}" for state in states if state in members), "}"]
        shared = set.intersection(*(leaving[state] for state in members)) - set(everywhere)
        lines += _arrows([(group, event, other) for one, event, other in transitions if (event, other) in shared])
        drawn |= {(state, event, other) for state in members for event, other in shared}
    lines += _arrows([each for each in transitions if each not in drawn])
    lines += [f"{_id(state)} --> [*]" for state in ends]
    lines += [f"note right of {_id(other)} : from every state by {event}" for event, other in everywhere]
    return "\n".join(["stateDiagram-v2", *(f"    {line}" for line in lines)])


def _id(state: str) -> str:
    return re.sub(r"\W", "_", state)


def _arrows(transitions: Iterable[Transition]) -> list[str]:
    """One arrow for each pair of states, with all events that lead from the one to the other."""
    events: dict[tuple[str, str], list[str]] = {}
    for one, event, other in dict.fromkeys(transitions):
        events.setdefault((one, other), []).append(event)
    return [f"{_id(one)} --> {_id(other)} : {', '.join(names)}" for (one, other), names in events.items()]


def updated(page: str, diagrams: Mapping[str, Diagram]) -> str:
    """The page with new diagrams. Raises `ValueError` for a diagram without a place, or a place without a diagram."""
    places = re.compile(r"(<!-- diagram: (?P<name>[\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)
    named = [found["name"] for found in places.finditer(page)]
    if sorted(named) != sorted(diagrams):
        raise ValueError(f"the page has places for {sorted(named)}, and the diagrams are {sorted(diagrams)}")
    return places.sub(lambda found: f"{found[1]}```mermaid\n{mermaid(diagrams[found['name']])}\n```\n{found[3]}", page)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Draw the state diagrams of docs/architecture.md.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a diagram is stale")
    check: bool = parser.parse_args(arguments).check
    page = PAGE.read_text(encoding="utf-8")
    fresh = updated(page, DIAGRAMS)
    if page == fresh:
        return 0
    if check:
        print(f"{PAGE.name} has a stale diagram; run: python tools/diagrams.py", file=sys.stderr)
        return 1
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
