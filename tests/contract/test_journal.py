"""What every journal holds: in memory, and in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aldis.errors import AldisError, JournalInUse
from aldis.protocol.channel import Content
from aldis.store.journal.journal import Journal
from aldis.store.journal.memory import MemoryJournal
from aldis.store.journal.rows import ArrivedRow, Changes, DeviceRow, HandedOver, Owner, PositionRow, QueuedRow
from aldis.store.journal.sqlite import SqliteJournal


class Kept:
    """A journal that is opened again and again."""

    def __init__(self, make: Callable[[], Journal]) -> None:
        self._make = make
        self.journal = make()
        self.journal.open()

    def again(self) -> Journal:
        """As after a restart of the program."""
        self.journal.close()
        self.journal = self._make()
        self.journal.open()
        return self.journal


@pytest.fixture(params=["memory", "sqlite"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    memory = MemoryJournal()
    path = tmp_path / "folder" / "journal"
    found = Kept((lambda: memory) if request.param == "memory" else (lambda: SqliteJournal(path)))
    yield found
    found.journal.close()


def device(number: int, name: str | None = "phone") -> DeviceRow:
    return DeviceRow(number, "bob", name, number * 10, f"s{number}")


def queued(queue: int, number: int, data: bytes = b"x") -> QueuedRow:
    return QueuedRow(queue, number, Content.TEXT, data, 1.5, movable=number % 2 == 0)


def arrived(place: int) -> ArrivedRow:
    return ArrivedRow(place, "bob", "phone", "theirs", place, Content.BYTES, b"%d" % place)


def messages(*rows: QueuedRow) -> dict[tuple[int, int], QueuedRow | None]:
    return {(row.queue, row.number): row for row in rows}


def test_a_new_journal_is_empty(kept: Kept) -> None:
    contents = kept.journal.load()
    assert (contents.owner, contents.devices, contents.queued, contents.arrived) == (None, {}, {}, {})
    assert not contents.rolled_back


def test_what_was_written_is_there_after_a_restart(kept: Kept) -> None:
    kept.journal.load()
    owner = Owner("here:1", "alice", "main")
    changes = Changes(owner=owner, devices={1: device(1), 2: device(2, None)}, files={"f": b"record"})
    changes.queued = messages(queued(10, 1), queued(10, 2, bytes(100_000)), queued(20, 1))
    changes.arrived = {5: arrived(5)}
    changes.positions = {(1, "theirs"): PositionRow(1, "theirs", 5, 5)}
    kept.journal.write(changes)
    contents = kept.again().load()
    assert contents.owner == owner
    assert contents.devices == changes.devices
    assert contents.queued == changes.queued
    assert contents.arrived == changes.arrived
    assert contents.positions == changes.positions
    assert contents.files == changes.files
    assert contents.last_place == 5


@pytest.mark.parametrize("count", [0, 1, 7, 8, 63, 64, 600, 1200])
def test_any_number_of_rows_is_written_at_once(kept: Kept, count: int) -> None:
    kept.journal.load()
    rows = messages(*(queued(10, number) for number in range(1, count + 1)))
    kept.journal.write(Changes(devices={1: device(1)}, queued=rows, arrived={n: arrived(n) for n in range(1, count)}))
    contents = kept.again().load()
    assert contents.queued == rows
    assert len(contents.arrived) == max(count - 1, 0)


def test_what_was_acknowledged_is_forgotten_and_the_rest_stays(kept: Kept) -> None:
    kept.journal.load()
    kept.journal.write(Changes(devices={1: device(1)}, queued=messages(*(queued(10, n) for n in range(1, 6)))))
    kept.journal.write(Changes(acknowledged={10: 3}, queued=messages(queued(10, 6))))
    contents = kept.again().load()
    assert [number for _, number in contents.queued] == [4, 5, 6]
    assert contents.devices[1].acknowledged == 3


def test_a_message_may_be_replaced_and_removed(kept: Kept) -> None:
    kept.journal.load()
    kept.journal.write(Changes(queued=messages(queued(10, 1), queued(10, 2))))
    kept.journal.write(Changes(queued={(10, 1): queued(10, 1, b"other"), (10, 2): None}))
    assert kept.again().load().queued == {(10, 1): queued(10, 1, b"other")}


def test_a_queue_is_dropped_as_a_whole_and_a_device_with_its_positions(kept: Kept) -> None:
    kept.journal.load()
    positions = {(n, "theirs"): PositionRow(n, "theirs", 1, n) for n in (1, 2)}
    rows = messages(queued(10, 1), queued(10, 2), queued(20, 1))
    kept.journal.write(Changes(devices={1: device(1), 2: device(2)}, queued=rows, positions=dict(positions)))
    kept.journal.write(Changes(dropped={10}, devices={1: None}))
    contents = kept.again().load()
    assert list(contents.queued) == [(20, 1)]
    assert list(contents.devices) == [2]
    assert list(contents.positions) == [(2, "theirs")]


def test_what_was_handed_over_does_not_come_again_and_what_is_in_hands_does(kept: Kept) -> None:
    kept.journal.load()
    kept.journal.write(Changes(arrived={n: arrived(n) for n in range(1, 7)}))
    hands = kept.journal.hands
    for place in (1, 2, 4):
        hands.give(1, place)
    hands.give(2, 3)
    hands.give(0, 5)
    hands.release(0)
    assert hands.handed_over == HandedOver(5, frozenset({3, 4}))
    contents = kept.again().load()
    assert list(contents.arrived) == [3, 4, 6]
    assert contents.redelivered == {3, 4}
    # Nobody has them yet this time; they still say that somebody had.
    contents = kept.again().load()
    assert (list(contents.arrived), contents.redelivered) == ([3, 4, 6], {3, 4})


def test_all_that_was_handed_over_may_be_gone_and_places_go_on(kept: Kept) -> None:
    kept.journal.load()
    kept.journal.write(Changes(arrived={1: arrived(1)}, positions={(1, "t"): PositionRow(1, "t", 1, 1)}))
    kept.journal.hands.give(1, 1)
    kept.journal.hands.release(1)
    kept.journal.write(Changes(handed_over=kept.journal.hands.handed_over))
    contents = kept.again().load()
    assert (contents.arrived, contents.last_place) == ({}, 1)
    assert kept.journal.hands.handed_over.given == 1


def test_two_may_not_have_it_at_a_time(kept: Kept, request: pytest.FixtureRequest) -> None:
    other = kept._make()
    with pytest.raises(JournalInUse):
        other.open()
    if other is not kept.journal:
        other.close()
    kept.again()


def test_a_closed_one_cannot_be_used_and_may_be_closed_again(kept: Kept) -> None:
    kept.journal.close()
    kept.journal.close()
    with pytest.raises(AldisError):
        kept.journal.write(Changes(files={"f": b""}))
