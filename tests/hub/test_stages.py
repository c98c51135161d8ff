"""The stages of a session: one table, and one place that moves a session along it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import aldis
from aldis.hub.dialects import V1
from aldis.hub.lifecycle import advance
from aldis.hub.sessions import Session
from aldis.hub.stages import START, TABLE, Stage, StageEvent
from support.hub_world import World

SOURCE = Path(aldis.__file__).parent


def assignments(source: str) -> Iterator[str]:
    """In which function something is assigned to an attribute `stage`; also by `setattr`."""

    def look(node: ast.AST, function: str) -> Iterator[str]:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                function = name
            case ast.Attribute(attr="stage", ctx=ast.Store() | ast.Del()):
                yield function
            case ast.Call(func=ast.Name(id="setattr"), args=[_, ast.Constant(value="stage"), *_]):
                yield function
        for child in ast.iter_child_nodes(node):
            yield from look(child, function)

    return look(ast.parse(source), "")


def test_one_place_moves_a_session_from_stage_to_stage() -> None:
    found = {
        (path.relative_to(SOURCE).as_posix(), function)
        for path in SOURCE.rglob("*.py")
        for function in assignments(path.read_text(encoding="utf-8"))
    }
    assert found == {("hub/sessions.py", "__init__"), ("hub/lifecycle.py", "advance")}


@pytest.mark.parametrize(
    "line",
    [
        "s.stage = 1",
        "s.stage, x = 1, 2",
        "s.stage: int = 1",
        "for s.stage in y: pass",
        "setattr(s, 'stage', 1)",
        "del s.stage",
    ],
)
def test_the_search_finds_each_form_of_an_assignment(line: str) -> None:
    assert list(assignments(f"class A:\n    def f(s):\n        {line}")) == ["f"]
    assert list(assignments("def f(s):\n    return s.stage")) == []


def test_each_stage_can_be_reached_and_can_end() -> None:
    reached, new = set[Stage](), {START}
    while new:
        reached |= new
        new = {stage for one in new for stage in TABLE[one].values()} - reached
    assert reached == set(Stage) == TABLE.keys()
    for stage in set(Stage) - {Stage.CLOSED}:
        assert TABLE[stage][StageEvent.ENDED] is Stage.CLOSED
    assert TABLE[Stage.CLOSED] == {}


def test_an_event_that_does_not_fit_the_stage_is_a_bug_that_shows() -> None:
    client = World().connect()
    session = Session(client, V1, "host", 0.0)
    with pytest.raises(KeyError):
        advance(session, StageEvent.ADMITTED)
    assert session.stage is START
