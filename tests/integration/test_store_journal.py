"""Stores with a journal: what they had queued and received outlives them. Real servers, engines and files."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from aldis.errors import DeliveryFailed, JournalError, JournalForeign, JournalInUse, ServerUnreachable
from aldis.identity.keys import Identity
from aldis.identity.pins import MemoryPins
from aldis.protocol.channel import Content
from aldis.store.journal.rows import ArrivedRow, Changes, DeviceRow, PositionRow, QueuedRow
from aldis.store.journal.sqlite import SqliteJournal
from aldis.store.peers.peer import MAX_DEVICES
from aldis.store.state import StoreLimits
from aldis.store.store import NetworkStore
from support.peers import nothing_left_behind
from support.stores import SHORT, contents, new_store, read, running_server, stores, until, until_peer


class Person:
    """Somebody whose programs come and go, with one key and one journal."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.path = folder / f"{name}.journal"
        self._identity = Identity.generate()
        self._pins = MemoryPins()

    def store(self, **options: Any) -> NetworkStore:
        return new_store(**{"identity": self._identity, "pins": self._pins, "journal": self.path, **options})

    @asynccontextmanager
    async def online(self, url: str, **options: Any) -> AsyncIterator[NetworkStore]:
        async with self.store(**options) as store:
            await store.connect_to_signaling(url, self.name, backoff=SHORT)
            yield store


async def test_what_was_queued_is_sent_by_the_next_program(tmp_path: Path) -> None:
    alice, bob = Person(tmp_path, "alice"), Person(tmp_path, "bob")
    async with nothing_left_behind(), running_server() as server:
        async with alice.online(server.url) as store:
            first = store.send("bob", "one")
            second = store.send("bob", {"two": 2})
            await second.when_stored()
            assert (first.stored, first.sent) == (True, False)
        with pytest.raises(DeliveryFailed) as failed:
            await first
        assert failed.value.kept
        async with alice.online(server.url) as store, bob.online(server.url) as other:
            assert store.state.peers["bob"].queued == 2
            store.send("bob", "three")
            assert await contents(other, 3) == ["one", {"two": 2}, "three"]
            await store.drain()


async def test_what_was_queued_before_the_first_connection_is_stored_by_it(tmp_path: Path) -> None:
    alice, bob = Person(tmp_path, "alice"), Person(tmp_path, "bob")
    async with nothing_left_behind(), running_server() as server:
        for text in ("one", "two"):
            async with alice.store() as store:
                delivery = store.send("bob", text)
                assert not delivery.stored
                await store.connect_to_signaling(server.url, "alice")
                await delivery.when_stored()
        async with alice.online(server.url), bob.online(server.url) as other:
            assert await contents(other, 2) == ["one", "two"]


async def test_what_was_acknowledged_and_not_handed_over_comes_to_the_next_program(tmp_path: Path) -> None:
    alice, bob = Person(tmp_path, "alice"), Person(tmp_path, "bob")
    async with nothing_left_behind(), running_server() as server, alice.online(server.url) as store:
        async with bob.online(server.url) as other:
            for number in range(5):
                store.send("bob", number)
            await store.drain()  # bob's store has them, and nobody has read them
            before = await read(other, 3)
            assert [message.redelivered for message in before] == [False] * 3
        async with bob.online(server.url) as other:
            store.send("bob", 5)
            after = await read(other, 4)
        # The program had the third in its hands: it did not ask for the next.
        assert [message.content for message in after] == [2, 3, 4, 5]
        assert [message.redelivered for message in after] == [True, False, False, False]
        assert after[0].id == before[2].id
        assert len({message.id for message in [*before, *after]}) == 6


async def test_a_callback_hands_over_when_it_returns(tmp_path: Path) -> None:
    alice, bob = Person(tmp_path, "alice"), Person(tmp_path, "bob")
    async with nothing_left_behind(), running_server() as server, alice.online(server.url) as store:
        async with bob.online(server.url) as other:
            got: list[object] = []
            other.on_message(lambda message: got.append(message.content))
            for number in range(5):
                store.send("bob", number)
            await store.drain()
            assert got == [0, 1, 2, 3, 4]
        async with bob.online(server.url) as other:
            store.send("bob", "next")
            assert await contents(other, 1) == ["next"]


