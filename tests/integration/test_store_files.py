"""Files between two stores on a real server, with real engines: what a transfer survives, and what it does not."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from aldis.errors import PeerOffline, PeerUnknown, TransferFailed, UsageError
from aldis.peer.connection import PeerState
from aldis.store.files.transfer import Transfer, TransferState
from aldis.store.files.window import WINDOW
from aldis.store.state import StoreLimits
from aldis.store.store import NetworkStore
from support.patience import PATIENCE
from support.peers import Signal, nothing_left_behind
from support.store_program import StoreProcess
from support.stores import QUICK, contents, device_of, new_store, running_server, stores, until_peer, until_state

ENGINES = ("wrtc", "aiortc")
SEED = bytes(range(32))
LONG = 400 * WINDOW  # takes long enough for something to happen meanwhile; not a block of it is on the disk
# Some end in the middle of it. The other side is never ahead of what the test has seen by more than a window.
PARTED = 40 * WINDOW


def a_file(folder: Path, size: int, name: str = "photo.jpg") -> Path:
    path = folder / name
    path.write_bytes(os.urandom(size))
    return path


def a_long_file(folder: Path) -> Path:
    path = folder / "long.bin"
    with path.open("wb") as file:
        file.truncate(LONG)
    return path


def a_folder(folder: Path, name: str = "got") -> Path:
    path = folder / name
    path.mkdir()
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Watched:
    """A transfer, and a way to wait for what it tells."""

    def __init__(self, transfer: Transfer) -> None:
        self.transfer = transfer
        self._signal = Signal()
        transfer.subscribe(lambda _: self._signal.changed())

    async def until(self, transferred: int) -> None:
        await self._signal.until(lambda: self.transfer.transferred >= transferred, f"{transferred} bytes", PATIENCE)


async def arrives(transfer: Transfer) -> None:
    async with asyncio.timeout(PATIENCE):
        await transfer


async def fails(transfer: Transfer, words: str) -> None:
    with pytest.raises(TransferFailed, match=words):
        await arrives(transfer)


@pytest.mark.parametrize(("first", "second"), list(itertools.product(ENGINES, ENGINES)))
async def test_a_file_arrives_as_it_was_whoever_sends_it(tmp_path: Path, first: str, second: str) -> None:
    async with (
        nothing_left_behind(),
        running_server() as server,
        new_store(engine=first) as alice,
        new_store(engine=second) as bob,
    ):
        await alice.connect_to_signaling(server.url, "alice")
        await bob.connect_to_signaling(server.url, "bob")
        alice.on_file(lambda transfer: transfer.accept(at_alice))
        bob.on_file(lambda transfer: transfer.accept(at_bob))
        at_alice, at_bob = a_folder(tmp_path, "alice"), a_folder(tmp_path, "bob")
        path = a_file(tmp_path, 700_000)
        await arrives(await alice.send_file("bob", path))
        assert digest(at_bob / "photo.jpg") == digest(path)
        await arrives(await bob.send_file("alice", str(path), name="yours.jpg"))
        assert digest(at_alice / "yours.jpg") == digest(path)
        assert alice.state.peers["bob"].features == ("files", "files-2", "files-3", "bundles")
        await alice.drain(timeout=PATIENCE)  # the last word on the file is acknowledged after it
        assert (alice.state.peers["bob"].queued, alice.state.peers["bob"].connections) == (0, 1)


async def test_chat_goes_on_while_a_file_is_on_its_way(tmp_path: Path) -> None:
    async with nothing_left_behind(), running_server() as server, stores(server.url, "alice", "bob") as (alice, bob):
        incoming: list[Transfer] = []
        bob.on_file(incoming.append)
        bob.on_file(lambda transfer: transfer.accept(tmp_path / "copy"))
        transfer = await alice.send_file("bob", a_long_file(tmp_path))
        await Watched(transfer).until(WINDOW)
        for number in range(5):
            await alice.send("bob", number)
            await bob.send("alice", number)
        assert transfer.state is TransferState.RUNNING
        assert transfer.transferred < LONG
        assert await contents(bob, 5) == await contents(alice, 5) == list(range(5))
        transfer.cancel("seen enough")
        await fails(incoming[0], "seen enough")
        await bob.disconnect()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.bin"]


async def test_who_does_not_read_messages_can_still_be_sent_files(tmp_path: Path) -> None:
    limits = StoreLimits(unread_messages=2)
    async with running_server() as server, stores(server.url, "alice", "bob", limits=limits) as (alice, bob):
        bob.on_file(lambda transfer: transfer.accept(tmp_path / "copy"))
        for number in range(2):
            alice.send("bob", number)
        await arrives(await alice.send_file("bob", a_file(tmp_path, 3 * WINDOW)))
        assert await contents(bob, 2) == [0, 1]


async def test_a_file_waits_for_a_peer_that_is_not_there_yet(tmp_path: Path) -> None:
    async with running_server() as server, stores(server.url, "alice") as (alice,):
        transfer = await alice.send_file("bob", a_file(tmp_path, 1000))
        await until_peer(alice, "bob", lambda view: view.online is False, "absence")
        async with new_store() as bob:
            bob.on_file(lambda transfer: transfer.accept(tmp_path / "copy"))
            await bob.connect_to_signaling(server.url, "bob")
            await arrives(transfer)
            assert digest(tmp_path / "copy") == digest(tmp_path / "photo.jpg")


async def test_a_program_that_takes_no_files_says_so(tmp_path: Path) -> None:
    async with running_server() as server, stores(server.url, "alice", "bob") as (alice, _):
        await fails(await alice.send_file("bob", a_file(tmp_path, 10)), "declined: this program takes no files")


async def test_what_cannot_work_is_said_at_once(tmp_path: Path) -> None:
    async with running_server() as server, stores(server.url, "alice") as (alice,):
        for user_id, path in (("bob", tmp_path / "none"), ("b ob", a_file(tmp_path, 1))):
            with pytest.raises(UsageError):
                await alice.send_file(user_id, path)
        assert "bob" not in alice.state.peers


# --- what happens to the path ---------------------------------------------------------------------------------------


async def lose_the_path(store: NetworkStore, user_id: str) -> None:
    """The engine's connection is gone, and nobody has said goodbye."""
    connection = device_of(store, user_id).path.connection
    assert connection is not None
    transport = connection._current
    assert transport is not None
    await transport._connection.close()


