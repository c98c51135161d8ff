"""The page behind a real nginx, at a sub-path of its host; and what browsers say where the server has another name."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from browser.conftest import Arrive
from support.browser import Person
from support.nginx import HOST, PASS, SUB_PATHS, nginx
from support.page_windows import Window
from support.ports import free_port
from support.server_process import ServerProcess


@pytest.mark.parametrize("way", SUB_PATHS)
async def test_two_people_talk_on_a_page_at_a_sub_path(chromium: Browser, tmp_path: Path, way: str) -> None:
    port = free_port()
    base = f"http://localhost:{port}"
    settings: dict[str, Any] = {"base_path": "/aldis"} if way == "kept" else {}
    async with (
        ServerProcess(tmp_path, names=f"localhost:{port}", **settings) as server,
        nginx(tmp_path / "nginx", port, PASS + HOST + SUB_PATHS[way].format(server=server.port)),
    ):
        people = [await Person.arrive(chromium, base) for _ in range(2)]
        alice, bob = map(Window, people)
        # Without the slash at its end where something redirects it.
        await alice.start("alice", "/aldis/" if way == "doubled" else "/aldis")
        assert alice.page.url == f"{base}/aldis/"
        link = await alice.invitation()
        assert link.startswith(f"{base}/aldis/#alice~")
        await bob.page.goto(link)
        await bob.choose("bob")
        with_alice = await bob.conversation("alice").connected()
        await with_alice.delivers("Hello alice!")
        with_bob = await alice.conversation("bob").connected()
        await with_bob.heard("Hello alice!")
        await bob.page.reload()
        await expect(bob.server).to_have_text("Server connected")
        assert bob.page.url == f"{base}/aldis/"
        for person in people:
            assert person.complaints == []
            await person.leave()


async def test_a_browser_is_told_that_the_server_has_another_name(
    arrive: Arrive, server: ServerProcess, tmp_path: Path
) -> None:
    port = free_port()
    places = PASS + HOST + f"location / {{ proxy_pass http://127.0.0.1:{server.port}; }}"
    async with nginx(tmp_path / "nginx", port, places):
        person = await arrive()
        await person.page.goto("/")
        program = """async (url) => {
          const { NetworkStore } = await import(`${url}/aldis.js`);
          const store = new NetworkStore();
          try {
            await store.connectToSignaling(url, 'alice');
          } catch ({ name, code, message }) {
            return { name, code, message };
          } finally {
            await store.disconnect();
          }
        }"""
        # Pages of other origins have no such policy as the server's own.
        person.page = await person.context.new_page()
        await person.page.goto(f"http://localhost:{server.port}/healthz")
        error = await person.page.evaluate(program, f"http://localhost:{port}")
        assert (error["name"], error["code"]) == ("ConnectionClosed", 4505)
        assert "--names" in error["message"]
        person.tolerate("the server responded with a status of 421")
        await person.page.goto(f"http://localhost:{port}/")
        text = person.page.get_by_text(f"aldis serve --names localhost:{port}")
        async with asyncio.timeout(30):
            await expect(text).to_be_visible()
        await person.page.screenshot(path=tmp_path / "misdirected.png")
