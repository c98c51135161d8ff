"""Files that outlive the programs at either end, by a journal. Real servers, engines, files and killed processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aldis.errors import TransferFailed
from aldis.identity.keys import Identity
from aldis.store.files.transfer import Transfer, TransferState
from aldis.store.files.window import WINDOW
from aldis.store.store import NetworkStore
from support.patience import PATIENCE
from support.peers import Signal, nothing_left_behind
from support.store_program import StoreProcess
from support.stores import QUICK, SHORT, new_store, running_server, stores
from support.transfers import a_file, a_folder, until

SEED = bytes(range(32))
SIZE = 40 * WINDOW


class Files:
    """What a store tells of files."""

    def __init__(self, store: NetworkStore) -> None:
        self.resumed: list[Transfer] = []
        self.asked: list[Transfer] = []
        self._signal = Signal()
        store.on_resumed_file(lambda transfer: self._note(self.resumed, transfer))
        store.on_file(lambda transfer: self._note(self.asked, transfer))

    def _note(self, files: list[Transfer], transfer: Transfer) -> None:
        files.append(transfer)
        self._signal.changed()

    async def until(self, files: list[Transfer], count: int) -> Transfer:
        await self._signal.until(lambda: len(files) == count, f"{count} files", PATIENCE)
        return files[-1]


async def at(transfer: Transfer, size: int) -> None:
    await until(transfer, lambda: transfer.transferred >= size)


def arrived(folder: Path, path: Path) -> bool:
    return os.listdir(folder) == [path.name] and (folder / path.name).read_bytes() == path.read_bytes()


async def test_a_file_goes_on_by_itself_when_its_sender_was_killed(tmp_path: Path) -> None:
    folder, path, journal = a_folder(tmp_path), a_file(tmp_path, SIZE), tmp_path / "bob.journal"
    async with (
        running_server() as server,
        stores(server.url, "alice", timing=QUICK, journal=tmp_path / "alice.journal") as (alice,),
    ):
        files = Files(alice)
        async with StoreProcess(server.url, "bob", SEED, journal=journal) as bob:
            bob.command("offer file", "alice", str(path))
            transfer = await files.until(files.asked, 1)
            transfer.accept(folder)
            for times in range(1, 3):
                await at(transfer, times * 8 * WINDOW)
                await bob.kill()
                bob = StoreProcess(server.url, "bob", SEED, journal=journal)  # nobody tells it what to do
                await bob.__aenter__()
                before, transfer = transfer, await files.until(files.resumed, times)
                assert transfer.id == before.id
                with pytest.raises(TransferFailed) as failed:
                    await before
                assert failed.value.kept
            await transfer
            await bob.kill()
        assert len(files.asked) == 1
        assert transfer.resumed >= 15 * WINDOW
        assert arrived(folder, path)
        assert alice.transfers == ()


async def test_a_file_goes_on_into_the_same_folder_when_its_recipient_was_killed(tmp_path: Path) -> None:
    folder, path, journal = a_folder(tmp_path), a_file(tmp_path, SIZE), tmp_path / "bob.journal"
    async with running_server() as server, stores(server.url, "alice", timing=QUICK) as (alice,):
        async with StoreProcess(server.url, "bob", SEED, folder=folder, journal=journal) as bob:
            transfer = await alice.send_file("bob", path)
            await at(transfer, 8 * WINDOW)
            await bob.kill()
        async with StoreProcess(server.url, "bob", SEED, journal=journal) as bob:  # it takes no files of its own accord
            assert await bob.event() == ["resumed", "a.bin"]
            await transfer
        assert transfer.resumed >= 7 * WINDOW
        assert arrived(folder, path)


async def test_a_file_waits_in_the_journal_while_its_programs_say_goodbye_and_come_back(tmp_path: Path) -> None:
    folder, path = a_folder(tmp_path), a_file(tmp_path, SIZE)
    keys = {name: Identity.generate() for name in ("alice", "bob")}

    def store(name: str) -> NetworkStore:
        return new_store(identity=keys[name], journal=tmp_path / f"{name}.journal")

    async with nothing_left_behind(), running_server() as server:
        async with store("alice") as alice:
            await alice.connect_to_signaling(server.url, "alice", backoff=SHORT)
            transfer = await alice.send_file("bob", path)  # bob has never been there
            assert alice.transfers == (transfer,)
        with pytest.raises(TransferFailed) as failed:
            await transfer
        assert failed.value.kept
        async with store("alice") as alice:
            await alice.connect_to_signaling(server.url, "alice", backoff=SHORT)
            (transfer,) = alice.transfers
            async with store("bob") as bob:
                bob.on_file(lambda offer: offer.accept(folder))
                await bob.connect_to_signaling(server.url, "bob", backoff=SHORT)
                await at(transfer, 8 * WINDOW)
            await until(transfer, lambda: transfer.state is TransferState.OFFERED)
            async with store("bob") as bob:
                await bob.connect_to_signaling(server.url, "bob", backoff=SHORT)
                await transfer
        assert transfer.resumed >= 7 * WINDOW
        assert arrived(folder, path)


async def test_a_file_that_is_cancelled_here_does_not_come_back(tmp_path: Path) -> None:
    identity = Identity.generate()
    async with nothing_left_behind(), running_server() as server:
        for expected in (0, 0):
            async with new_store(identity=identity, journal=tmp_path / "journal") as alice:
                await alice.connect_to_signaling(server.url, "alice", backoff=SHORT)
                assert len(alice.transfers) == expected
                transfer = await alice.send_file("bob", a_file(tmp_path, 5))
                transfer.cancel()