async def test_a_restored_backup_begins_a_new_stream_and_loses_nothing(tmp_path: Path) -> None:
    alice, bob = Person(tmp_path, "alice"), Person(tmp_path, "bob")
    backup = tmp_path / "backup"
    async with nothing_left_behind(), running_server() as server, bob.online(server.url) as other:
        async with alice.online(server.url) as store:
            store.send("bob", "one")
            assert await contents(other, 1) == ["one"]
            await store.drain()
        shutil.copy(alice.path, backup)
        async with alice.online(server.url) as store:
            store.send("bob", "two")
            store.send("bob", "three")
            got = await read(other, 2)
            await store.drain()
        shutil.copy(backup, alice.path)
        async with alice.online(server.url) as store:
            store.send("bob", "other two")
            store.send("bob", "other three")
            again = await read(other, 2)
            await store.drain()
        assert [message.content for message in again] == ["other two", "other three"]
        assert {message.id for message in got}.isdisjoint(message.id for message in again)


async def test_a_deleted_journal_begins_a_new_stream(tmp_path: Path) -> None:
    alice, bob = Person(tmp_path, "alice"), Person(tmp_path, "bob")
    async with nothing_left_behind(), running_server() as server, bob.online(server.url) as other:
        for text in ("one", "two"):
            async with alice.online(server.url) as store:
                store.send("bob", text)
                assert await contents(other, 1) == [text]
                await store.drain()
            alice.path.unlink()


async def test_a_journal_belongs_to_one_user_and_one_store(tmp_path: Path) -> None:
    alice = Person(tmp_path, "alice")
    async with nothing_left_behind(), running_server() as server:
        async with alice.online(server.url):
            with pytest.raises(JournalInUse):
                alice.store()
        async with alice.store() as store:
            with pytest.raises(JournalForeign):
                await store.connect_to_signaling(server.url, "carol")
            await store.connect_to_signaling(server.url, "alice")


async def test_what_waits_for_more_devices_than_there_may_be_stays_and_what_has_arrived_is_read(tmp_path: Path) -> None:
    alice = Person(tmp_path, "alice")
    async with nothing_left_behind(), running_server() as server:
        async with alice.online(server.url):
            pass
        numbers = range(1, MAX_DEVICES + 2)
        journal = SqliteJournal(alice.path)
        journal.open()
        journal.load()
        journal.write(
            Changes(
                devices={n: DeviceRow(n, "bob", f"device{n}", n, f"ours{n}") for n in numbers},
                queued={(n, 1): QueuedRow(n, 1, Content.TEXT, b"waits", time.time(), movable=False) for n in numbers},
                arrived={1: ArrivedRow(1, "bob", "device1", "theirs", 1, Content.TEXT, b"arrived")},
                positions={(1, "theirs"): PositionRow(1, "theirs", 1, 1)},
            )
        )
        journal.close()
        async with alice.online(server.url) as store:
            assert await contents(store, 1) == ["arrived"]
            assert store.state.peers["bob"].queued == MAX_DEVICES
        with closing(sqlite3.connect(alice.path)) as database:
            assert database.execute("SELECT count(*) FROM queued").fetchone() == (len(numbers),)


async def test_a_message_that_is_too_old_expires(tmp_path: Path) -> None:
    alice, bob = Person(tmp_path, "alice"), Person(tmp_path, "bob")
    async with nothing_left_behind(), running_server() as server:
        async with alice.online(server.url) as store:
            await store.send("bob", "old").when_stored()
        with closing(sqlite3.connect(alice.path)) as database, database:
            database.execute("UPDATE queued SET queued_at = queued_at - ?", (StoreLimits().queue_age,))
        async with alice.online(server.url) as store, bob.online(server.url) as other:
            store.send("bob", "new")
            assert await contents(other, 1) == ["new"]


async def test_what_is_queued_is_stored_also_when_the_server_cannot_be_reached(tmp_path: Path) -> None:
    alice, bob = Person(tmp_path, "alice"), Person(tmp_path, "bob")
    async with running_server() as server:
        url = server.url
    async with alice.store() as store:
        delivery = store.send("bob", "one")
        with pytest.raises(ServerUnreachable):
            await store.connect_to_signaling(url, "alice")
        await delivery.when_stored()
        with pytest.raises(JournalForeign):
            await store.connect_to_signaling(url, "carol")
    port = int(url.rpartition(":")[2].partition("/")[0])
    async with (
        nothing_left_behind(),
        running_server(port=port) as server,
        alice.online(server.url),
        bob.online(server.url) as other,
    ):
        assert await contents(other, 1) == ["one"]