@pytest.mark.parametrize("loser", ["alice", "bob"])
async def test_a_transfer_survives_a_path_that_is_lost_and_replaced(tmp_path: Path, loser: str) -> None:
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "alice", "bob", timing=QUICK) as (alice, bob),
    ):
        bob.on_file(lambda transfer: transfer.accept(tmp_path / "copy"))
        path = a_file(tmp_path, 40 * WINDOW)
        transfer = await alice.send_file("bob", path)
        await Watched(transfer).until(WINDOW)
        await (lose_the_path(alice, "bob") if loser == "alice" else lose_the_path(bob, "alice"))
        await arrives(transfer)
        assert digest(tmp_path / "copy") == digest(path)
        assert alice.state.peers["bob"].connections > 1


async def test_a_transfer_survives_a_path_that_is_lost_and_comes_back(tmp_path: Path) -> None:
    patient = replace(QUICK, heal=PATIENCE)
    async with (
        running_server() as server,
        stores(server.url, "alice", timing=patient, path="direct") as (alice,),
        StoreProcess(server.url, "bob", SEED) as bob,
    ):
        folder = a_folder(tmp_path)
        bob.command("take files", str(folder))
        assert await bob.event() == ["taking", str(folder)]
        path = a_file(tmp_path, 30 * WINDOW)
        transfer = await alice.send_file("bob", path)
        await Watched(transfer).until(WINDOW)
        bob.signal(signal.SIGSTOP)
        await until_state(alice, "bob", PeerState.DISCONNECTED)
        assert transfer.state is TransferState.RUNNING
        bob.signal(signal.SIGCONT)
        await arrives(transfer)
        assert digest(folder / "photo.jpg") == digest(path)
        # It went on over the path that came back, or over the one new connection that was made beside it.
        assert alice.state.peers["bob"].connections in (1, 2)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_transfer_goes_on_where_it_stopped_when_the_recipient_is_killed(tmp_path: Path, times: int) -> None:
    async with running_server() as server, stores(server.url, "alice", timing=QUICK) as (alice,):
        folder = a_folder(tmp_path)
        path = a_file(tmp_path, PARTED)
        transfer = await alice.send_file("bob", path)
        for _ in range(times):
            async with StoreProcess(server.url, "bob", SEED, folder=folder) as bob:
                before = transfer.resumed
                await Watched(transfer).until(before + 8 * WINDOW)
                await bob.kill()
        assert transfer.state is not TransferState.DONE
        async with StoreProcess(server.url, "bob", SEED, folder=folder):
            await arrives(transfer)
        assert transfer.resumed >= 7 * WINDOW
        assert digest(folder / "photo.jpg") == digest(path)
        assert [each.name for each in folder.iterdir()] == ["photo.jpg"]


