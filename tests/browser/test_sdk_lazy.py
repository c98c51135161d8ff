"""Files and calls are loaded when they are first used: by pages of any origin, and again when that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Request, Route, expect

from browser.conftest import IN_BOTH, Arrive
from support.page_windows import window
from support.patience import PATIENCE
from support.server_process import ServerProcess
from support.tabs import Tab, tabs

TAKE = "window.taken = []; store.onFile((transfer) => { transfer.accept(); taken.push(transfer); });"
SEND = "window.sent = await store.sendFile('bob', new File(['three words long'], 'words.txt')); await sent.finished;"


def asked_by(context: BrowserContext) -> list[str]:
    """The names of all parts that are asked for from now on."""
    asked: list[str] = []

    def look(request: Request) -> None:
        name = request.url.rpartition("/")[2].partition("-")[0]
        if name in ("calls", "files"):
            asked.append(name)

    context.on("request", look)
    return asked


class Lost(list[str]):
    """A part that a server has no more; the list has the addresses at which a browser asked for it."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()
        self._answered = 0
        self._away = True

    async def answer(self, route: Route) -> None:
        """Let the browser find nothing while the part is away."""
        # The route stays for good: Playwright sends on a request that it is answering when its route is taken away.
        if not self._away:
            await route.fallback()
            return
        self.append(route.request.url.rpartition(".js")[2])
        await route.fulfill(status=404)
        self._answered += 1
        self._more.set()

    def found(self) -> None:
        """The part is there again."""
        self._away = False

    async def until(self, count: int) -> None:
        """Wait until it was asked for, and not found, so many times."""
        async with asyncio.timeout(PATIENCE):
            while self._answered < count:
                self._more.clear()
                await self._more.wait()


async def lose(context: BrowserContext, part: str) -> Lost:
    """From now on this part is not there, as after an update of the server."""
    lost = Lost()
    await context.route(f"**/{part}-*.js*", lost.answer)
    return lost


async def test_messages_load_no_part_and_files_load_theirs_once(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    asked = asked_by(alice.person.context)
    await alice.run("await store.send('bob', 'hello');")
    assert asked == []
    await bob.run(TAKE)
    await alice.run(SEND)
    await alice.run(SEND)
    assert asked == ["files"]


async def test_what_a_page_needs_while_its_server_is_away_is_there_already(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    await alice.run("await store.send('bob', 'hello');")
    await alice.run("await store.drain('bob');")
    # The first messages may go through the server.
    await alice.connected("bob")
    await bob.connected("alice")
    asked: list[str] = []
    for tab in (alice, bob):
        tab.person.context.on("request", lambda request: asked.append(request.url))
    assert await alice.run("return (await store.stats('bob')).path;") == "direct"
    await bob.run(
        """Object.defineProperty(document, 'hidden', { value: true });
        document.dispatchEvent(new Event('visibilitychange'));
        await store.send('alice', 'from behind');"""
    )
    await bob.run("await store.drain('alice');")
    assert asked == []


@IN_BOTH
async def test_a_part_that_does_not_come_is_told_and_comes_when_it_is_asked_for_again(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    await bob.run(TAKE)
    alice.person.tolerate("Failed to load resource.*files-|files-")
    lost = await lose(alice.person.context, "files")
    for count in (1, 2):
        error = await alice.fails("store.sendFile('bob', new Blob(['x']))")
        assert (error["name"], error["part"], error["temporary"]) == ("LoadFailed", "files", True)
        assert "reload the page" in error["message"]
        assert len(lost) == count
    lost.found()
    await alice.run("await store.send('bob', 'meanwhile');")
    await alice.run(SEND)
    assert len(set(lost)) == 2  # each time at another address: Firefox remembers what it did not get


@IN_BOTH
async def test_an_offer_waits_for_the_part_of_the_one_who_is_to_take_it(arrive: Arrive) -> None:
    alice, bob = await tabs(arrive, "alice", "bob")
    bob.person.tolerate("Failed to load resource.*files-|files-")
    lost = await lose(bob.person.context, "files")
    await bob.run(TAKE)
    await alice.run("window.sent = await store.sendFile('bob', new File(['three words long'], 'words.txt'));")
    await alice.run("await store.send('bob', 'it is on offer');")
    await lost.until(2)  # once for the callback, and again for the offer
    lost.found()
    await alice.run("await sent.finished;")
    assert await bob.run("await taken[0].finished; return taken[0].blob.text();") == "three words long"


async def test_a_page_of_another_origin_loads_the_parts_from_where_the_sdk_came(
    arrive: Arrive, server: ServerProcess
) -> None:
    alice, bob = [Tab(await arrive()) for _ in range(2)]
    for tab, name in ((alice, "alice"), (bob, "bob")):
        # To a browser another origin than `localhost`, and a page without a policy of its own.
        await tab.page.goto(f"http://127.0.0.1:{server.port}/healthz")
        await tab.run(
            """const { NetworkStore } = await import(`${base}/aldis.js?page=1`);
            window.store = new NetworkStore();
            await store.connectToSignaling(base, name);""",
            base=tab.person.base,
            name=name,
        )
    await bob.run(TAKE)
    await alice.run(SEND)
    assert await bob.run("return taken[0].blob.text();") == "three words long"


@pytest.mark.parametrize("kind", ["file", "call"])
async def test_the_page_says_what_to_do_when_a_part_of_it_does_not_come(
    arrive: Arrive, tmp_path: Path, kind: str
) -> None:
    alice, bob = await window(arrive), await window(arrive, "bob")
    alice.person.tolerate("Failed to load resource.*(files|calls)-")
    lost = await lose(alice.person.context, f"{kind}s")
    await alice.start("alice")
    with_bob = await (await alice.talk_to("bob")).connected()
    assert bob.name == "bob"
    if kind == "file":
        (tmp_path / "a.txt").write_text("x")
        async with alice.page.expect_file_chooser() as chooser:
            await with_bob.button("Send files").click()
        await (await chooser.value).set_files(tmp_path / "a.txt")
    else:
        await with_bob.button("Start an audio call").click()
    told = with_bob.region.get_by_text("A part of this page did not come from the server")
    await expect(told).to_be_visible()
    lost.found()
    await with_bob.delivers("still here")
