"""The page of a server that wants tokens: what it says, and that it takes one from its address."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from playwright.async_api import expect

from aldis.server.app import SignalingServer
from aldis.server.tuning import Tuning
from support.browser import Arrive
from support.page_windows import Window, window
from support.server_process import ServerProcess
from support.settings import config
from support.tokens import an_hour_passes, jwks, public_jwk, token


def token_for(name: str, seconds: float = 600) -> str:
    return token({"sub": name, "exp": int(time.time() + seconds)})


async def test_the_page_says_that_a_token_is_needed_and_takes_it_from_its_address(
    arrive: Arrive, tmp_path: Path
) -> None:
    keys = tmp_path / "jwks.json"
    keys.write_bytes(jwks(public_jwk("EdDSA")))
    (tmp_path / "guarded").mkdir()
    alice = await window(arrive)
    settings: dict[str, Any] = {"auth": "token", "jwks": str(keys)}
    async with ServerProcess(tmp_path / "guarded", **settings) as server:
        page, home = alice.page, f"http://localhost:{server.port}/"
        await page.goto(home)
        await alice.choose("alice")
        await expect(alice.alert).to_contain_text("This server is for people with an account")

        # A link that is followed in the open page.
        await page.goto(f"{home}#token={token_for('alice', -60)}")
        await expect(page).to_have_url(home)
        await alice.button("Start").click()
        await expect(alice.alert).to_contain_text("Your token has expired")
        await page.goto(f"{home}#token={token_for('bob')}")
        await alice.button("Start").click()
        await expect(alice.alert).to_contain_text("Your token is not for this name or this server")

        # A link that opens the page; the token stays in its tab, and is in no invitation.
        again = Window(alice.person, await alice.person.context.new_page())
        text = token_for("alice")
        await again.start("alice", f"{home}#token={text}")
        await expect(again.page).to_have_url(home)
        assert text not in await again.invitation()
        await again.page.reload()
        await expect(again.server).to_have_text("Server connected")
        await again.page.close()
        await page.goto("about:blank")
        assert text not in server.log_text()


async def test_a_token_that_expires_is_told_and_another_link_in_the_same_window_goes_on(
    arrive: Arrive, tmp_path: Path
) -> None:
    keys = tmp_path / "jwks.json"
    keys.write_bytes(jwks(public_jwk("EdDSA")))
    alice = await window(arrive)
    settings = config(auth="token", jwks=keys, token_leeway=0, token_grace=0, ping_interval=1)
    async with SignalingServer(settings, tuning=Tuning(tick=0.05)) as server:
        home = f"http://localhost:{server.port}/"
        await alice.start("alice", f"{home}#token={token_for('alice')}")
        an_hour_passes(server, "alice")
        await expect(alice.alert).to_contain_text("Your token has expired")
        await alice.page.goto(f"{home}#token={token_for('alice', 7200)}")
        await expect(alice.server).to_have_text("Server connected")
        await expect(alice.page).to_have_url(home)
        await alice.page.goto("about:blank")
