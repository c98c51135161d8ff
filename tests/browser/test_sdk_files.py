"""Files between tabs, and between a tab and a Python program: whole, as their SHA-256 says."""

from __future__ import annotations

import asyncio
import os
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest

from aldis.errors import TransferFailed
from aldis.store.files.transfer import Transfer, TransferState
from aldis.store.files.window import WINDOW
from browser.conftest import IN_BOTH, Arrive
from support.patience import PATIENCE
from support.server_process import ServerProcess
from support.stores import contents, stores
from support.tabs import tabs

SIZE = 3 * 1024 * 1024 + 7
_DIGEST = "Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', await blob.arrayBuffer())))"
SEND = f"""
const blob = new Blob(Array.from({{ length: 49 }}, (_, index) =>
  crypto.getRandomValues(new Uint8Array(index ? 65536 : size % 65536))), {{ type: 'text/plain' }});
const transfer = await store.sendFile(userId, new File([blob], name, {{ type: blob.type }}));
const seen = [];
transfer.subscribe(({{ state, transferred }}) => seen.push([state, transferred]));
// A message does not wait for the file.
await store.send(userId, 'meanwhile');
await transfer.finished;
return [blob.size, {_DIGEST}, seen];
"""
TAKE = """
window.incoming = new Promise((resolve) => store.onFile((transfer) => {
  transfer.accept();
  resolve(transfer);
}));
"""
TAKEN = f"""
const {{ name, size, mime, userId, direction, finished }} = await incoming;
await finished;
const {{ blob, state, transferred, error }} = await incoming;
return [{{ name, size, mime, userId, direction, state, transferred, error }}, {_DIGEST}];
"""


def check_progress(seen: list[tuple[str, int]]) -> None:
    """From the offer to the end, and by no more than may be on its way at a time: a recipient with a slow disk writes,
    and confirms, all of that together."""
    states = [state for state, _ in seen]
    assert sorted(set(states), key=states.index) == ["offered", "running", "done"]
    sizes = [size for _, size in seen]
    assert sizes == sorted(sizes)
    assert sizes[-1] == SIZE
    assert max(after - before for before, after in pairwise(sizes)) <= WINDOW


async def test_a_file_goes_whole_from_tab_to_tab(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    await bob.run(TAKE)
    size, digest, seen = await alice.run(SEND, userId="bob", name="../a\u202etxt.\n", size=SIZE)
    check_progress(seen)
    about, arrived = await bob.run(TAKEN)
    assert arrived == digest
    assert size == about["size"] == about["transferred"] == SIZE
    assert (about["userId"], about["direction"], about["state"], about["error"]) == ("alice", "in", "done", None)
    assert about["mime"] == "text/plain"
    assert not {"/", "\n", "\u202e"} & set(about["name"])
    assert await bob.contents(1) == ["meanwhile"]


@IN_BOTH
@pytest.mark.parametrize("engine", ["wrtc", "aiortc"])
async def test_a_file_goes_whole_between_a_tab_and_python(
    arrive: Arrive, server: ServerProcess, engine: str, tmp_path: Path
) -> None:
    source, folder = tmp_path / "source.bin", tmp_path / "taken"
    source.write_bytes(os.urandom(SIZE))
    folder.mkdir()
    async with stores(f"ws://127.0.0.1:{server.port}", "bob", engine=engine) as (bob,):
        (alice,) = await tabs(arrive, "alice")
        incoming: asyncio.Queue[Transfer] = asyncio.Queue()

        def take(transfer: Transfer) -> None:
            transfer.accept(folder)
            incoming.put_nowait(transfer)

        bob.on_file(take)
        await alice.run(TAKE)
        async with asyncio.timeout(PATIENCE):
            size, digest, seen = await alice.run(SEND, userId="bob", name="notes.txt", size=SIZE)
            taken = await incoming.get()
            await taken
        check_progress(seen)
        assert (size, taken.name, taken.size, taken.user_id) == (SIZE, "notes.txt", SIZE, "alice")
        assert taken.path == folder / "notes.txt"
        assert list(sha256(taken.path.read_bytes()).digest()) == digest
        assert await contents(bob, 1) == ["meanwhile"]

        async with asyncio.timeout(PATIENCE):
            await (await bob.send_file("alice", source))
        about, arrived = await alice.run(TAKEN)
        assert (about["name"], about["size"], about["state"]) == ("source.bin", SIZE, "done")
        assert arrived == list(sha256(source.read_bytes()).digest())


async def test_a_file_that_nobody_takes_is_declined_and_one_under_way_can_be_cancelled(
    arrive: Arrive, server: ServerProcess, tmp_path: Path
) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(SIZE))
    async with stores(f"ws://127.0.0.1:{server.port}", "bob") as (bob,):
        (alice,) = await tabs(arrive, "alice")
        error = await alice.fails("(await store.sendFile('bob', new Blob(['x']), { name: 'x' })).finished")
        assert error["name"] == "TransferFailed"
        declined = await bob.send_file("alice", source)
        with pytest.raises(TransferFailed):
            await declined
        assert declined.state is TransferState.DECLINED

        # A sink that takes its time holds the sender back, until it is given up.
        await alice.run("""
            store.onFile((transfer) => {
              window.transfer = transfer;
              transfer.accept({ sink: new WritableStream({ write: () => new Promise(() => {}) }) });
              transfer.subscribe(changed);
            });
        """)
        cancelled = await bob.send_file("alice", source)
        await alice.until("globalThis.transfer?.state === 'running'")
        await alice.run("transfer.cancel('enough');")
        with pytest.raises(TransferFailed, match="enough"):
            await cancelled
        assert cancelled.state is TransferState.CANCELLED
        assert await alice.get("transfer.state") == "cancelled"
        await alice.sends("bob", "all is well")
        assert await contents(bob, 1) == ["all is well"]


@IN_BOTH
async def test_a_file_goes_on_over_a_connection_that_takes_the_place_of_a_lost_one(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    await bob.run(TAKE)
    # The connection is taken away in the middle, by the browser's own means: nobody says goodbye. Once: one that goes
    # while it is being made looks to the other side like a refusal.
    await bob.run("""
        window.broken = incoming.then((transfer) => new Promise((resolve) => {
          const stop = transfer.subscribe(({ transferred }) => {
            if (transferred > 600_000) {
              stop();
              resolve(wires.at(-1).close());
            }
          });
        }));
    """)
    size, digest, _ = await alice.run(SEND, userId="bob", name="long.bin", size=SIZE)
    await bob.get("broken")
    about, arrived = await bob.run(TAKEN)
    assert (size, about["state"], arrived) == (SIZE, "done", digest)
    assert await alice.get("store.state.peers.bob.connections") > 1
