"""A wall clock that is set while a program runs makes nothing older, in that run and in the next."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from aldis.identity.keys import Identity
from aldis.protocol.channel import Content
from aldis.store.clock import SMALLEST_STEP, ClockSteps, running
from aldis.store.files.kept import KeptTransfers, Sent
from aldis.store.journal.sqlite import SqliteJournal
from aldis.store.peers.expiry import EXPIRY_SECONDS, Expiry
from aldis.store.store import NetworkStore
from support.journals import started, turns
from support.stores import contents, running_server

DAY = 24 * 60 * 60.0
YEAR = 365 * DAY


def test_time_that_passes_is_no_step_and_neither_is_a_small_one() -> None:
    wall, steady = 1000.0, 5.0
    clock = ClockSteps(lambda: wall, lambda: steady)
    assert clock.step() == 0
    wall, steady = wall + YEAR, steady + YEAR
    assert clock.step() == 0
    wall += SMALLEST_STEP - 1
    assert clock.step() == 0
    for step in (YEAR, -2 * YEAR):
        wall, steady = wall + step + 60, steady + 60
        assert clock.step() == step
        assert clock.step() == 0
    assert ClockSteps().step() == 0
    assert running() <= running()


@pytest.mark.parametrize("step", [YEAR, -YEAR])
async def test_what_waits_is_no_older_after_the_clock_was_set(tmp_path: Path, step: float) -> None:
    journal = SqliteJournal(tmp_path / "journal")
    program = await started(journal)
    now = 1e9
    program.stream._now = lambda: now
    delivery = program.send(b"a")
    program.stream.send(Content.CONTROL, b"{}")
    await turns()
    program.thread.run()
    await turns()
    now += step + 10 * DAY
    program.stream.clock_was_set(step)
    assert not program.stream.expire(30 * DAY)
    assert now - delivery.queued_at == 10 * DAY
    await turns()
    program.thread.run()
    await turns()
    program.kill(written=True)
    program = await started(journal)
    program.stream._now = lambda: now
    assert not program.stream.expire(30 * DAY)
    now += 21 * DAY
    assert program.stream.expire(30 * DAY)
    program.kill(written=True)


def test_all_that_waits_hears_that_the_clock_was_set_before_it_is_given_up() -> None:
    said: list[tuple[str, float]] = []

    class Waiting:
        def expire(self, age: float) -> None:
            said.append(("expire", age))

        def clock_was_set(self, step: float) -> None:
            said.append(("set", step))

    wall = 0.0
    expiry = Expiry(lambda: [Waiting()], 60, ClockSteps(lambda: wall, lambda: 0.0))
    expiry.pulse(1000)
    wall = YEAR
    expiry.pulse(1000 + EXPIRY_SECONDS - 1)
    assert said == [("expire", 60), ("set", YEAR)]
    expiry.pulse(1000 + EXPIRY_SECONDS)
    assert said[2:] == [("expire", 60)]


@pytest.mark.parametrize("step", [YEAR, -YEAR])
async def test_a_clock_that_is_set_just_before_a_message_or_the_end_makes_nothing_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    set_by = 0.0
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + set_by)
    identity = Identity.generate()
    async with running_server() as server:
        url = f"ws://127.0.0.1:{server.port}"
        async with NetworkStore(identity, journal=tmp_path / "journal") as alice:
            await alice.connect_to_signaling(url, "alice")
            await alice.send("bob", "before").when_stored()
            set_by += step
            delivery = alice.send("bob", "after")
            await delivery.when_stored()
            set_by += YEAR  # and the program ends before anybody looks
        async with (
            NetworkStore(identity, journal=tmp_path / "journal") as alice,
            NetworkStore() as bob,
        ):
            await alice.connect_to_signaling(url, "alice")
            assert alice.state.peers["bob"].queued == 2
            await bob.connect_to_signaling(url, "bob")
            assert await contents(bob, 2) == ["before", "after"]


def test_files_are_no_older_either() -> None:
    class Records(dict[str, bytes]):
        @property
        def records(self) -> dict[str, bytes]:
            return dict(self)

        def put(self, name: str, record: bytes) -> None:
            self[name] = record

        def remove(self, name: str) -> None:
            del self[name]

        async def flush(self) -> None:
            """It is written."""

    records = Records()
    kept = KeptTransfers(records, 10)
    kept.load()
    sent = Sent("id", "bob", None, b"/tmp/file", "file", 1, "1", "text/plain", 1e9)
    kept.add(sent)
    kept.release(sent)
    kept.clock_was_set(YEAR)
    again = KeptTransfers(records, 10)
    assert [each.begun_at for each in again.load()] == [1e9 + YEAR]
    again.expire(1e9 + YEAR)
    assert records
