"""A journal that hostile peers use for weeks: what it keeps of them has bounds."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from aldis.protocol.channel import Content, Hello
from aldis.store.journal.idle import IdleDevices
from aldis.store.journal.memory import MemoryJournal
from aldis.store.journal.rows import MAX_QUEUE, Changes, DeviceRow, Owner, PositionRow, QueuedRow
from aldis.store.journal.sqlite import SqliteJournal
from aldis.store.messages.inbox import MAX_STREAMS
from aldis.store.state import StoreLimits
from support.journals import open_channel, piece, started, turns


async def test_numbers_of_devices_and_queues_are_used_again_when_they_end(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal")
    journal.open()
    journal.load()
    last = MAX_QUEUE
    journal.write(
        Changes(
            owner=Owner("here", "alice", "main"),
            devices={last: DeviceRow(last, "carol", "main", 3, "ours"), 1: DeviceRow(1, "dave", "main", 2, "to dave")},
            queued={(3, 1): QueuedRow(3, 1, Content.BYTES, b"for carol", time.time(), movable=True)},
            positions={(1, "daves"): PositionRow(1, "daves", 7, 1), (4, "x"): PositionRow(4, "x", 7, 2)},
        )
    )
    journal.close()
    program = await started(journal)
    program.send(b"for bob")
    erin = program.line("erin", "main")
    erin.stream.send(Content.BYTES, b"for erin")
    await turns()
    program.thread.run()
    await turns()
    assert program.writer.error is None
    program.kill(written=True)
    journal.open()
    contents = journal.load()
    journal.close()
    numbers = [number for row in contents.devices.values() for number in (row.id, row.queue)]
    assert len(numbers) == len(set(numbers)) == 8
    assert max(numbers) == MAX_QUEUE
    queues = {row.user_id: row.queue for row in contents.devices.values()}
    assert {row.data: row.queue for row in contents.queued.values()} == {
        b"for carol": queues["carol"],
        b"for bob": queues["bob"],
        b"for erin": queues["erin"],
    }
    assert [(position.device, position.sequence) for position in contents.positions.values()] == [(1, 7)]


async def test_made_up_names_of_streams_leave_no_more_rows_than_a_device_may_have(tmp_path: Path) -> None:
    program = await started(SqliteJournal(tmp_path / "journal"), StoreLimits(unread_messages=1000))
    open_channel(program)
    for number in range(40):
        program.lose()
        open_channel(program)
        program.stream.opened(Hello(1, f"stream {number}", 1, [], None))
        program.stream.received(piece(1, b"x"))
        await turns()
        program.thread.run()
        await turns()
    program.kill(written=True)
    with closing(sqlite3.connect(tmp_path / "journal")) as database:
        rows = database.execute("SELECT stream FROM positions ORDER BY place").fetchall()
    assert rows == [(f"stream {number}",) for number in range(40 - MAX_STREAMS, 40)]


@pytest.mark.parametrize("bound", [{"max_devices": 3}, {"max_size": 950}])
async def test_only_so_many_idle_devices_are_known_and_those_with_messages_stay(
    bound: dict[str, int],
) -> None:
    program = await started(MemoryJournal(), StoreLimits(unread_messages=1000))
    program.writer._idle = IdleDevices(**bound)
    for number in range(20):
        line = program.line("mallory", f"device{number}")
        line.stream.opened(Hello(1, f"stream {number}", 1, [], None))
        line.stream.received(piece(1, b"x"))
        if number == 1:
            line.stream.closed()
            line.stream.send(Content.BYTES, b"waits", addressed=True)
        await turns()
        program.thread.run()
        await turns()
        line.stream.closed()
        program.writer.detach(line.stream)
    await turns()
    program.thread.run()
    await turns()
    program.kill(written=True)
    program.journal.open()
    contents = program.journal.load()
    assert [row.device for row in contents.devices.values()] == ["device1", "device18", "device19"]
    assert {position.device for position in contents.positions.values()} == set(contents.devices)
    assert [row.data for row in contents.queued.values()] == [b"waits"]
