"""The examples of docs/browser.md and the READMEs run in a real browser, from a site that is not the server's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from playwright.async_api import Dialog, FilePayload, Page, expect

from aldis.errors import TransferFailed
from aldis.store.files.transfer import Transfer
from browser.conftest import Arrive
from support.browser import Person
from support.patience import PATIENCE
from support.server_process import ServerProcess
from support.stores import stores

ROOT = Path(__file__).parents[2]
_GUIDE = ROOT / "docs" / "browser.md"
_SDK = ROOT / "sdk"
_MAKER = _SDK / "test" / "support" / "guide.js"
# The names that programs can use: what the module exports, and the parts of its classes.
_NAMES = """async (url) => {
  const sdk = await import(url);
  const own = (object) => Object.getOwnPropertyNames(object).filter((name) => name !== 'constructor');
  const plain = ['length', 'name', 'prototype'];
  return {
    module: own(sdk),
    store: [...own(sdk.NetworkStore.prototype), ...own(new sdk.NetworkStore())],
    identity: [...own(sdk.Identity.prototype), ...own(sdk.Identity).filter((name) => !plain.includes(name))],
    client: own(sdk.SignalingClient.prototype),
  };
}"""


async def make(folder: Path, server: ServerProcess) -> None:
    """Make pages of the documentation's examples; see guide.js."""
    maker = await asyncio.create_subprocess_exec("node", str(_MAKER), str(folder), f"http://localhost:{server.port}")
    async with asyncio.timeout(PATIENCE):
        assert await maker.wait() == 0


