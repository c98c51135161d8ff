"""What tells the turns of an event loop apart."""

from __future__ import annotations

from collections.abc import Callable

from aldis.server.connections import Turns


def test_a_turn_has_one_number_until_the_loop_goes_on() -> None:
    soon: list[Callable[[], None]] = []
    turns = Turns(soon.append)
    first = turns()
    assert [turns(), turns()] == [first] * 2
    assert len(soon) == 1
    soon.pop()()
    assert not soon, "an idle loop is not kept turning"
    assert turns() != first
    assert len(soon) == 1
