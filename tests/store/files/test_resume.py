"""Checked transfers between two services: resumed, checked, folders and streams. Files are on a real disk."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aldis.errors import FeatureMissing, StateError, TransferFailed, UsageError
from aldis.store.files import disk
from aldis.store.files.digest import BLOCK, Digest
from aldis.store.files.job import Ending
from aldis.store.files.transfer import Transfer, TransferState
from aldis.store.files.window import CONFIRM, WINDOW
from aldis.store.messages.control import (
    MAX_PIECE,
    FileAccept,
    FileEnd,
    FileOffer,
    FileReceived,
    Piece,
    encode_control,
    to_base64url,
)
from support.transfers import ID, Side, a_file, a_folder, alone, fails, sides, until

GONE = StateError("it is gone")
BOTH = ["files", "files-2"]


@asynccontextmanager
async def checked_sides() -> AsyncIterator[tuple[Side, Side]]:
    async with sides() as (alice, bob):
        alice.known = bob.known = BOTH
        yield alice, bob


def part_of(folder: Path) -> Path:
    (part,) = folder.iterdir()
    assert part.name.startswith(".")
    assert part.name.endswith(".part")
    return part


async def interrupt(bob: Side, outgoing: Transfer, at: int) -> None:
    """The recipient's program ends in the middle, and another one comes."""
    await until(outgoing, lambda: outgoing.transferred >= at)
    alice = bob.other
    assert alice is not None
    alice.other = bob.other = None  # what is said now gets lost
    alice.known = None
    bob.transfers.ended(bob.end("peer"), GONE)
    alice.transfers.ended(alice.end("peer"), GONE, Ending.RESTARTED)
    with pytest.raises(TransferFailed):
        await bob.incoming[-1]
    await bob.transfers.tasks.finish(60)
    await alice.transfers.tasks.finish(60)
    alice.other, bob.other = bob, alice


def again(alice: Side) -> None:
    alice.known = BOTH
    alice.transfers.connected(alice.end("peer"))


