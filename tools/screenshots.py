"""Take pictures of the page in every state, on a desktop and on a phone, in light and dark.

    tools/netns.sh .venv/bin/python tools/screenshots.py [FOLDER]

It uses a real server, a real Chromium, and real peers, as the tests do (tests/support/page_tour.py). The pictures go to
FOLDER (default: build/screenshots), and those of the README to docs/images.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Browser, Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.browser import running_chromium  # noqa: E402
from support.page_tour import Screen, tour  # noqa: E402
from support.server_process import ServerProcess  # noqa: E402

PORT = 8765  # the usual port, so that invitations show the usual address
SAMPLES = 25  # of the round-trip time, one a second
SCREENS = {"desktop": Screen(1280, 800, phone=False), "phone": Screen(390, 844, phone=True)}
# Pictures of the README: the name here, and the name there.
SHOWN = {
    "desktop-light-conversation-with-a-picture": "chat-desktop",
    "desktop-light-invitation": "invitation-desktop",
    "phone-dark-call": "call-phone",
    "phone-dark-conversation-with-a-picture": "chat-phone",
}
MOST = 150_000  # bytes of a picture in the README


async def take(chromium: Browser, kind: str, folder: Path) -> None:
    """All pictures of one kind of screen."""

    async def look(state: str, page: Page) -> None:
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            await page.screenshot(path=folder / f"{kind}-{scheme}-{state}.png")
        print(kind, state, flush=True)

    with tempfile.TemporaryDirectory() as place:
        async with ServerProcess(Path(place), port=PORT) as server:
            await tour(chromium, server, Path(place), SCREENS[kind], look, samples=SAMPLES)


async def take_all(folder: Path) -> None:
    async with running_chromium() as chromium:
        for kind in SCREENS:
            await take(chromium, kind, folder)


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    asyncio.run(take_all(folder))
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    for name, shown in SHOWN.items():
        picture = folder / f"{name}.png"
        if picture.stat().st_size > MOST:
            sys.exit(f"{picture} is too large for the README: {picture.stat().st_size} bytes")
        shutil.copyfile(picture, images / f"{shown}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "screenshots"))
