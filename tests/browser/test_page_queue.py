"""What waits to be sent outlives the window in which it was written, and nothing is shown twice."""

from __future__ import annotations

from playwright.async_api import expect

from browser.conftest import IN_BOTH
from browser.test_page_kept_files import BUSY, FRAMES
from support.browser import Arrive
from support.page_windows import Window, window


@IN_BOTH
async def test_what_waits_is_shown_as_waiting_after_a_reload_and_is_delivered(arrive: Arrive) -> None:
    alice = await window(arrive, "alice")
    with_bob = await alice.talk_to("bob")
    for text in ("one", "two"):
        await expect(await with_bob.say(text)).to_contain_text("waiting for bob")
    await alice.page.reload()
    with_bob = await alice.open("bob")
    for text in ("one", "two"):
        await expect(with_bob.entry(text)).to_contain_text("waiting for bob")
    await expect(with_bob.log.get_by_role("article")).to_have_count(2)
    bob = await window(arrive, "bob")
    with_alice = await bob.open("alice")
    await with_alice.heard("two")
    for text in ("one", "two"):
        await expect(with_bob.entry(text)).to_contain_text("delivered")
    # What has come was handed over, so it does not come again.
    await bob.page.reload()
    await (await bob.open("alice")).connected()
    await with_bob.delivers("three")
    await expect(bob.conversation("alice").log.get_by_role("article")).to_have_count(1)


@IN_BOTH
async def test_what_is_written_is_said_to_wait_when_a_reload_does_not_lose_it(arrive: Arrive) -> None:
    alice = await window(arrive, "alice")
    with_bob = await alice.talk_to("bob")
    await alice.page.evaluate(BUSY, "alice")
    entry = await with_bob.say("later")
    await alice.page.evaluate(FRAMES)
    await expect(entry).to_contain_text("sending")
    await alice.page.evaluate("letGo()")
    await expect(entry).to_contain_text("waiting for bob")


async def test_a_window_that_sleeps_keeps_what_waits_until_it_is_closed(arrive: Arrive) -> None:
    alice = await window(arrive, "alice")
    with_bob = await alice.talk_to("bob")
    await with_bob.say("later")
    # It does not hear that another one wants it.
    await alice.page.evaluate("BroadcastChannel.prototype.postMessage = () => {}")
    second = Window(alice.person, await alice.person.context.new_page())
    await second.page.goto("/")
    await second.page.evaluate("BroadcastChannel.prototype.postMessage = () => {}")
    await second.choose("alice")
    await expect(second.page.get_by_text("Your name is open in another window of this browser")).to_be_visible()
    await alice.page.close()
    await expect(second.server).to_have_text("Server connected")
    await expect((await second.open("bob")).entry("later")).to_contain_text("waiting for bob")
