"""Transfers that outlive a program: kept as records, and resumed from these. Files are on a real disk."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from aldis.errors import (
    JournalDiskFull,
    PeerConnectionFailed,
    StateError,
    TooManyPeers,
    TooManyTransfers,
    TransferExpired,
    TransferFailed,
)
from aldis.store.files import disk
from aldis.store.files.digest import BLOCK
from aldis.store.files.job import Ending
from aldis.store.files.kept import MAX_RECORD, KeptTransfers, Record, Sent, Taken
from aldis.store.files.transfer import Transfer, TransferState
from aldis.store.messages.control import FileOffer, decode_control, encode_control
from support.patience import PATIENCE
from support.peers import nothing_left_behind
from support.transfers import ID, MemoryRecords, Side, a_file, a_folder, fails, until

BOTH = ["files", "files-2"]
GONE = StateError("it is gone")
LEFT = PeerConnectionFailed("peer", "the other side has hung up")


class Pair:
    """Two programs with journals, either of which may be started anew."""

    def __init__(self) -> None:
        self.alice = self._made(MemoryRecords())
        self.bob = self._made(MemoryRecords())
        self.gone: list[Side] = []
        self._join()

    @staticmethod
    def _made(records: MemoryRecords) -> Side:
        side = Side(records)
        side.known = BOTH
        return side

    def _join(self) -> None:
        self.alice.other, self.bob.other = self.bob, self.alice

    async def kill(self, side: Side) -> Side:
        """The program ends as by `kill -9`: nothing is said, and nothing changes on the disk. Another one comes."""
        assert side.records is not None
        other = self.bob if side is self.alice else self.alice
        records = MemoryRecords()
        records.records = dict(side.records.records)
        side.other = other.other = None
        other.known = None
        await side.transfers.close()
        self.gone.append(side)
        fresh = self._made(records)
        if side is self.alice:
            self.alice = fresh
        else:
            self.bob = fresh
        fresh.load()
        return fresh

    def meet(self, restarted: Side) -> None:
        """They are connected again, after this one was started anew."""
        self._join()
        other = self.bob if restarted is self.alice else self.alice
        restarted.known = other.known = BOTH
        other.transfers.ended(other.end("peer"), GONE, Ending.RESTARTED)
        for side in (self.alice, self.bob):
            side.transfers.connected(side.end("peer"))

    async def close(self) -> None:
        for side in (self.alice, self.bob):
            await side.transfers.close()


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    async with nothing_left_behind():
        two = Pair()
        try:
            yield two
        finally:
            await two.close()


def kept(side: Side) -> list[str]:
    """The kinds of records."""
    assert side.records is not None
    return [name.split("/")[0] for name in side.records.records]


async def until_at(transfer: Transfer, size: int) -> None:
    await until(transfer, lambda: transfer.transferred >= size)


async def begun(two: Pair, folder: Path, path: Path) -> Transfer:
    """A transfer in the middle."""
    two.bob.take_files(lambda transfer: transfer.accept(folder))
    outgoing = await two.alice.send("peer", path, None)
    await until_at(outgoing, 5 * BLOCK)
    return outgoing


async def test_a_sender_that_was_started_anew_goes_on_by_itself_and_nobody_is_asked_again(tmp_path: Path) -> None:
    async with pair() as two:
        folder, path = a_folder(tmp_path), a_file(tmp_path, 20 * BLOCK + 5)
        before = await begun(two, folder, path)
        alice = await two.kill(two.alice)
        (outgoing,) = alice.resumed
        assert alice.transfers.transfers == (outgoing,)
        assert (outgoing.id, outgoing.name, outgoing.size) == (before.id, "a.bin", 20 * BLOCK + 5)
        assert (outgoing.state, outgoing.path, outgoing.direction) == (TransferState.OFFERED, path, "out")
        two.meet(alice)
        await outgoing
        assert outgoing.resumed >= 5 * BLOCK
        assert (folder / "a.bin").read_bytes() == path.read_bytes()
        assert os.listdir(folder) == ["a.bin"]
        assert len(two.bob.incoming) == 1
        (incoming,) = two.bob.resumed
        assert (incoming.id, incoming.resumed, incoming.path) == (before.id, outgoing.resumed, folder / "a.bin")
        assert kept(alice) == []
        assert kept(two.bob) == ["taken"]  # that it has arrived


async def test_a_recipient_that_was_started_anew_takes_it_into_the_same_place(tmp_path: Path) -> None:
    async with pair() as two:
        folder, path = a_folder(tmp_path), a_file(tmp_path, 20 * BLOCK)
        outgoing = await begun(two, folder, path)
        bob = await two.kill(two.bob)
        assert bob.transfers.transfers == ()
        two.meet(bob)  # nobody is there to be asked
        await outgoing
        assert outgoing.resumed >= 5 * BLOCK
        assert (folder / "a.bin").read_bytes() == path.read_bytes()


async def test_both_may_be_started_anew_again_and_again(tmp_path: Path) -> None:
    async with pair() as two:
        folder, path = a_folder(tmp_path), a_file(tmp_path, 40 * BLOCK)
        outgoing = await begun(two, folder, path)
        for _ in range(2):
            two.meet(await two.kill(two.bob))
            await until_at(outgoing, 5 * BLOCK)
            two.meet(await two.kill(two.alice))
            (outgoing,) = two.alice.resumed
            await until_at(outgoing, 5 * BLOCK)
        await outgoing
        assert (folder / "a.bin").read_bytes() == path.read_bytes()
        assert os.listdir(folder) == ["a.bin"]


async def test_a_folder_goes_on_too(tmp_path: Path) -> None:
    async with pair() as two:
        folder, tree = a_folder(tmp_path), a_folder(tmp_path, "tree")
        for name in ("one", "two"):
            a_file(tree, 6 * BLOCK, name)
        await begun(two, folder, tree)
        alice = await two.kill(two.alice)
        (outgoing,) = alice.resumed
        assert outgoing.folder
        two.meet(alice)
        await outgoing
        assert outgoing.resumed >= 5 * BLOCK
        assert (folder / "tree" / "two").read_bytes() == (tree / "two").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.write_bytes(b"another"), "the file has changed since it was offered"),
        (lambda path: path.unlink(), "no such file or directory"),
    ],
)
async def test_a_file_that_is_another_one_by_then_fails_clearly(tmp_path: Path, change: object, words: str) -> None:
    async with pair() as two:
        path = a_file(tmp_path, 20 * BLOCK)
        await begun(two, a_folder(tmp_path), path)
        assert callable(change)
        change(path)
        alice = await two.kill(two.alice)
        (outgoing,) = alice.resumed
        with pytest.raises(TransferFailed, match=words) as failed:
            await outgoing
        assert not failed.value.kept
        assert kept(alice) == []


async def test_a_sender_that_did_not_hear_of_the_end_does_not_send_it_twice(tmp_path: Path) -> None:
    async with pair() as two:
        folder, path = a_folder(tmp_path), a_file(tmp_path, 2 * BLOCK + 7)
        two.bob.take_files(lambda transfer: transfer.accept(folder))
        outgoing = await two.alice.send("peer", path, None)
        await two.bob.heard(1)
        assert two.alice.records is not None
        as_it_was = dict(two.alice.records.records)
        await two.bob.incoming[0]
        await outgoing
        two.alice.records.records = as_it_was  # it was killed before it knew
        for killed in (two.alice, two.bob):
            await two.kill(killed)
        two.meet(two.alice)
        (outgoing,) = two.alice.resumed
        await outgoing
        assert outgoing.resumed == 2 * BLOCK
        assert os.listdir(folder) == ["a.bin"]
        assert two.bob.resumed == []  # the application has it
        assert kept(two.alice) == []


async def test_a_recipient_that_has_left_gets_it_when_it_is_back(tmp_path: Path) -> None:
    async with pair() as two:
        folder, path = a_folder(tmp_path), a_file(tmp_path, 20 * BLOCK)
        outgoing = await begun(two, folder, path)
        two.alice.other = two.bob.other = None
        two.alice.known = None
        two.bob.transfers.ended(two.bob.end("peer"), LEFT, Ending.LEFT)
        two.alice.transfers.ended(two.alice.end("peer"), LEFT, Ending.LEFT)
        with pytest.raises(TransferFailed) as failed:
            await two.bob.incoming[0]
        assert failed.value.kept
        assert outgoing.state is TransferState.OFFERED
        await two.bob.transfers.tasks.finish(PATIENCE)
        two.alice.other, two.bob.other = two.bob, two.alice
        two.alice.known = BOTH
        # What the recipient has said to the transfer that it gave up comes only now, and means the old one.
        for control in two.bob.take():
            two.alice.hear(control)
        two.alice.transfers.connected(two.alice.end("peer"))
        await outgoing
        assert outgoing.resumed >= 5 * BLOCK
        assert os.listdir(folder) == ["a.bin"]


@pytest.mark.parametrize("by_sender", [True, False])
async def test_what_is_cancelled_is_forgotten_at_both_ends(tmp_path: Path, by_sender: bool) -> None:
    async with pair() as two:
        outgoing = await begun(two, a_folder(tmp_path), a_file(tmp_path, 20 * BLOCK))
        (outgoing if by_sender else two.bob.incoming[0]).cancel()
        for transfer in (outgoing, two.bob.incoming[0]):
            with pytest.raises(TransferFailed) as failed:
                await transfer
            assert not failed.value.kept
        assert kept(two.alice) == kept(two.bob) == []


async def test_what_is_declined_or_was_never_accepted_is_not_kept(tmp_path: Path) -> None:
    async with pair() as two:
        two.bob.take_files()
        outgoing = await two.alice.send("peer", a_file(tmp_path, 5), None)
        await two.bob.heard(1)
        assert (kept(two.alice), kept(two.bob)) == (["sent"], [])
        two.bob.incoming[0].decline()
        await fails(outgoing, "declined", TransferState.DECLINED)
        assert kept(two.alice) == []


async def test_another_file_under_the_same_id_is_asked_for(tmp_path: Path) -> None:
    async with pair() as two:
        folder = a_folder(tmp_path)
        await begun(two, folder, a_file(tmp_path, 20 * BLOCK))
        bob = await two.kill(two.bob)
        asked: list[Transfer] = []
        bob.on_file.add(asked.append)
        first = two.alice.transfers.transfers[0].id
        bob.hear(FileOffer(ID, "a.bin", 20 * BLOCK, "a/b", version="other", resumes=first))
        bob.transfers.received(bob.end("mallory"), FileOffer(first, "a.bin", 20 * BLOCK, "a/b", version="other"))
        assert len(asked) == 2
        assert bob.resumed == []


async def test_what_was_accepted_holds_neither_for_another_key_nor_for_a_blocked_user(tmp_path: Path) -> None:
    async with pair() as two:
        await begun(two, a_folder(tmp_path), a_file(tmp_path, 20 * BLOCK))
        assert two.bob.records is not None
        as_it_was = dict(two.bob.records.records)
        bob = await two.kill(two.bob)
        bob.transfers.ended(bob.end("mallory"), GONE, Ending.REPLACED)
        assert kept(bob) == ["taken"]
        bob.transfers.ended(bob.end("peer"), GONE, Ending.REPLACED)
        assert kept(bob) == []
        assert bob.records is not None
        bob.records.records = as_it_was
        bob = await two.kill(bob)
        bob.transfers.forget_accepted("peer")
        assert kept(bob) == []


async def test_a_program_whose_working_directory_is_gone_takes_files_nevertheless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    async with pair() as two:
        folder, path = a_folder(tmp_path), a_file(tmp_path, 5)
        where = iter((folder, "relative"))
        two.bob.take_files(lambda transfer: transfer.accept(next(where)))
        await (await two.alice.send("peer", path, None))
        words = "cancelled by the other side: the recipient cannot write it: no such file or directory"
        await fails(await two.alice.send("peer", path, None), words, TransferState.CANCELLED)


async def test_what_is_accepted_twice_at_once_is_asked_for_the_second_time(tmp_path: Path) -> None:
    async with pair() as two:
        bob, folder = two.bob, a_folder(tmp_path)
        two.alice.other = two.bob.other = None
        bob.take_files(lambda transfer: transfer.accept(folder))
        bob.hear(FileOffer(ID, "a.bin", 5, "a/b", version="1"))
        bob.hear(FileOffer("BBECAwQFBgc", "a.bin", 5, "a/b", version="1", resumes=ID))
        assert len(bob.incoming) == 2
        assert bob.resumed == []


async def test_a_stream_is_not_kept_and_neither_is_what_an_older_program_offers(tmp_path: Path) -> None:
    async with pair() as two:
        two.alice.other = two.bob.other = None
        with path_of(tmp_path).open("rb") as stream:
            two.alice.transfers.offer(two.alice.end("peer"), Path("s"), disk.look_at_stream(stream), None)
            two.bob.take_files(lambda transfer: transfer.accept(tmp_path))
            two.bob.hear(FileOffer(ID, "a.bin", 5, "a/b"))
            assert kept(two.alice) == kept(two.bob) == []


def path_of(folder: Path) -> Path:
    return a_file(folder, 10, "stream")


async def test_a_journal_that_cannot_be_written_fails_the_transfer_at_once(tmp_path: Path) -> None:
    async with pair() as two:
        assert two.alice.records is not None
        two.alice.known = None
        outgoing = await two.alice.send("peer", a_file(tmp_path, 5), None)
        two.alice.records.error = JournalDiskFull("test", "cannot grow")
        with pytest.raises(JournalDiskFull):
            await two.alice.transfers.stored(outgoing)
        await fails(outgoing, "the journal test cannot grow", TransferState.FAILED)
        assert kept(two.alice) == []


async def test_what_has_waited_for_too_long_expires(tmp_path: Path) -> None:
    async with pair() as two:
        outgoing = await begun(two, a_folder(tmp_path), a_file(tmp_path, 20 * BLOCK))
        two.alice.time += 101
        two.alice.transfers.expire(100)  # it is on its way
        assert outgoing.state is TransferState.RUNNING
        alice = await two.kill(two.alice)
        alice.known = None
        alice.time += 99
        alice.transfers.expire(100)
        (outgoing,) = alice.resumed
        assert outgoing.state is TransferState.OFFERED
        alice.time += 2
        alice.transfers.expire(100)
        with pytest.raises(TransferExpired, match="waited for more than 100 s"):
            await outgoing
        assert outgoing.expired
        assert kept(alice) == []


async def test_what_was_accepted_and_does_not_come_is_forgotten_in_time(tmp_path: Path) -> None:
    async with pair() as two:
        await begun(two, a_folder(tmp_path), a_file(tmp_path, 20 * BLOCK))
        two.bob.time += 101
        two.bob.transfers.expire(100)
        assert kept(two.bob) == ["taken"]  # it is under way
        bob = await two.kill(two.bob)
        bob.time += 101
        bob.transfers.expire(100)
        assert kept(bob) == []


async def test_a_user_who_cannot_be_had_now_keeps_the_file_in_the_journal(tmp_path: Path) -> None:
    async with pair() as two:
        await begun(two, a_folder(tmp_path), a_file(tmp_path, 20 * BLOCK))
        assert two.alice.records is not None

        def full(user_id: str, device: str | None) -> Side:
            raise TooManyPeers(1)

        alice = Side(two.alice.records)
        alice.transfers.restore(full)  # type: ignore[arg-type]
        assert alice.transfers.transfers == ()
        assert kept(alice) == ["sent"]


async def test_more_files_than_the_journal_may_keep_are_refused(tmp_path: Path) -> None:
    async with nothing_left_behind():
        side = Side(MemoryRecords(), limit=2)
        for name in ("a", "b"):
            await side.send("peer", a_file(tmp_path, 5, name), None)
        with pytest.raises(TooManyTransfers) as refused:
            await side.send("peer", a_file(tmp_path, 5, "c"), None)
        assert refused.value.limit == 2
        assert len(side.transfers.transfers) == 2
        side.known = BOTH
        side.take_files(lambda transfer: transfer.accept(tmp_path / transfer.name))
        for number in range(3):  # what others send takes no place of ours, and is received all the same
            side.hear(FileOffer(f"AAECAwQFBg{'cgk'[number]}", f"x{number}", 5, "a/b", version="1"))
        assert [transfer.state for transfer in side.incoming] == [TransferState.RUNNING] * 3
        assert kept(side) == ["sent"] * 2 + ["taken"] * 2
        await side.transfers.close()


async def test_a_peer_that_cannot_be_called_leaves_no_record(tmp_path: Path) -> None:
    async with pair() as two:
        two.alice.refusal = GONE
        with pytest.raises(StateError):
            await two.alice.send("peer", a_file(tmp_path, 5), None)
        assert kept(two.alice) == []


# --- the records ------------------------------------------------------------------------------------------------------


def taken(number: int, **fields: object) -> Taken:
    record = Taken(f"id{number}", "bob", "name", 5, "v", 0, "bob", b"/target", float(number))
    return msgspec.structs.replace(record, **fields)


def sent(**fields: object) -> Sent:
    record = Sent("id", "bob", None, b"/path", "name", 5, "v", "a/b", 7.0)
    return msgspec.structs.replace(record, **fields)


def names(records: MemoryRecords) -> set[str]:
    return {name.split("/")[-1] for name in records.records}


@pytest.mark.parametrize("record", [sent(path=b"/\xff\x00", folder=True, device="main"), taken(1, sha256=b"1" * 32)])
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    records = MemoryRecords()
    KeptTransfers(records, 5).add(record)
    again = KeptTransfers(records, 5)
    assert again.load() == ([record] if isinstance(record, Sent) else [])
    if isinstance(record, Taken):
        assert again.taken(record) == record


def test_what_is_put_before_the_journal_is_loaded_is_not_begun_twice() -> None:
    records = MemoryRecords()
    KeptTransfers(records, 5).add(sent(id="old"))
    here = KeptTransfers(records, 5)
    here.add(sent(id="new"))
    assert [record.id for record in here.load()] == ["old"]


def test_a_record_that_cannot_be_read_is_forgotten_and_the_others_are_not() -> None:
    records = MemoryRecords()
    records.records = {"sent/a": b"{", "sent/b": b'{"type":"other"}', "sent/c": b"\xff"}
    KeptTransfers(records, 5).add(sent())
    here = KeptTransfers(records, 5)
    assert [record.id for record in here.load()] == ["id"]
    assert here.unreadable == 3
    assert names(records) == {"id"}


def test_a_record_has_a_limit() -> None:
    records = MemoryRecords()
    with pytest.raises(TooManyTransfers):
        KeptTransfers(records, 5).add(sent(path=b"/" * MAX_RECORD))
    assert not records.records


def test_what_has_arrived_makes_room_first_then_the_oldest_that_does_not_come() -> None:
    records = MemoryRecords()
    here = KeptTransfers(records, 3)
    for number, fields in enumerate(({}, {"sha256": b"1"}, {})):
        here.add(taken(number, **fields))
        here.release(taken(number))
    here.add(taken(3))
    assert names(records) == {"id0", "id2", "id3"}
    here.add(taken(4))
    assert names(records) == {"id2", "id3", "id4"}
    here.use(taken(2))
    with pytest.raises(TooManyTransfers):
        here.add(taken(5))
    here.change(taken(6))  # which is not there
    assert names(records) == {"id2", "id3", "id4"}
    here.forget(taken(6))


def test_an_offer_says_what_it_resumes_only_when_it_does() -> None:
    assert b"resumes" not in encode_control(FileOffer(ID, "a", 5, "a/b"))
    again = FileOffer("BBECAwQFBgc", "a", 5, "a/b", version="1", resumes=ID)
    assert decode_control(encode_control(again)) == again
