"""Every state of the page, on a desktop and on a phone, in light and dark: accessible to all, and nothing too wide."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

import pytest
from playwright.async_api import Browser, Page

from support.browser import Arrive
from support.page_tour import Screen, tour
from support.server_process import ServerProcess

AXE = Path(__file__).parents[2] / "sdk/node_modules/axe-core/axe.min.js"
SCREENS = {"desktop": Screen(1280, 800, phone=False), "phone": Screen(360, 740, phone=True)}
VIOLATIONS = """
async (rules) => {
  const { violations } = await axe.run(document, { resultTypes: ['violations'], ...(rules && { runOnly: rules }) });
  return violations.map(({ id, help, nodes }) => ({ id, help, where: nodes.map((node) => node.html.slice(0, 200)) }));
}
"""
COLOUR_RULES = ["color-contrast", "link-in-text-block"]
SCHEMES: Final[tuple[tuple[Literal["light", "dark"], list[str] | None], ...]] = (
    ("light", None),
    ("dark", COLOUR_RULES),
)
# Whatever has more in it than fits, unless it says so by an ellipsis, or is a field that scrolls with the cursor.
TOO_WIDE = """
(width) => {
  const found = innerWidth > width ? [`the page is ${innerWidth} pixels wide`] : [];
  for (const element of document.body.querySelectorAll('*')) {
    const { textOverflow, display } = getComputedStyle(element);
    const fits = element.scrollWidth <= element.clientWidth + 1 || textOverflow === 'ellipsis';
    if (fits || element.clientWidth <= 1 || display === 'inline') continue;
    if (element.closest('svg, input, textarea, .unseen')) continue;
    found.push(`${element.scrollWidth} in ${element.clientWidth}: ${element.outerHTML.slice(0, 200)}`);
  }
  for (const element of document.body.querySelectorAll('button, input, textarea, a, video, code')) {
    const { left, right } = element.getBoundingClientRect();
    if (element.checkVisibility() && (left < -0.5 || right > width + 0.5)) {
      found.push(`from ${left} to ${right}: ${element.outerHTML.slice(0, 200)}`);
    }
  }
  return found;
}
"""


async def violations(page: Page, rules: list[str] | None = None) -> list[Any]:
    """What axe finds, by all of its rules or these."""
    if not await page.evaluate("typeof axe === 'object'"):
        await page.evaluate(AXE.read_text("utf-8"))
    found = await page.evaluate(VIOLATIONS, rules)
    assert isinstance(found, list)
    return found


@pytest.mark.timeout(600)  # forty states, each looked at twice: 170 s where ten others want the same core
@pytest.mark.parametrize("kind", SCREENS)
async def test_every_state_is_accessible_and_fits(chromium: Browser, kind: str, tmp_path: Path) -> None:
    screen = SCREENS[kind]
    faults: list[Any] = []
    seen: list[str] = []

    async def look(state: str, page: Page) -> None:
        grounds = set()
        # The rest is the same in light and dark.
        for scheme, rules in SCHEMES:
            await page.emulate_media(color_scheme=scheme)
            grounds.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
            faults.extend((state, scheme, violation) for violation in await violations(page, rules))
        faults.extend((state, fault) for fault in await page.evaluate(TOO_WIDE, screen.width))
        assert len(grounds) == 2  # it is dark in the dark
        seen.append(state)

    async with ServerProcess(tmp_path) as server:
        try:
            await tour(chromium, server, tmp_path, screen, look)
        finally:
            print(*faults, sep="\n")
        server.assert_clean_log()
    assert not faults, "\n".join(map(str, faults))
    assert len(set(seen)) == len(seen) > 30


async def test_what_is_wrong_is_found(arrive: Arrive) -> None:
    alice = await arrive()
    await alice.page.set_viewport_size({"width": 360, "height": 740})
    await alice.page.goto("/")
    assert await violations(alice.page) == []
    assert await alice.page.evaluate(TOO_WIDE, 360) == []
    await alice.page.evaluate("""() => {
        const image = Object.assign(new Image(400, 20), { src: '/src/page/icon.svg' });
        const pale = Object.assign(document.createElement('p'), { textContent: 'pale' });
        pale.style.color = '#d0d0d0';
        const word = Object.assign(document.createElement('p'), { textContent: 'w'.repeat(80) });
        word.style.overflowWrap = 'normal';
        document.querySelector('main').append(image, pale, word);
    }""")
    assert {violation["id"] for violation in await violations(alice.page)} >= {"image-alt", "color-contrast"}
    assert "color-contrast" in {violation["id"] for violation in await violations(alice.page, COLOUR_RULES)}
    assert any("wwww" in fault for fault in await alice.page.evaluate(TOO_WIDE, 360))
