"""The same as `talker.py`, with the same arguments, as a page in Chromium with the SDK.

The browser has a profile in `FOLDER`, so key, pins and journal (IndexedDB) outlive it. What the page tells is written
down here, outside of the browser; the page waits for that. All of it may be killed at any moment.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from pathlib import Path
from typing import Final

from playwright.async_api import async_playwright

from benchmarks.chaos.talker import Log

# As for the recovery benchmark.
_FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    "--disable-features=WebRtcHideLocalIpsWithMdns",
)
_START: Final = """
async ({ name, peer, first, count, rate }) => {
  const { Identity, IndexedDBPins, NetworkStore, openJournal } = await import('/aldis.js');
  const identity = await Identity.loadOrCreate(name);
  const journal = await openJournal(name, { wait: true });
  const store = new NetworkStore({ identity, pins: new IndexedDBPins(), journal });
  const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const take = async () => {
    for await (const { content, id, redelivered } of store.messages()) await got(content, id, redelivered);
  };
  const send = async () => {
    for (let number = first; number <= count; number++) {
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
      await delivery.whenStored();
      await accepted(number);
      await pause(1 / rate);
    }
  };
  const connect = async () => {
    for (;;) {
      try {
        return await store.connectToSignaling(location.origin, name);
      } catch (error) {
        if (!error.temporary) throw error;
        await pause(0.5);
      }
    }
  };
  await connect();
  await Promise.all([take(), send()]);
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
            folder / "profile",
            executable_path=shutil.which("chromium"),
            # The lab has no certificate, and a page needs a secure context for its keys.
            args=[*_FLAGS, f"--unsafely-treat-insecure-origin-as-secure={page_url}"],
        )
        await context.expose_function("got", got)
        await context.expose_function("tried", lambda number: sent.add(f"try {number}"))
        await context.expose_function("accepted", lambda number: sent.add(f"ok {number}"))
        page = await context.new_page()
        page.on("console", lambda message: print(message.text, flush=True))
        while True:
            try:
                await page.goto(f"{page_url}/healthz")
                break
            except Exception as error:  # noqa: BLE001 - the server is away
                print(error, flush=True)
                await asyncio.sleep(0.5)
        await page.evaluate(
            _START, {"name": name, "peer": peer, "first": first, "count": int(count), "rate": float(rate)}
        )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
