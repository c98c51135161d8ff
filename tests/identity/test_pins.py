"""Pins: the first key of a peer stays until a person accepts another."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from aldis.errors import ConfigError, IdentityError
from aldis.identity.pins import FilePins, MemoryPins, Pins
from support.races import at_once

OLD, NEW = bytes(32), bytes(range(32))


@pytest.fixture(params=["memory", "file"])
def pins(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pins]:
    kept: Pins = MemoryPins() if request.param == "memory" else FilePins(tmp_path / "pins.db")
    yield kept
    kept.close()


def test_a_peer_that_was_never_seen_has_no_pin(pins: Pins) -> None:
    assert pins.find("host", "bob") is None


def test_the_first_key_is_pinned_and_another_one_changes_nothing(pins: Pins) -> None:
    assert pins.pin("host", "bob", OLD) == OLD
    assert pins.pin("host", "bob", NEW) == OLD
    assert pins.pin("host", "bob", OLD) == OLD
    assert pins.find("host", "bob") == OLD


def test_an_accepted_key_replaces_the_pin(pins: Pins) -> None:
    pins.pin("host", "bob", OLD)
    pins.accept("host", "bob", NEW)
    assert pins.find("host", "bob") == NEW
    assert pins.pin("host", "bob", OLD) == NEW


def test_a_key_can_be_accepted_before_it_was_ever_seen(pins: Pins) -> None:
    pins.accept("host", "bob", NEW)
    assert pins.pin("host", "bob", OLD) == NEW


def test_a_name_means_another_person_on_another_server(pins: Pins) -> None:
    pins.pin("one:8080", "bob", OLD)
    pins.pin("two:8080", "bob", NEW)
    assert (pins.find("one:8080", "bob"), pins.find("two:8080", "bob")) == (OLD, NEW)
    assert pins.find("one:8080", "bob ") is None
    assert pins.find("one:8080", "BOB") is None


def test_names_are_compared_by_their_characters_and_not_by_their_looks(pins: Pins) -> None:
    pins.pin("host", "\u00c5", OLD)
    assert pins.find("host", "A\u030a") is None
    pins.pin("host", "\U0001f600", NEW)
    assert pins.find("host", "\U0001f600") == NEW


def test_in_memory_nobody_is_forgotten_for_somebody_new_and_there_is_an_end_to_it() -> None:
    pins = MemoryPins(limit=2)
    pins.pin("host", "bob", OLD)
    pins.pin("host", "carol", OLD)
    with pytest.raises(IdentityError, match="2 keys are pinned, and no more can be"):
        pins.pin("host", "mallory", NEW)
    assert pins.find("host", "mallory") is None
    assert pins.pin("host", "bob", NEW) == OLD
    pins.accept("host", "bob", NEW)
    assert pins.find("host", "bob") == NEW


def test_what_a_person_accepts_is_pinned_also_where_strangers_have_taken_the_room() -> None:
    pins = MemoryPins(limit=1)
    pins.pin("host", "mallory", OLD)
    pins.accept("host", "bob", NEW)
    assert pins.pin("host", "bob", OLD) == NEW
    with pytest.raises(IdentityError):
        pins.pin("host", "carol", OLD)


@pytest.mark.parametrize("limit", [0, -1])
def test_room_for_no_pin_at_all_is_a_mistake(limit: int) -> None:
    with pytest.raises(ConfigError):
        MemoryPins(limit=limit)


def test_pins_in_a_file_outlive_the_process_that_made_them(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "pins.db"
    first = FilePins(path)
    first.pin("host", "bob", OLD)
    first.close()
    second = FilePins(str(path))
    assert second.pin("host", "bob", NEW) == OLD
    second.close()


def test_what_one_process_pins_another_sees_at_once(tmp_path: Path) -> None:
    one, two = FilePins(tmp_path / "pins.db"), FilePins(tmp_path / "pins.db")
    one.pin("host", "bob", OLD)
    assert two.find("host", "bob") == OLD
    two.accept("host", "bob", NEW)
    assert one.find("host", "bob") == NEW
    one.close()
    two.close()


def test_pins_may_be_used_from_several_threads(tmp_path: Path) -> None:
    pins = FilePins(tmp_path / "pins.db")
    barrier = threading.Barrier(4)
    seen: list[bytes] = []

    def pin(key: bytes) -> None:
        barrier.wait(30)
        seen.extend([pins.pin("host", f"user {number}", key) for number in range(20)])

    threads = [threading.Thread(target=pin, args=(bytes([number]) * 32,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(seen) == 80
    for number in range(20):
        assert seen[number::20] == [pins.find("host", f"user {number}")] * 4
    pins.close()


def test_of_processes_that_open_the_file_and_pin_at_once_one_wins_and_all_know_it(tmp_path: Path) -> None:
    path = tmp_path / "pins.db"
    winners = at_once(
        f"import sys; from aldis.identity.pins import FilePins; path = {str(path)!r}",
        "print(FilePins(path).pin('host', 'bob', bytes([int(sys.argv[1])]) * 32).hex())",
        ["0", "1", "2", "3"],
    )
    pins = FilePins(path)
    pinned = pins.find("host", "bob")
    assert pinned is not None
    assert winners == [pinned.hex()] * 4
    pins.close()


def test_a_known_key_is_found_while_the_file_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "pins.db"
    pins = FilePins(path)
    pins.pin("host", "bob", OLD)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert pins.pin("host", "bob", NEW) == OLD
    pins.close()


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pins.db"
    path.write_text("a letter to somebody, and certainly no database " * 20)
    before = path.read_bytes()
    with pytest.raises(IdentityError, match=r"cannot open the pinned keys in .*pins\.db"):
        FilePins(path)
    assert path.read_bytes() == before


def test_a_folder_in_the_place_of_the_file_or_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IdentityError):
        FilePins(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(IdentityError):
        FilePins(tmp_path / "file" / "pins.db")


USES: list[Callable[[FilePins], object]] = [
    lambda pins: pins.find("host", "bob"),
    lambda pins: pins.pin("host", "bob", OLD),
    lambda pins: pins.accept("host", "bob", OLD),
]


@pytest.mark.parametrize("use", USES)
def test_closed_pins_say_so(tmp_path: Path, use: Callable[[FilePins], object]) -> None:
    pins = FilePins(tmp_path / "pins.db")
    pins.close()
    with pytest.raises(IdentityError, match="cannot use the pinned keys"):
        use(pins)
