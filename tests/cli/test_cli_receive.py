"""What `aldis receive` makes of files that come and fail: over a path in memory, into a real folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from aldis.cli.exits import ExitCode
from aldis.cli.progress import Screen
from aldis.cli.receive import Receiving
from aldis.client.events import SignalingState
from aldis.identity.keys import fingerprint
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


async def test_the_fingerprint_of_a_sender_who_has_waited_is_told_once(tmp_path: Path) -> None:
    """Nothing changes any more when the command begins to look."""

    class Met(StoreOf):
        state = StoreState(
            SignalingState.CONNECTED,
            peers={"alice": PeerView("alice", public_key=bytes(32))},
        )

    class Told(Screen):
        def tell(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    async with sides() as (_, bob):
        receiving = Receiving(Met(bob), Told(quiet=True), str(tmp_path))  # type: ignore[arg-type]
        receiving.tell_fingerprint("alice")
        receiving.tell_fingerprint("nobody")
    assert said == [f"first contact with alice; the key is remembered. Its fingerprint:\n  {fingerprint(bytes(32))}"]
