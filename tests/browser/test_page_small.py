"""The page in windows that are small: a phone on its side, and a desktop at 200 and at 400 per cent."""

from __future__ import annotations

import pytest
from playwright.async_api import Locator, expect

from support.browser import Arrive
from support.page_windows import windows

# Whether a click in the middle of something arrives there.
REACHABLE = """
(element) => {
  const { left, right, top, bottom } = element.getBoundingClientRect();
  if (left < 0 || top < 0 || right > innerWidth || bottom > innerHeight) return `${left} ${top} ${right} ${bottom}`;
  return element.contains(document.elementFromPoint((left + right) / 2, (top + bottom) / 2));
}
"""


async def reachable(*elements: Locator) -> None:
    for element in elements:
        assert await element.evaluate(REACHABLE) is True, element


@pytest.mark.parametrize(("width", "height"), [(740, 360), (640, 400), (320, 256)])
async def test_a_call_leaves_room_for_the_rest(arrive: Arrive, width: int, height: int) -> None:
    alice, bob = await windows(arrive, "alice", "bob")
    with_bob = await (await alice.talk_to("bob")).connected()
    await bob.page.set_viewport_size({"width": width, "height": height})
    with_alice = await bob.open("alice")
    field = with_alice.field
    await reachable(field, with_alice.button("Send"), with_alice.button("Start a video call"))
    await with_bob.button("Start a video call").click()
    await bob.button("Accept with video").click()
    await expect(with_alice.call.get_by_label("Picture of alice")).to_be_visible()
    buttons = [with_alice.button(name) for name in ("Mute the microphone", "Turn the camera off", "Hang up")]
    await reachable(field, with_alice.button("Send"), *buttons)
    await with_alice.button("Turn the camera off").click()
    await with_bob.button("Turn the camera off").click()
    await expect(with_alice.call.get_by_label("Picture of alice")).to_be_hidden()  # which lay upon the words
    await expect(with_alice.call.get_by_text("In a call with alice")).to_be_visible()
    await reachable(with_alice.call.get_by_text("In a call with alice"), with_alice.button("Hang up"))


async def test_a_window_that_gets_small_shows_the_conversation_and_not_the_panel(arrive: Arrive) -> None:
    alice, _ = await windows(arrive, "alice", "bob")
    await alice.page.set_viewport_size({"width": 1280, "height": 800})
    with_bob = await (await alice.talk_to("bob")).connected()
    await expect(with_bob.panel).to_be_visible()
    await alice.page.set_viewport_size({"width": 640, "height": 400})
    await expect(with_bob.panel).to_be_hidden()
    await reachable(with_bob.field, with_bob.button("Send"), with_bob.button("Show the connection"))
    await alice.page.set_viewport_size({"width": 1280, "height": 800})
    await expect(with_bob.panel).to_be_visible()


async def test_the_panel_leaves_the_field_free_and_is_put_away(arrive: Arrive) -> None:
    alice, _ = await windows(arrive, "alice", "bob")
    await alice.page.set_viewport_size({"width": 360, "height": 640})
    with_bob = await (await alice.talk_to("bob")).connected()
    show = with_bob.button("Show the connection")
    await show.click()
    await expect(with_bob.panel).to_be_visible()
    await reachable(with_bob.field, with_bob.button("Send"), with_bob.button("Close this panel"))
    await with_bob.button("Close this panel").click()
    await expect(with_bob.panel).to_be_hidden()
    await expect(show).to_be_focused()
    await alice.page.keyboard.press("Enter")
    await with_bob.button("They are the same").press("Enter")
    await alice.page.keyboard.press("Escape")
    await expect(with_bob.panel).to_be_hidden()
    await expect(show).to_be_focused()
    # The sign that says whose key it is leads to the keys.
    await with_bob.button("verified by you").click()
    await expect(with_bob.panel).to_be_focused()
    # Whoever goes on does not find it upon the next conversation, nor upon this one.
    await alice.talk_to("carol")
    await expect(alice.conversation("carol").panel).to_be_hidden()
    await alice.open("bob")
    await expect(with_bob.panel).to_be_hidden()


async def test_whether_the_panel_stands_beside_is_one_choice_for_all_conversations(arrive: Arrive) -> None:
    (alice,) = await windows(arrive, "alice")
    await alice.page.set_viewport_size({"width": 1280, "height": 800})
    await (await alice.talk_to("bob")).button("Hide the connection").click()
    with_carol = await alice.talk_to("carol")
    await expect(with_carol.panel).to_be_hidden()
    await alice.page.reload()
    await expect(with_carol.button("Show the connection")).to_be_visible()
    await expect(with_carol.panel).to_be_hidden()
    await with_carol.button("Show the connection").click()
    await expect((await alice.open("bob")).panel).to_be_visible()