@pytest.mark.parametrize("size", [0, 1, BLOCK, 3 * BLOCK + 5])
async def test_a_checked_file_arrives_as_it_was(tmp_path: Path, size: int) -> None:
    async with checked_sides() as (alice, bob):
        folder = a_folder(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        path = a_file(tmp_path, size)
        outgoing = await alice.send("peer", path, None)
        await outgoing
        assert (folder / "a.bin").read_bytes() == path.read_bytes()
        assert os.listdir(folder) == ["a.bin"]
        assert [type(each) for each in alice.said if not isinstance(each, Piece)] == [FileOffer, FileEnd]
        assert FileReceived(outgoing.id, size) in bob.said


async def test_a_file_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async with checked_sides() as (alice, bob):
        folder = a_folder(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        path = a_file(tmp_path, 20 * BLOCK + 5)
        outgoing = await alice.send("peer", path, None)
        await interrupt(bob, outgoing, 5 * BLOCK)
        assert part_of(folder).stat().st_size >= 5 * BLOCK
        again(alice)
        await outgoing
        assert outgoing.resumed >= 5 * BLOCK
        assert bob.incoming[1].resumed == outgoing.resumed
        assert (folder / "a.bin").read_bytes() == path.read_bytes()
        assert os.listdir(folder) == ["a.bin"]


async def test_what_was_begun_is_not_for_another_key(tmp_path: Path) -> None:
    async with checked_sides() as (alice, bob):
        bob.take_files()
        outgoing = await alice.send("peer", a_file(tmp_path, 5), None)
        await bob.heard(1)
        alice.transfers.ended(alice.end("peer"), GONE, Ending.REPLACED)
        await fails(outgoing, "it is gone", TransferState.FAILED)


async def test_a_file_that_is_offered_again_at_once_goes_on_too(tmp_path: Path) -> None:
    async with checked_sides() as (alice, bob):
        folder = a_folder(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        path = a_file(tmp_path, 20 * BLOCK)
        outgoing = await alice.send("peer", path, None)
        await until(outgoing, lambda: outgoing.transferred >= 5 * BLOCK)
        bob.transfers.ended(bob.end("peer"), GONE, Ending.RESTARTED)  # the disk is still busy with it
        second = await alice.send("peer", path, None)
        await second
        assert second.resumed >= 5 * BLOCK
        assert os.listdir(folder) == ["a.bin"]


async def test_what_was_kept_and_is_not_the_beginning_of_the_file_is_sent_again(tmp_path: Path) -> None:
    async with checked_sides() as (alice, bob):
        folder = a_folder(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        path = a_file(tmp_path, 20 * BLOCK)
        outgoing = await alice.send("peer", path, None)
        await interrupt(bob, outgoing, 5 * BLOCK)
        with part_of(folder).open("r+b") as file:
            file.write(b"a disk that has lost something")
        again(alice)
        await outgoing
        assert outgoing.resumed == bob.incoming[1].resumed == 0
        assert (folder / "a.bin").read_bytes() == path.read_bytes()


async def test_a_file_that_was_there_already_but_for_its_name_is_only_checked(tmp_path: Path) -> None:
    async with checked_sides() as (alice, bob):
        folder = a_folder(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        path = a_file(tmp_path, 12 * BLOCK)
        outgoing = await alice.send("peer", path, None)
        await interrupt(bob, outgoing, 5 * BLOCK)
        part_of(folder).write_bytes(path.read_bytes() + b"and more")
        alice.take()
        again(alice)
        await outgoing
        assert outgoing.resumed == 12 * BLOCK
        assert not [each for each in alice.said if isinstance(each, Piece)]
        assert (folder / "a.bin").read_bytes() == path.read_bytes()


async def test_a_file_that_has_changed_begins_anew(tmp_path: Path) -> None:
    async with checked_sides() as (alice, bob):
        folder = a_folder(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        path = a_file(tmp_path, 20 * BLOCK)
        outgoing = await alice.send("peer", path, None)
        await interrupt(bob, outgoing, 5 * BLOCK)
        path.write_bytes(os.urandom(20 * BLOCK))
        again(alice)
        await fails(outgoing, "the file has changed since it was offered", TransferState.FAILED)
        second = await alice.send("peer", path, None)
        await second
        assert second.resumed == 0
        assert (folder / "a.bin").read_bytes() == path.read_bytes()


async def test_what_is_cancelled_is_not_kept(tmp_path: Path) -> None:
    async with checked_sides() as (alice, bob):
        folder = a_folder(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        outgoing = await alice.send("peer", a_file(tmp_path, 20 * BLOCK), None)
        await until(outgoing, lambda: outgoing.transferred >= BLOCK)
        outgoing.cancel("no more")
        await fails(bob.incoming[0], "cancelled by the other side: no more", TransferState.CANCELLED)
        await bob.transfers.tasks.finish(60)
        assert os.listdir(folder) == []


async def test_the_same_file_twice_at_once_arrives_twice(tmp_path: Path) -> None:
    async with checked_sides() as (alice, bob):
        folder = a_folder(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        path = a_file(tmp_path, 3 * BLOCK)
        for transfer in [await alice.send("peer", path, None) for _ in range(2)]:
            await transfer
        assert sorted(os.listdir(folder)) == ["a (2).bin", "a.bin"]
        assert (folder / "a (2).bin").read_bytes() == path.read_bytes()


async def test_a_file_that_does_not_fit_its_checksum_is_thrown_away(tmp_path: Path) -> None:
    async with alone() as side:
        folder = a_folder(tmp_path)
        side.take_files(lambda transfer: transfer.accept(folder))
        side.hear(FileOffer(ID, "b", 2, "", "version"))
        await side.signal.until(lambda: FileAccept(ID) in side.said, "the acceptance")
        side.hear(Piece(ID, 0, b"hi"), FileEnd(ID, 2, to_base64url(Digest().result())))
        words = "what arrived does not fit the checksum of the sender"
        await fails(side.incoming[0], words, TransferState.FAILED)
        await side.transfers.tasks.finish(60)
        assert os.listdir(folder) == []


@pytest.mark.parametrize(("start", "sha256"), [(1, "A" * 43), (BLOCK, ""), (30 * BLOCK, "A" * 43)])
async def test_a_recipient_that_has_kept_what_it_cannot_have_loses_the_transfer(
    tmp_path: Path, start: int, sha256: str
) -> None:
    async with alone() as side:
        side.known = BOTH
        outgoing = await side.send("peer", a_file(tmp_path, 2 * BLOCK), None)
        side.hear(FileAccept(outgoing.id, start, sha256))
        words = "the other side breaks the protocol: it has kept what it cannot have"
        await fails(outgoing, words, TransferState.FAILED)


async def test_an_end_at_the_wrong_place_loses_the_transfer(tmp_path: Path) -> None:
    async with alone() as side:
        side.take_files(lambda transfer: transfer.accept(tmp_path / "copy"))
        side.hear(FileOffer(ID, "b", 2, "", "version"))
        await side.signal.until(lambda: FileAccept(ID) in side.said, "the acceptance")
        side.hear(Piece(ID, 0, b"h"), FileEnd(ID, 1, "A" * 43))
        with pytest.raises(TransferFailed, match="ends at 1 bytes, of which 1 have come"):
            await side.incoming[0]


@pytest.mark.parametrize(
    "offer",
    [
        FileOffer(ID, "b", 2, "", "v", 3),
        FileOffer(ID, "b", 2**40, "", "v", 2**30),
        FileOffer(ID, "b", 2, "", "v", 0, True),
        FileOffer(ID, "b", 2, "", "", 2),
        FileOffer(ID, "b", 0, "", "", 0, True),
    ],
)
async def test_offers_that_make_no_sense_are_declined(offer: FileOffer) -> None:
    async with alone() as side:
        side.take_files()
        side.hear(offer)
        assert [each.__class__.__name__ for each in side.take()] == ["FileDecline"]
        assert side.incoming == []


def test_an_older_program_reads_what_it_is_told() -> None:
    assert encode_control(FileOffer(ID, "b", 2, "")) == (
        b'{"type":"file-offer","id":"AAECAwQFBgc","name":"b","size":2,"mime":""}'
    )
    assert encode_control(FileAccept(ID)) == b'{"type":"file-accept","id":"AAECAwQFBgc"}'


# --- folders ----------------------------------------------------------------------------------------------------------


def a_tree(folder: Path, size: int = 3 * BLOCK) -> Path:
    tree = folder / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "empty folder").mkdir()
    (tree / ".hidden").write_bytes(b"dot")
    (tree / "empty").write_bytes(b"")
    (tree / "zero").write_bytes(b"")
    for name in ("a", "deep/b", "deep/er/c"):
        (tree / name).write_bytes(os.urandom(size))
    (tree / "link").symlink_to("/etc/passwd")
    (tree / "deep" / "up").symlink_to(folder)
    return tree


def content_of(tree: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(tree)): None if path.is_dir() else path.read_bytes()
        for path in tree.rglob("*")
        if not path.is_symlink()
    }


async def test_a_folder_arrives_as_one_transfer_and_links_are_left_out(tmp_path: Path) -> None:
    async with checked_sides() as (alice, bob):
        folder, tree = a_folder(tmp_path), a_tree(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        outgoing = await alice.send("peer", tree, None)
        await outgoing
        assert (outgoing.folder, outgoing.left_out, bob.incoming[0].folder) == (True, 2, True)
        assert bob.incoming[0].path == folder / "tree"
        assert content_of(folder / "tree") == content_of(tree)
        assert os.listdir(folder) == ["tree"]
        await (await alice.send("peer", tree, None))
        assert sorted(os.listdir(folder)) == ["tree", "tree (2)"]


@pytest.mark.parametrize("at", [BLOCK, 3 * BLOCK, 4 * BLOCK, 6 * BLOCK])
async def test_a_folder_goes_on_where_it_stopped(tmp_path: Path, at: int) -> None:
    async with checked_sides() as (alice, bob):
        folder, tree = a_folder(tmp_path), a_tree(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        outgoing = await alice.send("peer", tree, None)
        await interrupt(bob, outgoing, at)
        again(alice)
        await outgoing
        assert outgoing.resumed >= at - BLOCK
        assert content_of(folder / "tree") == content_of(tree)
        assert os.listdir(folder) == ["tree"]


async def test_a_link_that_somebody_has_put_into_what_was_kept_is_not_followed(tmp_path: Path) -> None:
    async with checked_sides() as (alice, bob):
        folder, tree = a_folder(tmp_path), a_tree(tmp_path)
        victim = a_folder(tmp_path, "victim")
        bob.take_files(lambda transfer: transfer.accept(folder))
        outgoing = await alice.send("peer", tree, None)
        await interrupt(bob, outgoing, 4 * BLOCK)
        files = part_of(folder) / "files"
        shutil.rmtree(files / "deep")
        (files / "deep").symlink_to(victim)
        again(alice)
        with pytest.raises(TransferFailed, match="too many levels of symbolic links"):
            await outgoing
        assert os.listdir(victim) == []


async def test_a_folder_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    async with alone() as side:
        folder = a_folder(tmp_path)
        side.take_files(lambda transfer: transfer.accept(folder))
        manifest = b'[["../evil",2]]'
        side.hear(FileOffer(ID, "b", len(manifest) + 2, "", "version", len(manifest)))
        await side.signal.until(lambda: FileAccept(ID) in side.said, "the acceptance")
        side.hear(Piece(ID, 0, manifest + b"hi"))
        with pytest.raises(TransferFailed, match="leads out of the folder"):
            await side.incoming[0]
        await side.transfers.tasks.finish(60)
        assert sorted(os.listdir(tmp_path)) == ["got"]
        assert os.listdir(folder) == []


async def test_an_older_program_is_offered_no_folder_and_no_stream(tmp_path: Path) -> None:
    async with alone() as side:
        for found in (disk.look(a_folder(tmp_path)), disk.look_at_stream(io.BytesIO())):
            transfer = side.transfers.offer(side.end("peer"), tmp_path, found, None)
            with pytest.raises(FeatureMissing, match="files-2"):
                await transfer


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, 3 * WINDOW])
async def test_a_stream_arrives_and_a_stream_takes_it(tmp_path: Path, size: int) -> None:
    async with checked_sides() as (alice, bob):
        heard, data = io.BytesIO(), os.urandom(size)
        bob.take_files(lambda transfer: transfer.accept(heard))
        transfer = alice.transfers.offer(
            alice.end("peer"), tmp_path / "stdin", disk.look_at_stream(io.BytesIO(data)), None
        )
        assert transfer.size is None
        await transfer
        assert (transfer.size, bob.incoming[0].size, bob.incoming[0].transferred) == (size, size, size)
        assert heard.getvalue() == data


async def test_a_stream_is_not_confirmed_whole_before_it_is_checked() -> None:
    # The sender is done when every byte is confirmed, and may leave.
    async with alone() as side:
        heard, data = io.BytesIO(), os.urandom(CONFIRM)
        side.take_files(lambda transfer: transfer.accept(heard))
        side.hear(FileOffer(ID, "stdin", 0, "", "version", 0, True))
        await side.signal.until(lambda: FileAccept(ID) in side.said, "the acceptance")
        side.hear(*[Piece(ID, at, data[at : at + MAX_PIECE]) for at in range(0, CONFIRM, MAX_PIECE)])
        await side.signal.until(lambda: FileReceived(ID, CONFIRM - 1) in side.said, "a confirmation")
        digest = Digest()
        digest.update(data)
        side.hear(FileEnd(ID, CONFIRM, to_base64url(digest.result())))
        await side.incoming[0]
        assert side.said[-1] == FileReceived(ID, CONFIRM)
        assert heard.getvalue() == data


async def test_a_stream_cannot_be_resumed(tmp_path: Path) -> None:
    async with checked_sides() as (alice, bob):
        folder = a_folder(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder))
        stream = io.BytesIO(os.urandom(20 * BLOCK))
        transfer = alice.transfers.offer(alice.end("peer"), tmp_path / "stdin", disk.look_at_stream(stream), None)
        await interrupt(bob, transfer, BLOCK)
        again(alice)
        await fails(transfer, "it is gone", TransferState.FAILED)
        assert os.listdir(folder) == []


async def test_a_folder_cannot_go_into_a_stream(tmp_path: Path) -> None:
    async with checked_sides() as (alice, bob):
        bob.take_files()
        await alice.send("peer", a_tree(tmp_path), None)
        await bob.heard(1)
        with pytest.raises(UsageError):
            bob.incoming[0].accept(io.BytesIO())


async def test_the_same_content_of_another_sender_is_not_mixed_with_it(tmp_path: Path) -> None:
    async with checked_sides() as (alice, bob):
        folder = a_folder(tmp_path)
        bob.take_files(lambda transfer: transfer.accept(folder, sender=f"sender {len(bob.incoming)}"))
        outgoing = await alice.send("peer", a_file(tmp_path, 20 * BLOCK), None)
        await interrupt(bob, outgoing, 5 * BLOCK)
        again(alice)
        await outgoing
        assert outgoing.resumed == 0
