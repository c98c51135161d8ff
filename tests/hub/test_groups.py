"""Members by groups, of which the largest gives way."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from aldis.hub.groups import Groups


@given(st.integers(0, 2**32), st.integers(0, 8))
def test_whoever_comes_and_goes_the_largest_group_is_known(seed: int, at_first: int) -> None:
    rng = random.Random(seed)
    there = [(rng.choice("abc"), number) for number in range(at_first)]
    groups: Groups[str, int] = Groups(there)
    for number in range(at_first, at_first + 40):
        if rng.random() < 0.6:
            there.append((rng.choice("abc"), number))
            groups.add(*there[-1])
        elif there:
            groups.discard(*there.pop(rng.randrange(len(there))))
        counts = {group: sum(one == group for one, _ in there) for group in "abc"}
        assert {group: groups.count(group) for group in "abc"} == counts
        assert groups.most == max(counts.values())
        if there:
            members = list(groups.of_largest())
            assert members in [[one for each, one in there if each == group] for group in "abc"]
            assert len(members) == groups.most
