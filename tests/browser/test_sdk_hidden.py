"""A tab that is really hidden is as quick as a visible one, although the browser slows its timers down.

The tab counts how often a timer of its own fires: of one that is due every 20 ms, a browser lets one a second through
in a hidden page. Whatever hung on such a timer would take a tick for each of its steps. Messages take next to no time,
and what keeps the machine busy for long delays one of them. Files take time: for them, the same tab says how long when
it is visible.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from aldis.peer.connection import PeerState
from aldis.store.files.window import CONFIRM, WINDOW
from support.hidden_tabs import UserTab, user_chromium
from support.patience import PATIENCE
from support.server_process import ServerProcess
from support.stores import QUICK, stores, until_state

Hide = Callable[[], Awaitable[None]]
STEPS = 40
# Of so many steps, those in which a tick comes, at most: it comes once a second, or more rarely.
FEW = STEPS // 2
# More than a window, so that the sender has to wait for the recipient.
SIZE = WINDOW + CONFIRM
_CONNECT = """
// As in support.tabs: now the addresses of this machine are told to peers.
for (const track of (await navigator.mediaDevices.getUserMedia({ audio: true })).getTracks()) track.stop();
const { NetworkStore } = await import('/aldis.js');
window.store = new NetworkStore();
store.onFile((transfer) => transfer.accept());
window.stopAnswering = store.onMessage(({ sender, content }) => store.send(sender, content));
await store.connectToSignaling(location.origin, 'alice');
"""
_COUNT = """
window.ticks = 0;
const tick = () => setTimeout(() => { window.ticks++; tick(); }, 20);
tick();
"""


@asynccontextmanager
async def visible_alice(folder: Path, server: ServerProcess) -> AsyncIterator[tuple[UserTab, Hide]]:
    """Alice's tab, and what puts it behind another."""
    async with user_chromium(folder) as devtools:
        tab = await devtools.open_tab(f"http://localhost:{server.port}/")
        await tab.run(_CONNECT)

        async def hide() -> None:
            await devtools.open_tab("about:blank")
            await tab.until_hidden()
            await tab.run(_COUNT)

        yield tab, hide


@asynccontextmanager
async def hidden_alice(folder: Path, server: ServerProcess) -> AsyncIterator[UserTab]:
    """Alice's tab, behind another."""
    async with visible_alice(folder, server) as (tab, hide):
        await hide()
        yield tab


async def ticks(tab: UserTab) -> int:
    return int(await tab.run("return window.ticks"))


def slow_steps(counts: list[int]) -> int:
    """In how many steps ticks came; there is a count before the first step and behind each."""
    return sum(earlier < later for earlier, later in pairwise(counts))


async def prove_slow(tab: UserTab) -> None:
    """The timers of this tab are slow: they fire at whole seconds, or more rarely.

    One that fires late has the next whole second soon after it, so it is three of them that take two seconds.
    """
    gaps = await tab.run("""
      const gaps = [];
      for (let n = 0; n < 4; n++) {
        const before = performance.now();
        await new Promise((done) => setTimeout(done, 20));
        gaps.push(performance.now() - before);
      }
      return [document.visibilityState, gaps.slice(1)];
    """)
    assert gaps[0] == "hidden"
    assert sum(gaps[1]) > 1900, gaps


def url(server: ServerProcess) -> str:
    return f"ws://127.0.0.1:{server.port}"


async def test_a_hidden_tab_acknowledges_and_answers_each_message_at_once(
    server: ServerProcess, tmp_path: Path
) -> None:
    async with hidden_alice(tmp_path / "profile", server) as alice, stores(url(server), "bob") as (bob,):
        await bob.connect_to_peer("alice")
        await prove_slow(alice)
        counts = [await ticks(alice)]
        echo = bob.messages()
        for number in range(STEPS):
            delivery = bob.send("alice", number)
            assert (await anext(echo)).content == number
            await delivery  # the tab has acknowledged it
            counts.append(await ticks(alice))
        assert slow_steps(counts) < FEW
        await prove_slow(alice)


async def test_a_hidden_tab_acknowledges_at_once_when_it_has_nothing_to_answer(
    server: ServerProcess, tmp_path: Path
) -> None:
    async with hidden_alice(tmp_path / "profile", server) as alice, stores(url(server), "bob") as (bob,):
        await alice.run("stopAnswering()")
        await bob.connect_to_peer("alice")
        await prove_slow(alice)
        counts = [await ticks(alice)]
        for number in range(STEPS):
            await bob.send("alice", number)
            counts.append(await ticks(alice))
        assert slow_steps(counts) < FEW
        await prove_slow(alice)


@pytest.mark.parametrize("direction", ["in", "out"])
async def test_a_hidden_tab_takes_and_sends_files_at_once(
    server: ServerProcess, tmp_path: Path, direction: str
) -> None:
    (tmp_path / "sent").write_bytes(os.urandom(SIZE))
    async with (
        visible_alice(tmp_path / "profile", server) as (alice, hide),
        stores(url(server), "bob") as (bob,),
    ):
        bob.on_file(lambda transfer: transfer.accept(tmp_path / f"got-{transfer.id}"))
        await bob.connect_to_peer("alice")

        async def pass_on() -> None:
            if direction == "in":
                await (await bob.send_file("alice", tmp_path / "sent"))
            else:
                await alice.run(f"""
                  const file = new File([new Uint8Array({SIZE})], 'zeros');
                  await (await store.sendFile('bob', file)).finished;
                """)

        before = time.monotonic()
        for _ in range(STEPS // 4):
            await pass_on()
        visible = 4 * (time.monotonic() - before)  # seconds of as many files as below
        await hide()
        await prove_slow(alice)
        counts = [await ticks(alice)]
        for _ in range(STEPS):
            await pass_on()
            counts.append(await ticks(alice))
        assert slow_steps(counts) < FEW + 2 * visible
        await prove_slow(alice)


async def test_the_time_outs_of_a_hidden_tab_end_in_time(server: ServerProcess, tmp_path: Path) -> None:
    async with hidden_alice(tmp_path / "profile", server) as alice:
        counts = await alice.run(f"""
          const until = (error) => {{ if (error.name !== 'TimeoutError') throw error; }};
          store.send('nobody', 'hello').catch(() => {{}});
          const counts = [window.ticks];
          for (let n = 0; n < {STEPS}; n++) {{
            await store.drain('nobody', {{ timeout: 0.02 }}).catch(until);
            counts.push(window.ticks);
          }}
          return counts;
        """)
        assert slow_steps(counts) < FEW
        await prove_slow(alice)


async def test_a_tab_that_was_frozen_goes_on_where_it_was(server: ServerProcess, tmp_path: Path) -> None:
    async with (
        hidden_alice(tmp_path / "profile", server) as alice,
        stores(url(server), "bob", timing=QUICK) as (bob,),
    ):
        await bob.connect_to_peer("alice")
        echo = bob.messages()
        bob.send("alice", "before")
        assert (await anext(echo)).content == "before"
        await alice.freeze()
        await until_state(bob, "alice", PeerState.DISCONNECTED)
        bob.send("alice", "meanwhile")
        await alice.resume()
        async with asyncio.timeout(PATIENCE):
            assert (await anext(echo)).content == "meanwhile"
