"""Two services of transfers over a route in memory, for tests of them. Files are on a real disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aldis.errors import AldisError, TransferFailed
from aldis.store.files.service import FileService
from aldis.store.files.transfer import Transfer, TransferState
from aldis.store.messages.control import ControlMessage, decode_control
from aldis.store.messages.delivery import Delivery
from aldis.store.subscriptions import Callbacks
from support.patience import PATIENCE
from support.peers import Signal, nothing_left_behind

ID = "AAECAwQFBgc"


class Side:
    """One store, to which the other one is `peer`."""

    def __init__(self) -> None:
        self.on_file: Callbacks[Transfer] = Callbacks()
        self.transfers = FileService(self, self.on_file)
        self.incoming: list[Transfer] = []
        self.other: Side | None = None
        self.known: list[str] | None = ["files"]
        self.refusal: AldisError | None = None
        self.opened = 0
        self.said: list[ControlMessage] = []
        self.signal = Signal()

    # The route.

    def send_control(self, user_id: str, data: bytes) -> Delivery:
        if self.refusal is not None:
            raise self.refusal
        control = decode_control(data)
        assert control is not None
        self.said.append(control)
        self.signal.changed()
        other = self.other
        if other is not None:
            asyncio.get_running_loop().call_soon(other.transfers.received, "peer", control)
        return Delivery(user_id, len(self.said))

    def features(self, user_id: str) -> list[str] | None:
        del user_id
        return self.known

    def open(self, user_id: str) -> None:
        del user_id
        self.opened += 1
        if self.refusal is not None:
            raise self.refusal

    # The test.

    def take_files(self, take: Callable[[Transfer], None] | None = None) -> None:
        def note(transfer: Transfer) -> None:
            self.incoming.append(transfer)
            self.signal.changed()
            if take is not None:
                take(transfer)

        self.on_file.add(note)

    def hear(self, *controls: ControlMessage) -> None:
        for control in controls:
            self.transfers.received("peer", control)

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
