"""The state diagrams of docs/architecture.md are those of the source."""

from __future__ import annotations

import pytest
from tools import diagrams
from tools.diagrams import Diagram, mermaid, updated

DOOR = [
    ("shut", "opened", "ajar"),
    ("ajar", "shut", "shut"),
    ("ajar", "locked in", "shut"),
    ("shut", "burnt", "gone"),
    ("ajar", "burnt", "gone"),
]


def test_no_diagram_is_stale() -> None:
    page = diagrams.PAGE.read_text(encoding="utf-8")
    assert updated(page, diagrams.DIAGRAMS) == page, "run: python tools/diagrams.py"


def test_a_diagram_has_its_start_its_ends_and_each_arrow_once() -> None:
    assert mermaid(Diagram("shut", lambda: [*DOOR, DOOR[0]])).splitlines() == [
        "stateDiagram-v2",
        "    [*] --> shut",
        "    shut --> ajar : opened",
        "    ajar --> shut : shut, locked in",
        "    gone --> [*]",
        "    note right of gone : from every state by burnt",
    ]


def test_what_a_group_has_in_common_starts_at_the_group() -> None:
    more = [("in sight", "opened", "ajar"), ("ajar", "turned", "in sight"), ("in sight", "shut", "shut")]
    lines = mermaid(Diagram("shut", lambda: DOOR[:2] + more, {"open": frozenset({"ajar", "in sight"})})).splitlines()
    assert lines == [
        "stateDiagram-v2",
        "    [*] --> shut",
        '    state "in sight" as in_sight',
        "    state open {",
        "        ajar",
        "        in_sight",
        "    }",
        "    open --> shut : shut",
        "    shut --> ajar : opened",
        "    in_sight --> ajar : opened",
        "    ajar --> in_sight : turned",
    ]


def test_what_each_state_has_in_common_starts_at_the_group_that_has_them_all() -> None:
    lines = mermaid(Diagram("shut", lambda: DOOR, {"here": frozenset({"ajar", "shut"})})).splitlines()
    assert lines == [
        "stateDiagram-v2",
        "    [*] --> shut",
        "    state here {",
        "        shut",
        "        ajar",
        "    }",
        "    here --> gone : burnt",
        "    shut --> ajar : opened",
        "    ajar --> shut : shut, locked in",
        "    gone --> [*]",
    ]


def test_a_group_of_unknown_states_is_refused() -> None:
    with pytest.raises(ValueError, match="shed"):
        mermaid(Diagram("shut", lambda: DOOR, {"outside": frozenset({"shed"})}))


def test_a_place_without_a_diagram_is_refused_and_the_reverse() -> None:
    page = "A door.\n<!-- diagram: door -->\nold\n<!-- end -->\nMore.\n"
    door = Diagram("shut", lambda: DOOR)
    fresh = updated(page, {"door": door})
    assert fresh.startswith("A door.\n<!-- diagram: door -->\n```mermaid\nstateDiagram-v2\n")
    assert fresh.endswith("\n```\n<!-- end -->\nMore.\n")
    assert updated(fresh, {"door": door}) == fresh
    with pytest.raises(ValueError, match="places"):
        updated(page, {})
    with pytest.raises(ValueError, match="places"):
        updated(page, {"door": door, "window": door})
