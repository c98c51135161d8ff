"""What a hostile peer may say to a service of transfers: it ends the transfer, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from aldis.errors import QueueFull, TransferFailed
from aldis.store.files.transfer import TransferState
from aldis.store.files.window import MAX_OPEN, WINDOW
from aldis.store.messages.control import (
    MAX_PIECE,
    ControlMessage,
    FileAccept,
    FileCancel,
    FileDecline,
    FileOffer,
    FileReceived,
    Piece,
    new_id,
)
from support.transfers import ID, a_file, a_folder, alone

STRANGE = "__________8"
WHOLE = bytes(MAX_PIECE)


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        pytest.param(10, [Piece(ID, 1, b"x")], id="a wrong offset"),
        pytest.param(10, [Piece(ID, 2**64 - 1, b"x")], id="a huge offset"),
        pytest.param(10, [Piece(ID, 0, b"x"), Piece(ID, 0, b"xx")], id="a part of a piece once more"),
        pytest.param(1, [Piece(ID, 0, b"xx")], id="more than was offered"),
        pytest.param(
            2 * WINDOW, [Piece(ID, n * MAX_PIECE, WHOLE) for n in range(17)], id="more than the window allows"
        ),
    ],
)
async def test_pieces_that_break_the_rules_end_the_transfer_and_nothing_else(
    tmp_path: Path, size: int, pieces: list[ControlMessage]
) -> None:
    async with alone() as side:
        side.take_files()
        side.hear(FileOffer(ID, "b", size, ""), FileOffer(STRANGE, "c", size, ""))
        side.incoming[0].accept(a_folder(tmp_path))
        await side.signal.until(lambda: FileAccept(ID) in side.said, "the acceptance")
        side.take()
        side.hear(*pieces)
        assert side.incoming[0].state is TransferState.FAILED
        assert side.incoming[1].state is TransferState.OFFERED
        (told,) = side.take()
        assert isinstance(told, FileCancel)
        assert "breaks the protocol" in told.reason
        side.hear(*pieces)
        assert side.take() == []


async def test_data_before_the_file_was_accepted_ends_the_transfer() -> None:
    async with alone() as side:
        side.take_files()
        side.hear(FileOffer(ID, "b", 5, ""), Piece(ID, 0, b"x"))
        with pytest.raises(TransferFailed, match="before the file was accepted"):
            await side.incoming[0]


@pytest.mark.parametrize("count", [6, 2**53 - 1])
async def test_a_confirmation_of_what_was_not_sent_ends_the_transfer(tmp_path: Path, count: int) -> None:
    async with alone() as side:
        outgoing = await side.send("peer", a_file(tmp_path, 5), None)
        side.hear(FileAccept(outgoing.id))
        await side.signal.until(lambda: isinstance(side.said[-1], Piece), "the data")
        side.hear(FileReceived(outgoing.id, count))
        with pytest.raises(TransferFailed, match="breaks the protocol"):
            await outgoing


async def test_a_confirmation_before_the_file_was_accepted_ends_the_transfer(tmp_path: Path) -> None:
    async with alone() as side:
        outgoing = await side.send("peer", a_file(tmp_path, 0), None)
        side.hear(FileReceived(outgoing.id, 0))
        with pytest.raises(TransferFailed, match="before the file was accepted"):
            await outgoing


async def test_a_recipient_that_confirms_nothing_gets_one_window(tmp_path: Path) -> None:
    async with alone() as side:
        outgoing = await side.send("peer", a_file(tmp_path, 3 * WINDOW), None)
        side.take()
        side.hear(FileAccept(outgoing.id))
        await side.signal.until(lambda: len(side.said) == WINDOW // MAX_PIECE, "one window")
        side.hear(FileReceived(outgoing.id, MAX_PIECE))
        await side.signal.until(lambda: len(side.said) == WINDOW // MAX_PIECE + 1, "one piece more")
        assert outgoing.transferred == MAX_PIECE


async def test_what_is_said_of_an_unknown_transfer_or_twice_or_by_the_wrong_side_is_ignored(tmp_path: Path) -> None:
    async with alone() as side:
        side.take_files()
        side.known = None
        waiting = await side.send("peer", a_file(tmp_path, 5), None)
        side.known = ["files"]
        outgoing = await side.send("somebody else", a_file(tmp_path, 5), None)
        side.hear(FileOffer(ID, "b", 5, ""))
        side.take()
        for number in (STRANGE, waiting.id, outgoing.id):  # unknown, not said yet, somebody else's
            side.hear(
                FileAccept(number), FileDecline(number, ""), FileReceived(number, 0), FileCancel(number, ""),
                Piece(number, 0, b"x"),
            )  # fmt: skip
        side.hear(FileAccept(ID), FileDecline(ID, ""), FileReceived(ID, 0), FileOffer(ID, "other", 99, ""))
        side.transfers.received(side.end("somebody else"), Piece(outgoing.id, 0, b"x"))
        side.transfers.received(side.end("somebody else"), FileAccept(outgoing.id))
        side.transfers.received(side.end("somebody else"), FileAccept(outgoing.id))
        assert [each.state.value for each in (waiting, outgoing, *side.incoming)] == ["offered", "running", "offered"]
        assert side.incoming[0].size == 5
        await side.signal.until(lambda: len(side.said) == 1, "the data, once")


async def test_thousands_of_offers_leave_64_open() -> None:
    async with alone() as side:
        side.take_files()
        for number in range(3000):
            side.hear(FileOffer(new_id(number.to_bytes(8, "big")), "../" * 300 + "CON", 2**53 - 1, "x" * 9999))
        assert len(side.incoming) == MAX_OPEN
        assert {(transfer.name, transfer.mime) for transfer in side.incoming} == {("_CON", "application/octet-stream")}
        declined = side.take()
        assert len(declined) == 3000 - MAX_OPEN
        assert all(isinstance(control, FileDecline) and "already" in control.reason for control in declined)
        assert not side.transfers.busy(side.end("peer"))


async def test_a_peer_that_cannot_be_answered_is_not_answered() -> None:
    async with alone() as side:
        side.refusal = QueueFull("peer", 1, 1)
        side.hear(FileOffer(ID, "b", 5, ""))


async def test_reasons_of_strangers_are_lines_that_show_what_they_say(tmp_path: Path) -> None:
    async with alone() as side:
        outgoing = await side.send("peer", a_file(tmp_path, 5), None)
        side.hear(FileDecline(outgoing.id, "no\n\x1b[31m" + "x" * 999))
        assert isinstance(outgoing.error, TransferFailed)
        assert outgoing.error.reason.startswith("declined: no[31mxxx")
        assert len(outgoing.error.reason) == len("declined: ") + 200
