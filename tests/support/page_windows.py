"""The page in a window, used as a person uses it: found by what is written on it, by role and by label.

Each method does one thing that a person does, and returns when the page shows that it is done.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from playwright.async_api import Locator, Page, expect

from support.browser import PATIENCE, Arrive, Person

expect.set_options(timeout=PATIENCE * 1000)


class Window:
    """One window with the page in it; `name` is the name that was chosen there."""

    def __init__(self, person: Person, page: Page | None = None) -> None:
        self.person = person
        self.page = page or person.page
        self.name = ""

    # --- the whole page ---------------------------------------------------------------------------------------------

    async def start(self, name: str, path: str = "/") -> Window:
        """Open the page, choose a name, and be there."""
        await self.page.goto(path)
        await self.choose(name)
        await expect(self.server).to_have_text("Server connected")
        return self

    async def choose(self, name: str) -> None:
        """Type a name and press Start; whether it is taken is another matter."""
        self.name = name
        await self.page.get_by_label("Your name").fill(name)
        await self.button("Start").click()

    @property
    def server(self) -> Locator:
        """What is said about the server."""
        return self.page.get_by_role("banner").get_by_role("status")

    @property
    def alert(self) -> Locator:
        """What is wrong with the page, the server, or the name."""
        return self.page.get_by_role("main").get_by_role("alert").filter(visible=True).first

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    async def fingerprint(self) -> str:
        """Our own, as the page shows it."""
        return await self.shown_fingerprint(self.page.get_by_role("region", name="You", exact=True))

    async def shown_fingerprint(self, place: Locator) -> str:
        """The one that is shown somewhere."""
        return "".join((await place.get_by_role("code").inner_text()).split())

    async def invitation(self) -> str:
        """The link, from the dialog, or from beside the list where it is in sight already."""
        await self.to_the_list()
        await self.button("Invite").click()
        link = await self.page.get_by_role("textbox", name="Invitation link").filter(visible=True).last.input_value()
        dialog = self.page.get_by_role("dialog", name="Invite somebody")
        if await dialog.is_visible():
            await dialog.get_by_role("button", name="Close").click()
            await expect(dialog).to_be_hidden()
        return link

    # --- people -----------------------------------------------------------------------------------------------------

    def listed(self, name: str) -> Locator:
        """Somebody on the list."""
        return self.page.get_by_role("navigation", name="People").get_by_role("button").filter(has_text=name)

    async def to_the_list(self) -> None:
        """Back to the list of people, where it is not beside the conversation."""
        back = self.button("Back to the list").filter(visible=True)
        if await back.count():
            await back.click()

    async def talk_to(self, name: str) -> Conversation:
        """Open a conversation by typing a name."""
        await self.to_the_list()
        await self.page.get_by_label("Talk to").fill(name)
        await self.button("Talk").click()
        return self.conversation(name)

    async def open(self, name: str) -> Conversation:
        """Open the conversation with somebody on the list."""
        await self.to_the_list()
        await self.listed(name).click()
        return self.conversation(name)

    @property
    def privacy(self) -> Locator:
        """The dialog of who may see and call us."""
        return self.page.get_by_role("dialog", name="Privacy")

    async def open_privacy(self) -> Locator:
        """Open that dialog."""
        await self.to_the_list()
        await self.button("Privacy").click()
        await expect(self.privacy).to_be_visible()
        return self.privacy

    def ringing(self, name: str) -> Locator:
        """The dialog of a call that comes in."""
        return self.page.get_by_role("alertdialog", name=f"{name} is calling")

    def conversation(self, name: str) -> Conversation:
        return Conversation(self, name)


class Conversation:
    """The part of a window that belongs to one other person."""

    def __init__(self, window: Window, name: str) -> None:
        self.window = window
        self.page = window.page
        self.name = name
        self.region = self.page.get_by_role("region", name=f"With {name}", exact=True)
        self.presence = self.region.get_by_role("status").first
        self.log = self.region.get_by_role("log")
        self.field = self.region.get_by_label(f"Message to {name}")
        self.alert = self.region.get_by_role("alert")
        self.call = self.region.get_by_role("region", name=f"Call with {name}")
        self.panel = self.region.get_by_role("complementary", name="Connection")

    async def connected(self) -> Conversation:
        await expect(self.presence).to_have_text("connected")
        return self

    def button(self, name: str | re.Pattern[str]) -> Locator:
        return self.region.get_by_role("button", name=name, exact=True)

    async def say(self, text: str) -> Locator:
        """Write something; the entry that appears."""
        await self.field.fill(text)
        await self.field.press("Enter")
        entry = self.entry(text)
        await expect(entry).to_be_visible()
        return entry

    async def delivers(self, *texts: str) -> None:
        """Write, and see that each has been delivered."""
        for text in texts:
            await expect(await self.say(text)).to_contain_text("delivered")

    def entry(self, text: str) -> Locator:
        return self.log.get_by_role("article").filter(has_text=text)

    async def heard(self, *texts: str) -> None:
        """See what the other has said."""
        for text in texts:
            await expect(self.entry(text)).to_be_visible()

    async def send_file(self, path: Path) -> Locator:
        """Choose a file; the entry that appears."""
        await self.send_files(path)
        return self.entry(path.name)

    async def send_files(self, *paths: Path) -> None:
        """Choose some files."""
        async with self.page.expect_file_chooser() as chooser:
            await self.button("Send files").click()
        await (await chooser.value).set_files(paths)

    async def send_folder(self, path: Path) -> Locator:
        """Choose a folder; the entry that appears."""
        async with self.page.expect_file_chooser() as chooser:
            await self.button("Send a folder").click()
        await (await chooser.value).set_files(path)
        return self.entry(path.name)

    async def save(self, name: str) -> Path:
        """Save a file that has come; where it is then."""
        button = self.button(re.compile(rf"^Save (again )?{re.escape(name)}$"))
        if self.window.person.browser == "firefox":
            # Firefox reports a download without an id, which Playwright ignores. So look for the file at each frame
            # that the browser paints. While it grows there is another file beside it.
            await button.click()
            path = self.window.person.downloads / name
            async with asyncio.timeout(PATIENCE):
                while not path.exists() or not path.stat().st_size or path.with_name(f"{name}.part").exists():
                    await self.page.evaluate("new Promise(requestAnimationFrame)")
            return path
        async with self.page.expect_download() as download:
            await button.click()
        file = await download.value
        assert file.suggested_filename == name
        return await file.path()

    def fact(self, name: str) -> Locator:
        """One line of the connection panel."""
        return self.panel.get_by_role("definition").nth(FACTS.index(name))


def points(least: int) -> re.Pattern[str]:
    """The path of a line through so many points."""
    return re.compile(rf"^M[\d.]+ [\d.]+(L[\d.]+ [\d.]+){{{least - 1},}}$")


FACTS = ("Quality", "Path", "Protocol", "Sent", "Received", "Reconnects")


async def window(arrive: Arrive, name: str | None = None) -> Window:
    """Somebody with the page open under `name`; without one, with an empty window."""
    there = Window(await arrive())
    return await there.start(name) if name else there


async def windows(arrive: Arrive, *names: str) -> list[Window]:
    """People who have the page open."""
    return await asyncio.gather(*(window(arrive, name) for name in names))
