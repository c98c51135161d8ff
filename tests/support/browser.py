"""A real Chromium for tests, and people who sit before it: each in a context of their own, watched for errors.

Whatever a page writes to its console as an error, throws and does not catch, or is refused by its own security policy
is a complaint; a test that ends with complaints has failed. What a test provokes on purpose, it tolerates by name.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, WebError, async_playwright, expect

from support.patience import PATIENCE

EXECUTABLE = "chromium"
# Playwright has a time-out of its own for what is expected of a page, of 5 s.
expect.set_options(timeout=PATIENCE * 1000)
FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root in a namespace of their own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # WebRTC gathers candidates on `lo`, and without hiding them behind mDNS names, which nobody could resolve here.
    "--allow-loopback-in-peer-connection",
    # A camera with a moving picture and a microphone that beeps, and nobody who has to allow them.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
# Chromium fetches a page's icon when it finds the time, after `load` too: a test may have stopped the server by then,
# or stop it before the request is read, or while the icon is on its way.
# That the server has an icon is for the tests of its pages to show; one that it answers with an error is a complaint.
_ICON_TOO_LATE = (
    r"Failed to load resource: net::ERR_(CONNECTION_\w+|EMPTY_RESPONSE|CONTENT_LENGTH_MISMATCH) \(\S*/icon\.svg:"
)
# Milliseconds from the start of a navigation to when the name can be typed, by the browser's own clock: where this is
# an init script, `window.usable` is a promise of them.
USABLE = """
window.usable = new Promise((resolve) => {
  const look = () => {
    const field = document.querySelector('input[name="name"]');
    if (field && !field.disabled && field.getClientRects().length) resolve(performance.now());
    else requestAnimationFrame(look);
  };
  look();
});
"""
_WATCH = """
addEventListener('securitypolicyviolation', ({ effectiveDirective, blockedURI, sourceFile, lineNumber }) =>
  console.error(`CSP: ${effectiveDirective} refuses ${blockedURI} (${sourceFile}:${lineNumber})`));
"""


@asynccontextmanager
async def running_chromium() -> AsyncIterator[Browser]:
    """One Chromium; it ends with the block. That there is none is a failure."""
    executable = shutil.which(EXECUTABLE)
    assert executable, f"there is no {EXECUTABLE} on the path; `make test` installs it"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


class Person:
    """Somebody with a browser of their own: nothing is shared with others, neither keys nor storage nor cache.

    `page` is their first window. `complaints` is what went wrong in any of their windows, `said` their whole console.
    """

    def __init__(self, context: BrowserContext, page: Page, base: str) -> None:
        self.context = context
        self.page = page
        self.base = base
        self.complaints: list[str] = []
        self.said: list[str] = []
        self._tolerated = [re.compile(_ICON_TOO_LATE)]
        context.on("console", self._on_console)
        context.on("weberror", self._on_error)
        page.on("crash", lambda _: self.complaints.append("the page crashed"))

    @classmethod
    async def arrive(cls, browser: Browser, base: str, **options: Any) -> Person:
        """Open an empty window. `base` is where the page is, without a slash at its end.

        The options are those of the browser's context: the size of the window, for instance.
        """
        context = await browser.new_context(locale="en-GB", base_url=base, **options)
        context.set_default_timeout(PATIENCE * 1000)
        await context.add_init_script(_WATCH)
        return cls(context, await context.new_page(), base)

    def _on_console(self, message: ConsoleMessage) -> None:
        line = f"{message.type}: {message.text} ({message.location['url']}:{message.location['lineNumber']})"
        self.said.append(line)
        if message.type in ("error", "assert"):
            self._complain(line)

    def _on_error(self, error: WebError) -> None:
        self.said.append(f"uncaught: {error.error}")
        self._complain(f"uncaught: {error.error.stack or error.error}")

    def _complain(self, text: str) -> None:
        if not any(pattern.search(text) for pattern in self._tolerated):
            self.complaints.append(text)

    def tolerate(self, pattern: str) -> None:
        """From now on, complaints that contain this regular expression are none: the test provokes them."""
        self._tolerated.append(re.compile(pattern))

    async def screenshots(self, folder: Path, name: str) -> list[Path]:
        """A picture of each window, for whoever looks into why a test failed."""
        paths = []
        for number, page in enumerate(self.context.pages):
            path = folder / f"{name}-{number}.png"
            await page.screenshot(path=path, full_page=True, timeout=PATIENCE * 1000)
            paths.append(path)
        return paths

    async def leave(self) -> None:
        """Close all windows."""
        await self.context.close()


Arrive = Callable[[], Awaitable[Person]]
"""What the fixture `arrive` is: it brings one more person."""
