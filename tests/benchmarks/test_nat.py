"""Who reaches whom behind which routers: a part of the matrix, and what fails a cell of it."""

from __future__ import annotations

from benchmarks.nat.run import AT_ONCE, Cell, can_be_direct

from support.benchmark_runs import passes
from support.patience import PATIENCE


def test_a_cell_has_to_deliver_at_once_and_to_become_direct_where_that_can_be() -> None:
    good = {"first": 0.04, "path": "relay", "answered": True}
    assert can_be_direct("full-cone", "symmetric")
    assert Cell("full-cone", "symmetric", **good, direct=0.3).passed  # type: ignore[arg-type]
    assert not Cell("full-cone", "symmetric", **good).passed  # type: ignore[arg-type]
    assert not can_be_direct("symmetric", "port-restricted")
    assert Cell("symmetric", "symmetric", **good).passed  # type: ignore[arg-type]
    for wrong in ({"first": None}, {"first": 2 * AT_ONCE}, {"path": "direct"}, {"answered": False}):
        assert not Cell("symmetric", "symmetric", **{**good, **wrong}).passed  # type: ignore[arg-type]
    late = {**good, "first": 2 * AT_ONCE, "path": "direct", "direct": 2.0}
    assert Cell("open", "open", **late, relayed=False).passed  # type: ignore[arg-type]


async def test_routers_of_two_kinds_are_crossed_by_the_relay_and_directly_where_that_can_be() -> None:
    # A machine that runs tests beside this one may be busy for longer than a second.
    words = ["--only", "full-cone", "--only", "symmetric", "--settle", "8", "--at-once", str(PATIENCE)]
    said = await passes("benchmarks.nat.run", *words)
    assert "4 of 4 deliver; 3 are direct, of 3 that can be." in said
