"""What is read on the page, and when it counts as read; what is kept, and what is asked before it goes."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import expect

from support.browser import Arrive
from support.page_windows import window, windows

# Two frames: in the first a page is told that it was scrolled.
TOLD = "new Promise((seen) => requestAnimationFrame(() => requestAnimationFrame(seen)))"
AWAY_FROM_THE_END = "(log) => log.scrollHeight - log.clientHeight - log.scrollTop"


async def test_who_reads_further_up_is_told_of_what_comes_and_has_not_read_it(arrive: Arrive) -> None:
    alice, bob = await windows(arrive, "alice", "bob")
    with_bob = await (await alice.talk_to("bob")).connected()
    with_alice = await bob.open("alice")
    await with_alice.delivers("line\n" * 60)
    await with_bob.heard("line line")
    news = with_bob.button("New messages")
    await with_bob.log.evaluate("(log) => { log.scrollTop = 0; }")
    await alice.page.evaluate(TOLD)
    await expect(news).to_be_hidden()
    await with_alice.delivers("one more", "and another")
    await expect(news).to_be_visible()
    await expect(alice.listed("bob")).to_contain_text("2 unread")
    await expect(alice.page).to_have_title("(2) alice · Aldis")
    assert await with_bob.log.evaluate("(log) => log.scrollTop") == 0  # nobody is torn away
    # Another conversation, and back: still not read.
    await alice.talk_to("carol")
    await alice.open("bob")
    await expect(alice.listed("bob")).to_contain_text("2 unread")
    await news.press("Enter")
    await expect(news).to_be_hidden()
    await expect(alice.page).to_have_title("alice · Aldis")
    await expect(with_bob.field).to_be_focused()
    assert await with_bob.log.evaluate(AWAY_FROM_THE_END) < 2
    await with_alice.delivers("at once")
    await with_bob.heard("at once")
    await expect(alice.page).to_have_title("alice · Aldis")
    # Who scrolls to the end has read it, too.
    await with_bob.log.evaluate("(log) => { log.scrollTop = 0; }")
    await alice.page.evaluate(TOLD)
    await with_alice.delivers("the last")
    await expect(news).to_be_visible()
    await with_bob.log.evaluate("(log) => { log.scrollTop = log.scrollHeight; }")
    await expect(news).to_be_hidden()
    await expect(alice.page).to_have_title("alice · Aldis")


async def test_nobody_is_removed_unasked_for_whom_something_waits(arrive: Arrive) -> None:
    alice = await window(arrive, "alice")
    with_carol = await alice.talk_to("carol")
    await expect(await with_carol.say("for later")).to_contain_text("waiting for carol")
    remove = with_carol.button("Remove from the list")
    await remove.press("Enter")
    await expect(with_carol.panel).to_contain_text("What waits for them is not sent then")
    await expect(with_carol.button("Keep")).to_be_focused()
    await with_carol.button("Keep").press("Enter")
    await expect(with_carol.button("Remove all the same")).to_be_hidden()
    await expect(alice.listed("carol")).to_be_visible()
    await remove.click()
    await with_carol.button("Remove all the same").click()
    await expect(alice.listed("carol")).to_be_hidden()
    # With nothing to lose there is nothing to ask.
    await (await alice.talk_to("dora")).button("Remove from the list").click()
    await expect(alice.listed("dora")).to_be_hidden()


async def test_a_file_waits_for_whoever_is_away(arrive: Arrive, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("short")
    alice, bob = await windows(arrive, "alice", "bob")
    with_bob = await (await alice.talk_to("bob")).connected()
    await bob.page.goto("about:blank")
    await expect(with_bob.presence).to_have_text("offline")
    sent = await with_bob.send_file(tmp_path / "note.txt")
    await expect(sent).to_contain_text("5 bytes · waits until bob is back")
    await expect(sent).to_have_css("border-style", "dashed")
    await bob.page.goto("/")
    await expect(sent).to_contain_text("waiting for bob to accept")
    with_alice = await bob.open("alice")
    await with_alice.button("Accept note.txt").click()
    await expect(sent).to_contain_text("5 bytes · delivered")


async def test_a_name_from_right_to_left_begins_where_the_others_do(arrive: Arrive) -> None:
    alice = await window(arrive, "alice")
    left = "(element) => { const all = document.createRange(); all.selectNodeContents(element);"
    left += " return all.getBoundingClientRect().left; }"
    places = []
    for name in ("שלום", "bob"):
        conversation = await alice.talk_to(name)
        heading = conversation.region.get_by_role("heading", name=name).first
        places.append([await place.evaluate(left) for place in (heading, alice.listed(name).locator("bdi"))])
    assert places[0] == places[1]
