"""Who watches each name, with one watcher or many, and what it takes."""

from __future__ import annotations

import random
import tracemalloc
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from aldis.hub.dialects import V1
from aldis.hub.sessions import Session, Watcher
from aldis.hub.watch_table import TABLES, WatchTable


def watcher() -> Watcher:
    return Watcher(Session(None, V1, "example.com", 0.0))


@given(st.integers(0, 2**32))
def test_whoever_comes_and_goes_the_table_knows_who_is_there(seed: int) -> None:
    rng = random.Random(seed)
    table, watchers = WatchTable(), [watcher() for _ in range(6)]
    names = [f"name-{number}" for number in range(12)]
    known: defaultdict[str, set[Watcher]] = defaultdict(set)
    for _ in range(60):
        one = rng.choice(watchers)
        if rng.random() < 0.6:
            new = [name for name in rng.sample(names, 5) if one not in known[name]]
            assert table.unwatched(new) == [name for name in new if not known[name]]
            table.add(new, one)
            for name in new:
                known[name].add(one)
        else:
            old = [name for name in rng.sample(names, 5) if one in known[name]]
            for name in old:
                known[name].remove(one)
            assert table.remove(old, one) == [name for name in old if not known[name]]
        for name in names:
            assert table.of(name) == known[name]
            assert table.count(name) == len(known[name])
            assert (name in table) is bool(known[name])
        assert table.shared == sum(len(them) for them in known.values() if len(them) > 1)


def test_what_has_left_gives_its_memory_back() -> None:
    """Python never makes a set or a dict smaller by itself."""
    table, crowd, last = WatchTable(), [watcher() for _ in range(2000)], watcher()
    names = [f"name-{number}" for number in range(25)]
    _ = [dict[str, str]() for _ in range(200)]  # Python keeps 80 of them for later
    del _
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        table.add(names, last)
        alone = tracemalloc.get_traced_memory()[0] - before
        for one in crowd:
            table.add(names, one)
        full = tracemalloc.get_traced_memory()[0] - before
        for one in crowd[:-10]:
            table.remove(names, one)
        few = tracemalloc.get_traced_memory()[0] - before
        for one in crowd[-10:]:
            table.remove(names, one)
        again = tracemalloc.get_traced_memory()[0] - before
        table.remove(names, last)
        nothing = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert few - alone < len(names) * 11 * 300 < full / 20
    assert again <= alone + 4096
    assert nothing < 4096


def test_no_table_holds_more_than_its_share() -> None:
    table, one = WatchTable(), watcher()
    table.add((f"name-{number}" for number in range(100 * TABLES)), one)
    assert max(map(len, table._tables)) < 200, "they grow by little, and not all at once"
