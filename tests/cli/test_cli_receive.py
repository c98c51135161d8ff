"""What `aldis receive` makes of files that come and fail: over a path in memory, into a real folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from aldis.cli.exits import ExitCode
from aldis.cli.progress import Screen
from aldis.cli.receive import Receiving
from aldis.client.events import SignalingState
from aldis.identity.keys import fingerprint
from aldis.peer.connection import PeerState
from aldis.store.files.transfer import Transfer
from aldis.store.state import PeerView, StoreState
from support.patience import PATIENCE
from support.transfers import Side, a_file, a_folder, sides, until

MEGABYTE = 1024 * 1024


class StoreOf:
    """As much of a store as the command needs, for one side."""

    state = StoreState(SignalingState.CONNECTED)

    def __init__(self, side: Side) -> None:
        self._side = side

    def on_file(self, callback: Callable[[Transfer], None]) -> Callable[[], None]:
        return self._side.on_file.add(callback)

    def subscribe(self, callback: Callable[[StoreState], None]) -> Callable[[], None]:
        callback(self.state)
        return lambda: None


class Told(Screen):
    """What a person would read."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.said: list[str] = []

    def tell(self, text: str) -> None:
        self.said.append(text)

    def say(self, text: str) -> None:
        self.said.append(text)


async def test_a_file_that_fails_at_the_sender_does_not_end_the_others(tmp_path: Path) -> None:
    async with sides() as (alice, bob):
        folder = a_folder(tmp_path)
        receiving = Receiving(StoreOf(bob), Screen(quiet=True), str(folder))  # type: ignore[arg-type]
        receiving.admit("peer")
        first, second = [await alice.send("peer", a_file(tmp_path, 20 * MEGABYTE, name), None) for name in ("a", "b")]
        command = asyncio.create_task(receiving.run(PATIENCE))
        await until(second, lambda: second.transferred >= MEGABYTE)
        first.cancel("it is the wrong one")
        async with asyncio.timeout(PATIENCE):
            assert await command is ExitCode.NOT_DELIVERED
        assert (folder / "b").stat().st_size == 20 * MEGABYTE
        await second


@pytest.mark.parametrize(
    ("known_as", "name", "goes_on"),
    [
        (None, "peer", "the same command goes on with the rest"),
        ("code", "the sender", "the next code goes on with the rest"),
    ],
)
async def test_a_sender_who_is_cut_off_is_waited_for_as_long_as_was_said(
    tmp_path: Path, known_as: str | None, name: str, goes_on: str
) -> None:
    class Cut(StoreOf):
        state = StoreState(SignalingState.CONNECTED, peers={"peer": PeerView("peer", state=PeerState.FAILED)})

    async with sides() as (alice, bob):
        screen = Told(quiet=True)
        receiving = Receiving(Cut(bob), screen, str(a_folder(tmp_path)))  # type: ignore[arg-type]
        receiving.admit("peer", known_as=known_as)
        transfer = await alice.send("peer", a_file(tmp_path, 20 * MEGABYTE, "a"), None)
        await until(transfer, lambda: transfer.transferred >= MEGABYTE)
        alice.silent = True
        async with asyncio.timeout(PATIENCE):
            assert await receiving.run(0.01) is ExitCode.NOT_DELIVERED
        assert screen.said == [
            f"the connection to {name} is interrupted; waiting",
            f"{name} has not come back; {goes_on}",
        ]


async def test_the_fingerprint_of_a_sender_who_has_waited_is_told_once(tmp_path: Path) -> None:
    """Nothing changes any more when the command begins to look."""

    class Met(StoreOf):
        state = StoreState(
            SignalingState.CONNECTED,
            peers={"alice": PeerView("alice", public_key=bytes(32))},
        )

    screen = Told(quiet=True)
    async with sides() as (_, bob):
        receiving = Receiving(Met(bob), screen, str(tmp_path))  # type: ignore[arg-type]
        receiving.tell_fingerprint("alice")
        receiving.tell_fingerprint("nobody")
    assert screen.said == [
        f"first contact with alice; the key is remembered. Its fingerprint:\n  {fingerprint(bytes(32))}"
    ]