@asynccontextmanager
async def site(folder: Path, server: ServerProcess, policy: str | None = None) -> AsyncIterator[str]:
    """The pages of the examples on a site of their own, with this policy; the address of the folder."""
    await make(folder, server)
    application = web.Application()
    application.router.add_static("/", folder)

    async def restrict(_: web.Request, response: web.StreamResponse) -> None:
        if policy is not None:
            response.headers["Content-Security-Policy"] = policy

    application.on_response_prepare.append(restrict)
    runner = web.AppRunner(application, shutdown_timeout=1)
    await runner.setup()
    try:
        listener = web.TCPSite(runner, "localhost", 0)
        await listener.start()
        yield f"http://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def documented_policy(server: ServerProcess) -> str:
    """The content security policy that the guide names, for this server."""
    (policy,) = re.findall(r"^Content-Security-Policy: (.*)$", _GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    here = f"//localhost:{server.port}"
    return str(policy).replace("https://signal.example", f"http:{here}").replace("wss://signal.example", f"ws:{here}")


async def visit(arrive: Arrive, address: str) -> Person:
    person = await arrive()
    person.tolerate("favicon.ico")  # which no example has
    await person.page.goto(address)
    return person


async def test_the_guide_runs_from_its_first_example_to_its_last_under_the_policy_that_it_names(
    arrive: Arrive, server: ServerProcess, tmp_path: Path
) -> None:
    async with site(tmp_path / "site", server, documented_policy(server)) as address:
        reader = await visit(arrive, f"{address}/guide.html")
        await expect(reader.page).to_have_title("the guide has run")
    said = [re.sub(r" \(http://\S+\)$", "", line) for line in reader.said]
    said = [line.partition(": ")[2] for line in said]
    for line in (
        "alice/main [1]: hello",
        "alice/main [2]: Uint8Array(2)",
        "alice/main [3]: {all: Array(4), n: 1}",
        "alice says for the callback",
        "alice offers words.txt, 16 bytes",
        "three words long",
        "done 16 of 16",
        "call: ringing null",
        "call: ended ended",
        "32 bytes",
        "nobody has ever registered that name",
        "direct udp",
        "registered",
        "closed",
    ):
        assert line in said, said
    assert any(re.fullmatch(r"(\w{4}-){7}\w{4}", line) for line in said)
    assert "connected [bob is closed, carol is connected]" in said


async def test_a_strict_type_checker_accepts_the_guide(server: ServerProcess, tmp_path: Path) -> None:
    await make(tmp_path, server)
    checker = await asyncio.create_subprocess_exec(
        str(_SDK / "node_modules" / ".bin" / "tsc"),
        *("--project", str(tmp_path / "sources")),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await checker.communicate()
    assert checker.returncode == 0, said.decode()


@pytest.mark.parametrize("framework", ["svelte", "react", "vue", "solid"])
async def test_the_component_shows_who_is_online_also_after_a_reload(
    arrive: Arrive, server: ServerProcess, tmp_path: Path, framework: str
) -> None:
    async with site(tmp_path / "site", server) as address:
        dora = await visit(arrive, f"{address}/{framework}.html")
        for _ in range(2):
            await expect(dora.page.get_by_text("Server: connected")).to_be_visible()
            await expect(dora.page.get_by_role("listitem")).to_have_text("alice is away")
            await dora.page.reload()
        async with stores(f"ws://127.0.0.1:{server.port}", "alice"):
            await expect(dora.page.get_by_role("listitem")).to_have_text("alice is online")
        await expect(dora.page.get_by_role("listitem")).to_have_text("alice is away")


async def test_a_transfer_in_the_state_of_vue_is_shown_and_cancelled(
    arrive: Arrive, server: ServerProcess, tmp_path: Path
) -> None:
    async with site(tmp_path / "site", server) as address, stores(f"ws://127.0.0.1:{server.port}", "alice") as (alice,):
        offered: asyncio.Queue[Transfer] = asyncio.Queue()
        alice.on_file(offered.put_nowait)
        dora = await visit(arrive, f"{address}/vue.html")
        await expect(dora.page.get_by_text("Server: connected")).to_be_visible()
        file = FilePayload(name="words.txt", mimeType="text/plain", buffer=b"three words long")
        await dora.page.get_by_label("files for alice").set_input_files([file])
        async with asyncio.timeout(PATIENCE):
            transfer = await offered.get()
        await expect(dora.page.get_by_text("words.txt: offered")).to_be_visible()
        await dora.page.get_by_role("button", name="Cancel").click()
        await expect(dora.page.get_by_text("words.txt: cancelled")).to_be_visible()
        with pytest.raises(TransferFailed):
            await transfer


async def join(arrive: Arrive, address: str, name: str, *tolerated: str) -> Page:
    """Somebody who opens the chat, and gives this name whenever it asks."""
    person = await arrive()
    for complaint in ("favicon.ico", *tolerated):
        person.tolerate(complaint)

    async def answer(dialog: Dialog) -> None:
        await dialog.accept(name)

    person.page.on("dialog", answer)
    await person.page.goto(address)
    return person.page


async def say(page: Page, to: str, text: str) -> None:
    await page.get_by_label("name").fill(to)
    await page.get_by_label("message").fill(text)
    await page.get_by_role("button", name="Send").click()


async def test_the_page_of_the_readme_is_a_whole_chat(arrive: Arrive, server: ServerProcess, tmp_path: Path) -> None:
    async with site(tmp_path / "site", server) as address:
        alice, bob = [await join(arrive, f"{address}/chat.html", name) for name in ("alice", "bob")]
        await say(alice, "bob", "hello")
        await expect(bob.locator("#log")).to_have_text("alice: hello\n")
        await say(bob, "alice", "hello yourself")
        await expect(alice.locator("#log")).to_have_text("me: hello\nbob: hello yourself\n")
        message = alice.get_by_label("message")
        await expect(message).to_have_value("")
        await message.fill("how are you?")
        await message.press("Enter")
        await expect(bob.locator("#log")).to_have_text("alice: hello\nme: hello yourself\nalice: how are you?\n")


async def test_the_page_of_the_readme_says_what_is_wrong_with_a_name(
    arrive: Arrive, server: ServerProcess, tmp_path: Path
) -> None:
    async with site(tmp_path / "site", server) as address, stores(f"ws://127.0.0.1:{server.port}", "alice"):
        for name, told in (
            ("alice", "error: the name alice belongs to another key: choose another, or keep your key (Identity"),
            ("", 'error: "": a name has 1 to 128 characters'),
        ):
            # What the page shows is in the console as well.
            page = await join(arrive, f"{address}/chat.html", name, "belongs to another", "1 to 128")
            await expect(page.locator("#log")).to_contain_text(told)
            # A message waits for the first login that succeeds.
            await say(page, "bob", "hello")
            await expect(page.locator("#log")).to_contain_text("me: hello")
            await expect(page.get_by_label("message")).to_have_value("")


async def test_whoever_reloads_the_page_of_the_readme_goes_on_under_the_same_name(
    arrive: Arrive, server: ServerProcess, tmp_path: Path
) -> None:
    async with site(tmp_path / "site", server) as address:
        alice, bob = [await join(arrive, f"{address}/chat.html", name) for name in ("alice", "bob")]
        await say(alice, "bob", "hello")
        await expect(bob.locator("#log")).to_have_text("alice: hello\n")
        await alice.reload()
        await say(bob, "alice", "still there?")
        await expect(alice.locator("#log")).to_have_text("bob: still there?\n")


async def test_the_sdk_comes_from_the_server_under_the_policy_that_the_guide_names(
    arrive: Arrive, server: ServerProcess, tmp_path: Path
) -> None:
    async with site(tmp_path / "site", server, documented_policy(server)) as address:
        alice = await join(arrive, f"{address}/policy.html", "alice")
        async with stores(f"ws://127.0.0.1:{server.port}", "bob") as (bob,):
            await say(alice, "bob", "hello")
            message = await anext(bob.messages())
        assert (message.sender, message.content) == ("alice", "hello")


async def test_the_page_of_the_projects_readme_greets_alice(
    arrive: Arrive, server: ServerProcess, tmp_path: Path
) -> None:
    async with site(tmp_path / "site", server) as address, stores(f"ws://127.0.0.1:{server.port}", "alice") as (alice,):
        carol = await visit(arrive, f"{address}/front.html")
        message = await anext(alice.messages())
        assert (message.sender, message.content) == ("carol", {"hello": "world"})
        async with carol.page.expect_console_message(lambda line: line.text == "alice hello yourself"):
            alice.send("carol", "hello yourself")


async def test_every_public_name_is_in_the_guide_and_every_name_in_the_readmes_table_is_public(
    arrive: Arrive, server: ServerProcess
) -> None:
    person = await arrive()
    await person.page.goto("/")
    names: dict[str, list[str]] = await person.page.evaluate(_NAMES, "/aldis.js")
    public = {name for some in names.values() for name in some}
    assert {"NetworkStore", "subscribe", "loadOrCreate", "discover"} <= public
    written = set(re.findall(r"\w+", _GUIDE.read_text(encoding="utf-8")))
    assert public - written == set()
    table = re.findall(r"^\| (`.*?) \| ", (_SDK / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    told = {name for row in table for name in re.findall(r"`(?:new )?(\w+)", row)}
    assert len(told) > 20
    assert told <= public
