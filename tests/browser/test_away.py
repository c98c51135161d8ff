"""Pages that are away for a while: in the history of the window, or frozen. They come back working by themselves."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psutil
import pytest
from playwright.async_api import expect

from aldis.peer.connection import PeerState
from browser.conftest import IN_BOTH
from support.browser import BROWSERS, Arrive, Browsers, Person, launch
from support.page_windows import Window
from support.server_process import ServerProcess
from support.stores import QUICK, contents, read, stores, until_peer, until_state
from support.tabs import tabs

REMEMBER = "window.kept = true; addEventListener('pageshow', ({ persisted }) => { window.persisted = persisted; });"


@asynccontextmanager
async def with_history(browsers: Browsers, server: ServerProcess, browser: str) -> AsyncIterator[Person]:
    """Somebody whose browser keeps pages that were left. It is a browser of its own: Playwright turns that off."""
    options: dict[str, Any] = {"ignore_default_args": ["--disable-back-forward-cache"]} if browser == "chromium" else {}
    async with await launch(browsers.playwright, browser, **options) as started:
        person = await Person.arrive(started, f"http://localhost:{server.port}")
        yield person
        await person.leave()
        assert person.complaints == []


@pytest.mark.parametrize("browser", BROWSERS)
async def test_a_page_that_was_left_comes_back_by_the_back_button(
    browsers: Browsers, server: ServerProcess, browser: str
) -> None:
    async with (
        stores(f"ws://127.0.0.1:{server.port}", "bob", timing=QUICK) as (bob,),
        with_history(browsers, server, browser) as person,
    ):
        person.tolerate("WebSocket connection to .* failed: Page entered Back-Forward Cache")
        alice = await Window(person).start("alice")

        # With no peer, Chromium keeps the page and closes its WebSocket. Firefox keeps no page that has one open.
        await alice.page.evaluate(REMEMBER)
        await alice.page.goto("/src/page/icon.svg")
        await alice.page.evaluate("setTimeout(() => history.back())")  # not within, since that ends what evaluates
        await expect(alice.server).to_have_text("Server connected")
        if browser == "chromium":
            assert await alice.page.evaluate("[window.kept, window.persisted]") == [True, True]

        # Whether the page is kept or not: the peer is told goodbye, and what it sends meanwhile comes at the return.
        with_bob = await (await alice.talk_to("bob")).connected()
        await with_bob.delivers("before")
        await alice.page.evaluate(REMEMBER)
        await alice.page.goto("/src/page/icon.svg")
        await until_state(bob, "alice", PeerState.CLOSED)
        waiting = bob.send("alice", "while you were away")
        await alice.page.evaluate("setTimeout(() => history.back())")  # not within, since that ends what evaluates
        await waiting
        await (await alice.open("bob")).connected()
        await with_bob.heard("while you were away")
        await with_bob.delivers("after")
        assert await contents(bob, 2) == ["before", "after"]


def runs_pages(process: psutil.Process) -> bool:
    try:
        return bool({"--type=renderer", "tab"} & set(process.cmdline()))
    except psutil.NoSuchProcess:  # a browser has many, and some that are not needed any more end all the time
        return False


@contextmanager
def frozen() -> Iterator[None]:
    """Within the block nothing of any page runs, as in a tab that the browser has frozen.

    Chromium freezes no tab that is visible, and without a screen it hides none; Firefox has no command for it. So the
    processes that run pages are stopped.
    """
    children = psutil.Process().children(recursive=True)
    pages = [child for child in children if runs_pages(child)]
    assert pages
    for page in pages:
        page.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for page in pages:
            page.send_signal(signal.SIGCONT)


@IN_BOTH
async def test_a_page_that_was_frozen_has_missed_nothing(arrive: Arrive, server: ServerProcess) -> None:
    async with stores(f"ws://127.0.0.1:{server.port}", "bob", timing=QUICK) as (bob,):
        (alice,) = await tabs(arrive, "alice", quick=True)
        await bob.connect_to_peer("alice")
        await alice.sends("bob", "before")
        await bob.send("alice", 0)
        with frozen():
            await until_peer(bob, "alice", lambda view: view.state is not PeerState.CONNECTED, "the silence")
            sent = [bob.send("alice", number) for number in range(1, 20)]
        async with asyncio.timeout(40):
            await asyncio.gather(*sent)
        assert await alice.contents(20) == list(range(20))
        await alice.sends("bob", "after")
        assert [message.content for message in await read(bob, 2)] == ["before", "after"]
        assert await alice.get("got.length") == 0
