"""The examples of docs/browser.md and sdk/README.md run in a real browser, from a site that is not the server's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import Dialog, Page, expect

from browser.conftest import Arrive
from support.browser import PATIENCE, Person
from support.server_process import ServerProcess
from support.stores import stores

ROOT = Path(__file__).parents[2]
_MAKER = ROOT / "sdk" / "test" / "support" / "guide.js"


@asynccontextmanager
async def site(folder: Path, server: ServerProcess) -> AsyncIterator[str]:
    """The pages that the documentation's examples make, on a site of their own; the address of the folder."""
    maker = await asyncio.create_subprocess_exec("node", str(_MAKER), str(folder), f"http://localhost:{server.port}")
    async with asyncio.timeout(PATIENCE):
        assert await maker.wait() == 0
    application = web.Application()
    application.router.add_static("/", folder)
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    try:
        listener = web.TCPSite(runner, "localhost", 0)
        await listener.start()
        yield f"http://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def visit(arrive: Arrive, address: str) -> Person:
    person = await arrive()
    person.tolerate("favicon.ico")  # which no example has
    await person.page.goto(address)
    return person


async def test_the_guide_runs_from_its_first_example_to_its_last(
    arrive: Arrive, server: ServerProcess, tmp_path: Path
) -> None:
    async with site(tmp_path / "site", server) as address:
        reader = await visit(arrive, f"{address}/guide.html")
        await expect(reader.page).to_have_title("the guide has run", timeout=PATIENCE * 1000)
    said = [re.sub(r" \(http://\S+\)$", "", line) for line in reader.said]
    said = [line.partition(": ")[2] for line in said]
    for line in (
        "alice [1]: hello",
        "alice [2]: Uint8Array(2)",
        "alice [3]: {all: Array(4), n: 1}",
        "alice offers words.txt, 16 bytes",
        "three words long",
        "done 16 of 16",
        "call: ringing null",
        "call: ended ended",
        "nobody has ever registered that name",
    ):
        assert line in said, said
    assert any(re.fullmatch(r"(\w{4}-){7}\w{4}", line) for line in said)
    assert any(re.fullmatch(r"connected \[bob is connected, carol is connect(ing|ed)\]", line) for line in said)
    assert any("path: direct" in line for line in said)


@pytest.mark.parametrize("framework", ["svelte", "react"])
async def test_the_component_shows_who_is_online(
    arrive: Arrive, server: ServerProcess, tmp_path: Path, framework: str
) -> None:
    async with site(tmp_path / "site", server) as address:
        dora = await visit(arrive, f"{address}/{framework}.html")
        await expect(dora.page.get_by_text("Server: connected")).to_be_visible()
        await expect(dora.page.get_by_role("listitem")).to_have_text("alice is away")
        async with stores(f"ws://127.0.0.1:{server.port}", "alice"):
            await expect(dora.page.get_by_role("listitem")).to_have_text("alice is online")
        await expect(dora.page.get_by_role("listitem")).to_have_text("alice is away")


async def test_the_page_of_the_readme_is_a_whole_chat(arrive: Arrive, server: ServerProcess, tmp_path: Path) -> None:
    async with site(tmp_path / "site", server) as address:
        people: dict[str, Page] = {}
        for name in ("alice", "bob"):
            person = await arrive()
            person.tolerate("favicon.ico")

            async def answer(dialog: Dialog, name: str = name) -> None:
                await dialog.accept(name)

            person.page.on("dialog", answer)
            await person.page.goto(f"{address}/readme.html")
            people[name] = person.page
        alice, bob = people["alice"], people["bob"]
        await say(alice, "bob", "hello")
        await expect(bob.locator("#log")).to_have_text("alice: hello\n")
        await say(bob, "alice", "hello yourself")
        await expect(alice.locator("#log")).to_have_text("bob: hello yourself\n")
        await say(alice, "bob", "how are you?")
        await expect(bob.locator("#log")).to_have_text("alice: hello\nalice: how are you?\n")


async def say(page: Page, to: str, text: str) -> None:
    await page.get_by_label("name").fill(to)
    await page.get_by_label("message").fill(text)
    await page.get_by_role("button", name="Send").click()
