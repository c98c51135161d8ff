"""alice as a page in Chromium, with the SDK: the `Party` of `run` that is no Python program."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Page, async_playwright

from benchmarks.recovery.lab import Lab
from benchmarks.recovery.talker import INTERVAL

_FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    # The page shows its addresses to the peer, as one does that may use the microphone.
    "--disable-features=WebRtcHideLocalIpsWithMdns",
)
_START: Final = """
async ({ name, peer, interval, path }) => {
  const sdk = await import('/aldis.js');
  let store;
  try {
    store = new sdk.NetworkStore({ path });
  } catch {
    store = new sdk.NetworkStore(); // an earlier version has no other path
  }
  store.onMessage(({ content }) => told(['got', Number(content), Date.now() / 1000]));
  await store.connectToSignaling(location.origin, name);
  let sent = 0;
  let timer;
  window.say = async (word) => {
    if (word === 'connect') {
      await store.connectToPeer(peer);
      told(['connected']);
    } else if (word === 'talk') {
      timer = setInterval(() => store.send(peer, String(sent++)), interval * 1000);
    } else {
      clearInterval(timer);
      told(['sent', sent]);
    }
  };
  told(['registered']);
}
"""


class Window:
    """A page that talks."""

    def __init__(self, page: Page, lab: Lab, name: str) -> None:
        self._page = page
        self._lab = lab
        self._name = name
        self._words: asyncio.Queue[list[Any]] = asyncio.Queue()
        self._arrived = asyncio.Event()
        self.got: list[tuple[int, float]] = []

    def told(self, words: list[Any]) -> None:
        """The page says something."""
        if words[0] == "got":
            self.got.append((words[1], words[2]))
            self._arrived.set()
        else:
            self._words.put_nowait(words)

    async def say(self, word: str) -> None:
        await self._page.evaluate("(word) => void say(word)", word)

    async def expect(self, word: str) -> list[Any]:
        async with asyncio.timeout(60):
            said = await self._words.get()
        assert said[0] == word, said
        return said

    async def arrival(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    def pause(self, signal_number: int) -> None:
        for pid in self._lab.processes(self._name):
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(pid, signal_number)


async def open_browser(
    stack: AsyncExitStack, lab: Lab, url: str, name: str, peer: str, path: str, place: Path
) -> Window:
    """A Chromium in alice's namespace, whose page is registered."""
    executable = shutil.which("chromium")
    assert executable, "there is no chromium on the path"
    inside = place / "chromium"
    inside.write_text(f'#!/bin/sh\nexec {" ".join(lab.inside(name, [executable]))} "$@"\n')
    inside.chmod(inside.stat().st_mode | stat.S_IXUSR)
    playwright = await stack.enter_async_context(async_playwright())
    # The lab has no certificate, and a page needs a secure context for its keys.
    flags = [*_FLAGS, f"--unsafely-treat-insecure-origin-as-secure={url}"]
    chromium = await playwright.chromium.launch(executable_path=inside, args=flags)
    stack.push_async_callback(chromium.close)
    page = await chromium.new_page()
    window = Window(page, lab, name)
    await page.expose_function("told", window.told)
    await page.goto(url)
    await page.evaluate(_START, {"name": name, "peer": peer, "interval": INTERVAL, "path": path})
    return window