@contextmanager
def full_disk() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_fails_new_messages_and_loses_no_accepted_one(tmp_path: Path) -> None:
    alice, bob = Person(tmp_path, "alice"), Person(tmp_path, "bob")
    async with nothing_left_behind(), running_server() as server, alice.online(server.url) as store:
        await store.send("bob", "one").when_stored()
        with full_disk():
            with pytest.raises(DeliveryFailed, match="full"):
                await store.send("bob", "lost").when_stored()
            assert isinstance(store.state.journal_error, JournalError)
        store.send("bob", "two")
        await until(store, lambda state: state.journal_error is None, "a journal that works again")
        async with bob.online(server.url) as other:
            assert await contents(other, 2) == ["one", "two"]
            await store.drain()


async def test_what_arrives_at_a_full_disk_is_not_acknowledged_and_comes_when_there_is_room(tmp_path: Path) -> None:
    bob = Person(tmp_path, "bob")
    async with (
        nothing_left_behind(),
        running_server() as server,
        stores(server.url, "alice") as (alice,),
        bob.online(server.url) as other,
    ):
        await alice.send("bob", "one")
        with full_disk():
            delivery = alice.send("bob", bytes(20_000))
            await until(other, lambda state: state.journal_error is not None, "a journal that cannot be written")
            assert not delivery.delivered
        await delivery
        assert await contents(other, 2) == ["one", bytes(20_000)]


async def test_several_devices_and_messages_that_move_between_them(tmp_path: Path) -> None:
    alice = Person(tmp_path, "alice")
    async with nothing_left_behind(), running_server() as server:
        identity = Identity.generate()

        @asynccontextmanager
        async def device(name: str) -> AsyncIterator[NetworkStore]:
            async with new_store(identity=identity, journal=tmp_path / name) as store:
                await store.connect_to_signaling(server.url, "bob", device=name, backoff=SHORT)
                yield store

        async with alice.online(server.url) as store:
            async with device("phone") as phone:
                store.send("bob", "one")
                assert await contents(phone, 1) == ["one"]
                await store.drain()
            await until_peer(store, "bob", lambda view: view.online is False, "offline")
            await store.send("bob", "for anyone").when_stored()
            await store.send("bob/phone", "for the phone").when_stored()
        async with alice.online(server.url) as store, device("desk") as desk:
            assert await contents(desk, 1) == ["for anyone"]
            await until_peer(store, "bob", lambda view: view.queued == 1, "the one for the phone")
        async with alice.online(server.url) as store, device("phone") as phone:
            again = await read(phone, 2)
            assert [(each.content, each.redelivered) for each in again] == [("one", True), ("for the phone", False)]
            await store.drain()
        async with alice.online(server.url) as store:
            assert store.state.peers.get("bob") is None


async def test_what_waits_when_the_server_is_gone_for_good_is_sent_by_the_next_program(tmp_path: Path) -> None:
    alice, bob = Person(tmp_path, "alice"), Person(tmp_path, "bob")
    async with nothing_left_behind(), running_server() as server:
        async with alice.online(server.url) as store:
            delivery = store.send("bob", "one")
            await delivery.when_stored()
            async with alice.online(server.url, journal=None):  # the same name, elsewhere
                with pytest.raises(DeliveryFailed) as failed:
                    await delivery
                assert failed.value.kept
        async with alice.online(server.url), bob.online(server.url) as other:
            assert await contents(other, 1) == ["one"]


async def test_what_an_earlier_run_may_have_sent_stays_in_its_stream_while_the_peer_is_offline(tmp_path: Path) -> None:
    """In another stream it would come twice: the peer may have it, and its acknowledgement was on its way."""
    alice, bob = Person(tmp_path, "alice"), Person(tmp_path, "bob")
    async with running_server() as server:
        async with alice.online(server.url) as sender:
            async with bob.online(server.url) as recipient:
                await sender.send("bob", "before")
                (before,) = await read(recipient, 1)
            await until(sender, lambda state: state.peers["bob"].online is False)
            await sender.send("bob", "waits").when_stored()
        async with alice.online(server.url) as sender:
            await until(sender, lambda state: state.peers["bob"].online is False)
            await sender.send("bob", "waits, too").when_stored()
            async with bob.online(server.url) as recipient:
                # The first one comes once more: it was in the hands of the application.
                waiting = [message for message in await read(recipient, 3) if not message.redelivered]
    assert [message.content for message in waiting] == ["waits", "waits, too"]
    assert len({message.id.partition(":")[0] for message in (before, *waiting)}) == 1
