"""The page without a mouse: everything is reached by keys, and the focus is always somewhere sensible, and seen."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Page, expect

from support.browser import Arrive
from support.page_windows import Window, window, windows

# What has the focus, as a screen reader would name it, and whether one sees that it has.
FOCUSED = """
() => {
  const element = document.activeElement;
  const name = element.getAttribute('aria-label') ?? element.labels?.[0]?.textContent ?? element.textContent;
  const { outlineStyle, outlineWidth } = getComputedStyle(element);
  return [name, outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2];
}
"""


async def focused(page: Page) -> str:
    name, seen = await page.evaluate(FOCUSED)
    assert seen, f"nobody sees that the focus is on {name!r}"
    return str(name)


async def tab_to(page: Page, name: str) -> list[str]:
    """Press Tab until something has the focus; what had it on the way."""
    way: list[str] = []
    while len(way) < 40:
        await page.keyboard.press("Tab")
        reached = await focused(page)
        if name in reached:
            return way
        way.append(reached)
    raise AssertionError(f"{name!r} is not reached by Tab, only {way}")


async def test_all_of_a_conversation_is_done_by_keys(arrive: Arrive) -> None:
    bob = await window(arrive, "bob")
    alice = await window(arrive)
    page, keyboard = alice.page, alice.page.keyboard
    await page.goto("/")
    await expect(page.get_by_label("Your name")).to_be_focused()
    await keyboard.type("alice")
    await keyboard.press("Enter")
    await expect(alice.server).to_have_text("Server connected")

    await tab_to(page, "Invite")
    await keyboard.press("Enter")
    # It is in sight already, so no dialog lies upon it.
    dialog = page.get_by_role("dialog", name="Invite somebody")
    await expect(dialog).to_be_hidden()
    await expect(page.get_by_role("textbox", name="Invitation link").filter(visible=True)).to_be_focused()
    assert await tab_to(page, "Copy link") == []

    await alice.button("Invite").focus()
    assert await tab_to(page, "Talk to") == ["Change name", "Privacy"]
    await keyboard.type("bob")
    await keyboard.press("Enter")
    with_bob = await alice.conversation("bob").connected()
    await expect(with_bob.field).to_be_focused()
    await keyboard.type("one")
    await keyboard.press("Shift+Enter")
    await keyboard.type("two")
    await keyboard.press("Enter")
    with_alice = await bob.open("alice")
    await with_alice.heard("one two")
    await expect(with_bob.field).to_be_focused()
    await expect(with_bob.field).to_have_value("")

    await alice.button("Invite").focus()
    await keyboard.press("Enter")
    await expect(dialog).to_be_visible()
    await tab_to(page, "Invitation link")
    await tab_to(page, "Copy link")
    await keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(alice.button("Invite")).to_be_focused()
    await with_bob.field.focus()

    # From the field to the end of the page, and from the top back to it.
    await tab_to(page, "Send")
    await tab_to(page, "Remove from the list")
    await page.get_by_label("Talk to").focus()
    way = await tab_to(page, "Message to bob")
    for name in ("Start an audio call", "Start a video call", "Hide the connection", "Conversation with bob"):
        assert name in way
    assert any(name.startswith("bob") for name in way)

    await with_bob.button("Hide the connection").focus()
    await keyboard.press("Space")
    await expect(with_bob.panel).to_be_hidden()
    await expect(with_bob.button("Show the connection")).to_be_focused()


async def test_a_call_is_answered_by_keys_and_never_by_accident(arrive: Arrive) -> None:
    alice, bob = await windows(arrive, "alice", "bob")
    with_bob = await (await alice.talk_to("bob")).connected()
    with_alice = await bob.open("alice")
    await with_alice.field.focus()
    await with_bob.button("Start a video call").click()
    await expect(bob.ringing("alice")).to_be_visible()
    # Who is writing just now does not answer by the next key.
    await bob.page.keyboard.press("Enter")
    await bob.page.keyboard.press("Space")
    await expect(bob.ringing("alice")).to_be_visible()
    await bob.page.keyboard.press("Escape")
    await expect(with_bob.log).to_contain_text("bob declined the call")
    await expect(with_alice.field).to_be_focused()

    await with_bob.button("Start a video call").click()
    await expect(bob.ringing("alice")).to_be_visible()
    await tab_to(bob.page, "Accept with audio only")
    await bob.page.keyboard.press("Enter")
    await expect(with_alice.call).to_contain_text("In a call with alice")
    await bob.page.get_by_label("Talk to").focus()
    way = await tab_to(bob.page, "Hang up")
    assert {"Mute the microphone", "Turn the camera on"} <= set(way)
    await bob.page.keyboard.press("Enter")
    await expect(with_bob.log).to_contain_text("Call ended after 0:")
    await expect(with_alice.field).to_be_focused()


async def test_the_focus_is_never_lost(arrive: Arrive, tmp_path: Path) -> None:
    bob = await window(arrive, "bob")
    alice = await window(arrive)
    page, keyboard = alice.page, alice.page.keyboard
    await page.goto("/")
    await expect(page.get_by_label("Your name")).to_be_focused()
    await keyboard.type("alice")
    await keyboard.press("Enter")
    you = page.get_by_role("region", name="You", exact=True)
    await expect(you).to_be_focused()
    await focused(page)
    await alice.button("Invite").press("Enter")
    with_alice = await bob.talk_to("alice")
    # Whom the invitation has brought.
    with_bob = await alice.conversation("bob").connected()
    await expect(with_bob.field).to_be_focused()

    await with_bob.button("They are the same").press("Enter")
    await expect(with_bob.panel).to_be_focused()

    (tmp_path / "note.txt").write_text("short")
    await with_alice.send_file(tmp_path / "note.txt")
    await with_bob.button("Accept note.txt").press("Enter")
    await expect(with_bob.entry("note.txt")).to_be_focused()
    await focused(page)
    await expect(with_bob.button("Save note.txt")).to_be_visible()
    await tab_to(page, "Save note.txt")

    await with_bob.button("Start a video call").press("Enter")
    await expect(with_bob.call).to_be_focused()
    assert await tab_to(page, "Mute the microphone") == []
    await bob.button("Decline").click()
    await expect(with_bob.field).to_be_focused()

    second = Window(alice.person, await alice.person.context.new_page())
    await second.start("alice")
    await page.bring_to_front()
    await alice.button("Use it here").press("Enter")
    await expect(alice.alert).to_be_hidden()
    await expect(with_bob.field).to_be_focused()
    await with_bob.connected()  # bob is not told that he was removed before, and comes back

    await with_bob.button("Remove from the list").press("Enter")
    await expect(with_bob.button("Keep")).to_be_focused()  # the note was not saved
    await focused(page)
    await with_bob.button("Remove all the same").press("Enter")
    await expect(alice.listed("bob")).to_be_hidden()
    await expect(page.get_by_role("main")).to_be_focused()


async def test_the_focus_stays_where_it_is_while_the_connection_comes_and_goes(arrive: Arrive) -> None:
    bob = await window(arrive, "bob")
    alice = await window(arrive)
    await alice.start("alice")
    with_alice = await bob.talk_to("alice")
    with_bob = await (await alice.open("bob")).connected()
    await with_bob.button("Remove from the list").focus()
    await bob.page.goto("about:blank")
    await expect(with_bob.button("Connect now")).to_be_visible()  # the buttons are new ones
    await expect(with_bob.button("Remove from the list")).to_be_focused()

    await with_bob.button("Block…").press("Enter")
    await expect(with_bob.button("Cancel")).to_be_focused()
    await bob.page.goto("/")  # it remembers its name
    await bob.talk_to("alice")
    await with_alice.connected()
    await with_bob.connected()
    await expect(with_bob.button("Cancel")).to_be_focused()
    await with_bob.button("Cancel").press("Enter")
    await expect(with_bob.button("Block…")).to_be_focused()
