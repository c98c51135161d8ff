"""The same as `talker.py`, with the same arguments, as a page in Chromium with the SDK.

The browser has a profile in `FOLDER/disk`, so key, pins and journal (IndexedDB) outlive it. What the page tells is
written down here, outside of the browser; the page waits for that. All of it may be killed at any moment.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from pathlib import Path
from typing import Final

from playwright.async_api import async_playwright

from benchmarks.chaos.talker import BURST, Log

# As for the recovery benchmark.
_FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    "--disable-features=WebRtcHideLocalIpsWithMdns",
)
_START: Final = """
async ({ name, peer, first, count, rate, burst }) => {
  const { Identity, IndexedDBPins, NetworkStore, openJournal } = await import('/aldis.js');
  const identity = await Identity.loadOrCreate(name);
  const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const opened = async () => {
    for (;;) {
      try {
        return await openJournal(name, { wait: true });
      } catch (error) {
        console.log(String(error));
        await pause(0.5);
      }
    }
  };
  const store = new NetworkStore({ identity, pins: new IndexedDBPins(), journal: await opened() });
  const take = async () => {
    for await (const { content, id, redelivered } of store.messages()) await got(content, id, redelivered);
  };
  const send = async (number) => {
    await tried(number);
    let delivery = null;
    while (!delivery) {
      try {
        delivery = store.send(peer, number);
      } catch (error) {
        if (error.name !== 'QueueFull') throw error;
        await pause(0.1);
      }
    }
    try {
      await delivery.whenStored();
    } catch (error) {
      if (error.name !== 'DeliveryFailed') throw error;
      return refused(number, store.state.journalError?.name ?? 'none');
    }
    await accepted(number);
  };
  const sendAll = async () => {
    for (let next = first; next <= count; ) {
      const numbers = Array.from({ length: Math.min(burst, count + 1 - next) }, () => next++);
      await Promise.all(numbers.map(send));
      await pause(numbers.length / rate);
    }
  };
  const connect = async () => {
    for (;;) {
      try {
        return await store.connectToSignaling(location.origin, name);
      } catch (error) {
        console.log(String(error));
        if (!error.temporary && !error.name.startsWith('Journal')) throw error;
        await pause(0.5);
      }
    }
  };
  await connect();
  await Promise.all([take(), sendAll()]);
}
"""


async def main(name: str, peer: str, url: str, place: str, count: str, rate: str) -> None:
    folder = Path(place)
    sent, taken = Log(folder / "sent"), Log(folder / "got")
    first = 1 + max((int(line.split()[1]) for line in sent.lines), default=0)

    def got(number: int, message: str, redelivered: bool) -> None:
        taken.add(f"{number} {time.time():.3f} {message} {'again' if redelivered else 'new'}")

    page_url = url.replace("ws://", "http://")
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            folder / "disk" / "profile",
            executable_path=shutil.which("chromium"),
            # The lab has no certificate, and a page needs a secure context for its keys.
            args=[*_FLAGS, f"--unsafely-treat-insecure-origin-as-secure={page_url}"],
        )
        await context.expose_function("got", got)
        await context.expose_function("tried", lambda number: sent.add(f"try {number}"))
        await context.expose_function("accepted", lambda number: sent.add(f"ok {number}"))
        await context.expose_function(
            "refused", lambda number, error: sent.add(f"no {number} {time.time():.3f} {error}")
        )
        page = await context.new_page()
        page.on("console", lambda message: print(message.text, flush=True))
        while True:
            try:
                await page.goto(f"{page_url}/healthz")
                break
            except Exception as error:  # noqa: BLE001 - the server is away
                print(error, flush=True)
                await asyncio.sleep(0.5)
        options = {"name": name, "peer": peer, "first": first, "count": int(count), "rate": float(rate), "burst": BURST}
        await page.evaluate(_START, options)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
