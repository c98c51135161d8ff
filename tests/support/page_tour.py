"""A tour of the page: every state that somebody can meet, one after the other, with real people at the other end.

Who takes the tour looks at each: for what is inaccessible, for what does not fit, or for a picture of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, expect

from aldis.client.client import SignalingClient
from aldis.identity.keys import Identity
from support.browser import NO_SERVER, Person
from support.page_windows import Conversation, Window, points
from support.server_process import ServerProcess
from support.stores import stores

_LANDSCAPE = """
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 180" width="640" height="360">
  <rect width="320" height="180" fill="#f6c98f"/><circle cx="228" cy="74" r="24" fill="#fff1cf"/>
  <path d="M0 120L70 62l46 40 48-66 62 74 40-26 54 46v50H0z" fill="#7d6b91"/>
  <path d="M0 146l88-30 76 22 92-28 64 20v50H0z" fill="#3c4467"/>
</svg>
"""


@dataclass(frozen=True)
class Screen:
    """What somebody sits before, or holds."""

    width: int
    height: int
    phone: bool

    @property
    def options(self) -> dict[str, Any]:
        """Of the browser's context. Nothing moves by itself, so that what is looked at has settled."""
        size = {"width": self.width, "height": self.height}
        return {"viewport": size, "is_mobile": self.phone, "has_touch": self.phone, "reduced_motion": "reduce"}


Look = Callable[[str, Page], Awaitable[None]]
"""What is done with each state: its name, and the window that shows it."""


async def tour(
    chromium: Browser, server: ServerProcess, folder: Path, screen: Screen, look: Look, *, samples: int = 3
) -> None:
    """Go through all states. The server does not survive it. `samples`: how many the chart of a conversation has."""
    it = _Tour(chromium, server, folder, screen, look)
    it.samples = samples
    try:
        await it.take()
        complaints = [complaint for person in it.people for complaint in person.complaints]
        assert not complaints, "\n".join(complaints)
    finally:
        for person in it.people:
            await person.leave()


