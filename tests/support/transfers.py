"""Two services of transfers over a route in memory, for tests of them. Files are on a real disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aldis.errors import AldisError, JournalError, TransferFailed
from aldis.store.files import disk
from aldis.store.files.kept import KeptTransfers
from aldis.store.files.service import FileService
from aldis.store.files.transfer import Transfer, TransferState
from aldis.store.messages.control import ControlMessage, Piece, decode_control
from aldis.store.messages.delivery import Delivery
from aldis.store.subscriptions import Callbacks
from support.patience import PATIENCE
from support.peers import Signal, nothing_left_behind

ID = "AAECAwQFBgc"


class End:
    """One peer of a side."""

    def __init__(self, side: Side, user_id: str) -> None:
        self.side = side
        self.user_id = user_id
        self.name: str | None = "main"
        self.file_limit: int | None = None
        self.relay_only = False

    @property
    def features(self) -> list[str] | None:
        return self.side.known

    def send_control(self, data: bytes) -> Delivery:
        return self.side.send_control(self.user_id, data)

    def take_back(self, deliveries: Iterable[Delivery]) -> None:
        self.side.take_back(deliveries)

    def call(self) -> None:
        self.side.opened += 1
        if self.side.refusal is not None:
            raise self.side.refusal


class MemoryRecords:
    """What a journal keeps of files, in memory."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.error: JournalError | None = None

    def put(self, name: str, record: bytes) -> None:
        self.records[name] = record

    def remove(self, name: str) -> None:
        self.records.pop(name, None)

    async def flush(self) -> None:
        if self.error is not None:
            raise self.error


class Side:
    """One store, to which the other one is `peer`. With `records` it keeps its transfers there."""

    def __init__(self, records: MemoryRecords | None = None, *, limit: int = 1000) -> None:
        self.on_file: Callbacks[Transfer] = Callbacks()
        self.on_resumed: Callbacks[Transfer] = Callbacks()
        self.time = 1000.0
        self.records = records
        self.transfers = FileService(
            self.on_file,
            self.on_resumed,
            None if records is None else KeptTransfers(records, limit),
            now=lambda: self.time,
        )
        self.resumed: list[Transfer] = []
        self.on_resumed.add(self._note_resumed)
        self.ends: dict[str, End] = {}
        self.incoming: list[Transfer] = []
        self.other: Side | None = None
        self.known: list[str] | None = ["files"]
        self.refusal: AldisError | None = None
        self.opened = 0
        self.said: list[ControlMessage] = []
        self.signal = Signal()
        self.waiting: list[tuple[Delivery, ControlMessage]] = []  # what is not acknowledged
        self.silent = False  # what is said does not get through

    def end(self, user_id: str) -> End:
        """The peer of that name."""
        return self.ends.setdefault(user_id, End(self, user_id))

    async def send(self, user_id: str, path: Path, name: str | None) -> Transfer:
        """Offer a file, as the store does."""
        found = await asyncio.to_thread(disk.look, path)
        return self.transfers.offer(self.end(user_id), path, found, name)

    def send_control(self, user_id: str, data: bytes) -> Delivery:
        if self.refusal is not None:
            raise self.refusal
        control = decode_control(data)
        assert control is not None
        self.said.append(control)
        self.signal.changed()
        delivery = Delivery(user_id, len(self.said))
        loop = asyncio.get_running_loop()
        if self.other is not None:
            self.waiting.append((delivery, control))
            loop.call_soon(self._deliver, self.other)
        else:
            delivery.succeed()
            loop.call_soon(self.transfers.acknowledged, self.end(user_id))
        return delivery

    def take_back(self, deliveries: Iterable[Delivery]) -> None:
        back = list(deliveries)
        assert not any(delivery.done for delivery in back)
        self.waiting = [each for each in self.waiting if each[0] not in back]

    def _deliver(self, other: Side) -> None:
        if self.waiting and not self.silent:
            delivery, control = self.waiting.pop(0)
            other.hear(control)
            delivery.succeed()
            self.transfers.acknowledged(self.end("peer"))

    # The test.

    @property
    def pieces(self) -> list[tuple[Delivery, Piece]]:
        """The pieces that wait."""
        return [(delivery, control) for delivery, control in self.waiting if isinstance(control, Piece)]

    def relay(self, limit: int) -> None:
        """A session of the relay begins, with a server that takes files of so many bytes."""
        self.end("peer").file_limit = limit
        self.transfers.relayed(self.end("peer"))
        self._connect()

    def direct(self) -> None:
        """There is a direct path again."""
        self.end("peer").file_limit = None
        self._connect()

    def _connect(self) -> None:
        assert self.other is not None
        self.silent = False
        for _ in self.waiting:
            asyncio.get_running_loop().call_soon(self._deliver, self.other)
        self.transfers.connected(self.end("peer"))

    def _note_resumed(self, transfer: Transfer) -> None:
        self.resumed.append(transfer)
        self.signal.changed()

    def load(self) -> None:
        """The journal is loaded."""
        self.transfers.restore(lambda user_id, _: self.end(user_id))

    def take_files(self, take: Callable[[Transfer], None] | None = None) -> None:
        def note(transfer: Transfer) -> None:
            self.incoming.append(transfer)
            self.signal.changed()
            if take is not None:
                take(transfer)

        self.on_file.add(note)

    def hear(self, *controls: ControlMessage) -> None:
        for control in controls:
            self.transfers.received(self.end("peer"), control)

    def take(self) -> list[ControlMessage]:
        said, self.said = self.said, []
        return said

    async def heard(self, count: int) -> None:
        await self.signal.until(lambda: len(self.incoming) == count, f"{count} files")


@asynccontextmanager
async def sides() -> AsyncIterator[tuple[Side, Side]]:
    async with nothing_left_behind():
        alice, bob = Side(), Side()
        alice.other, bob.other = bob, alice
        try:
            yield alice, bob
        finally:
            await alice.transfers.close()
            await bob.transfers.close()


@asynccontextmanager
async def alone() -> AsyncIterator[Side]:
    async with nothing_left_behind():
        side = Side()
        try:
            yield side
        finally:
            await side.transfers.close()


def a_file(folder: Path, size: int, name: str = "a.bin") -> Path:
    path = folder / name
    path.write_bytes(os.urandom(size))
    return path


def a_folder(folder: Path, name: str = "got") -> Path:
    path = folder / name
    path.mkdir()
    return path


async def until(transfer: Transfer, holds: Callable[[], bool], what: str = "the condition") -> None:
    signal = Signal()
    stop = transfer.subscribe(lambda _: signal.changed())
    await signal.until(holds, what)
    stop()


async def fails(transfer: Transfer, words: str, state: TransferState) -> None:
    with pytest.raises(TransferFailed) as caught:
        async with asyncio.timeout(PATIENCE):
            await transfer
    assert caught.value.reason == words
    assert transfer.error is caught.value
    assert transfer.state is state
