"""A file that is under way when the direct path is lost, and the relay carries what is sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aldis.store.files.transfer import Transfer, TransferState
from aldis.store.files.window import CONFIRM, RELAY_WINDOW, WINDOW
from aldis.store.messages.control import MAX_PIECE, FileEnd
from support.patience import PATIENCE
from support.transfers import Side, a_file, a_folder, fails, sides, until

ALL = ["files", "files-2", "files-3"]
SIZE = 5 * WINDOW + 777


async def under_way(alice: Side, bob: Side, path: Path, folder: Path, features: list[str]) -> Transfer:
    """A file, the path of which is lost in the middle: all that may be said is said, and nothing acknowledged."""
    alice.known = bob.known = features
    bob.take_files(lambda transfer: transfer.accept(folder))
    transfer = await alice.send("peer", path, None)
    await until(transfer, lambda: transfer.transferred > WINDOW)
    alice.silent = True
    await alice.signal.until(lambda: len(alice.pieces) * MAX_PIECE >= WINDOW - CONFIRM, "all that may be said")
    return transfer


async def idle() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def arrives(transfer: Transfer, path: Path, copy: Path) -> None:
    async with asyncio.timeout(PATIENCE):
        await transfer
    assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("arrived", [0, 1, 5, 11])
async def test_a_large_file_leaves_the_relay_to_the_messages_and_goes_on_directly(tmp_path: Path, arrived: int) -> None:
    async with sides() as (alice, bob):
        path, folder = a_file(tmp_path, SIZE), a_folder(tmp_path)
        transfer = await under_way(alice, bob, path, folder, ALL)
        for delivery, piece in alice.pieces:
            delivery.reached_path()
            if delivery.sequence < alice.pieces[0][0].sequence + arrived:
                bob.hear(piece)  # it is there, and the acknowledgement was lost
        alice.relay(WINDOW)
        assert not alice.pieces
        await idle()
        assert not alice.pieces, "it waits for a direct path"
        assert transfer.state is TransferState.RUNNING
        assert transfer.needs_direct
        alice.direct()
        assert not transfer.needs_direct
        await arrives(transfer, path, folder / "a.bin")


async def test_of_a_file_that_goes_through_the_relay_little_is_before_a_message(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        path, folder = a_file(tmp_path, SIZE), a_folder(tmp_path)
        transfer = await under_way(alice, bob, path, folder, ALL)
        most = 0

        def look(_: Transfer) -> None:
            nonlocal most
            most = max(most, sum(len(piece.data) for _, piece in alice.pieces))

        alice.relay(SIZE)
        transfer.subscribe(look)
        await arrives(transfer, path, folder / "a.bin")
        assert most <= RELAY_WINDOW


async def test_the_end_of_a_file_is_taken_back_with_its_pieces(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        path, folder = a_file(tmp_path, CONFIRM), a_folder(tmp_path)
        alice.known = bob.known = ALL
        bob.take_files()
        transfer = await alice.send("peer", path, None)
        await bob.heard(1)
        alice.silent = True
        bob.incoming[0].accept(folder)
        await alice.signal.until(lambda: isinstance(alice.said[-1], FileEnd), "the end")
        for _, control in alice.waiting:
            bob.hear(control)
        alice.relay(0)
        assert not alice.waiting
        alice.direct()
        await arrives(transfer, path, folder / "a.bin")
        assert sum(isinstance(control, FileEnd) for control in alice.said) <= 2


async def test_a_program_that_takes_no_piece_twice_gets_again_what_was_never_sent(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        path, folder = a_file(tmp_path, SIZE), a_folder(tmp_path)
        transfer = await under_way(alice, bob, path, folder, ALL[:2])
        sent = alice.pieces[:3]
        for delivery, _ in sent:
            delivery.reached_path()
        alice.relay(WINDOW)
        assert alice.pieces == sent
        await idle()
        alice.direct()
        await arrives(transfer, path, folder / "a.bin")
        assert [alice.said.count(piece) for _, piece in sent] == [1, 1, 1]


async def test_a_large_file_under_way_waits_however_many_attempts_fail(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        path, folder = a_file(tmp_path, SIZE), a_folder(tmp_path)
        transfer = await under_way(alice, bob, path, folder, ALL)
        alice.relay(WINDOW)
        alice.transfers.no_direct(alice.end("peer"), "no answer")
        await idle()
        assert not alice.waiting
        alice.direct()
        await arrives(transfer, path, folder / "a.bin")


async def test_a_large_file_that_was_not_offered_fails_when_there_is_no_direct_path(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        alice.known = bob.known = ALL
        alice.relay(WINDOW)
        transfer = await alice.send("peer", a_file(tmp_path, SIZE), None)
        alice.transfers.no_direct(alice.end("peer"), "no answer")
        await fails(transfer, "it needs a direct path: no answer", TransferState.FAILED)
        assert not alice.said
