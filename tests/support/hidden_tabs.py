"""A Chromium whose tabs are treated as those of its users: a tab in the background is hidden, and its timers are slow.

Playwright has every page count as visible, and switches the slow timers off. So this one is driven without it, by the
Chrome DevTools Protocol (https://chromedevtools.github.io/devtools-protocol/).
"""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse

from support.browser import EXECUTABLES, FLAGS
from support.patience import PATIENCE

# Timers of a page that has been hidden for a second run once a minute; users wait five minutes for that.
_INTENSIVE = "--enable-features=IntensiveWakeUpThrottling:grace_period_seconds/1"
_ADDRESS = re.compile(r"DevTools listening on (ws://\S+)")


class DevTools:
    """The browser at the other end of its debugging connection."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loading: dict[str, asyncio.Future[None]] = {}

    async def read(self) -> None:
        """Hand each answer to its caller, until the browser leaves."""
        async for message in self._socket:
            answer = message.json()
            if answer.get("method") == "Page.loadEventFired":
                self._loading[answer["sessionId"]].set_result(None)
            waiting = self._waiting.pop(answer.get("id"), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        target = {"sessionId": session} if session else {}
        await self._socket.send_json({"id": number, "method": method, "params": params, **target})
        async with asyncio.timeout(PATIENCE):
            answer = await self._waiting[number]
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    async def open_tab(self, url: str) -> UserTab:
        """Open a tab, before all others."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        loaded = self._loading[session] = asyncio.get_running_loop().create_future()
        await self.call("Page.enable", session)
        await self.call("Page.navigate", session, url=url)
        async with asyncio.timeout(PATIENCE):
            await loaded
        await self.call("Page.disable", session)
        return UserTab(self, target, session)


class UserTab:
    """A tab that its user looks at, or not."""

    def __init__(self, devtools: DevTools, target: str, session: str) -> None:
        self._devtools = devtools
        self._target = target
        self._session = session

    async def run(self, script: str) -> Any:
        """Run the body of an async function; what it returns, as JSON."""
        answer = await self._devtools.call(
            "Runtime.evaluate",
            self._session,
            expression=f"(async () => {{ {script} }})()",
            awaitPromise=True,
            returnByValue=True,
        )
        fault = answer.get("exceptionDetails")
        assert fault is None, fault["exception"].get("description", fault)
        return answer["result"].get("value")

    async def show(self) -> None:
        """Put it before the others, which are hidden from now on."""
        await self._devtools.call("Target.activateTarget", targetId=self._target)

    async def freeze(self) -> None:
        """As browsers do with tabs that nobody has looked at for long: no task runs."""
        await self._devtools.call("Page.setWebLifecycleState", self._session, state="frozen")

    async def resume(self) -> None:
        await self._devtools.call("Page.setWebLifecycleState", self._session, state="active")

    async def until_hidden(self) -> None:
        await self.run(
            "if (!document.hidden)"
            " await new Promise((done) => document.addEventListener('visibilitychange', done, { once: true }))"
        )
        assert await self.run("return document.visibilityState") == "hidden"


@asynccontextmanager
async def user_chromium(folder: Path) -> AsyncIterator[DevTools]:
    """A Chromium with a profile in `folder`; it ends with the block."""
    executable = shutil.which(EXECUTABLES["chromium"])
    assert executable, "there is no Chromium on the path; `make test` installs it"
    flags = (*FLAGS, _INTENSIVE, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank")
    process = await asyncio.create_subprocess_exec(executable, *flags, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE)
    assert process.stderr is not None
    async with asyncio.TaskGroup() as tasks:
        try:
            async with asyncio.timeout(PATIENCE):
                while not (found := _ADDRESS.search((await process.stderr.readline()).decode(errors="replace"))):
                    assert not process.stderr.at_eof(), "Chromium has ended"
            emptying = tasks.create_task(_empty(process.stderr))
            async with ClientSession() as client, client.ws_connect(found[1], max_msg_size=0) as socket:
                devtools = DevTools(socket)
                reading = tasks.create_task(devtools.read())
                try:
                    yield devtools
                finally:
                    await devtools.call("Browser.close")
                    reading.cancel()
                    emptying.cancel()
        finally:
            async with asyncio.timeout(PATIENCE):
                await process.wait()


async def _empty(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass
