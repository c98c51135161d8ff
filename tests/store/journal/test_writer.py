"""The writer of a journal: what is written together, and what becomes of faults."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aldis.errors import DeliveryExpired, DeliveryFailed, JournalDiskFull, JournalForeign, JournalFull, StateError
from aldis.protocol.channel import Ack, Chunk, Content, StreamPosition, decode
from aldis.store.journal.memory import MemoryJournal
from aldis.store.journal.rows import Owner
from aldis.store.journal.sqlite import SqliteJournal
from aldis.store.messages.mailbox import Mailbox, QueuedMessage, Reader
from aldis.store.messages.outbox import VOID
from aldis.store.messages.stream import StreamRenewed
from aldis.store.state import StoreLimits
from support.journals import Program, open_channel, piece, started, turns


async def restart(program: Program) -> Program:
    program.kill(written=True)
    await turns()
    return await started(program.journal)


async def test_hellos_are_counted_over_the_runs_of_a_program() -> None:
    journal = MemoryJournal()
    greetings = []
    for started_at in (1000.0, 1000.5):
        program = Program(journal, "alice", "bob", now=lambda at=started_at: at)
        await program.start()
        program.send(b"a")
        await turns()
        program.thread.run()
        await turns()
        greetings += [program.stream.greeting() for _ in range(3)]
        program.kill(written=True)
    numbers = [greeting.channel or 0 for greeting in greetings]
    assert len({greeting.stream for greeting in greetings}) == 1
    assert numbers == sorted(set(numbers))


async def test_what_is_said_in_one_turn_is_written_together() -> None:
    program = await started(MemoryJournal())
    program.send(b"a")
    program.send(b"b")
    await turns()
    assert len(program.thread.held) == 1
    program.send(b"c")
    await turns()
    assert len(program.thread.held) == 1  # the third waits for the two
    program.thread.run()
    await turns()
    assert [delivery.stored for _, delivery in program.sent] == [True, True, False]
    program.thread.run()
    await turns()
    assert all(delivery.stored for _, delivery in program.sent)


async def test_a_full_disk_fails_what_is_new_and_keeps_what_is_old() -> None:
    program = await started(MemoryJournal())
    old = program.send(b"old")
    await turns()
    program.thread.run()
    await turns()
    new = [program.send(b"new"), program.send(b"newer")]
    await turns()
    program.thread.fail()
    await turns()
    assert isinstance(program.writer.error, JournalDiskFull)
    assert old.stored
    assert not old.done
    for delivery in new:
        assert (delivery.done, delivery.stored) == (True, False)
        with pytest.raises(DeliveryFailed, match="cannot grow"):
            await delivery.when_stored()
    later = program.send(b"later")
    await turns()
    program.thread.run()
    await turns()
    assert program.writer.error is None
    assert later.sequence == 2
    program = await restart(program)
    assert program.stream.queued == 2
    program.kill(written=True)


async def test_an_error_lasts_until_a_write_succeeds_also_when_nothing_is_left_to_be_written() -> None:
    program = await started(MemoryJournal())
    program.send(b"new")
    await turns()
    program.thread.fail()
    await turns()
    for _ in range(3):
        program.writer._try_again()
        program.thread.fail()
        await turns()
        assert isinstance(program.writer.error, JournalDiskFull)
    program.writer._try_again()
    program.thread.run()
    await turns()
    assert program.writer.error is None
    program.kill(written=True)


async def test_a_number_that_is_used_again_does_not_count_as_stored() -> None:
    program = await started(MemoryJournal())
    program.send(b"a")
    await turns()  # the disk is at it
    program.stream.withdraw()
    again = program.send(b"b")
    assert again.sequence == 1
    program.thread.run()
    await turns()
    assert not again.stored
    program.thread.run()
    await turns()
    assert again.stored
    program.kill(written=True)


async def test_what_is_being_stored_is_sent_although_what_was_before_it_is_taken_back() -> None:
    program = await started(MemoryJournal())
    program.send(b"a")
    await turns()
    program.thread.run()
    await turns()
    later = program.stream.send(Content.BYTES, b"b", addressed=True)
    await turns()  # the disk is at it
    program.stream.withdraw()
    program.thread.run()
    await turns()
    assert later.stored
    program.kill(written=True)


async def test_what_the_disk_does_not_take_at_the_end_is_not_said_to_be_kept() -> None:
    for full in (True, False):
        program = await started(MemoryJournal())
        program.send(b"a")
        await turns()
        program.thread.run()
        await turns()
        program.send(b"b")
        program.stream.fail("the program ends", keep=True)
        (_, first), (_, second) = program.sent
        assert (first.done, second.done) == (True, False)
        await turns()
        program.thread.broken = full
        program.thread.holding = False
        if full:
            program.thread.fail()
        else:
            program.thread.run()
        await program.writer.close()
        assert (first.stored, second.stored, second.done) == (True, not full, True)
        with pytest.raises(DeliveryFailed, match="cannot grow" if full else "ends") as failed:
            await second
        assert failed.value.kept is not full
        program = await started(program.journal)
        assert program.stream.queued == (1 if full else 2)
        program.kill(written=True)


async def test_a_journal_that_was_put_back_knows_after_two_restarts_what_it_has_not_sent() -> None:
    journal = MemoryJournal()
    program = await started(journal)
    program.send(b"a")
    await turns()
    program.thread.run()  # here it was copied; later the peer gets three more
    program = await restart(program)
    for data in (b"b", b"c", b"d"):
        program.send(data)
    await turns()
    program = await restart(program)  # and no peer was there
    with pytest.raises(StreamRenewed):
        open_channel(program, received=StreamPosition(program.stream.hello().stream, 4))
    assert program.stream.queued == 3
    program.kill(written=True)


async def test_what_no_earlier_run_has_sent_waits_until_the_journal_knows_that_it_may_be_sent() -> None:
    program = await restart(await started(MemoryJournal()))
    program.send(b"a")
    await turns()
    program = await restart(program)
    program.send(b"b")
    await turns()
    program.thread.run()
    await turns()
    open_channel(program)
    assert len(program.wire) == 1
    await turns()
    program.thread.run()
    await turns()
    assert len(program.wire) == 2
    program = await restart(program)
    open_channel(program, received=StreamPosition(program.stream.hello().stream, 2))
    assert program.stream.queued == 0
    program.kill(written=True)


async def test_what_has_moved_from_another_device_is_not_failed_by_a_full_disk() -> None:
    journal = MemoryJournal()
    program = await started(journal)
    other = Program(MemoryJournal(), "alice", "bob")
    await other.start()
    await turns()
    other.thread.run()
    await turns()
    moved = program.send(b"moved")
    await turns()
    program.thread.run()
    await turns()
    other.stream.take_over(program.stream.withdraw())
    new = other.send(b"new")
    await turns()
    other.thread.fail()
    await turns()
    assert (moved.done, new.done) == (False, True)
    other.writer._try_again()
    other.thread.run()
    await turns()
    assert not other.stream._accepted
    for each in (program, other):
        each.kill(written=True)


async def test_a_control_message_is_kept_as_a_void() -> None:
    program = await started(MemoryJournal())
    program.send(b"secret", Content.CONTROL)
    program.send(b"a")
    await turns()
    program.thread.run()
    await turns()
    program = await restart(program)
    assert program.stream._outbox.content(1) == (Content.CONTROL, VOID)
    assert program.stream.queued == 1
    program.kill(written=True)


async def test_the_journal_has_room_for_so_much_of_all_peers_together() -> None:
    program = await started(MemoryJournal(), StoreLimits(journal_messages=2, journal_size=100))
    program.send(bytes(200))  # one of any size
    with pytest.raises(JournalFull) as full:
        program.send(b"")
    assert (full.value.messages, full.value.size) == (1, 200)
    program.stream.withdraw()
    program.send(b"a")
    program.send(b"b")
    with pytest.raises(JournalFull):
        program.send(b"c")
    await turns()
    program.thread.run()
    await turns()
    open_channel(program)
    program.stream.pump()
    program.stream._delivered(program.stream._outbox.acknowledge(1))
    program.send(b"c")
    program.kill(written=True)


async def test_a_stream_that_is_renewed_is_another_one_after_the_next_restart() -> None:
    program = await started(MemoryJournal())
    stream = program.stream._outbox.stream
    for data in (b"a", b"b"):
        program.send(data)
    await turns()
    program.thread.run()
    await turns()
    program = await restart(program)
    new = program.send(b"c")
    with pytest.raises(StreamRenewed):
        open_channel(program, received=StreamPosition(stream, 9))
    assert (program.stream.queued, new.sequence, new.done) == (1, 1, False)
    await turns()
    program.thread.run()
    await turns()
    program.thread.run()
    await turns()
    name = program.stream._outbox.stream
    program = await restart(program)
    assert program.stream._outbox.stream == name != stream
    assert program.stream.queued == 1
    program.kill(written=True)


async def test_a_message_expires_while_there_is_no_channel() -> None:
    program = await started(MemoryJournal())
    delivery = program.send(b"a")
    assert not program.stream.expire(60)
    program.stream._now = lambda: delivery.queued_at + 61
    open_channel(program)
    assert not program.stream.expire(60)
    program.lose()
    assert program.stream.expire(60)
    assert delivery.expired
    with pytest.raises(DeliveryExpired):
        await delivery
    assert program.stream.queued == 0
    program.kill(written=True)


async def test_records_of_files_are_kept() -> None:
    program = await started(MemoryJournal())
    program.writer.files.put("one", b"1")
    program.writer.files.put("two", b"2")
    program.writer.files.remove("two")
    program.writer.files.remove("three")
    await turns()
    program.thread.run()
    await turns()
    program = await restart(program)
    assert program.writer.files.records == {"one": b"1"}
    program.kill(written=True)


async def test_a_journal_belongs_to_one_owner() -> None:
    journal = MemoryJournal()
    program = await started(journal)
    program.send(b"a")
    await turns()
    program.kill(written=True)
    other = Program(journal, "carol", "bob")
    with pytest.raises(JournalForeign, match="belongs to alice/main at here"):
        await other.start()
    other.writer.check_owner(Owner("here", "alice", "main"))
    other.kill(written=True)


@contextmanager
def full_disk() -> Iterator[None]:
    """Nothing can be written, as near as a process can make that for itself."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("by", ["iterator", "callback"])
async def test_what_cannot_be_noted_as_handed_over_stays_until_it_can(tmp_path: Path, by: str) -> None:
    program = await started(SqliteJournal(tmp_path / "journal"))
    got: list[bytes] = []
    open_channel(program)
    for number in (1, 2, 3):
        program.stream.received(piece(number, b"%d" % number))
    await turns()
    program.thread.run()
    await turns()
    reading: asyncio.Future[QueuedMessage | None]
    with full_disk():
        if by == "callback":
            program.mailbox.on_message(lambda message: got.append(message.data))
        else:
            reading = asyncio.ensure_future(program.mailbox.next(program.reader))
            await turns()
            assert not reading.done()
        assert isinstance(program.writer.error, JournalDiskFull)
    assert got == []
    program.send(b"there is room again")
    await turns()
    program.thread.run()
    await turns()
    assert program.writer.error is None
    if by == "iterator":
        first = await reading
        assert first is not None
        got.append(first.data)
        got += [message.data for message in (await program.mailbox.next(program.reader),) if message is not None]
        program.kill(written=True)
        program = Program(program.journal, "alice", "bob")
        (second, third) = await program.bind()
        assert (second.data, second.redelivered, third.data, third.redelivered) == (b"2", True, b"3", False)
        assert got == [b"1", b"2"]
    else:
        assert got == [b"1", b"2", b"3"]
    program.kill(written=True)


async def test_a_box_whose_messages_cannot_be_noted_fills_up_and_can_be_closed(tmp_path: Path) -> None:
    program = await started(SqliteJournal(tmp_path / "journal"), StoreLimits(unread_messages=1))
    program.mailbox.on_message(lambda message: None)
    open_channel(program)
    assert program.mailbox.has_room  # what callbacks get does not stay
    program.thread.holding = False
    with full_disk():
        program.mailbox.reserve(1)
        program.mailbox.put(QueuedMessage("bob", "main", Content.BYTES, b"x", 1, place=1))
        assert not program.mailbox.has_room
        program.writer._try_again()
        assert program.writer.error is not None
        program.mailbox.close()
        assert await program.mailbox.next(program.reader) is None
    program.writer._try_again()
    await turns()
    assert program.writer.error is None
    program.kill(written=False)


async def test_only_so_many_iterators_may_have_a_message_of_the_journal() -> None:
    journal = MemoryJournal()
    journal.open()
    mailbox = Mailbox(1000, 10**6, on_room=lambda: None)
    box = [QueuedMessage("bob", "main", Content.TEXT, b"x", n, place=n) for n in range(1, 66)]
    mailbox.bind(journal.hands, box)
    readers = [Reader(mailbox) for _ in range(64)]
    for reader in readers[:63]:
        assert await mailbox.next(reader) is not None
    with pytest.raises(StateError):
        await mailbox.next(readers[63])
    del reader
    readers.pop(0)  # nobody has the first message any more
    assert await mailbox.next(readers[-1]) is not None


async def test_what_waits_for_any_device_joins_what_the_journal_has_of_the_one_that_it_turns_out_to_be() -> None:
    journal = MemoryJournal()
    program = await started(journal)
    program.send(b"old")
    await turns()
    program.kill(written=True)
    program = Program(journal, "alice", "bob")
    program.name = None  # not known yet
    await program.start()
    await turns()
    program.thread.run()
    await turns()
    program.send(b"no more")
    program.stream.withdraw()
    new = program.send(b"new")
    await turns()
    program.thread.run()
    await turns()
    assert new.stored
    program.name = "main"
    program.writer.name_device(program.stream, "bob", "main")
    await turns()
    program.thread.fail()
    await turns()
    assert not new.done  # it had been accepted
    program.writer._try_again()
    program.thread.run()
    await turns()
    program = await restart(program)
    assert [data for _, data in program.stream._outbox.snapshot().messages] == [b"old", b"new"]
    program.kill(written=True)


async def test_pieces_of_files_do_not_wait_for_the_journal() -> None:
    program = await started(MemoryJournal())
    open_channel(program)
    program.send(b"an offer", Content.CONTROL)
    assert not program.wire  # the journal does not know the stream yet
    await turns()
    program.thread.run()
    await turns()
    assert len(program.wire) == 1
    for number in range(2, 1000):
        program.wire.clear()
        program.send(b"a piece", Content.CONTROL)
        assert len(program.wire) == 1, f"piece {number} waits"
        program.stream.received(Ack(number))
        await turns()
        if number % 100 == 0:  # the disk is slow
            program.thread.run()
            await turns()
    assert not program.journal.load().queued


async def test_a_piece_waits_for_the_message_before_it_and_for_no_other() -> None:
    program = await started(MemoryJournal())
    open_channel(program)
    program.send(b"an offer", Content.CONTROL)
    await turns()
    program.thread.run()
    await turns()
    program.wire.clear()
    program.send(b"first")
    await turns()  # it is being written
    program.send(b"a piece", Content.CONTROL)
    program.send(b"second")
    program.send(b"another piece", Content.CONTROL)
    assert not program.wire
    program.thread.run()
    await turns()
    assert len(program.wire) == 2
    program.thread.run()
    await turns()
    assert len(program.wire) == 4


async def test_numbers_of_pieces_are_not_given_to_messages_after_a_crash() -> None:
    program = await started(MemoryJournal())
    open_channel(program)
    program.send(b"an offer", Content.CONTROL)
    await turns()
    program.thread.run()
    await turns()
    used = [program.send(b"a piece", Content.CONTROL).sequence for _ in range(5)]
    again = await restart(program)
    assert again.send(b"a message").sequence > max(used)
    assert again.stream.hello().next > max(used)  # nobody needs what the pieces said


async def test_what_is_kept_behind_pieces_comes_after_a_crash() -> None:
    program = await started(MemoryJournal())
    open_channel(program)
    program.send(b"a piece", Content.CONTROL)
    program.send(b"a message")
    program.send(b"a piece", Content.CONTROL)
    await turns()
    again = await restart(program)
    open_channel(again)
    data = [chunk.data for chunk in map(decode, again.wire) if isinstance(chunk, Chunk)]
    assert data.count(b"a message") == 1
    assert set(data) == {b"a message", VOID}
