"""The operator's page, in a real browser, beside real clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from aldis.server.app import SignalingServer
from support.raw_websocket import RawClient
from support.settings import config

TOKEN = "a token of the operator"


@pytest_asyncio.fixture(loop_scope="session")
async def admin_server(tmp_path: Path) -> AsyncIterator[SignalingServer]:
    async with SignalingServer(config(admin_port=0, admin_token=TOKEN, data=str(tmp_path))) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def page(chromium: Browser, admin_server: SignalingServer) -> AsyncIterator[Page]:
    """The page; what the browser complains of fails the test."""
    context = await chromium.new_context(base_url=f"http://127.0.0.1:{admin_server.admin_port}")
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    await page.goto("/")
    yield page
    await context.close()
    # Requests that are refused, or cut off, are what these tests ask for.
    assert [text for text in complaints if "Failed to load resource" not in text] == []


async def sign_in(page: Page) -> None:
    await page.get_by_label("Admin token").fill(TOKEN)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", name="Users online")).to_be_visible()
    await expect(page.get_by_label("Admin token")).to_be_hidden()


async def test_the_token_is_asked_for_and_a_wrong_one_refused(page: Page) -> None:
    await page.get_by_label("Admin token").fill("wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("status")).to_have_text("the admin token is missing or wrong")
    await expect(page.get_by_role("heading", name="Bans")).to_be_hidden()
    await sign_in(page)
    await page.reload()
    await expect(page.get_by_role("heading", name="Bans")).to_be_visible()


async def test_an_operator_sees_users_and_disconnects_and_bans_one(page: Page, admin_server: SignalingServer) -> None:
    await sign_in(page)
    async with (
        await RawClient.connect(admin_server.port) as alice,
        await RawClient.connect(admin_server.port) as mallory,
    ):
        await alice.register("alice")
        await mallory.register("<b>mallory")
        users = page.locator("#users")
        await expect(users.get_by_role("cell", name="<b>mallory", exact=True)).to_be_visible()
        await page.get_by_label("Names that begin with").fill("al")
        await expect(users.get_by_role("row")).to_have_count(1)
        await page.get_by_role("button", name="Disconnect alice").click()
        assert (await alice.wait_closed())[0] == 4000
        await page.get_by_label("Names that begin with").fill("")
        await page.get_by_role("button", name="Ban <b>mallory").click()
        await page.get_by_label("Reason").fill("spam")
        await page.get_by_role("button", name="Ban", exact=True).click()
        assert await mallory.wait_closed() == (4503, "banned: spam")
        await expect(page.get_by_role("status")).to_have_text("<b>mallory is banned; 1 session ended.")
        await page.get_by_role("button", name="End the ban of user <b>mallory").click()
        await expect(page.locator("#bans").get_by_role("row")).to_have_count(0)
    assert len(admin_server.hub.bans) == 0


async def test_a_ban_that_cannot_be_is_said(page: Page) -> None:
    await sign_in(page)
    await page.get_by_label("What").select_option("network")
    await page.get_by_label("Which").fill("mars")
    await page.get_by_role("button", name="Ban", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("'mars' is no network")


async def test_a_server_that_goes_away_is_told_and_the_last_figures_stay(
    page: Page, admin_server: SignalingServer
) -> None:
    await sign_in(page)
    await page.route("**/api/**", lambda route: route.abort())
    await expect(page.get_by_role("status")).to_contain_text("cannot be reached")
    await expect(page.get_by_text("Up for")).to_be_visible()