async def test_a_transfer_goes_on_where_it_stopped_when_the_sender_is_killed(tmp_path: Path) -> None:
    async with running_server() as server, stores(server.url, "alice", timing=QUICK) as (alice,):
        folder = a_folder(tmp_path)
        path = a_file(tmp_path, PARTED)
        offered = Signal()
        files: list[Transfer] = []

        def take(transfer: Transfer) -> None:
            files.append(transfer)
            transfer.accept(folder)
            offered.changed()

        alice.on_file(take)
        async with StoreProcess(server.url, "bob", SEED) as bob:
            bob.command("offer file", "alice", str(path))
            await offered.until(lambda: len(files) == 1, "an offer")
            await Watched(files[0]).until(8 * WINDOW)
            await bob.kill()
        async with StoreProcess(server.url, "bob", SEED) as bob:
            bob.command("offer file", "alice", str(path))
            await offered.until(lambda: len(files) == 2, "the offer again")
            await arrives(files[1])
        await fails(files[0], "started anew")
        assert files[1].resumed >= 7 * WINDOW
        assert digest(folder / "photo.jpg") == digest(path)
        assert [each.name for each in folder.iterdir()] == ["photo.jpg"]


async def test_what_a_new_program_does_not_take_ends(tmp_path: Path) -> None:
    async with running_server() as server, stores(server.url, "alice", timing=QUICK) as (alice,):
        async with StoreProcess(server.url, "bob", SEED) as bob:
            bob.command("take files", str(a_folder(tmp_path)))
            await bob.event()
            transfer = await alice.send_file("bob", a_long_file(tmp_path))
            await Watched(transfer).until(WINDOW)
            await bob.kill()
        await until_state(alice, "bob", PeerState.DISCONNECTED, PeerState.FAILED)
        assert transfer.state is TransferState.RUNNING
        async with StoreProcess(server.url, "bob", SEED):
            await fails(transfer, "declined: this program takes no files")


@pytest.mark.parametrize("goodbye", ["disconnect", "disconnect_from_peer"])
async def test_a_goodbye_ends_a_transfer_at_both_ends(tmp_path: Path, goodbye: str) -> None:
    async with nothing_left_behind(), running_server() as server, stores(server.url, "alice", "bob") as (alice, bob):
        incoming: list[Transfer] = []

        def take(transfer: Transfer) -> None:
            incoming.append(transfer)
            transfer.accept(tmp_path / "copy")

        bob.on_file(take)
        transfer = await alice.send_file("bob", a_long_file(tmp_path))
        await Watched(transfer).until(WINDOW)
        await (bob.disconnect() if goodbye == "disconnect" else bob.disconnect_from_peer("alice"))
        await fails(transfer, "hung up")
        await fails(incoming[0], "the store was closed" if goodbye == "disconnect" else "disconnect_from_peer")
        if goodbye == "disconnect_from_peer":
            await arrives(await alice.send_file("bob", a_file(tmp_path, 5), name="other"))
    assert "long.bin" in {path.name for path in tmp_path.iterdir()}
    assert len([path for path in tmp_path.iterdir() if path.suffix == ".part"]) == 1  # to go on with


async def test_leaving_fails_what_is_under_way(tmp_path: Path) -> None:
    async with nothing_left_behind(), running_server() as server, stores(server.url, "alice", "bob") as (alice, bob):
        bob.on_file(lambda transfer: transfer.accept(tmp_path / "copy"))
        transfer = await alice.send_file("bob", a_long_file(tmp_path))
        await Watched(transfer).until(WINDOW)
        await alice.disconnect()
        await fails(transfer, "the store was closed")
        await until_state(bob, "alice", PeerState.CLOSED)
        await bob.disconnect()
    kept, sent = sorted(tmp_path.iterdir())
    assert sent.name == "long.bin"
    assert kept.name.startswith(".copy.")
    assert kept.stat().st_size >= WINDOW


async def test_a_stranger_who_offers_files_and_goes_keeps_no_place(tmp_path: Path) -> None:
    limits = StoreLimits(peers=1)
    async with running_server() as server, stores(server.url, "alice", limits=limits, timing=QUICK) as (alice,):
        offered = Signal()
        files: list[Transfer] = []

        def note(transfer: Transfer) -> None:
            files.append(transfer)
            offered.changed()

        alice.on_file(note)
        async with StoreProcess(server.url, "bob", SEED) as bob:
            bob.command("offer file", "alice", str(a_file(tmp_path, 5)))
            await offered.until(lambda: bool(files), "the offer", PATIENCE)
            await bob.kill()
        # Which of the two depends on what notices it first: the path that has died, or the relay beside it.
        await until_state(alice, "bob", PeerState.FAILED, PeerState.CLOSED)
        with pytest.raises((PeerUnknown, PeerOffline)):
            await alice.connect_to_peer("carol")
        assert files[0].state is TransferState.FAILED
