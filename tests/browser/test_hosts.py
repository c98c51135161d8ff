"""The vectors of host names are what a real browser makes of them."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.async_api import Browser

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "hosts.json").read_text(encoding="utf-8"))


async def test_a_browser_gives_hosts_the_names_that_the_vectors_say(chromium: Browser) -> None:
    page = await chromium.new_page()
    found = await page.evaluate(
        "(texts) => texts.map((text) => new URL(`ws://${text}`).host)", [text for text, _ in VECTORS["read"]]
    )
    assert found == [host for _, host in VECTORS["read"]]
    await page.close()
