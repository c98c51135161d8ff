"""Changes of a journal add up, whether they are written one after the other or together."""

from __future__ import annotations

from copy import deepcopy

from hypothesis import given
from hypothesis import strategies as st

from aldis.protocol.channel import Content
from aldis.store.journal.rows import (
    ArrivedRow,
    Changes,
    Contents,
    DeviceRow,
    HandedOver,
    Owner,
    PositionRow,
    QueuedRow,
)

SMALL = st.integers(1, 3)
KEYS = st.tuples(SMALL, SMALL)


def queued(key: tuple[int, int], data: bytes = b"x") -> QueuedRow:
    return QueuedRow(*key, Content.TEXT, data, 0.0, movable=True)


def arrived(place: int) -> ArrivedRow:
    return ArrivedRow(place, "bob", "phone", "s", place, Content.TEXT, b"x")


def device(number: int, acknowledged: int = 0) -> DeviceRow:
    return DeviceRow(number, "bob", f"d{number}", number, f"s{number}", acknowledged)


@st.composite
def changes(draw: st.DrawFn) -> Changes:
    """Changes as a writer makes them: nothing is said together with the end of a queue, or of a device."""
    found = Changes()
    found.owner = draw(st.sampled_from([None, Owner("here", "alice", "main")]))
    found.devices = {n: draw(st.sampled_from([None, device(n)])) for n in draw(st.sets(SMALL))}
    found.dropped = draw(st.sets(SMALL))
    found.queued = {
        key: draw(st.sampled_from([None, queued(key)])) for key in draw(st.sets(KEYS)) if key[0] not in found.dropped
    }
    found.positions = {
        (n, "s"): draw(st.sampled_from([None, PositionRow(n, "s", 1, n)]))
        for n in draw(st.sets(SMALL))
        if found.devices.get(n, n) is not None
    }
    found.arrived = {n: arrived(n) for n in draw(st.sets(SMALL))}
    found.files = {f"f{n}": draw(st.sampled_from([None, b"1"])) for n in draw(st.sets(SMALL))}
    return found


@given(st.lists(changes(), max_size=4))
def test_changes_that_are_added_up_do_what_they_do_one_by_one(several: list[Changes]) -> None:
    apart, together, total = Contents(), Contents(), Changes()
    for each in several:
        apart.apply(deepcopy(each))
        total.add(deepcopy(each))
    together.apply(total)
    assert apart.positions == together.positions
    assert (apart.owner, apart.devices, apart.queued) == (together.owner, together.devices, together.queued)
    assert (apart.arrived, apart.files) == (together.arrived, together.files)
    assert bool(total) == any(bool(each) for each in several)


def test_an_acknowledgement_covers_what_is_before_it_and_is_kept_with_the_device() -> None:
    contents = Contents()
    rows = {(queue, number): queued((queue, number)) for queue in (1, 2) for number in (1, 2, 3)}
    contents.apply(Changes(devices={1: device(1), 2: device(2)}, queued=dict(rows)))
    contents.apply(Changes(acknowledged={1: 2, 9: 5}))
    assert list(contents.queued) == [(1, 3), (2, 1), (2, 2), (2, 3)]
    assert [each.acknowledged for each in contents.devices.values()] == [2, 0]


def test_a_dropped_queue_and_a_forgotten_device_take_all_that_is_theirs() -> None:
    contents = Contents()
    contents.apply(
        Changes(
            devices={1: device(1), 2: device(2)},
            queued={(1, 1): queued((1, 1)), (2, 1): queued((2, 1))},
            positions={(1, "s"): PositionRow(1, "s", 1, 1), (2, "s"): PositionRow(2, "s", 1, 2)},
        )
    )
    contents.apply(Changes(dropped={1}, devices={1: None}))
    assert (list(contents.devices), list(contents.queued), list(contents.positions)) == ([2], [(2, 1)], [(2, "s")])


def test_what_was_handed_over_goes_but_for_what_is_in_hands() -> None:
    contents = Contents(redelivered={1, 2})
    contents.apply(Changes(arrived={n: arrived(n) for n in (1, 2, 3, 4)}))
    assert contents.last_place == 4
    contents.apply(Changes(handed_over=HandedOver(3, frozenset({2}))))
    assert (list(contents.arrived), contents.redelivered) == ([2, 4], {2})
    assert Contents().last_place == 0
    assert Contents(positions={(1, "s"): PositionRow(1, "s", 1, 9)}).last_place == 9


def test_an_owner_is_written_as_a_person_reads_it() -> None:
    assert str(Owner("example.com", "alice", "phone")) == "alice/phone at example.com"
