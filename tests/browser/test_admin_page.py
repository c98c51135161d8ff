"""The operator's page, in a real browser, beside real clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser, Dialog, Page, expect

from aldis.server.app import SignalingServer
from support.certificates import make_certificates
from support.nginx import nginx
from support.ports import free_port
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
    await expect(page.get_by_role("heading", name="Names that may register")).to_be_hidden()


async def test_it_fits_a_phone_with_long_names_and_bans(page: Page, admin_server: SignalingServer) -> None:
    await page.set_viewport_size({"width": 360, "height": 740})
    async with await RawClient.connect(admin_server.port) as user:
        await user.register("a" * 64)
        await sign_in(page)
        await page.get_by_label("Which").fill("b" * 64)
        await page.get_by_label("Reason").fill("of a reason that is told in many words, more than there is room for")
        await page.get_by_role("button", name="Ban", exact=True).click()
        for button in ("Disconnect", "End"):
            await expect(page.get_by_role("button", name=button)).to_be_visible()
        hidden = "[...document.querySelectorAll('html, section')].filter((each) => each.scrollWidth > each.clientWidth)"
        assert (
            await page.evaluate(f"{hidden}.map((each) => `${{each.scrollWidth}} ${{each.innerText.slice(0, 30)}}`)")
            == []
        )
        name = await page.locator("#users td").first.bounding_box()
        assert name is not None
        assert name["width"] >= 130
        assert await page.locator("#users td:first-child").evaluate("(cell) => cell.scrollWidth <= cell.clientWidth")


async def test_it_works_at_a_path_of_a_proxy(chromium: Browser, admin_server: SignalingServer, tmp_path: Path) -> None:
    port = free_port()
    place = f"location /of/aldis/ {{ proxy_pass http://127.0.0.1:{admin_server.admin_port}/; }}"
    async with nginx(tmp_path / "nginx", port, place):
        page = await chromium.new_page()
        await page.goto(f"http://127.0.0.1:{port}/of/aldis/")
        await sign_in(page)
        await page.context.close()


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


async def test_what_an_operator_may_not_mean_is_asked_first(page: Page, admin_server: SignalingServer) -> None:
    asked: list[str] = []
    answers = [False, True, True]

    async def answer(dialog: Dialog) -> None:
        asked.append(dialog.message)
        await (dialog.accept() if answers[len(asked) - 1] else dialog.dismiss())

    page.on("dialog", answer)
    await sign_in(page)
    status, button = page.get_by_role("status"), page.get_by_role("button", name="Ban", exact=True)
    await page.get_by_label("What").select_option("network")
    await page.get_by_label("Which").fill("192.0.0.0/7")
    await page.locator("#seconds").select_option("ever")
    await button.click()
    await expect(status).to_have_text("192.0.0.0/7 is wider than a /8: it bans a large part of all addresses")
    assert len(admin_server.hub.bans) == 0
    await button.click()
    await expect(status).to_have_text("192.0.0.0/7 is banned; 0 sessions ended.")
    await page.get_by_label("Which").fill("192.0.0.0/7")
    await page.locator("#seconds").select_option("an hour")
    await button.click()
    await expect(status).to_have_text("192.0.0.0/7 is banned; 0 sessions ended. The ban before it was for ever.")
    assert asked[0] == "192.0.0.0/7 is wider than a /8: it bans a large part of all addresses.\n\nBan all the same?"
    assert "is banned for ever already, and this ban would end earlier" in asked[2]


async def test_a_server_that_goes_away_is_told_and_the_last_figures_stay(
    page: Page, admin_server: SignalingServer
) -> None:
    await sign_in(page)
    await page.route("**/api/**", lambda route: route.abort())
    await expect(page.get_by_role("status")).to_contain_text("cannot be reached")
    await expect(page.get_by_text("Up for")).to_be_visible()


@pytest_asyncio.fixture(loop_scope="session")
async def secure_server(tmp_path: Path) -> AsyncIterator[SignalingServer]:
    """With a certificate of four days and a TURN server."""
    files = make_certificates(tmp_path)
    turn = {"turn_server": True, "turn_port": free_port(), "turn_tls_port": free_port()}
    given = config(admin_port=0, admin_token=TOKEN, data=str(tmp_path), tls_cert=files.cert, tls_key=files.key, **turn)
    async with SignalingServer(given) as server:
        yield server


async def test_an_operator_sees_certificate_and_turn_server_and_makes_a_new_secret(
    chromium: Browser, secure_server: SignalingServer
) -> None:
    turn = secure_server.turn
    assert turn is not None
    context = await chromium.new_context(base_url=f"http://127.0.0.1:{secure_server.admin_port}")
    page = await context.new_page()
    await page.goto("/")
    await sign_in(page)
    await expect(page.locator("#problems")).to_have_text("The certificate expires in 0 days.")
    certificate = page.get_by_role("article", name="Certificate")
    await expect(certificate).to_contain_text("127.0.0.1")
    await expect(certificate).to_contain_text("files")
    await expect(certificate.get_by_role("button")).to_be_hidden()  # of files, none is ordered
    shown = page.get_by_role("article", name="TURN server")
    await expect(shown).to_contain_text("up")
    before = turn.secret
    await shown.get_by_role("button", name="New secret").click()
    await expect(page.get_by_role("status")).to_contain_text("The TURN server has a new secret")
    assert turn.secret != before
    await expect(shown).to_contain_text("until")
    turn.allocation_problem = "it gives no relay: 508 Insufficient Capacity"
    await expect(page.locator("#problems")).to_contain_text("The TURN server does not relay: it gives no relay: 508")
    await expect(page.locator("#unreached")).to_have_text("None since the start.")
    secure_server.connections.scheduler.throttled += 3
    await expect(page.locator("#reached-limits")).to_contain_text("messages_per_second, bytes_per_second")
    await expect(page.locator("#unreached")).to_be_empty()
    await context.close()


async def test_a_turn_server_that_runs_by_itself_is_shown(chromium: Browser, tmp_path: Path) -> None:
    asked = f"turn.a-long-name-of-a-host.invalid:{free_port()}"
    given = config(admin_port=0, admin_token=TOKEN, turn_check=[f"turn:{asked}"], turn_secret="s3cret")
    async with SignalingServer(given) as server:
        await server.turn_watch.check()
        page = await chromium.new_page()
        await page.goto(f"http://127.0.0.1:{server.admin_port}/")
        await sign_in(page)
        article = page.get_by_role("article", name="TURN server")
        await expect(article.get_by_role("definition")).to_have_text(["does not relay"])
        over = "[...document.querySelectorAll('#turn dt')].filter((each) => each.scrollWidth > each.clientWidth).length"
        assert await page.evaluate(over) == 0
        await expect(page.get_by_text(f"The TURN server at {asked} does not relay: ")).to_be_visible()
        await page.context.close()


async def test_without_tls_and_turn_the_page_says_so(page: Page) -> None:
    await sign_in(page)
    await expect(page.locator("#problems")).to_have_text("All is well.")
    await expect(page.get_by_role("article", name="Certificate")).to_contain_text("not here")
    await expect(page.get_by_role("article", name="TURN server")).to_contain_text("not run by this server")
    await expect(page.get_by_role("article").get_by_role("button")).to_have_count(0)


async def test_an_operator_lists_names_and_takes_one_off(chromium: Browser, tmp_path: Path) -> None:
    settings = config(admin_port=0, admin_token=TOKEN, data=str(tmp_path), name_policy="closed")
    async with SignalingServer(settings) as server:
        page = await chromium.new_page(base_url=f"http://127.0.0.1:{server.admin_port}")
        await page.goto("/")
        await sign_in(page)
        for said in ("alice may register now.", "alice was on the list already."):
            await page.get_by_label("Name", exact=True).fill("alice")
            await page.get_by_role("button", name="Add").click()
            await expect(page.get_by_role("status")).to_have_text(said)
        async with await RawClient.connect(server.port) as alice:
            assert (await alice.register("alice"))["success"]
            await page.get_by_role("button", name="Remove alice from the list").click()
            await expect(page.get_by_role("status")).to_have_text("alice may not register any more; 1 session ended.")
            assert (await alice.wait_closed())[0] == 4501
        await expect(page.get_by_role("button", name="Remove alice from the list")).to_be_hidden()
        await page.close()