class _Tour:
    """Alice is the one who is looked at; the others have windows or programs of their own."""

    def __init__(self, chromium: Browser, server: ServerProcess, folder: Path, screen: Screen, look: Look) -> None:
        self.chromium = chromium
        self.server = server
        self.folder = folder
        self.screen = screen
        self.look = look
        self.samples = 0
        self.people: list[Person] = []

    @property
    def base(self) -> str:
        return f"http://localhost:{self.server.port}"

    async def window(self, base: str | None = None, **options: Any) -> Window:
        self.people.append(await Person.arrive(self.chromium, base or self.base, **options))
        return Window(self.people[-1])

    async def take(self) -> None:
        alice = await self.window(**self.screen.options)
        bob = await (await self.window()).start("bob")
        for part in (self.arriving, self.talking, self.files, self.calls, self.more, self.trouble):
            await part(alice, bob)
        await self.insecure()

    async def arriving(self, alice: Window, bob: Window) -> None:
        page = alice.page
        await page.goto("/")
        await expect(page.get_by_label("Your name")).to_be_focused()
        await self.look("welcome", alice.page)
        await alice.choose("Alice Liddell")
        await expect(page.get_by_text("A name has no spaces.")).to_be_visible()
        await expect(alice.button("How about “Alice-Liddell”?")).to_be_visible()
        await self.look("welcome-bad-name", alice.page)
        await page.goto("/#bob~abcd")
        await page.reload()
        await expect(alice.alert).to_be_visible()
        await self.look("welcome-damaged-invitation", alice.page)
        await alice.start("alice")
        await expect(page.get_by_text("Nobody yet.")).to_be_visible()
        await self.look("nobody-yet", alice.page)
        await alice.talk_to("alice")
        await expect(page.get_by_text("That is your own name.")).to_be_visible()
        await self.look("talk-to-oneself", alice.page)
        await alice.button("Change name").click()
        await page.goto(await bob.invitation())
        await page.reload()
        await expect(page.get_by_role("heading", name="bob invites you")).to_be_visible()
        await self.look("welcome-invited", alice.page)
        await alice.choose("bob")
        await expect(alice.alert).to_contain_text("This name is taken")
        await self.look("welcome-name-taken", alice.page)
        await alice.choose("alice")
        await alice.conversation("bob").connected()
        await self.look("conversation-empty", alice.page)
        await alice.to_the_list()
        await alice.button("Invite").click()
        await expect(page.get_by_role("dialog").get_by_role("img")).to_be_visible()
        await self.look("invitation", alice.page)
        await page.keyboard.press("Escape")
        await alice.open("bob")

    async def talking(self, alice: Window, bob: Window) -> None:
        with_bob, with_alice = alice.conversation("bob"), await bob.open("alice")
        await with_alice.delivers("Hi Alice! Is this really direct?")
        await with_bob.delivers("It is: from my browser to yours.", "The server has only introduced us.")
        await with_alice.delivers("And if I close my laptop?")
        await with_bob.delivers("Then what I write waits here until you are back.\n\nIt arrives in order, each once.")
        await with_alice.delivers("Nice. See https://www.w3.org/TR/webrtc/ for how.")
        await with_bob.heard("Nice.")
        await self._panel(with_bob, shown=True)
        await expect(with_bob.panel.locator("path").last).to_have_attribute("d", points(self.samples), timeout=60_000)
        await self.look("connection", alice.page)
        await self._panel(with_bob, shown=not self.screen.phone)
        await self.look("conversation", alice.page)

    async def _privacy(self, alice: Window, long: str) -> None:
        with_dora = await alice.open("dora")
        await self._panel(with_dora, shown=True)
        await with_dora.button("Block…").click()
        await expect(with_dora.button("Cancel")).to_be_visible()
        await self.look("blocking", alice.page)
        await with_dora.button("Block").click()
        await expect(with_dora.presence).to_have_text("blocked")
        await self._panel(with_dora, shown=not self.screen.phone)
        await self.look("blocked", alice.page)
        dialog = await alice.open_privacy()
        for name in ("bob", long[:-1]):
            await dialog.get_by_label("Add a contact").fill(name)
            await dialog.get_by_role("button", name="Add").click()
            await expect(dialog.get_by_role("button", name=f"Remove {name} from")).to_be_visible()
        await self.look("privacy", alice.page)
        await dialog.get_by_role("button", name="Unblock dora").click()
        await expect(dialog).to_contain_text("Nobody is blocked.")
        await dialog.get_by_role("button", name="Close").click()

    async def _panel(self, conversation: Conversation, *, shown: bool) -> None:
        toggle = conversation.region.get_by_role("button", name="the connection")
        if (await toggle.get_attribute("aria-expanded") == "true") != shown:
            await toggle.click()

    async def files(self, alice: Window, bob: Window) -> None:
        with_bob, with_alice = alice.conversation("bob"), bob.conversation("alice")
        picture, notes, film = (self.folder / name for name in ("evening.png", "notes.pdf", "film of the evening.mp4"))
        painter = await self.window(viewport={"width": 640, "height": 360})
        await painter.page.set_content(f"<style>body {{ margin: 0 }} svg {{ display: block }}</style>{_LANDSCAPE}")
        await painter.page.screenshot(path=picture)
        notes.write_bytes(b"%PDF-" + bytes(184_000))
        with film.open("wb") as file:
            file.truncate(2_000_000_000)
        await with_alice.send_file(picture)
        await with_bob.button("Accept evening.png").click()
        await expect(with_bob.log.get_by_role("img", name="Picture evening.png")).to_be_visible()
        await with_bob.delivers("That is beautiful. Where is it?")
        await with_alice.delivers("Behind the house. Shall I call you?")
        await with_bob.heard("Behind the house.")
        await self.look("conversation-with-a-picture", alice.page)
        await with_bob.send_file(notes)
        await expect(with_alice.entry("notes.pdf")).to_be_visible()
        await with_alice.send_file(notes)
        await expect(with_bob.button("Decline notes.pdf")).to_be_visible()
        await self.look("files-offered", alice.page)
        await with_bob.button("Decline notes.pdf").click()
        await with_alice.button("Accept notes.pdf").click()
        await expect(with_bob.entry("notes.pdf").first).to_contain_text("delivered")
        sent = await with_bob.send_file(film)
        await with_alice.button(f"Accept {film.name}").click()
        await expect(sent).to_contain_text("MB of 2.0 GB")
        await self.look("file-under-way", alice.page)
        await with_bob.button(f"Cancel {film.name}").click()
        await expect(sent).to_contain_text("cancelled")
        await self.look("files-at-their-end", alice.page)

    async def calls(self, alice: Window, bob: Window) -> None:
        with_bob, with_alice = alice.conversation("bob"), bob.conversation("alice")
        await with_bob.button("Start a video call").click()
        await expect(bob.ringing("alice")).to_be_visible()
        await self.look("calling", alice.page)
        await bob.button("Accept with video").click()
        await expect(with_bob.call.get_by_label("Picture of bob")).to_be_visible()
        await with_bob.call.get_by_label("Picture of bob").evaluate(
            "(video) => new Promise((resolve) => video.requestVideoFrameCallback(resolve))"
        )
        await self.look("call", alice.page)
        await with_bob.button("Mute the microphone").click()
        await with_bob.button("Turn the camera off").click()
        await expect(with_bob.button("Turn the camera on")).to_be_visible()
        await self.look("call-muted", alice.page)
        await alice.to_the_list()
        await expect(alice.listed("bob")).to_contain_text("in a call")
        await self.look("call-in-the-list", alice.page)
        await alice.open("bob")
        await with_bob.button("Hang up").click()
        await with_alice.button("Start a video call").click()
        await expect(alice.ringing("bob")).to_be_visible()
        await self.look("call-comes-in", alice.page)
        await alice.button("Accept with audio only").click()
        await with_alice.button("Turn the camera off").click()
        await expect(with_bob.call).to_contain_text("In a call with bob")
        await expect(with_bob.call.get_by_label("Picture of bob")).to_be_hidden()
        await self.look("call-without-pictures", alice.page)
        await with_bob.button("Hang up").click()
        await expect(with_bob.call).to_be_hidden()
        # This Chromium allows it to everybody (support.browser.FLAGS); so the refusal is said in its place.
        refuse = "() => Promise.reject(new DOMException('', 'NotAllowedError'))"
        await alice.page.evaluate(f"navigator.mediaDevices.getUserMedia = {refuse}; 0")
        await with_bob.button("Start a video call").click()
        await expect(with_bob.call).to_contain_text("The browser may not use the microphone or camera")
        await expect(with_bob.button("Try again")).to_be_visible()
        await self.look("call-not-allowed", alice.page)
        await with_bob.button("Close").click()
        await alice.page.evaluate("delete navigator.mediaDevices.getUserMedia")

    async def more(self, alice: Window, bob: Window) -> None:
        with_bob, with_alice = alice.conversation("bob"), bob.conversation("alice")
        await with_alice.delivers("Wordswithoutend" * 20, "مرحبا بك", "a\n" * 12)
        await with_bob.delivers("https://example.org/" + "a-long-path/" * 20)
        await with_bob.heard("a a a a")
        await self.look("conversation-long-words", alice.page)
        await with_bob.log.evaluate("(log) => { log.scrollTop = 0; }")
        # Whether the page has noticed is to be seen by what comes next only.
        await alice.page.evaluate("new Promise((seen) => requestAnimationFrame(() => requestAnimationFrame(seen)))")
        await with_alice.delivers("And this is new.")
        await expect(with_bob.button("New messages")).to_be_visible()
        await self.look("conversation-new-messages", alice.page)
        await with_bob.button("New messages").click()
        await alice.talk_to("dora")
        with_dora = alice.conversation("dora")
        await expect(with_dora.alert).to_contain_text("Nobody is called dora here yet")
        await with_dora.say("Are you there?")
        await self.look("nobody-of-that-name", alice.page)
        await with_dora.field.fill("and on, " * 10_000)
        await with_dora.field.press("Enter")
        await expect(with_dora.log).to_contain_text("characters more, not shown here")
        await self.look("message-shown-in-part", alice.page)
        long = "Adolph-Blaine-Charles-David-Earl-Frederick-" * 3
        await alice.talk_to(long[:-1])
        with_long = alice.conversation(long[:-1])
        await expect(with_long.alert).to_contain_text("here yet")
        await with_long.say("Is there a shorter one?")
        await self.look("long-name", alice.page)
        await self._panel(with_long, shown=True)
        await with_long.button("Remove from the list").click()
        await with_long.button("Remove all the same").click()
        await with_alice.delivers("One more thing", "or two")
        await alice.to_the_list()
        await expect(alice.listed("bob")).to_contain_text("2 unread")
        await self.look("people", alice.page)
        await self._privacy(alice, long)
        await alice.open("bob")

    async def trouble(self, alice: Window, bob: Window) -> None:
        with_bob = alice.conversation("bob")
        url = f"ws://127.0.0.1:{self.server.port}"
        before, after = Identity.generate(), Identity.generate()
        async with stores(url, "carol", identity=before):
            await (await alice.talk_to("carol")).connected()
        async with SignalingClient(url, "carol") as client:
            await client.register(before)
            await client.rotate(after)
        with_carol = alice.conversation("carol")
        async with stores(url, "carol", identity=after):
            await expect(with_carol.alert).to_contain_text("carol has another key than before")
            await expect(with_carol.field).to_be_disabled()
            await self.look("key-changed", alice.page)
            await with_carol.alert.get_by_role("checkbox").check()
            await self.look("key-to-be-accepted", alice.page)

        link = (await bob.invitation()).replace("#bob", "#eve")
        async with stores(url, "eve"):
            await alice.page.evaluate("(link) => { location.href = link; }", link)
            await expect(alice.conversation("eve").alert).to_contain_text("This is not the eve of the invitation")
            await self.look("invitation-of-another-key", alice.page)

        await alice.page.evaluate("(hash) => { location.hash = hash; }", f"bob~{after.fingerprint}")
        await expect(with_bob.alert).to_contain_text("This link means another bob than the one you know")
        await self.look("link-with-another-key", alice.page)
        await with_bob.button("I have read this").click()
        await bob.page.close()
        await expect(with_bob.presence).to_have_text("offline")
        await with_bob.say("Until tomorrow!")
        (self.folder / "tomorrow.pdf").write_bytes(b"%PDF-" + bytes(21_000))
        waiting = await with_bob.send_file(self.folder / "tomorrow.pdf")
        await expect(waiting).to_contain_text("waits until bob is back")
        await self.look("offline", alice.page)
        await self._panel(with_bob, shown=True)
        await with_bob.button("Remove from the list").click()
        await expect(with_bob.button("Remove all the same")).to_be_visible()
        await self.look("removing-loses-something", alice.page)
        await with_bob.button("Keep").click()
        await self._panel(with_bob, shown=not self.screen.phone)

        second = Window(alice.person, await alice.person.context.new_page())
        await second.start("alice")
        await expect(alice.alert).to_contain_text("Your name is in use in another window")
        await self.look("name-in-use", alice.page)
        await alice.button("Use it here").click()
        await expect(alice.server).to_have_text("Server connected")
        await second.page.close()

        late = await self.window(**self.screen.options)
        await late.page.goto("/")
        for person in self.people:
            person.tolerate(NO_SERVER)
        assert await self.server.stop() == 0
        await expect(alice.server).to_have_text("Server reconnecting…")
        await expect(alice.alert).to_contain_text("The server is away")
        await self.look("server-away", alice.page)
        await late.choose("late")
        await expect(late.alert).to_contain_text("The server is out of reach")
        await self.look("welcome-server-away", late.page)

    async def insecure(self) -> None:
        async with ServerProcess(self.folder, host="0.0.0.0") as server:
            somebody = await self.window(f"http://10.77.0.1:{server.port}", **self.screen.options)
            somebody.person.tolerate("Cross-Origin-Opener-Policy header has been ignored")
            await somebody.page.goto("/")
            await expect(somebody.alert).to_contain_text("This page needs a secure address")
            await self.look("insecure-address", somebody.page)
