"""Files between two services over a path in memory, and what one of them does alone. Files are on a real disk."""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from aldis.errors import (
    FeatureMissing,
    PeerConnectionFailed,
    PeerKeyChanged,
    QueueFull,
    StateError,
    TransferFailed,
    UsageError,
)
from aldis.store.files.job import Ending
from aldis.store.files.outgoing import OutgoingJob
from aldis.store.files.transfer import TransferState
from aldis.store.files.window import CONFIRM, MAX_OPEN, WINDOW
from aldis.store.messages.control import MAX_PIECE, FileAccept, FileCancel, FileDecline, FileOffer, Piece
from support.transfers import ID, a_file, a_folder, alone, fails, sides, until

GONE = PeerConnectionFailed("peer", "it is gone")

# --- two of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, MAX_PIECE, MAX_PIECE + 1, CONFIRM, 3 * WINDOW + 12_345])
async def test_a_file_arrives_as_it_was(tmp_path: Path, size: int) -> None:
    async with sides() as (alice, bob):
        folder = a_folder(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        path = a_file(tmp_path, size)
        outgoing = await alice.send("peer", path, None)
        progress: list[int] = []
        outgoing.subscribe(lambda transfer: progress.append(transfer.transferred))
        await outgoing
        (incoming,) = bob.incoming
        await incoming
        assert (folder / "a.bin").read_bytes() == path.read_bytes()
        assert [each.name for each in folder.iterdir()] == ["a.bin"]
        assert (incoming.path, outgoing.path) == (folder / "a.bin", path)
        assert incoming.id == outgoing.id
        assert (incoming.direction, outgoing.direction) == ("in", "out")
        for each in (incoming, outgoing):
            assert (each.state, each.error, each.transferred) == (TransferState.DONE, None, size)
            assert (each.name, each.size, each.user_id) == ("a.bin", size, "peer")
            assert each.mime == "application/octet-stream"
        assert progress == sorted(progress)
        assert not alice.transfers.busy(alice.end("peer"))
        assert not bob.transfers.busy(bob.end("peer"))


async def test_a_file_may_go_under_another_name_and_to_a_place_of_its_own(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        bob.take_files(lambda transfer: transfer.accept(str(tmp_path / "mine.txt")))
        outgoing = await alice.send("peer", a_file(tmp_path, 5), "../notes.txt")
        await outgoing
        assert (bob.incoming[0].name, bob.incoming[0].mime) == ("notes.txt", "application/octet-stream")
        assert (tmp_path / "mine.txt").stat().st_size == 5


async def test_several_files_go_at_once(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        folder = a_folder(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        paths = [a_file(tmp_path, 600_000 + number, f"{number}.bin") for number in range(6)]
        outgoing = [await alice.send("peer", path, None) for path in paths]
        for transfer in outgoing:
            await transfer
        for path in paths:
            assert (folder / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("reason", "words"), [("not now", "declined: not now"), ("", "declined")])
async def test_a_file_can_be_declined(tmp_path: Path, reason: str, words: str) -> None:
    async with sides() as (alice, bob):
        bob.take_files(lambda transfer: transfer.decline(reason))
        outgoing = await alice.send("peer", a_file(tmp_path, 5), None)
        await fails(outgoing, words, TransferState.DECLINED)
        await fails(bob.incoming[0], words, TransferState.DECLINED)


async def test_without_a_callback_files_are_declined(tmp_path: Path) -> None:
    async with sides() as (alice, _):
        outgoing = await alice.send("peer", a_file(tmp_path, 5), None)
        await fails(outgoing, "declined: this program takes no files", TransferState.DECLINED)


@pytest.mark.parametrize("by_sender", [True, False])
async def test_either_side_may_cancel_before_it_runs(tmp_path: Path, by_sender: bool) -> None:
    async with sides() as (alice, bob):
        bob.take_files()
        outgoing = await alice.send("peer", a_file(tmp_path, 5), None)
        await bob.heard(1)
        one, other = (outgoing, bob.incoming[0]) if by_sender else (bob.incoming[0], outgoing)
        one.cancel("enough")
        await fails(one, "cancelled: enough", TransferState.CANCELLED)
        await fails(other, "cancelled by the other side: enough", TransferState.CANCELLED)
        one.cancel("again")
        bob.incoming[0].accept(tmp_path)
        bob.incoming[0].decline()
        assert one.error is not None
        assert "enough" in str(one.error)


@pytest.mark.parametrize("by_sender", [True, False])
async def test_either_side_may_cancel_in_the_middle_and_nothing_is_left(tmp_path: Path, by_sender: bool) -> None:
    async with sides() as (alice, bob):
        folder = a_folder(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        outgoing = await alice.send("peer", a_file(tmp_path, 30 * WINDOW), None)
        await until(outgoing, lambda: outgoing.transferred > 0)
        incoming = bob.incoming[0]
        one, other = (outgoing, incoming) if by_sender else (incoming, outgoing)
        one.cancel()
        await fails(one, "cancelled", TransferState.CANCELLED)
        await fails(other, "cancelled by the other side", TransferState.CANCELLED)
        await bob.transfers.close()
        assert list(folder.iterdir()) == []


async def test_waiting_may_be_given_up_and_not_asking_complains_nowhere(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        bob.take_files()
        outgoing = await alice.send("peer", a_file(tmp_path, 5), None)
        waiting = asyncio.ensure_future(outgoing)
        await bob.heard(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not outgoing._waiters
        other = asyncio.ensure_future(outgoing)
        bob.incoming[0].decline("no")
        with pytest.raises(TransferFailed):
            await other
        del bob.incoming[0]
        gc.collect()


# --- what goes wrong on the disks -----------------------------------------------------------------------------------


async def test_a_folder_that_is_not_there_fails_both_ends_in_plain_words(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        bob.take_files(lambda transfer: transfer.accept(tmp_path / "none" / "a"))
        outgoing = await alice.send("peer", a_file(tmp_path, 5), None)
        words = "the recipient cannot write it: no such file or directory"
        await fails(outgoing, f"cancelled by the other side: {words}", TransferState.CANCELLED)
        await fails(bob.incoming[0], words, TransferState.FAILED)


async def test_a_path_that_cannot_be_one_fails_both_ends(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        bob.take_files(lambda transfer: transfer.accept("a\x00b"))
        outgoing = await alice.send("peer", a_file(tmp_path, 5), None)
        with pytest.raises(TransferFailed, match="cannot write"):
            await outgoing


async def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        path = a_file(tmp_path, 5)
        bob.take_files(lambda transfer: transfer.accept(path))
        before = path.read_bytes()
        outgoing = await alice.send("peer", path, None)
        with pytest.raises(TransferFailed, match="file exists"):
            await outgoing
        assert path.read_bytes() == before


async def test_a_disk_without_room_fails_both_ends_before_anything_is_sent(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        folder = a_folder(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        huge = tmp_path / "huge"
        with huge.open("wb") as file:
            file.truncate(2**43)  # without a block of it on the disk
        outgoing = await alice.send("peer", huge, None)
        words = "the recipient cannot write it: no space left on device"
        await fails(outgoing, f"cancelled by the other side: {words}", TransferState.CANCELLED)
        await fails(bob.incoming[0], words, TransferState.FAILED)
        assert list(folder.iterdir()) == []


async def test_a_disk_that_refuses_in_the_middle_leaves_nothing_half_written(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        folder = a_folder(tmp_path)
        path = a_file(tmp_path, 2 * WINDOW)
        bob.take_files(lambda transfer: transfer.accept(folder))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (CONFIRM + 1000, before[1]))
        try:
            outgoing = await alice.send("peer", path, None)
            with pytest.raises(TransferFailed, match="cannot write it: file too large"):
                await outgoing
            await fails(bob.incoming[0], "the recipient cannot write it: file too large", TransferState.FAILED)
            await bob.transfers.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(folder.iterdir()) == []


async def test_a_file_that_changes_before_it_is_sent_is_cancelled(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        bob.take_files()
        path = a_file(tmp_path, 5)
        outgoing = await alice.send("peer", path, None)
        await bob.heard(1)
        path.write_bytes(b"something else")
        bob.incoming[0].accept(a_folder(tmp_path))
        words = "the file has changed since it was offered"
        await fails(outgoing, words, TransferState.FAILED)
        await fails(bob.incoming[0], f"cancelled by the other side: {words}", TransferState.CANCELLED)


async def test_a_file_that_vanishes_while_it_is_sent_is_cancelled(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        bob.take_files(lambda transfer: transfer.accept(folder))
        folder = a_folder(tmp_path)
        path = a_file(tmp_path, 20 * WINDOW)
        outgoing = await alice.send("peer", path, None)
        await until(outgoing, lambda: outgoing.transferred > 0)
        path.unlink()
        await fails(outgoing, "the file was deleted while it was sent", TransferState.FAILED)
        with pytest.raises(TransferFailed, match="deleted"):
            await bob.incoming[0]
        await bob.transfers.close()
        assert list(folder.iterdir()) == []


async def test_a_file_that_cannot_be_read_is_cancelled(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        bob.take_files()
        path = a_file(tmp_path, 5)
        outgoing = await alice.send("peer", path, None)
        await bob.heard(1)
        path.unlink()
        path.symlink_to(path)  # a loop
        bob.incoming[0].accept(a_folder(tmp_path))
        with pytest.raises(TransferFailed, match="the sender cannot read it: too many levels of symbolic links"):
            await outgoing


# --- one of them ----------------------------------------------------------------------------------------------------


async def test_what_cannot_be_offered_is_refused_at_once(tmp_path: Path) -> None:
    async with alone() as side:
        with pytest.raises(UsageError):
            await side.send("peer", tmp_path / "none", None)
        side.refusal = PeerKeyChanged("peer", b"", b"")
        with pytest.raises(PeerKeyChanged):
            await side.send("peer", a_file(tmp_path, 1), None)
        assert not side.transfers.busy(side.end("peer"))
        await side.transfers.close()
        with pytest.raises(StateError):
            await side.send("peer", a_file(tmp_path, 1), None)


async def test_an_offer_waits_for_the_connection(tmp_path: Path) -> None:
    async with alone() as side:
        side.known = None
        outgoing = await side.send("peer", a_file(tmp_path, 5, "a.txt"), None)
        assert side.opened == 1
        assert side.transfers.busy(side.end("peer"))
        assert not side.transfers.busy(side.end("somebody else"))
        side.transfers.connected(side.end("peer"))
        assert side.take() == []
        side.known = ["calls", "files"]
        side.transfers.connected(side.end("peer"))
        side.transfers.connected(side.end("peer"))
        assert side.take() == [FileOffer(outgoing.id, "a.txt", 5, "text/plain")]
        assert repr(outgoing) == "<Transfer of 'a.txt' to peer: offered, 0 of 5 bytes>"


async def test_a_peer_whose_program_takes_no_files_is_told_apart_at_once(tmp_path: Path) -> None:
    async with alone() as side:
        side.known = ["calls"]
        outgoing = await side.send("peer", a_file(tmp_path, 5), None)
        assert outgoing.state is TransferState.FAILED
        with pytest.raises(FeatureMissing):
            await outgoing


async def test_many_files_that_wait_for_a_peer_which_takes_none_all_fail(tmp_path: Path) -> None:
    async with alone() as side:
        side.known = None
        path = a_file(tmp_path, 1)
        waiting = [await side.send("peer", path, None) for _ in range(300)]
        side.known = []
        side.transfers.connected(side.end("peer"))
        assert all(isinstance(transfer.error, FeatureMissing) for transfer in waiting)


async def test_at_most_so_many_files_are_on_offer_and_the_others_wait_for_their_turn(tmp_path: Path) -> None:
    async with alone() as side:
        path = a_file(tmp_path, 1)
        all_of_them = [await side.send("peer", path, None) for _ in range(MAX_OPEN + 3)]
        assert len(side.take()) == MAX_OPEN
        side.hear(FileDecline(all_of_them[0].id, ""))
        await side.signal.until(lambda: bool(side.said), "another offer")
        assert [control.id for control in side.take()] == [all_of_them[MAX_OPEN].id]


async def test_files_that_wait_for_their_turn_cost_nothing_with_each_acknowledgement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with alone() as side:
        path = a_file(tmp_path, 5)
        for _ in range(2 * MAX_OPEN):
            await side.send("peer", path, None)
        looked: list[OutgoingJob] = []
        monkeypatch.setattr(OutgoingJob, "acknowledged", lambda job: looked.append(job))
        side.transfers.acknowledged(side.end("peer"))
        assert len(looked) == MAX_OPEN


async def test_only_an_offer_of_the_other_side_can_be_accepted_or_declined_and_only_once(tmp_path: Path) -> None:
    async with alone() as side:
        side.take_files()
        outgoing = await side.send("peer", a_file(tmp_path, 5), None)
        side.hear(FileOffer(ID, "b", 5, ""))
        (incoming,) = side.incoming
        incoming.accept(tmp_path)
        misuses: tuple[Callable[[], object], ...] = (
            lambda: outgoing.accept(tmp_path),
            outgoing.decline,
            lambda: incoming.accept(tmp_path),
            incoming.decline,
        )
        for wrong in misuses:
            with pytest.raises(StateError):
                wrong()
        assert repr(incoming) == "<Transfer of 'b' from peer: running, 0 of 5 bytes>"


async def test_what_cannot_be_said_ends_the_transfer(tmp_path: Path) -> None:
    async with alone() as side:
        side.take_files()
        side.hear(FileOffer(ID, "b", 5, ""))
        side.refusal = QueueFull("peer", 1, 1)
        side.incoming[0].accept(a_folder(tmp_path))
        with pytest.raises(TransferFailed, match="can be queued"):
            await side.incoming[0]


async def test_a_confirmation_that_cannot_be_said_ends_the_transfer_for_good(tmp_path: Path) -> None:
    async with alone() as side:
        side.take_files()
        side.hear(FileOffer(ID, "b", 2 * CONFIRM, ""))
        side.incoming[0].accept(a_folder(tmp_path))
        await side.signal.until(lambda: FileAccept(ID) in side.said, "the acceptance")
        side.refusal = QueueFull("peer", 1, 1)
        side.hear(*(Piece(ID, n * MAX_PIECE, bytes(MAX_PIECE)) for n in range(CONFIRM // MAX_PIECE)))
        with pytest.raises(TransferFailed, match="can be queued"):
            await side.incoming[0]
        await side.transfers.close()
        assert side.incoming[0].state is TransferState.FAILED


async def test_an_id_that_comes_again_is_another_transfer(tmp_path: Path) -> None:
    async with alone() as side:
        side.take_files()
        side.hear(FileOffer(ID, "b", 5, ""))
        side.incoming[0].accept(a_folder(tmp_path))
        side.hear(FileCancel(ID, ""), FileOffer(ID, "c", 5, ""))
        side.refusal = QueueFull("peer", 1, 1)
        side.incoming[0].cancel()
        assert [transfer.state.value for transfer in side.incoming] == ["cancelled", "offered"]


async def test_the_end_of_the_stream_ends_what_is_under_way_and_says_so(tmp_path: Path) -> None:
    async with alone() as side:
        side.take_files()
        outgoing = await side.send("peer", a_file(tmp_path, 5), None)
        side.hear(FileOffer(ID, "b", 5, ""))
        side.take()
        side.transfers.ended(side.end("peer"), GONE)
        await fails(outgoing, "it is gone", TransferState.FAILED)
        await fails(side.incoming[0], "it is gone", TransferState.FAILED)
        assert side.take() == [FileCancel(outgoing.id, "it is gone"), FileCancel(ID, "it is gone")]


async def test_what_was_not_offered_yet_can_be_offered_to_who_has_taken_the_place(tmp_path: Path) -> None:
    async with alone() as side:
        side.known = None
        outgoing = await side.send("peer", a_file(tmp_path, 5), None)
        side.transfers.ended(side.end("peer"), GONE, Ending.RESTARTED)
        assert outgoing.state is TransferState.OFFERED
        side.known = ["files"]
        side.transfers.connected(side.end("peer"))
        side.transfers.ended(side.end("peer"), StateError("closed"), Ending.RESTARTED)
        await fails(outgoing, "closed", TransferState.FAILED)


async def test_closing_ends_everything_and_says_nothing(tmp_path: Path) -> None:
    async with alone() as side:
        side.take_files()
        side.hear(FileOffer(ID, "b", 50 * WINDOW, ""))
        folder = a_folder(tmp_path)
        side.incoming[0].accept(folder)
        await side.signal.until(lambda: FileAccept(ID) in side.said, "the acceptance")
        side.take()
        side.hear(Piece(ID, 0, bytes(MAX_PIECE)))
        await side.transfers.close()
        await fails(side.incoming[0], "the store was closed", TransferState.FAILED)
        assert side.take() == []
        assert list(folder.iterdir()) == []
