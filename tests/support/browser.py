"""Real browsers for tests, Chromium and Firefox, and people who use them: each in a context of their own.

Playwright drives both, as Debian ships them: Chromium by its DevTools protocol, Firefox by WebDriver BiDi. So one test
can run in either browser.

Whatever a page writes to its console as an error, throws and does not catch, or is refused by its own security policy
is a complaint; a test that ends with complaints has failed. What a test provokes on purpose, it tolerates by name.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    WebError,
    async_playwright,
    expect,
)

from support.patience import PATIENCE

EXECUTABLES = {"chromium": "chromium", "firefox": "firefox-esr"}
BROWSERS = tuple(EXECUTABLES)
# Playwright has a time-out of its own for what is expected of a page, of 5 s.
expect.set_options(timeout=PATIENCE * 1000)
# Playwright's own list, which a second switch replaces, and three things that cost half of the processor time of a
# person's arrival: each window of Chromium draws two pages that belong to its address bar, which nobody sees here, and
# keeps a process for the next site, which nobody visits.
_DISABLED = (
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "DialMediaRouteProvider",
    "GlobalMediaControls",
    "HttpsUpgrades",
    "LensOverlay",
    "MediaRouter",
    "PaintHolding",
    "ThirdPartyStoragePartitioning",
    "BlockOriginHeaderModificationOnRedirect",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "Translate",
    "OptimizationHints",
    "NetworkTimeServiceQuerying",
    "AimEnabled",
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
    "SpareRendererForSitePerProcess",
)
FLAGS = (
    "--headless",
    "--no-sandbox",  # tests run as root in a namespace of their own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--disable-features={','.join(_DISABLED)}",
    # WebRTC gathers candidates on `lo`, and without hiding them behind mDNS names, which nobody could resolve here.
    "--allow-loopback-in-peer-connection",
    # A camera with a moving picture and a microphone that beeps, and nobody who has to allow them.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
# Playwright adds what keeps Firefox quiet: no telemetry, no updates, no speculative connections.
PREFERENCES: dict[str, str | float | bool] = {
    # A camera with a moving picture and a microphone that beeps, and nobody who has to allow them.
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    # Nobody could resolve the mDNS names that hide addresses.
    "media.peerconnection.ice.obfuscate_host_addresses": False,
    # wrtc and Chromium gather on `lo` here and may choose a path from there. Firefox would not answer on it.
    "media.peerconnection.ice.loopback": True,
    # A codec that Firefox would otherwise download from its maker.
    "media.gmp-manager.url": "",
    # Off by default in Playwright's profile and on in everybody's.
    "fission.bfcacheInParent": True,
}
# Chromium fetches a page's icon when it finds the time, after `load` too: a test may have stopped the server by then,
# or stop it before the request is read, or while the icon is on its way.
# That the server has an icon is for the tests of its pages to show; one that it answers with an error is a complaint.
_ICON_TOO_LATE = (
    r"Failed to load resource: net::ERR_(CONNECTION_\w+|EMPTY_RESPONSE|CONTENT_LENGTH_MISMATCH) \(\S*/icon\.svg:"
)
# What the browsers say themselves where there is no server, for a test that takes it away.
NO_SERVER = (
    r"WebSocket connection to .* failed|Failed to load resource: net::ERR_CONNECTION_REFUSED"
    r"|can’t establish a connection to the server at ws|was interrupted while"
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


async def launch(playwright: Playwright, name: str, downloads: Path | None = None, **options: Any) -> Browser:
    """Start a browser. A missing one is a failure."""
    executable = shutil.which(EXECUTABLES[name])
    assert executable, f"there is no {EXECUTABLES[name]} on the path; `make test` installs it"
    if name == "chromium":
        return await playwright.chromium.launch(executable_path=executable, args=FLAGS, **options)
    return await playwright.firefox.launch(
        channel="moz-firefox",  # Firefox as it is shipped, by WebDriver BiDi, instead of Playwright's own build
        executable_path=executable,
        firefox_user_prefs=PREFERENCES,
        downloads_path=downloads,
        **options,
    )


@asynccontextmanager
async def running_chromium() -> AsyncIterator[Browser]:
    """One Chromium; it ends with the block."""
    async with async_playwright() as playwright, await launch(playwright, "chromium") as browser:
        yield browser


class Browsers:
    """One browser of each kind, started when a test first asks for it; all end with the block.

    `downloads`: the folder in which Firefox saves files.
    """

    def __init__(self, downloads: Path) -> None:
        self.downloads = downloads
        self.playwright: Playwright
        self._running: dict[str, Browser] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Browsers:
        self.playwright = await self._stack.enter_async_context(async_playwright())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def get(self, name: str) -> Browser:
        """The browser of this name, one of `BROWSERS`."""
        if name not in self._running:
            browser = await launch(self.playwright, name, self.downloads)
            self._running[name] = await self._stack.enter_async_context(browser)
        return self._running[name]


# Held in each browser while a window opens there.
_opening: Final[WeakKeyDictionary[Browser, asyncio.Lock]] = WeakKeyDictionary()


class Person:
    """Somebody with a browser of their own: nothing is shared with others, neither keys nor storage nor cache.

    `browser` is the name of theirs, `page` their first window. `complaints` is what went wrong in any of their windows,
    `said` their whole console.
    """

    def __init__(self, browser: str, context: BrowserContext, page: Page, base: str, downloads: Path) -> None:
        self.browser = browser
        self.context = context
        self.page = page
        self.base = base
        self.downloads = downloads
        self.complaints: list[str] = []
        self.said: list[str] = []
        self._tolerated = [re.compile(_ICON_TOO_LATE)]
        context.on("console", self._on_console)
        context.on("weberror", self._on_error)
        page.on("crash", lambda _: self.complaints.append("the page crashed"))

    @classmethod
    async def arrive(cls, browser: Browser, base: str, *, downloads: Path = Path(), **options: Any) -> Person:
        """Open an empty window.

        `base` is where the page is, without a slash at its end; `downloads` the folder in which Firefox saves files.

        The options are those of the browser's context: the size of the window, for instance.
        """
        context = await browser.new_context(locale="en-GB", base_url=base, **options)
        # Firefox may put a tab into a window that is still being opened, and fails then.
        async with _opening.setdefault(browser, asyncio.Lock()):
            await context.new_page()
        return await cls.at(browser.browser_type.name, context, base, downloads)

    @classmethod
    async def at(cls, browser: str, context: BrowserContext, base: str, downloads: Path = Path()) -> Person:
        """Somebody whose window is open already, in a browser of this name."""
        context.set_default_timeout(PATIENCE * 1000)
        await context.add_init_script(_WATCH)
        return cls(browser, context, context.pages[0], base, downloads)

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


class Arrive(Protocol):
    """What the fixture `arrive` is: it brings one more person. `browser` is one of `BROWSERS`."""

    def __call__(self, browser: str | None = None) -> Awaitable[Person]: ...
